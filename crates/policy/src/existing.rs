//! May a user touch a container that exists? Only one that the user could have created.
//!
//! Without this, `docker exec` into an admin's privileged container would be a way round every
//! rule for new ones. What is read here is the engine's own inspect answer, unchanged.

use serde_json::{Map, Value};

use crate::denial::{Denial, shown};
use crate::schema::Read;
use crate::{Role, hostconfig, mounts, route};

/// What the engine's default protection has had since API 1.24; later engines add to it.
const MASKED: &[&str] = &["/proc/kcore", "/proc/timer_list"];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

/// Whether `role` may touch the container of this inspect answer.
///
/// # Errors
/// 403 naming the property that is not for users.
pub fn check_existing(role: Role, inspect: &Value) -> Result<(), Denial> {
    if role == Role::Admin {
        return Ok(());
    }
    examine(inspect).map_err(|denial| Denial {
        status: 403,
        message: format!("this container is not for role user: {denial}"),
    })
}

fn examine(inspect: &Value) -> Result<(), Denial> {
    let Some(config) = inspect.get("HostConfig").and_then(Value::as_object) else {
        return Err(Denial::role(
            "a container whose settings cannot be read",
            "they may be unsafe",
        ));
    };
    hostconfig::user(config)?;
    // Links that cannot be read could not be followed either.
    hostconfig::joined(config)?;
    protected(config, "MaskedPaths", MASKED)?;
    protected(config, "ReadonlyPaths", READ_ONLY)?;
    for mount in inspect
        .get("Mounts")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let kind = mount
            .get("Type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !matches!(kind, "volume" | "tmpfs") {
            let what = format!("a mount of type {}", shown(kind));
            return Err(Denial::role(what, "it opens the node's own files"));
        }
    }
    Ok(())
}

/// Null means the engine's default. A list must still hold the essential paths.
fn protected(config: &Map<String, Value>, key: &str, essential: &[&str]) -> Result<(), Denial> {
    if config.get(key).is_none_or(Value::is_null) {
        return Ok(());
    }
    if essential
        .iter()
        .all(|path| config.texts(key).any(|listed| listed == *path))
    {
        return Ok(());
    }
    Err(Denial::role(
        format!("HostConfig.{key}"),
        "the protection of /proc and /sys was lifted",
    ))
}

/// The containers whose namespaces an existing container shares: for a user they must pass
/// [`check_existing`] too (a sidecar of a host-network container is on the host's network).
/// What `--volumes-from` brought is among its own mounts and needs no second look.
#[must_use]
pub fn linked_containers(inspect: &Value) -> Vec<String> {
    let config = inspect.get("HostConfig").and_then(Value::as_object);
    config
        .and_then(|config| hostconfig::joined(config).ok())
        .unwrap_or_default()
}

/// The volumes of an existing container, which must pass [`crate::check_volume`] too.
#[must_use]
pub fn mounted_volumes(inspect: &Value) -> Vec<String> {
    let mounts = inspect.get("Mounts").and_then(Value::as_array);
    mounts
        .into_iter()
        .flatten()
        .filter_map(|mount| mount.get("Name").and_then(Value::as_str))
        .filter(|name| mounts::is_volume_name(name))
        .map(str::to_owned)
        .collect()
}

/// Whether `role` may start the exec of this inspect answer (`GET /exec/{id}/json`), and in which
/// container it runs; that container must pass [`check_existing`].
///
/// # Errors
/// 403 when an admin made the exec privileged, or when the answer cannot be read.
pub fn check_exec(role: Role, inspect: &Value) -> Result<String, Denial> {
    let privileged = inspect
        .pointer("/ProcessConfig/privileged")
        .and_then(Value::as_bool);
    if role == Role::User && privileged == Some(true) {
        return Err(Denial::role(
            "a privileged exec",
            "it has every capability on the node",
        ));
    }
    let container = inspect
        .get("ContainerID")
        .and_then(Value::as_str)
        .unwrap_or_default();
    route::check_id(container)?;
    Ok(container.to_owned())
}
