//! What a user may mount: named volumes of the `local` driver and tmpfs, never a host path.
//!
//! The engine decides by `path.IsAbs(source)` whether `-v SOURCE:DEST` is a bind mount; this
//! module turns it round and lets only names pass that can be nothing but a volume's.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::denial::{Denial, shown};
use crate::schema::Read;

const HOST_PATH: &str = "it opens the node's own files";

/// Options of `-v NAME:DEST:OPTIONS` that change nothing outside the container's own view.
const BIND_OPTIONS: &[&str] = &[
    "",
    "rw",
    "ro",
    "z",
    "Z",
    "nocopy",
    "consistent",
    "cached",
    "delegated",
    "default",
];

/// More in one container are not looked up.
const MOST_VOLUMES: usize = 64;

/// The volumes that a user's container names: an admin may have made one of them from a path of
/// the node.
pub(crate) fn volumes(config: &Map<String, Value>) -> Result<Vec<String>, Denial> {
    let binds = config
        .texts("Binds")
        .filter_map(|spec| spec.split_once(':').map(|(source, _)| source));
    let mounts = config.items("Mounts").iter().filter_map(Value::as_object);
    let mounts = mounts
        .filter(|mount| mount.text("Type") == "volume")
        .map(|mount| mount.text("Source"));
    let names: BTreeSet<&str> = binds
        .chain(mounts)
        .filter(|name| is_volume_name(name))
        .collect();
    if names.len() > MOST_VOLUMES {
        return Err(Denial::malformed(format!(
            "{} named volumes in one container: no more than {MOST_VOLUMES}",
            names.len()
        )));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// The engine's own rule for volume names.
pub(crate) fn is_volume_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name.bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(inner)
}

/// One item of `HostConfig.Binds`.
pub(crate) fn user_bind(spec: &str) -> Result<(), Denial> {
    let parts: Vec<&str> = spec.splitn(4, ':').collect();
    let (source, options) = match parts.as_slice() {
        // Only a destination: an anonymous volume.
        [_] => return Ok(()),
        [source, _] => (*source, ""),
        [source, _, options] => (*source, *options),
        _ => {
            return Err(Denial::malformed(format!(
                "bind {} has more than three parts: write VOLUME:PATH[:OPTIONS]",
                shown(spec)
            )));
        }
    };
    if !is_volume_name(source) {
        let what = format!("the host path in bind {}", shown(spec));
        return Err(Denial::role(
            what,
            &format!("{HOST_PATH}; name a volume instead"),
        ));
    }
    match options
        .split(',')
        .find(|option| !BIND_OPTIONS.contains(option))
    {
        Some(option) => {
            let what = format!("option {} of bind {}", shown(option), shown(spec));
            Err(Denial::role(
                what,
                "mount propagation reaches into the node's mounts",
            ))
        }
        None => Ok(()),
    }
}

/// One item of `HostConfig.Mounts`.
pub(crate) fn user_mount(mount: &Map<String, Value>) -> Result<(), Denial> {
    let target = shown(mount.text("Target"));
    match mount.text("Type") {
        "tmpfs" => Ok(()),
        "volume" => {
            let source = mount.text("Source");
            if !source.is_empty() && !is_volume_name(source) {
                let what = format!("source {} of the mount on {target}", shown(source));
                return Err(Denial::role(what, "it is not a volume's name"));
            }
            let Some(driver) = mount
                .object("VolumeOptions")
                .and_then(|options| options.object("DriverConfig"))
            else {
                return Ok(());
            };
            user_volume_driver(driver.text("Name"))?;
            driver.object("Options").map_or(Ok(()), user_volume_options)
        }
        kind => {
            let what = format!("a mount of type {} on {target}", shown(kind));
            Err(Denial::role(
                what,
                &format!("{HOST_PATH}; use a volume or tmpfs"),
            ))
        }
    }
}

pub(crate) fn user_volume_driver(driver: &str) -> Result<(), Denial> {
    if matches!(driver, "" | "local") {
        return Ok(());
    }
    Err(Denial::role(
        format!("volume driver {}", shown(driver)),
        "a volume plugin runs on the node itself",
    ))
}

/// Options of the `local` driver: it mounts whatever they say, so only a tmpfs may be described.
pub(crate) fn user_volume_options(options: &Map<String, Value>) -> Result<(), Denial> {
    let refuse = |key: &str| {
        let what = format!("volume option {}={}", shown(key), shown(options.text(key)));
        Err(Denial::role(
            what,
            "it mounts a device or path of the node; only a tmpfs is allowed",
        ))
    };
    for (key, _) in options {
        let text = options.text(key);
        let fine = match key.as_str() {
            "type" | "device" => text == "tmpfs",
            // MS_BIND among the flags makes the kernel ignore the type: allow-list them.
            "o" => options.text("type") == "tmpfs" && text.split(',').all(is_tmpfs_option),
            "size" => true,
            _ => false,
        };
        if !fine {
            return refuse(key);
        }
    }
    if options.contains_key("device") && !options.contains_key("type") {
        return refuse("device");
    }
    Ok(())
}

fn is_tmpfs_option(option: &str) -> bool {
    const FLAGS: &[&str] = &[
        "",
        "rw",
        "ro",
        "exec",
        "noexec",
        "nosuid",
        "nodev",
        "noatime",
        "nodiratime",
        "relatime",
    ];
    const VALUES: &[&str] = &["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"];
    match option.split_once('=') {
        Some((key, value)) => {
            VALUES.contains(&key)
                && !value.is_empty()
                && value
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'%')
        }
        None => FLAGS.contains(&option),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn binds() {
        for fine in [
            "/anon",
            "data:/d",
            "data:/d:ro",
            "a.b_c-1:/d:ro,nocopy",
            "data:/d:Z",
        ] {
            user_bind(fine).unwrap_or_else(|denial| panic!("{fine}: {denial}"));
        }
        for (spec, status) in [
            ("/etc:/d", 403),
            ("/etc:/d:ro", 403),
            ("./x:/d", 403),
            ("../x:/d", 403),
            (".:/d", 403),
            ("a/b:/d", 403),
            ("C\\x:/d", 403),
            (":/d", 403),
            ("\u{2215}etc:/d", 403),
            ("data:/d:shared", 403),
            ("data:/d:ro,rslave", 403),
            ("c:/x:/d:ro", 400),
        ] {
            assert_eq!(user_bind(spec).unwrap_err().status, status, "{spec}");
        }
    }

    #[test]
    fn mounts() {
        for fine in [
            json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1}}),
            json!({"Type": "volume", "Target": "/t"}),
            json!({"Type": "volume", "Source": "data", "Target": "/t",
                "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": null}}}),
            json!({"Type": "volume", "Source": "t", "Target": "/t", "VolumeOptions":
                {"DriverConfig": {"Options": {"type": "tmpfs", "o": "size=1m"}}}}),
        ] {
            user_mount(&object(&fine)).unwrap_or_else(|denial| panic!("{fine}: {denial}"));
        }
        for bad in [
            json!({"Target": "/t"}),
            json!({"Type": "bind", "Source": "/etc", "Target": "/t"}),
            json!({"Type": "Bind", "Source": "/etc", "Target": "/t"}),
            json!({"Type": "npipe", "Source": "x", "Target": "/t"}),
            json!({"Type": "cluster", "Source": "x", "Target": "/t"}),
            json!({"Type": "image", "Source": "alpine", "Target": "/t"}),
            json!({"Type": "volume", "Source": "/etc", "Target": "/t"}),
            json!({"Type": "volume", "Target": "/t",
                "VolumeOptions": {"DriverConfig": {"Name": "nfs"}}}),
            json!({"Type": "volume", "Target": "/t", "VolumeOptions":
                {"DriverConfig": {"Options": {"type": "none", "device": "/", "o": "bind"}}}}),
        ] {
            assert_eq!(user_mount(&object(&bad)).unwrap_err().status, 403, "{bad}");
        }
    }

    #[test]
    fn volume_options() {
        for fine in [
            json!({}),
            json!({"type": "tmpfs", "device": "tmpfs", "o": "size=16m,uid=1000,noexec"}),
            json!({"size": "10G"}),
        ] {
            user_volume_options(&object(&fine)).unwrap();
        }
        for bad in [
            json!({"type": "tmpfs", "device": "/etc", "o": "size=1m"}),
            json!({"type": "tmpfs", "device": "tmpfs", "o": "bind"}),
            json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,remount"}),
            json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mpol=bind:1"}),
            json!({"o": "size=1m"}),
            json!({"device": "tmpfs"}),
            json!({"type": "nfs", "o": "addr=1.2.3.4", "device": ":/x"}),
            json!({"type": "ext4", "device": "/dev/sda1"}),
            json!({"Type": "tmpfs"}),
        ] {
            assert_eq!(
                user_volume_options(&object(&bad)).unwrap_err().status,
                403,
                "{bad}"
            );
        }
    }
}
