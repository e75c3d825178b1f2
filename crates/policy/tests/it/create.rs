//! Rules for `POST /containers/create`, one row each, both roles.

use policy::{CpuChoice, NodeFacts, PlacementRequest, Role, check_body, set_cgroup_parent};
use serde_json::{Value, json};

use crate::{Endpoint, assert_denied, create, create_raw, host_config, node};

#[test]
fn host_config_by_role() {
    // (HostConfig, answer to a user, answer to an admin)
    let rows: &[(Value, u16, u16)] = &[
        (json!({"Privileged": true}), 403, 200),
        (json!({"Privileged": false}), 200, 200),
        (json!({"PidMode": "host"}), 403, 200),
        (json!({"IpcMode": "host"}), 403, 200),
        (json!({"UTSMode": "host"}), 403, 200),
        (json!({"UsernsMode": "host"}), 403, 200),
        (json!({"CgroupnsMode": "host"}), 403, 200),
        (json!({"NetworkMode": "host"}), 403, 200),
        (json!({"NetworkMode": "Host"}), 403, 200),
        (json!({"PidMode": "Host"}), 400, 400),
        (
            json!({"IpcMode": "shareable", "CgroupnsMode": "private", "NetworkMode": "none"}),
            200,
            200,
        ),
        (json!({"IpcMode": "container:"}), 400, 400),
        (json!({"PidMode": "container:a/b"}), 400, 400),
        (json!({"NetworkMode": "ns:/proc/1/ns/net"}), 400, 400),
        (json!({"UTSMode": "container:a"}), 400, 400),
        (json!({"Cgroup": "container:a"}), 400, 400),
        (
            json!({"CapAdd": ["NET_RAW", "cap_chown", " SYS_CHROOT "]}),
            200,
            200,
        ),
        (json!({"CapAdd": ["SYS_ADMIN"]}), 403, 200),
        (json!({"CapAdd": ["CAP_SYS_NICE"]}), 403, 200),
        (json!({"CapAdd": ["ALL"]}), 403, 200),
        (json!({"CapAdd": ["all"]}), 403, 200),
        (json!({"CapAdd": ["\u{212a}ILL"]}), 403, 200),
        (json!({"CapDrop": ["ALL"]}), 200, 200),
        (json!({"Binds": ["/etc:/x"]}), 403, 200),
        (json!({"Binds": ["data:/x", "/anonymous"]}), 200, 200),
        (
            json!({"Mounts": [{"Type": "bind", "Source": "/", "Target": "/x"}]}),
            403,
            200,
        ),
        (
            json!({"Mounts": [{"Type": "volume", "Source": "data", "Target": "/x"}]}),
            200,
            200,
        ),
        (json!({"Mounts": [null]}), 400, 400),
        (json!({"VolumeDriver": "nfs"}), 403, 200),
        (json!({"VolumeDriver": "local"}), 200, 200),
        (json!({"Devices": [{"PathOnHost": "/dev/sda"}]}), 403, 200),
        (json!({"DeviceCgroupRules": ["a *:* rwm"]}), 403, 200),
        (
            json!({"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}),
            403,
            200,
        ),
        (
            json!({"BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1}]}),
            403,
            200,
        ),
        (
            json!({"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 1}]}),
            403,
            200,
        ),
        (json!({"BlkioWeight": 100}), 200, 200),
        (
            json!({"SecurityOpt": ["no-new-privileges", "no-new-privileges=true"]}),
            200,
            200,
        ),
        (
            json!({"SecurityOpt": ["no-new-privileges:false"]}),
            403,
            200,
        ),
        (json!({"SecurityOpt": ["seccomp=unconfined"]}), 403, 200),
        (json!({"SecurityOpt": ["apparmor:unconfined"]}), 403, 200),
        (json!({"SecurityOpt": ["label=disable"]}), 403, 200),
        (
            json!({"MaskedPaths": null, "ReadonlyPaths": null}),
            200,
            200,
        ),
        (json!({"MaskedPaths": []}), 403, 200),
        (json!({"ReadonlyPaths": []}), 403, 200),
        (
            json!({"Sysctls": {"net.core.somaxconn": "1", "kernel.shmmax": "1", "kernel.sem": "1"}}),
            200,
            200,
        ),
        (
            json!({"Sysctls": {"fs.mqueue.msg_max": "1", "kernel.msgmax": "1"}}),
            200,
            200,
        ),
        (json!({"Sysctls": {"kernel.panic": "1"}}), 403, 200),
        (json!({"Sysctls": {"vm.swappiness": "1"}}), 403, 200),
        (json!({"OomScoreAdj": -1}), 403, 200),
        (json!({"OomScoreAdj": 500}), 200, 200),
        (json!({"OomKillDisable": true}), 403, 200),
        (json!({"LogConfig": {"Type": "syslog"}}), 403, 200),
        (json!({"LogConfig": {"Type": "none"}}), 200, 200),
        (json!({"StorageOpt": {"size": "1G"}}), 403, 200),
        (json!({"Annotations": {"run.oci.x": "1"}}), 403, 200),
        (json!({"Annotations": {}}), 200, 200),
        (
            json!({"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}),
            200,
            200,
        ),
        (
            json!({"PortBindings": {"80/tcp": [{"HostPort": ""}], "81/tcp": null}}),
            200,
            200,
        ),
        (
            json!({"PortBindings": {"80/tcp": [{"HostPort": "22"}]}}),
            403,
            200,
        ),
        (
            json!({"PortBindings": {"80/tcp": [{"HostPort": "2376"}]}}),
            400,
            400,
        ),
        (
            json!({"PortBindings": {"80/tcp": [{"HostPort": "2300-2377"}]}}),
            400,
            400,
        ),
        (
            json!({"PortBindings": {"80/tcp": [{"HostPort": "+2376"}]}}),
            400,
            400,
        ),
        (
            json!({"PortBindings": {"80/tcp": [{"HostPort": "02376"}]}}),
            400,
            400,
        ),
        (
            json!({"PortBindings": {"80/tcp": [{"HostPort": "70000"}]}}),
            400,
            400,
        ),
        (
            json!({"PublishAllPorts": true, "AutoRemove": true, "Init": true}),
            200,
            200,
        ),
        (
            json!({"Memory": 1_000_000, "ShmSize": 1, "CpuShares": 2, "PidsLimit": 3}),
            200,
            200,
        ),
        (
            json!({"Ulimits": [{"Name": "memlock", "Hard": -1, "Soft": -1}]}),
            200,
            200,
        ),
        (
            json!({"Tmpfs": {"/t": "size=1m"}, "ExtraHosts": ["a:1.2.3.4"], "Dns": ["1.1.1.1"]}),
            200,
            200,
        ),
        (json!({"Links": ["db:db"], "GroupAdd": ["44"]}), 200, 200),
        // For everybody.
        (json!({"NanoCpus": 1}), 400, 400),
        (json!({"CpuQuota": -1}), 400, 400),
        (json!({"CpuPeriod": 1}), 400, 400),
        (json!({"CpuRealtimeRuntime": 1}), 400, 400),
        (json!({"CpuRealtimePeriod": 1}), 400, 400),
        (json!({"CgroupParent": "/stillmetal-x"}), 400, 400),
        (json!({"Runtime": "runc"}), 200, 200),
        (json!({"Runtime": "io.containerd.runc.v2"}), 200, 200),
        (json!({"Runtime": "crun"}), 400, 400),
        (json!({"Isolation": "process"}), 400, 400),
        (json!({"Isolation": "default"}), 200, 200),
    ];
    for (config, user, admin) in rows {
        for (role, expected) in [(Role::User, *user), (Role::Admin, *admin)] {
            let status = create(role, &host_config(config)).map_or_else(|d| d.status, |_| 200);
            assert_eq!(status, expected, "{config} as {role}");
        }
    }
}

#[test]
fn keys_are_spelled_exactly_or_refused() {
    for body in [
        r#"{"hostconfig":{"Privileged":true}}"#,
        r#"{"HOSTCONFIG":{}}"#,
        r#"{"HostConfig":{"privileged":true}}"#,
        r#"{"HostConfig":{"PRIVILEGED":false}}"#,
        r#"{"HostConfig":{"Privileged":false,"priVileged":null}}"#,
        r#"{"HostConfig":{"Mounts":[{"type":"bind","Type":"tmpfs"}]}}"#,
        r#"{"HostConfig":{"LogConfig":{"TYPE":"syslog"}}}"#,
        r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{"ipamconfig":{}}}}}"#,
    ] {
        assert_denied(create_raw(Role::Admin, body), 400, "must be spelled");
    }
    // KELVIN SIGN and LATIN SMALL LETTER LONG S fold to `k` and `s` in Go.
    for body in [
        "{\"HostConfig\":{\"Networ\u{212a}Mode\":\"host\"}}",
        "{\"Ho\u{17f}tConfig\":{\"Privileged\":true}}",
        r#"{"HostConfig":{"\u017fecurityOpt":["x"]}}"#,
        "{\"HostConfig\":{\"Privileged\u{301}\":null}}",
    ] {
        assert_denied(create_raw(Role::Admin, body), 400, "not ASCII");
    }
    // Maps are data: any key.
    let labels = json!({"Labels": {"hostconfig": "x", "Ключ": "y", "a": "1", "A": "2"}});
    assert_eq!(create(Role::User, &labels).unwrap().body, labels);
}

#[test]
fn unknown_keys_pass_only_when_they_say_nothing() {
    let body = json!({"Image": "a", "New": null, "Newer": [], "HostConfig": {"Fresh": 0, "X": {}}});
    assert_eq!(
        create(Role::User, &body).unwrap().body,
        json!({"Image": "a", "HostConfig": {}})
    );
    for body in [
        json!({"New": true}),
        json!({"Privileged": true}),
        json!({"HostConfig": {"New": "x"}}),
        json!({"HostConfig": {"RestartPolicy": {"New": 1}}}),
        json!({"HostConfig": {"Mounts": [{"New": 1}]}}),
        json!({"NetworkingConfig": {"New": 1}}),
    ] {
        assert_denied(create(Role::Admin, &body), 400, "unknown to this node");
    }
}

#[test]
fn malformed_bodies() {
    for body in [
        "",
        "[]",
        "null",
        "1",
        "{}{}",
        "{\"HostConfig\":[]}",
        "{\"HostConfig\":\"x\"}",
        r#"{"HostConfig":{"Privileged":"true"}}"#,
        r#"{"HostConfig":{"Privileged":1}}"#,
        r#"{"HostConfig":{"NanoCpus":1.5}}"#,
        r#"{"HostConfig":{"NanoCpus":"1"}}"#,
        r#"{"HostConfig":{"Binds":"/etc:/x"}}"#,
        r#"{"HostConfig":{"Binds":[["/etc:/x"]]}}"#,
        r#"{"HostConfig":{"Memory":1e40}}"#,
        r#"{"HostConfig":{"Privileged":false,"Privileged":true}}"#,
        r#"{"Labels":{"a":1}}"#,
        r#"{"Env":{"a":"b"}}"#,
    ] {
        assert_denied(create_raw(Role::Admin, body), 400, "");
    }
    assert!(create(Role::User, &json!({"Cmd": "true", "Entrypoint": ["sh"]})).is_ok());
    let large = format!(r#"{{"Image":"{}"}}"#, "a".repeat(1 << 20));
    assert_denied(create_raw(Role::Admin, &large), 413, "larger than");
}

#[test]
fn endpoint_names() {
    let with = |name: &str| json!({"NetworkingConfig": {"EndpointsConfig": {name: {}}}});
    assert!(create(Role::User, &with("bench")).is_ok());
    assert_denied(create(Role::User, &with("host")), 403, "network `host`");
    assert!(create(Role::Admin, &with("host")).is_ok());
    assert_denied(
        create(Role::Admin, &with("container:x")),
        400,
        "no network's name",
    );
}

#[test]
fn subjects_name_every_container_once() {
    let body = host_config(&json!({
        "PidMode": "container:a", "IpcMode": "container:a", "NetworkMode": "container:b",
        "VolumesFrom": ["c", "d:ro", "c:rw"],
    }));
    assert_eq!(
        create(Role::User, &body).unwrap().subjects,
        ["a", "b", "c", "d"]
    );
    assert_denied(
        create(Role::User, &host_config(&json!({"VolumesFrom": [""]}))),
        400,
        "id or name",
    );
}

fn place(config: &Value, labels: &Value, node: &NodeFacts) -> Result<PlacementRequest, u16> {
    let body = json!({"Labels": labels, "HostConfig": config}).to_string();
    check_body(
        Role::User,
        &Endpoint::ContainerCreate,
        node,
        body.as_bytes(),
    )
    .map(|checked| checked.placement.expect("a create has a placement"))
    .map_err(|denial| denial.status)
}

#[test]
fn placement() {
    let unfit = NodeFacts {
        isolated: "".parse().unwrap(),
        housekeeping: "0-3".parse().unwrap(),
        unfit: Some("no isolated CPU".into()),
    };
    let cpus = |list: &str| json!({"CpusetCpus": list});
    let count = |text: &str| json!({"stillmetal.cpus": text});
    let none = json!({});
    let housekeeping = Ok(PlacementRequest::Housekeeping);
    assert_eq!(place(&none, &none, &node()), housekeeping);
    assert_eq!(place(&json!(null), &json!(null), &node()), housekeeping);
    assert_eq!(place(&cpus("0"), &none, &node()), housekeeping);
    assert_eq!(place(&cpus("0-3"), &none, &unfit), housekeeping);
    assert_eq!(
        place(
            &none,
            &json!({"stillmetal.certify": "false", "mine": "x"}),
            &node()
        ),
        housekeeping
    );
    for (config, labels, choice) in [
        (cpus("2-3"), &none, CpuChoice::Exact("2,3".parse().unwrap())),
        (cpus("5"), &none, CpuChoice::Exact("5".parse().unwrap())),
        (none.clone(), &count("4"), CpuChoice::Count(4)),
    ] {
        match place(&config, labels, &node()) {
            Ok(PlacementRequest::Pinned(pin)) => assert_eq!(pin.cpus, choice),
            other => panic!("{config} {labels}: {other:?}"),
        }
    }
    for (config, labels, facts, status) in [
        (cpus("1-2"), &none, &node(), 400),
        (cpus("6"), &none, &node(), 400),
        (cpus("2,9"), &none, &node(), 400),
        (cpus("4-2"), &none, &node(), 400),
        (cpus("x"), &none, &node(), 400),
        (cpus(" 2"), &none, &node(), 400),
        (cpus("0-3:1/2"), &none, &node(), 400),
        (cpus("2,,3"), &none, &node(), 400),
        (cpus("99999999999"), &none, &node(), 400),
        (json!({"CpusetMems": "(null)"}), &none, &node(), 400),
        (cpus("2"), &count("1"), &node(), 400),
        (none.clone(), &count("0"), &node(), 400),
        (none.clone(), &count("-1"), &node(), 400),
        (none.clone(), &count("+1"), &node(), 400),
        (none.clone(), &count("01"), &node(), 400),
        (none.clone(), &count("1.5"), &node(), 400),
        (none.clone(), &count(""), &node(), 400),
        (
            none.clone(),
            &json!({"stillmetal.cpus": null}),
            &node(),
            400,
        ),
        (
            none.clone(),
            &json!({"stillmetal.token": "x"}),
            &node(),
            400,
        ),
        (none.clone(), &count("5"), &node(), 409),
        (none.clone(), &count("1"), &unfit, 409),
        (cpus("4"), &none, &unfit, 400),
    ] {
        assert_eq!(
            place(&config, labels, facts),
            Err(status),
            "{config} {labels}"
        );
    }
    let broken = NodeFacts {
        unfit: Some("tick stays on".into()),
        ..node()
    };
    assert_eq!(place(&cpus("2"), &none, &broken), Err(409));
    assert_eq!(place(&cpus("1"), &none, &broken), housekeeping);
}

#[test]
fn cgroup_parent_is_set_whatever_the_body_has() {
    for mut body in [
        json!({}),
        json!({"HostConfig": null}),
        json!({"HostConfig": {"Memory": 1}}),
    ] {
        set_cgroup_parent(&mut body, "/stillmetal-1");
        assert_eq!(body["HostConfig"]["CgroupParent"], "/stillmetal-1");
    }
}

#[test]
fn certified_runs_are_pinned_and_started_by_the_node_only() {
    let pinned = json!({"CpusetCpus": "2"});
    let certify = |labels: Value| match place(&pinned, &labels, &node()) {
        Ok(PlacementRequest::Pinned(pin)) => Ok(pin.certify),
        Ok(other) => panic!("{other:?}"),
        Err(status) => Err(status),
    };
    let asked = |class, canary_seconds| {
        Ok(Some(policy::Certify {
            canary_seconds,
            ..policy::Certify::of(class)
        }))
    };
    assert_eq!(certify(json!({})), Ok(None));
    assert_eq!(certify(json!({"stillmetal.certify": "false"})), Ok(None));
    let yes = json!({"stillmetal.certify": "true"});
    assert_eq!(certify(yes.clone()), asked(quiet::JobClass::Compute, 5));
    assert_eq!(
        certify(json!({
            "stillmetal.certify": "true", "stillmetal.class": "io", "stillmetal.canary": "0"
        })),
        asked(quiet::JobClass::Io, 0)
    );
    let trace = |text: &str| {
        let asked = certify(json!({"stillmetal.certify": "true", "stillmetal.trace": text}));
        asked.map(|certify| certify.unwrap().trace)
    };
    assert_eq!(trace("true"), Ok(policy::Trace::On));
    assert_eq!(trace("false"), Ok(policy::Trace::Off));
    assert_eq!(trace("1"), Err(400));
    for labels in [
        json!({"stillmetal.certify": "yes"}),
        json!({"stillmetal.class": "io"}),
        json!({"stillmetal.trace": "true"}),
        json!({"stillmetal.certify": "false", "stillmetal.trace": "true"}),
        json!({"stillmetal.certify": "true", "stillmetal.class": "calm"}),
        json!({"stillmetal.certify": "true", "stillmetal.canary": "-1"}),
        json!({"stillmetal.certify": "true", "stillmetal.canary": "601"}),
        json!({"stillmetal.certify": "true", "stillmetal.verdict": "quiet"}),
    ] {
        assert_eq!(certify(labels.clone()), Err(400), "{labels}");
    }
    for config in [
        json!({}),
        json!({"CpusetCpus": "0"}),
        json!({"CpusetCpus": "2", "RestartPolicy": {"Name": "always"}}),
    ] {
        let refused = place(&config, &yes, &node()).unwrap_err();
        assert_eq!(refused, 400, "{config}");
    }
    let once = json!({"CpusetCpus": "2", "RestartPolicy": {"Name": "no"}});
    assert!(place(&once, &yes, &node()).is_ok());
}

#[test]
fn labels_say_how_a_run_is_measured_and_labels_come_out_again() {
    let read = |role, labels: &Value| -> Result<Option<policy::Certify>, policy::Denial> {
        let body = json!({"Labels": labels, "HostConfig": {"CpusetCpus": "2"}}).to_string();
        let checked = check_body(role, &Endpoint::ContainerCreate, &node(), body.as_bytes())?;
        match checked.placement {
            Some(PlacementRequest::Pinned(pin)) => Ok(pin.certify),
            other => panic!("{other:?}"),
        }
    };
    let all = policy::Certify {
        class: quiet::JobClass::Memory,
        canary_seconds: 7,
        timeout_seconds: Some(60),
        tick: Some(quiet::TickMode::NohzFull),
        fixed_addresses: true,
        scheduling: policy::Scheduling::Fifo { priority: 50 },
        trace: policy::Trace::On,
    };
    for wanted in [
        all.clone(),
        policy::Certify {
            scheduling: policy::Scheduling::Normal { nice: -5 },
            ..all.clone()
        },
        policy::Certify::of(quiet::JobClass::Compute),
    ] {
        let labels: serde_json::Map<String, Value> = wanted
            .labels()
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect();
        let found = read(Role::Admin, &labels.into()).unwrap();
        assert_eq!(found, Some(wanted));
    }
    let with = |key: &str, value: &str| json!({"stillmetal.certify": "true", key: value});
    for (key, value) in [
        ("stillmetal.timeout", "0"),
        ("stillmetal.timeout", "1m"),
        ("stillmetal.timeout", "604801"),
        ("stillmetal.tick", "off"),
        ("stillmetal.aslr", "no"),
        ("stillmetal.nice", "20"),
        ("stillmetal.nice", "-21"),
        ("stillmetal.fifo", "0"),
        ("stillmetal.fifo", "100"),
    ] {
        let refused = read(Role::Admin, &with(key, value)).unwrap_err();
        assert_eq!(refused.status, 400, "{key}={value}");
        assert!(refused.message.contains(key), "{}", refused.message);
        let alone = read(Role::Admin, &json!({key: value})).unwrap_err();
        assert!(alone.message.contains("is missing"), "{}", alone.message);
    }
    let both = json!({
        "stillmetal.certify": "true", "stillmetal.nice": "1", "stillmetal.fifo": "1"
    });
    assert_eq!(read(Role::Admin, &both).unwrap_err().status, 400);
    let fifo = with("stillmetal.fifo", "1");
    assert_eq!(read(Role::User, &fifo).unwrap_err().status, 403);
}
