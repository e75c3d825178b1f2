//! Which existing containers a user may touch.

use policy::{Role, check_exec, check_existing, linked_containers};
use serde_json::{Value, json};

use crate::assert_denied;

/// As engine 26.1 shows a container that a user created with a named volume.
fn inspect() -> Value {
    json!({
        "Id": "a", "Name": "/box",
        "HostConfig": {
            "Binds": ["data:/data"], "NetworkMode": "default", "IpcMode": "private",
            "CgroupnsMode": "private", "Runtime": "runc", "Isolation": "", "Privileged": false,
            "LogConfig": {"Type": "json-file", "Config": {}}, "SecurityOpt": null,
            "CgroupParent": "/stillmetal-3", "CpusetCpus": "", "Devices": [], "CapAdd": null,
            "MaskedPaths": ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
                "/sys/devices/virtual/powercap"],
            "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                "/proc/sysrq-trigger"],
        },
        "Mounts": [{"Type": "volume", "Name": "data",
            "Source": "/var/lib/docker/volumes/data/_data", "Destination": "/data"}],
    })
}

#[test]
fn a_users_own_container_passes() {
    check_existing(Role::User, &inspect()).unwrap();
}

#[test]
fn what_a_user_could_not_have_created_does_not() {
    for (key, value) in [
        ("Privileged", json!(true)),
        ("PidMode", json!("host")),
        ("NetworkMode", json!("host")),
        ("Binds", json!(["/:/host"])),
        (
            "Mounts",
            json!([{"Type": "bind", "Source": "/", "Target": "/x"}]),
        ),
        ("CapAdd", json!(["CAP_SYS_ADMIN"])),
        ("Devices", json!([{"PathOnHost": "/dev/sda"}])),
        ("SecurityOpt", json!(["seccomp=unconfined"])),
        ("MaskedPaths", json!([])),
        ("ReadonlyPaths", json!(["/proc/bus"])),
    ] {
        let mut inspect = inspect();
        inspect["HostConfig"][key] = value;
        assert_denied(
            check_existing(Role::User, &inspect),
            403,
            "this container is not for",
        );
        check_existing(Role::Admin, &inspect).unwrap();
    }
    let mut bound = inspect();
    bound["Mounts"][0]["Type"] = json!("bind");
    assert_denied(check_existing(Role::User, &bound), 403, "mount of type");
    assert_denied(
        check_existing(Role::User, &json!({})),
        403,
        "cannot be read",
    );
}

#[test]
fn links_of_a_sidecar_are_told() {
    let mut inspect = inspect();
    inspect["HostConfig"]["NetworkMode"] = json!("container:abc");
    inspect["HostConfig"]["VolumesFrom"] = json!(["gone:ro"]);
    assert_eq!(linked_containers(&inspect), ["abc"]);
    inspect["HostConfig"]["NetworkMode"] = json!("container:../x");
    assert_denied(check_existing(Role::User, &inspect), 403, "");
}

#[test]
fn execs() {
    let exec =
        |privileged| json!({"ContainerID": "abc", "ProcessConfig": {"privileged": privileged}});
    assert_eq!(check_exec(Role::User, &exec(false)).unwrap(), "abc");
    assert_eq!(check_exec(Role::Admin, &exec(true)).unwrap(), "abc");
    assert_denied(check_exec(Role::User, &exec(true)), 403, "privileged exec");
    assert_denied(check_exec(Role::User, &json!({})), 400, "");
}
