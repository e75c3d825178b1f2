//! What docker CLI 28.2.2 really sends, recorded from its socket (`tests/bodies`).

use std::fs;
use std::path::PathBuf;

use policy::{CpuChoice, Endpoint, PlacementRequest, Role, check_body, route};
use serde_json::Value;

use crate::{assert_denied, create_raw, node};

fn bodies() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/bodies")
}

fn body(name: &str) -> String {
    fs::read_to_string(bodies().join(name).with_extension("json")).unwrap()
}

fn names(prefix: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(bodies())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// Nothing lost and nothing added.
fn unchanged(text: &str, checked: &Value) {
    assert_eq!(&serde_json::from_str::<Value>(text).unwrap(), checked);
}

#[test]
fn ordinary_creates_pass_for_both_roles() {
    // The pinned ones are looked at below.
    let special = ["create_pinned", "create_label_cpus"];
    for name in names("create_")
        .iter()
        .filter(|name| !special.contains(&name.as_str()))
    {
        for role in [Role::User, Role::Admin] {
            let text = body(name);
            let checked = create_raw(role, &text)
                .unwrap_or_else(|denial| panic!("{name} as {role}: {denial}"));
            unchanged(&text, &checked.body);
        }
    }
}

#[test]
fn a_pinned_create_is_taken_out_of_the_body() {
    let text = body("create_pinned").replace(r#""CpusetCpus":"1""#, r#""CpusetCpus":"2,4""#);
    let checked = create_raw(Role::User, &text).unwrap();
    let Some(PlacementRequest::Pinned(pin)) = checked.placement else {
        panic!("not pinned")
    };
    assert_eq!(pin.cpus, CpuChoice::Exact("2,4".parse().unwrap()));
    assert_eq!(pin.mems, Some("0".parse().unwrap()));
    assert_eq!(
        (
            pin.asked_cpuset_cpus.as_str(),
            pin.asked_cpuset_mems.as_str()
        ),
        ("2,4", "0")
    );
    let mut expected: Value = serde_json::from_str(&text).unwrap();
    let config = expected["HostConfig"].as_object_mut().unwrap();
    config.remove("CpusetCpus");
    config.remove("CpusetMems");
    assert_eq!(checked.body, expected);

    let labelled = create_raw(Role::User, &body("create_label_cpus")).unwrap();
    let Some(PlacementRequest::Pinned(pin)) = labelled.placement else {
        panic!("not pinned")
    };
    assert_eq!(pin.cpus, CpuChoice::Count(2));
}

#[test]
fn admin_creates_pass_for_admin_only() {
    for name in names("admin_") {
        let text = body(&name);
        unchanged(&text, &create_raw(Role::Admin, &text).unwrap().body);
        assert_denied(create_raw(Role::User, &text), 403, "refused for role user");
    }
}

#[test]
fn refused_creates_are_refused_for_everybody() {
    for name in names("refused_") {
        for role in [Role::User, Role::Admin] {
            assert_denied(create_raw(role, &body(&name)), 400, "");
        }
    }
    assert_denied(
        create_raw(Role::Admin, &body("refused_cpus")),
        400,
        "scheduler tick",
    );
    assert_denied(
        create_raw(Role::Admin, &body("refused_quota")),
        400,
        "--cpuset-cpus",
    );
}

#[test]
fn namespaces_of_another_container_name_it() {
    let text = body("create_namespaces_of_other");
    assert_eq!(create_raw(Role::User, &text).unwrap().subjects, ["peer"]);
    assert!(create_raw(Role::Admin, &text).unwrap().subjects.is_empty());
}

#[test]
fn other_bodies() {
    let id = || "box".to_owned();
    let update = Endpoint::ContainerUpdate { id: id() };
    let exec = Endpoint::ExecCreate { id: id() };
    let start = Endpoint::ExecStart { id: id() };
    for (name, endpoint, user, admin) in [
        ("update_memory", &update, 200, 200),
        ("update_cpuset", &update, 400, 400),
        ("update_cpus", &update, 400, 400),
        ("exec_create", &exec, 200, 200),
        ("exec_privileged", &exec, 403, 200),
        ("exec_start", &start, 200, 200),
        ("network_create", &Endpoint::NetworkCreate, 200, 200),
        ("network_create_macvlan", &Endpoint::NetworkCreate, 403, 200),
        ("network_connect", &Endpoint::NetworkConnect, 200, 200),
        ("network_disconnect", &Endpoint::NetworkDisconnect, 200, 200),
        ("volume_create", &Endpoint::VolumeCreate, 200, 200),
        ("volume_create_tmpfs", &Endpoint::VolumeCreate, 200, 200),
        ("volume_create_bind", &Endpoint::VolumeCreate, 403, 200),
    ] {
        let text = body(name);
        for (role, expected) in [(Role::User, user), (Role::Admin, admin)] {
            match check_body(role, endpoint, &node(), text.as_bytes()) {
                Ok(checked) => {
                    assert_eq!(expected, 200, "{name} as {role}");
                    unchanged(&text, &checked.body);
                }
                Err(denial) => assert_eq!(expected, denial.status, "{name} as {role}: {denial}"),
            }
        }
    }
}

/// Every target that the CLI sent while a whole transcript was recorded.
#[test]
fn targets() {
    let swarm = [
        "/configs",
        "/nodes",
        "/plugins",
        "/secrets",
        "/services",
        "/swarm/",
        "/checkpoints",
    ];
    for line in fs::read_to_string(bodies().join("targets.txt"))
        .unwrap()
        .lines()
    {
        let (method, target) = line.split_once(' ').unwrap();
        let routed = route(Role::Admin, method, target);
        if swarm.iter().any(|part| target.contains(part)) {
            assert_denied(routed, 404, "not offered by a Stillmetal node");
        } else if target.contains("cpuquota=1000") {
            assert_denied(routed, 400, "housekeeping CPUs");
        } else {
            let routed = routed.unwrap_or_else(|denial| panic!("{line}: {denial}"));
            let again = route(Role::Admin, method, &routed.target).unwrap();
            assert_eq!(again, routed);
            let user = route(Role::User, method, target);
            assert!(user.is_ok(), "{line}: {user:?}");
        }
    }
}
