//! `POST /containers/create`: the body that decides what a container may do, and where it runs.

use serde_json::{Map, Value};

use crate::denial::{Denial, shown};
use crate::schema::check_struct;
use crate::{Checked, NodeFacts, Role, hostconfig, json, mounts, placement, tables};

/// Largest body of a create. The CLI's own default is 2 KiB; an inlined seccomp profile 15 KiB.
pub(crate) const MAX_BYTES: usize = 1 << 20;

pub(crate) fn check(role: Role, node: &NodeFacts, body: &[u8]) -> Result<Checked, Denial> {
    let mut body = json::read_object(body, MAX_BYTES)?;
    check_struct(&mut body, tables::CREATE, "")?;
    let mut subjects = Vec::new();
    let mut volumes = Vec::new();
    if let Some(config) = body.get("HostConfig").and_then(Value::as_object) {
        hostconfig::everybody(config)?;
        subjects = hostconfig::linked(config)?;
        if role == Role::User {
            hostconfig::user(config)?;
            hostconfig::user_paths(config)?;
            volumes = mounts::volumes(config)?;
        }
    }
    check_endpoints(role, &body)?;
    let placement = Some(placement::place(role, &mut body, node)?);
    if role == Role::Admin {
        subjects.clear();
    }
    Ok(Checked {
        body,
        placement,
        subjects,
        volumes,
    })
}

/// Networks to join; the engine refuses `host` beside another mode, but not by our leave.
fn check_endpoints(role: Role, body: &Value) -> Result<(), Denial> {
    let endpoints = body
        .pointer("/NetworkingConfig/EndpointsConfig")
        .and_then(Value::as_object);
    for name in endpoints.into_iter().flat_map(Map::keys) {
        if name.contains(':') && name != container_mode(body) {
            return Err(Denial::malformed(format!(
                "{} is no network's name",
                shown(name)
            )));
        }
        if role == Role::User && name.eq_ignore_ascii_case("host") {
            return Err(Denial::role(
                "network `host`",
                "it shares a namespace of the node",
            ));
        }
    }
    Ok(())
}

/// `docker run --network container:X` repeats the mode as an endpoint's name.
fn container_mode(body: &Value) -> &str {
    body.pointer("/HostConfig/NetworkMode")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Puts the container into a cgroup, after [`crate::check_body`] accepted `create_body`.
pub fn set_cgroup_parent(create_body: &mut Value, parent: &str) {
    set_host_config(create_body, "CgroupParent", parent);
}

/// Has the container started by one of the engine's runtimes, after [`crate::check_body`] accepted
/// `create_body`.
pub fn set_runtime(create_body: &mut Value, runtime: &str) {
    set_host_config(create_body, "Runtime", runtime);
}

fn set_host_config(create_body: &mut Value, key: &str, value: &str) {
    let Value::Object(body) = create_body else {
        return;
    };
    let config = body.entry("HostConfig").or_insert(Value::Null);
    if !config.is_object() {
        *config = Value::Object(Map::new());
    }
    config[key] = Value::from(value);
}
