//! Who gets in, and what each role may do.

use testkit::Client;

use crate::look;

#[test]
#[ignore = "boots the image: VM lane"]
fn only_a_valid_client_certificate_of_our_authority_gets_in() {
    let node = look::shared();
    for client in [
        Client::Anonymous,
        Client::Expired,
        Client::Stranger,
        Client::Node,
        Client::UnknownRole,
    ] {
        match node.node.get(client, "/stillmetal/v1/health") {
            Err(_refused_by_tls) => {}
            Ok(answer) => assert_eq!(answer.status, 403, "{client:?}: {}", answer.text()),
        }
        let docker = node.node.docker(client).unwrap();
        let output = docker.run(["ps"]).unwrap();
        assert_eq!(output.code, Some(1), "{client:?}: {}", output.text());
    }
    for client in [Client::Admin, Client::User] {
        let answer = node.node.get(client, "/stillmetal/v1/health").unwrap();
        assert_eq!(answer.status, 200, "{client:?}");
    }
}

#[test]
#[ignore = "boots the image: VM lane"]
fn nothing_but_the_api_and_the_asked_for_engine_port_listens() {
    let node = look::shared();
    let script = "for f in tcp tcp6; do awk '$4 == \"0A\" {print $2}' /proc/net/$f; done; \
                  for f in udp udp6; do awk 'FNR > 1 {print $2}' /proc/net/$f; done";
    let text = node
        .docker
        .run_ok(["exec", "observer", "sh", "-c", script])
        .unwrap()
        .text();
    let mut ports: Vec<u16> = text
        .lines()
        .map(|line| u16::from_str_radix(line.rsplit_once(':').unwrap().1, 16).unwrap())
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [2376, 2377], "{text}");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_user_cannot_get_at_the_host() {
    let node = look::shared();
    let attempts: [&[&str]; 12] = [
        &["--privileged"],
        &["--network", "host"],
        &["--pid", "host"],
        &["--ipc", "host"],
        &["--uts", "host"],
        &["-v", "/:/host"],
        &["--mount", "type=bind,source=/etc,target=/x"],
        &["-v", "/run/stillmetal/engine.sock:/s"],
        &["--cap-add", "SYS_ADMIN"],
        &["--device", "/dev/mem"],
        &["--security-opt", "seccomp=unconfined"],
        &[
            "--mount",
            "type=volume,source=v,target=/x,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/",
        ],
    ];
    for options in attempts {
        let mut command = vec!["run", "--rm"];
        command.extend(options);
        command.extend(["busybox", "true"]);
        let output = node.user.run(command).unwrap();
        assert_ne!(output.code, Some(0), "{options:?} was allowed");
        assert!(
            output.error_text().contains("role"),
            "{options:?}: {}",
            output.error_text()
        );
    }
    let through = node.user.run(["exec", "observer", "ls", "/host"]).unwrap();
    assert!(
        through.error_text().contains("role"),
        "{}",
        through.error_text()
    );
    node.user
        .run_ok(["run", "--rm", "busybox", "true"])
        .unwrap();
    node.docker
        .run_ok([
            "run",
            "--rm",
            "--privileged",
            "-v",
            "/:/host:ro",
            "busybox",
            "ls",
            "/host",
        ])
        .unwrap();
}

#[test]
#[ignore = "boots the image: VM lane"]
fn bad_requests_get_a_clear_error_and_harm_nobody() {
    let node = look::shared();
    let api = node.node.api(Client::User).unwrap();
    let send = |body: &[u8]| {
        api.request(
            "POST",
            "/v1.45/containers/create",
            &[("content-type", "application/json")],
            body,
        )
        .unwrap()
    };
    for (body, status) in [
        (&b"{"[..], 400),
        (br#"{"Image":"busybox","Image":"other"}"#, 400),
        (br#"{"Image":"busybox","HostConfig":{"Privileged":false},"hostconfig":{"Privileged":true}}"#, 400),
        (br#"{"Image":"busybox"} trailing"#, 400),
    ] {
        let answer = send(body);
        assert_eq!(answer.status, status, "{}: {}", String::from_utf8_lossy(body), answer.text());
        assert!(answer.json()["message"].is_string(), "{}", answer.text());
    }
    let huge = vec![b' '; 4 << 20];
    assert_eq!(send(&huge).status, 413);
    let unknown = api.get("/v1.45/swarm").unwrap();
    assert!(unknown.json()["message"].is_string(), "{}", unknown.text());
    node.user.run_ok(["ps"]).unwrap();
}
