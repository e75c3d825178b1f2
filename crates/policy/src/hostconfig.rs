//! What `HostConfig` may say: rules for everybody, and rules for role `user`.
//!
//! The user rules also read the `HostConfig` of an existing container (see [`crate::existing`]),
//! so they must accept what the engine itself fills in for a container that a user created.

use serde_json::{Map, Value};

use crate::denial::{Denial, shown};
use crate::schema::Read;
use crate::{mounts, route};

/// Docker's default capability set: adding one of these adds nothing.
const DEFAULT_CAPS: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The node's own API, and the engine's when `config.img` opens it for comparison: a published
/// port would divert them into a container.
const NODE_PORTS: &[u16] = &[2376, 2377];
const SSH_PORT: u16 = 22;

const QUOTA: &str = "a CPU quota keeps the scheduler tick on the CPU and makes the result noisy; \
                     pin to CPUs instead: --cpuset-cpus LIST or --label stillmetal.cpus=N";

/// Refuses CPU quotas and foreign cgroups; the placement is the node's. For create and update.
pub(crate) fn resources_for_everybody(config: &Map<String, Value>) -> Result<(), Denial> {
    for (key, option) in [
        ("NanoCpus", "--cpus"),
        ("CpuQuota", "--cpu-quota"),
        ("CpuPeriod", "--cpu-period"),
        ("CpuRealtimeRuntime", "--cpu-rt-runtime"),
        ("CpuRealtimePeriod", "--cpu-rt-period"),
        ("CpuCount", "--cpu-count"),
        ("CpuPercent", "--cpu-percent"),
    ] {
        if config.int(key) != 0 {
            return Err(Denial::malformed(format!(
                "{option} (HostConfig.{key}) is refused: {QUOTA}"
            )));
        }
    }
    for (key, option) in [
        ("CgroupParent", "--cgroup-parent"),
        ("Cgroup", "cgroup sharing"),
    ] {
        if !config.text(key).is_empty() {
            return Err(Denial::malformed(format!(
                "{option} (HostConfig.{key}) is refused: the node places containers in cgroups itself; leave it out and say what CPUs are wanted"
            )));
        }
    }
    Ok(())
}

/// Rules for a new container of any role.
pub(crate) fn everybody(config: &Map<String, Value>) -> Result<(), Denial> {
    resources_for_everybody(config)?;
    if !matches!(
        config.text("Runtime"),
        "" | "runc" | "io.containerd.runc.v2"
    ) {
        return Err(Denial::malformed(format!(
            "runtime {} is not on this node: only runc is; leave --runtime out",
            shown(config.text("Runtime"))
        )));
    }
    if !matches!(config.text("Isolation"), "" | "default") {
        return Err(Denial::malformed(
            "--isolation is for Windows: leave it out",
        ));
    }
    let network = config.text("NetworkMode");
    if network.contains(':') && container_of(network).is_none() {
        return Err(unknown_mode("NetworkMode", network));
    }
    for (key, known) in [
        ("PidMode", &["", "host"][..]),
        ("IpcMode", &["", "host", "none", "private", "shareable"]),
        ("UTSMode", &["", "host"]),
        ("UsernsMode", &["", "host"]),
        ("CgroupnsMode", &["", "host", "private"]),
    ] {
        let mode = config.text(key);
        let shared = matches!(key, "PidMode" | "IpcMode") && container_of(mode).is_some();
        if !known.contains(&mode) && !shared {
            return Err(unknown_mode(key, mode));
        }
    }
    published_ports(config, NODE_PORTS, |port| {
        Denial::malformed(format!(
            "publishing port {port} is refused: the node's own API uses it; publish another port"
        ))
    })
}

/// In any case: nothing that looks like the node's namespace passes for a user.
pub(crate) fn is_host(mode: &str) -> bool {
    mode.eq_ignore_ascii_case("host")
}

fn unknown_mode(key: &str, mode: &str) -> Denial {
    Denial::malformed(format!(
        "HostConfig.{key} {} is not a mode that the engine knows: see the Engine API",
        shown(mode)
    ))
}

/// Rules for role `user`, for new and existing containers alike.
pub(crate) fn user(config: &Map<String, Value>) -> Result<(), Denial> {
    const NODE: &str = "it gives the container the whole node";
    const SHARED: &str = "it shares a namespace of the node";
    const DEVICE: &str = "devices of the node are not for users";
    if config.flag("Privileged") {
        return Err(Denial::role("--privileged", NODE));
    }
    for key in [
        "PidMode",
        "IpcMode",
        "UTSMode",
        "UsernsMode",
        "CgroupnsMode",
        "NetworkMode",
    ] {
        if is_host(config.text(key)) {
            return Err(Denial::role(format!("HostConfig.{key} `host`"), SHARED));
        }
    }
    for cap in config.texts("CapAdd") {
        let upper = cap.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if !DEFAULT_CAPS.contains(&name) {
            let why = "it is outside the engine's default capability set";
            return Err(Denial::role(format!("--cap-add {}", shown(cap)), why));
        }
    }
    for key in [
        "Devices",
        "DeviceCgroupRules",
        "DeviceRequests",
        "BlkioWeightDevice",
        "BlkioDeviceReadBps",
        "BlkioDeviceWriteBps",
        "BlkioDeviceReadIOps",
        "BlkioDeviceWriteIOps",
    ] {
        if !config.items(key).is_empty() {
            return Err(Denial::role(format!("HostConfig.{key}"), DEVICE));
        }
    }
    config.texts("Binds").try_for_each(mounts::user_bind)?;
    for mount in config.items("Mounts") {
        let mount = mount
            .as_object()
            .ok_or_else(|| Denial::malformed("a mount is no object"))?;
        mounts::user_mount(mount)?;
    }
    mounts::user_volume_driver(config.text("VolumeDriver"))?;
    user_hardening(config)?;
    published_ports(config, &[SSH_PORT], |port| {
        Denial::role(
            format!("publishing port {port}"),
            "it would answer for the node's SSH",
        )
    })
}

/// The confinement that a user cannot loosen.
fn user_hardening(config: &Map<String, Value>) -> Result<(), Denial> {
    const MAPS: &[(&str, &str)] = &[
        ("StorageOpt", "the storage is the node's"),
        (
            "Annotations",
            "annotations speak to the runtime; use labels",
        ),
    ];
    for option in config.texts("SecurityOpt") {
        if !matches!(
            option,
            "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true"
        ) {
            let what = format!("--security-opt {}", shown(option));
            return Err(Denial::role(
                what,
                "it could loosen the container's confinement",
            ));
        }
    }
    for (key, why) in MAPS {
        if config.object(key).is_some_and(|map| !map.is_empty()) {
            return Err(Denial::role(format!("HostConfig.{key}"), why));
        }
    }
    for (name, _) in config.object("Sysctls").into_iter().flatten() {
        let own = ["net.", "kernel.shm", "kernel.msg", "fs.mqueue."]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if !own && name != "kernel.sem" {
            let what = format!("--sysctl {}", shown(name));
            return Err(Denial::role(
                what,
                "it is not one of the container's own namespaces",
            ));
        }
    }
    if config.int("OomScoreAdj") < 0 || config.flag("OomKillDisable") {
        let why = "when memory runs out the node's own processes would be killed first";
        return Err(Denial::role(
            "a negative --oom-score-adj or --oom-kill-disable",
            why,
        ));
    }
    let log = config
        .object("LogConfig")
        .map_or("", |log| log.text("Type"));
    if !matches!(log, "" | "json-file" | "local" | "none") {
        let what = format!("log driver {}", shown(log));
        return Err(Denial::role(
            what,
            "the node itself would open its connection",
        ));
    }
    Ok(())
}

/// Paths that a container must not see or write. An *empty* list lifts the protection (the CLI
/// sends it for `systempaths=unconfined`), so anything but null is refused.
pub(crate) fn user_paths(config: &Map<String, Value>) -> Result<(), Denial> {
    for key in ["MaskedPaths", "ReadonlyPaths"] {
        if config.get(key).is_some_and(|value| !value.is_null()) {
            let why = "it replaces the engine's protection of /proc and /sys";
            return Err(Denial::role(format!("HostConfig.{key}"), why));
        }
    }
    Ok(())
}

fn published_ports(
    config: &Map<String, Value>,
    taken: &[u16],
    refuse: impl Fn(u16) -> Denial,
) -> Result<(), Denial> {
    for bindings in config
        .object("PortBindings")
        .into_iter()
        .flat_map(Map::values)
    {
        for binding in bindings.as_array().into_iter().flatten() {
            let spec = binding
                .get("HostPort")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let (first, last) = port_range(spec).ok_or_else(|| {
                Denial::malformed(format!(
                    "host port {} is not a port or a range: write 8080 or 8080-8090",
                    shown(spec)
                ))
            })?;
            if let Some(port) = taken.iter().find(|port| (first..=last).contains(port)) {
                return Err(refuse(*port));
            }
        }
    }
    Ok(())
}

/// "" (any free port) reads as 0-0.
fn port_range(spec: &str) -> Option<(u16, u16)> {
    if spec.is_empty() {
        return Some((0, 0));
    }
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let (first, last) = spec.split_once('-').unwrap_or((spec, spec));
    Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last)
}

/// The other containers that this one joins or takes volumes from.
pub(crate) fn linked(config: &Map<String, Value>) -> Result<Vec<String>, Denial> {
    let mut names = joined(config)?;
    for spec in config.texts("VolumesFrom") {
        add_name(
            &mut names,
            spec.split_once(':').map_or(spec, |(name, _)| name),
        )?;
    }
    Ok(names)
}

/// The other containers whose namespaces this one shares.
pub(crate) fn joined(config: &Map<String, Value>) -> Result<Vec<String>, Denial> {
    let mut names = Vec::new();
    for key in ["PidMode", "IpcMode", "NetworkMode"] {
        if let Some(name) = container_of(config.text(key)) {
            add_name(&mut names, name)?;
        }
    }
    Ok(names)
}

fn add_name(names: &mut Vec<String>, name: &str) -> Result<(), Denial> {
    route::check_id(name)?;
    if !names.iter().any(|seen| seen == name) {
        names.push(name.to_owned());
    }
    Ok(())
}

fn container_of(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:")
}
