//! Rules for the request line.

use policy::{BodyRule, Endpoint, Role, route};
use serde_json::json;

use crate::assert_denied;

#[test]
fn endpoints_and_targets() {
    let id = || "web".to_owned();
    for (method, target, forwarded, endpoint) in [
        ("GET", "/_ping", "/_ping", Endpoint::Other),
        ("HEAD", "/_ping", "/_ping", Endpoint::Other),
        ("GET", "/v1.24/version", "/v1.24/version", Endpoint::Other),
        (
            "GET",
            "/v1.51/containers/json?all=1",
            "/v1.51/containers/json?all=1",
            Endpoint::ContainerList,
        ),
        (
            "POST",
            "/containers/create?name=/web",
            "/containers/create?name=%2Fweb",
            Endpoint::ContainerCreate,
        ),
        (
            "POST",
            "/containers/web/start",
            "/containers/web/start",
            Endpoint::ContainerStart { id: id() },
        ),
        (
            "DELETE",
            "/containers/web?force=1&v=1",
            "/containers/web?force=1&v=1",
            Endpoint::ContainerRemove { id: id() },
        ),
        (
            "DELETE",
            "/containers/web?link=False",
            "/containers/web",
            Endpoint::ContainerRemove { id: id() },
        ),
        (
            "GET",
            "/containers/json/json",
            "/containers/json/json",
            Endpoint::ContainerInspect { id: "json".into() },
        ),
        (
            "GET",
            "/images/json/json",
            "/images/json/json",
            Endpoint::Other,
        ),
        (
            "GET",
            "/images/r.io:5000/a/b/json",
            "/images/r.io:5000/a/b/json",
            Endpoint::Other,
        ),
        (
            "GET",
            "/images/a/get/get",
            "/images/a/get/get",
            Endpoint::Other,
        ),
        (
            "GET",
            "/images/get?names=a&names=b",
            "/images/get?names=a&names=b",
            Endpoint::Other,
        ),
        (
            "DELETE",
            "/images/r/a:b@sha256:0",
            "/images/r/a:b@sha256:0",
            Endpoint::Other,
        ),
        (
            "GET",
            "/distribution/a/b/json",
            "/distribution/a/b/json",
            Endpoint::Other,
        ),
        (
            "POST",
            "/exec/web/start",
            "/exec/web/start",
            Endpoint::ExecStart { id: id() },
        ),
        ("POST", "/session", "/session", Endpoint::Session),
        (
            "GET",
            "/system/df?type=image&type=volume",
            "/system/df?type=image&type=volume",
            Endpoint::Other,
        ),
    ] {
        let routed = route(Role::User, method, target).unwrap_or_else(|d| panic!("{target}: {d}"));
        assert_eq!(
            (routed.target.as_str(), routed.endpoint),
            (forwarded, endpoint)
        );
    }
}

#[test]
fn what_is_not_offered() {
    for (method, target, why) in [
        ("GET", "/", "know no such request"),
        ("GET", "/swarm", "Swarm"),
        ("POST", "/v1.45/services/create", "Swarm"),
        ("GET", "/secrets", "Swarm"),
        ("PUT", "/volumes/x", "Swarm"),
        ("POST", "/plugins/pull", "plugins"),
        ("GET", "/containers/a/attach/ws", "upgrade"),
        ("POST", "/containers/a/copy", "archive"),
        ("POST", "/containers/a/checkpoints", "CRIU"),
        ("PATCH", "/containers/a", "know no such"),
        ("HEAD", "/containers/json", "know no such"),
        ("get", "/info", "know no such"),
        ("GET", "/debug/pprof", "know no such"),
        ("GET", "/stillmetal/v1/node", "know no such"),
        ("POST", "/containers/a/b/start", "know no such"),
        ("DELETE", "/images", "know no such"),
        ("GET", "/images//json", ""),
    ] {
        let expected = if why.is_empty() { 400 } else { 404 };
        for role in [Role::User, Role::Admin] {
            assert_denied(route(role, method, target), expected, why);
        }
    }
    assert_denied(route(Role::Admin, "GET\u{1b}[2J", "/x"), 404, "GETJ `/x`");
}

#[test]
fn malformed_names_and_parameters() {
    for target in [
        "/containers/-a/start",
        "/containers/a:b/start",
        "/containers/.a/start",
        "/containers/a/start?checkpoint=x",
        "/containers/create?name=a%20b",
        "/containers/create?name=a&name=b",
        "/containers/create?name=%FF",
        "/commit?repo=x",
        "/commit?container=..%2Fx",
        "/build?new=1",
    ] {
        assert_denied(route(Role::Admin, "POST", target), 400, "");
    }
    assert_denied(
        route(Role::Admin, "DELETE", "/containers/a?link=1"),
        400,
        "`link`",
    );
    let long = format!("/containers/{}/start", "a".repeat(256));
    assert_denied(route(Role::Admin, "POST", &long), 400, "at most 255");
}

#[test]
fn builds() {
    for (query, user, admin) in [
        (
            "t=a&t=b&version=2&session=x&remote=client-session",
            200,
            200,
        ),
        (
            "cpusetcpus=&cpuquota=0&cpuperiod=0&cgroupparent=&memory=1",
            200,
            200,
        ),
        ("networkmode=none", 200, 200),
        ("networkmode=host", 403, 200),
        ("networkmode=HOST", 403, 200),
        ("networkmode=container:x", 400, 400),
        ("networkmode=%FF", 400, 400),
        ("cpusetcpus=0", 400, 400),
        ("cpusetmems=0", 400, 400),
        ("cpusetcpus=%FF", 400, 400),
        ("cpusetmems=0-1", 400, 400),
        ("cpuquota=1", 400, 400),
        ("cpuperiod=1", 400, 400),
        ("cgroupparent=/x", 400, 400),
        ("isolation=hyperv", 400, 400),
        ("securityopt=a", 400, 400),
        ("version=3", 400, 400),
        ("networkmode=none&networkmode=host", 400, 400),
    ] {
        for (role, expected) in [(Role::User, user), (Role::Admin, admin)] {
            let routed = route(role, "POST", &format!("/build?{query}"));
            assert_eq!(
                routed.map_or_else(|d| d.status, |_| 200),
                expected,
                "{query} as {role}"
            );
        }
    }
    // What BuildKit could do too much is refused where it acts: by the engine's entitlements
    // (daemon.json) and on the way to runc (the next test).
    assert!(route(Role::User, "POST", "/grpc").is_ok());
    assert!(route(Role::User, "POST", "/session").is_ok());
}

#[test]
fn a_build_step_starts_below_the_housekeeping_group_only() {
    let check = |cgroup: serde_json::Value| {
        policy::check_build_step(&json!({"linux": {"cgroupsPath": cgroup}}), "/housekeeping")
    };
    assert!(check(json!("/housekeeping/buildkit/x1")).is_ok());
    for cgroup in [
        json!("/housekeeping"),
        json!("/housekeeping/"),
        json!("/housekeeping/../stillmetal-7f/x"),
        json!("/housekeeping/./x"),
        json!("/housekeeping//x"),
        json!("/housekeeping-2/x"),
        json!("housekeeping/x"),
        json!("/stillmetal-7f/buildkit/x1"),
        json!("/engine/buildkit/x1"),
        json!("/buildkit/x1"),
        json!("system.slice:buildkit:x1"),
        json!(""),
        json!(null),
        json!(7),
    ] {
        let refused = check(cgroup.clone()).expect_err("a step elsewhere");
        assert!(
            refused.message.contains("housekeeping CPUs"),
            "{cgroup}: {refused}"
        );
    }
    assert!(policy::check_build_step(&json!({}), "/housekeeping").is_err());
}

#[test]
fn touching_needs_a_subject_for_users_only() {
    for (method, target) in [
        ("POST", "/containers/web/exec"),
        ("POST", "/containers/web/attach?stream=1"),
        ("GET", "/containers/web/archive?path=/"),
        ("HEAD", "/containers/web/archive?path=/"),
        ("PUT", "/containers/web/archive?path=/"),
        ("GET", "/containers/web/export"),
        ("POST", "/containers/web/start"),
        ("POST", "/containers/web/restart"),
        ("POST", "/containers/web/stop"),
        ("POST", "/containers/web/kill"),
        ("POST", "/containers/web/pause"),
        ("POST", "/containers/web/unpause"),
        ("POST", "/containers/web/update"),
        ("POST", "/containers/web/rename?name=x"),
        ("POST", "/containers/web/resize?h=1&w=1"),
        ("DELETE", "/containers/web"),
        ("POST", "/commit?container=web"),
    ] {
        assert_eq!(
            route(Role::User, method, target).unwrap().subjects,
            ["web"],
            "{target}"
        );
        assert!(
            route(Role::Admin, method, target)
                .unwrap()
                .subjects
                .is_empty()
        );
    }
    for target in ["json", "logs?stdout=1", "stats", "top", "changes"] {
        let target = format!("/containers/web/{target}");
        assert!(
            route(Role::User, "GET", &target)
                .unwrap()
                .subjects
                .is_empty()
        );
    }
    assert!(
        route(Role::User, "POST", "/containers/web/wait")
            .unwrap()
            .subjects
            .is_empty()
    );
}

#[test]
fn bodies() {
    let body = |method, target| route(Role::User, method, target).unwrap().body;
    assert_eq!(body("POST", "/images/create?fromImage=a"), BodyRule::Empty);
    assert_eq!(body("POST", "/images/create?fromSrc=-"), BodyRule::Stream);
    assert_eq!(body("POST", "/images/load"), BodyRule::Stream);
    assert_eq!(body("PUT", "/containers/a/archive"), BodyRule::Stream);
    assert_eq!(body("POST", "/build"), BodyRule::Stream);
    assert_eq!(body("POST", "/containers/a/start"), BodyRule::Empty);
    assert_eq!(
        body("POST", "/containers/create"),
        BodyRule::Json { max_bytes: 1 << 20 }
    );
    assert!(matches!(
        body("POST", "/exec/a/start"),
        BodyRule::Json { max_bytes: ..=4096 }
    ));
}
