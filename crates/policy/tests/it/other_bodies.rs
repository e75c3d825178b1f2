//! Bodies other than create's.

use policy::{Endpoint, Role, check_body, check_content_type};
use serde_json::{Value, json};

use crate::{assert_denied, node};

fn status(role: Role, endpoint: &Endpoint, body: &Value) -> u16 {
    let body = body.to_string();
    check_body(role, endpoint, &node(), body.as_bytes()).map_or_else(|d| d.status, |_| 200)
}

#[test]
fn by_role() {
    let update = Endpoint::ContainerUpdate { id: "a".into() };
    let exec = Endpoint::ExecCreate { id: "a".into() };
    let start = Endpoint::ExecStart { id: "a".into() };
    for (endpoint, body, user, admin) in [
        (
            &update,
            json!({"Memory": 1, "RestartPolicy": {"Name": "no"}}),
            200,
            200,
        ),
        (&update, json!({"CpusetCpus": "2"}), 400, 400),
        (&update, json!({"CpusetMems": "0"}), 400, 400),
        (&update, json!({"CpuQuota": 1}), 400, 400),
        (&update, json!({"CpuRealtimeRuntime": 1}), 400, 400),
        (&update, json!({"CgroupParent": "x"}), 400, 400),
        (&update, json!({"nanocpus": 1}), 400, 400),
        (&update, json!({"Privileged": true}), 400, 400),
        (
            &update,
            json!({"Devices": [{"PathOnHost": "/dev/sda"}]}),
            403,
            200,
        ),
        (&exec, json!({"Cmd": ["ls"], "Container": "a"}), 200, 200),
        (&exec, json!({"Cmd": ["ls"], "Privileged": true}), 403, 200),
        (&exec, json!({"Cmd": ["ls"], "privileged": true}), 400, 400),
        (
            &start,
            json!({"Detach": false, "Tty": true, "ConsoleSize": [24, 80]}),
            200,
            200,
        ),
        (
            &start,
            json!({"HostConfig": {"Privileged": true}}),
            400,
            400,
        ),
        (&Endpoint::Commit, json!(null), 200, 200),
        (
            &Endpoint::Commit,
            json!({"Cmd": ["x"], "Labels": {"a": "b"}}),
            200,
            200,
        ),
        (
            &Endpoint::Commit,
            json!({"HostConfig": {"Privileged": true}}),
            400,
            400,
        ),
        (
            &Endpoint::Auth,
            json!({"username": "u", "password": "p", "serveraddress": "r"}),
            200,
            200,
        ),
        (&Endpoint::Auth, json!({"Username": "u"}), 400, 400),
        (&Endpoint::ImagePush, json!({}), 200, 200),
        (
            &Endpoint::NetworkCreate,
            json!({"Name": "a", "Driver": "ipvlan"}),
            403,
            200,
        ),
        (
            &Endpoint::NetworkCreate,
            json!({"Name": "a", "Driver": "host"}),
            403,
            200,
        ),
        (
            &Endpoint::NetworkCreate,
            json!({"Name": "a", "IPAM": {"Driver": "dhcp"}}),
            403,
            200,
        ),
        (
            &Endpoint::NetworkCreate,
            json!({"Name": "a", "Options": {"parent": "eth0"}}),
            403,
            200,
        ),
        (
            &Endpoint::NetworkCreate,
            json!({"Name": "a", "Options": {"com.docker.network.bridge.enable_icc": "true"}}),
            200,
            200,
        ),
        (
            &Endpoint::NetworkCreate,
            json!({"Name": "a", "Options": {"com.docker.network.bridge.name": "br0"}}),
            403,
            200,
        ),
        (
            &Endpoint::NetworkConnect,
            json!({"Container": "a", "EndpointConfig": {}}),
            200,
            200,
        ),
        (
            &Endpoint::NetworkConnect,
            json!({"Container": "../a"}),
            400,
            400,
        ),
        (
            &Endpoint::VolumeCreate,
            json!({"Name": "a", "Driver": "nfs"}),
            403,
            200,
        ),
        (
            &Endpoint::VolumeCreate,
            json!({"Name": "a", "ClusterVolumeSpec": {"Group": "x"}}),
            400,
            400,
        ),
        (&Endpoint::Other, json!({}), 400, 400),
    ] {
        assert_eq!(
            status(Role::User, endpoint, &body),
            user,
            "{endpoint:?} {body} as user"
        );
        assert_eq!(
            status(Role::Admin, endpoint, &body),
            admin,
            "{endpoint:?} {body} as admin"
        );
    }
}

#[test]
fn absent_bodies() {
    let check = |endpoint: &Endpoint| check_body(Role::User, endpoint, &node(), b"");
    for endpoint in [
        Endpoint::Commit,
        Endpoint::ImagePush,
        Endpoint::ExecStart { id: "a".into() },
    ] {
        assert_eq!(check(&endpoint).unwrap().body, json!({}));
    }
    assert_denied(
        check(&Endpoint::ContainerCreate),
        400,
        "not acceptable JSON",
    );
    assert_denied(check(&Endpoint::Auth), 400, "not acceptable JSON");
}

#[test]
fn membership_names_its_container() {
    let body = json!({"Container": "box"}).to_string();
    let check = |role| {
        check_body(role, &Endpoint::NetworkDisconnect, &node(), body.as_bytes())
            .unwrap()
            .subjects
    };
    assert_eq!(check(Role::User), ["box"]);
    assert!(check(Role::Admin).is_empty());
}

#[test]
fn form_bodies_are_refused() {
    for fine in [
        None,
        Some("application/x-tar"),
        Some("application/json; charset=utf-8"),
    ] {
        check_content_type(fine).unwrap();
    }
    for form in [
        "application/x-www-form-urlencoded",
        "Application/X-WWW-Form-Urlencoded; charset=utf-8",
        " multipart/form-data; boundary=x",
    ] {
        assert_denied(check_content_type(Some(form)), 400, "refused");
    }
}
