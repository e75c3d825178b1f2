//! Each command against the fake: what it asks for, what it prints.

use std::collections::BTreeMap;

use api::fleet::{MachineHints, NodeId, NodeState, NodeView, PendingNode};
use api::job::{JobId, JobState};
use api::problem::Problem;
use client::Why;
use client::fake::{FakeController, Fault};

use crate::program::{Home, ended};

async fn start() -> (FakeController, Home) {
    let fake = FakeController::start().await.unwrap();
    let home = Home::with(&fake);
    (fake, home)
}

fn node(name: &str, state: NodeState) -> NodeView {
    NodeView {
        id: NodeId::try_from(format!("id-{name}")).unwrap(),
        name: name.into(),
        state,
        facts: serde_json::from_value(serde_json::json!({
            "hostname": name, "agent_version": "1", "boot_id": null, "kernel": "6.12",
            "cmdline": null, "virtual_machine": true, "unfit": null, "class": "qemu", "labels": { "a": "1" },
            "domains": [{ "cpus": "1-3", "memory_bytes": 1 << 30 }], "devices": [], "isolated": true,
            "tick": null, "share": false,
        }))
        .ok(),
        enrolled_ms: 1000,
        connected_ms: Some(1000),
        seen_ms: Some(1000),
        jobs: vec![JobId(7)],
        labels: BTreeMap::new(),
        received: 1,
        sent: 2,
    }
}

#[tokio::test]
async fn nodes() {
    let (fake, home) = start().await;
    let empty = home.run("nodes").await.ok().stdout;
    assert_eq!(empty, "no nodes\n");
    let cause = "the canary\x1b[31m failed".to_owned();
    fake.change(|state| {
        state.nodes.push(node("n1", NodeState::Ready));
        state
            .nodes
            .push(node("n2", NodeState::Quarantined { cause }));
        state.pending.push(PendingNode {
            fingerprint: "ab12".into(),
            machine: MachineHints::default(),
            address: "10.0.0.9:1".into(),
            first_ms: 1,
            last_ms: 2,
        });
    });
    let listed = home.run("nodes").await.ok().stdout;
    assert!(listed.starts_with("NODE"), "{listed}");
    assert!(listed.contains("3     1 GiB   qemu"), "{listed}");
    // what a node says does not steer the terminal
    assert!(
        listed.contains("quarantined: the canary?[31m failed"),
        "{listed}"
    );
    assert_eq!(home.run("nodes --json").await.ok().json()[1]["name"], "n2");
    let shown = home.run("node show n1").await.ok().stdout;
    assert!(shown.contains("CPUs 1-3 with 1 GiB"), "{shown}");

    let set = home.run("node set n1 --label rack=7").await.ok().stdout;
    assert_eq!(set, "n1: ready (a=1 rack=7)\n");
    home.run("node set n1")
        .await
        .failed(2, "nothing is to be changed");
    let drained = home.run("node drain n1").await.ok().stdout;
    assert!(drained.starts_with("n1: draining"), "{drained}");
    home.run("node resume n1").await.ok();
    let resumed = home.run("node resume n2 --json").await.ok().json();
    assert_eq!(resumed["state"], "ready");
    home.run("node revoke n2").await.ok();
    home.run("node show n2")
        .await
        .failed(2, "no node is called n2");

    let pending = home.run("nodes --pending").await.ok().stdout;
    assert!(pending.contains("ab12"), "{pending}");
    home.run("node approve ab12").await.ok();
    home.run("node approve ab12")
        .await
        .failed(2, "next: see what there is");
}

#[tokio::test]
async fn queues_and_tokens() {
    let (fake, home) = start().await;
    home.run("queue create night --priority -3 --limit 8h --user anna --user ben --capacity 5")
        .await
        .ok();
    let listed = home.run("queue list").await.ok().stdout;
    assert!(
        listed.contains("night    -3        0        0        5         8 h    anna ben"),
        "{listed}"
    );
    home.run("queue drain night").await.ok();
    let night = fake.read(|state| state.queues["night"].clone());
    assert!(night.draining);
    assert_eq!((night.priority, night.limit_seconds), (-3, 8 * 3600));
    home.run("queue resume night").await.ok();
    assert!(!fake.read(|state| state.queues["night"].draining));
    home.run("queue drain day")
        .await
        .failed(2, "no queue \"day\"; there is default, night");
    home.run("queue remove night").await.ok();
    home.run("queue remove night")
        .await
        .failed(2, "no queue is called night");

    let token = home.run("token create --valid 5m").await.ok().stdout;
    assert_eq!(token, "t1.secret\n");
    let listed = home.run("token list").await.ok().stdout;
    assert!(
        listed.contains("t1") && !listed.contains("secret"),
        "{listed}"
    );
    home.run("token revoke t1").await.ok();
    assert_eq!(home.run("token list").await.ok().stdout, "no tokens\n");
}

#[tokio::test]
async fn bookings() {
    let (fake, home) = start().await;
    fake.change(|state| state.nodes.push(node("n1", NodeState::Ready)));
    assert_eq!(home.run("booking list").await.ok().stdout, "no bookings\n");
    let made = "booking create n1 --in 1h --for 2h --user anna --user ben";
    let said = home.run(made).await.ok().stdout;
    assert!(said.starts_with("booking 1: n1 for anna ben, "), "{said}");
    let booking = fake.read(|state| state.bookings[0].clone());
    assert_eq!((booking.from_ms, booking.until_ms), (3_600_000, 10_800_000));
    let listed = home.run("booking list").await.ok().stdout;
    assert!(listed.contains("anna ben"), "{listed}");
    for (wrong, says) in [
        ("booking create n1", "--for"),
        ("booking create --for 1h", "NODE"),
        ("booking create n1 --for 0s", "less than a second"),
        ("booking create n2 --for 1h", "no node is called n2"),
        ("booking cancel 2", "no booking is called 2"),
    ] {
        home.run(wrong).await.failed(2, says);
    }
    home.run("booking cancel 1").await.ok();
    assert_eq!(
        home.run("booking list --json")
            .await
            .ok()
            .json()
            .to_string(),
        "[]"
    );
}

#[tokio::test]
async fn the_health_check() {
    let (fake, home) = start().await;
    fake.change(|state| state.nodes.push(node("n1", NodeState::Ready)));
    let shown = home.run("health show").await.ok();
    assert!(shown.stderr.contains("no node is checked"), "{shown:?}");
    let set = "health set --every 1d --queue health --timeout 1m busybox true";
    let shown = home.run(set).await.ok();
    assert!(
        shown
            .stderr
            .contains("each node, every 1 d, in queue health: busybox true"),
        "{shown:?}"
    );
    assert!(shown.stdout.contains("n1    ready"), "{shown:?}");
    let check = fake.read(|state| state.health.clone()).unwrap();
    assert_eq!(
        (check.every_seconds, check.job.limits.run_seconds),
        (86_400, 60)
    );
    for (wrong, says) in [
        ("health set busybox true", "--every"),
        ("health set --every 1d", "an image or"),
        ("health set --every 1d --node n1 busybox", "leave --node"),
        ("health set --every 1d --nodes 2 busybox", "leave --node"),
        ("health set --every 1d --detach busybox", "--detach"),
    ] {
        home.run(wrong).await.failed(2, says);
    }
    home.run("health off").await.ok();
    assert!(fake.read(|state| state.health.is_none()));
}

#[tokio::test]
async fn jobs() {
    let (fake, home) = start().await;
    for n in 0..25 {
        home.run(&format!("run --detach --name job-{n} x"))
            .await
            .ok();
    }
    fake.change(|state| {
        state.advance(JobId(3), JobState::Done);
        state.why = Why {
            reasons: Vec::new(),
            could_start_ms: Some(0),
            text: vec!["24 jobs come before it".into()],
        };
    });
    let listed = home.run("jobs").await.ok().stdout;
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 21, "{listed}");
    assert!(lines[1].starts_with("25   queued"), "{listed}");
    let all = home.run("jobs --limit 1000 --json").await.ok().json();
    assert_eq!(all.as_array().unwrap().len(), 25);
    let done = home.run("jobs --state done --json").await.ok().json();
    assert_eq!(done[0]["id"], 3);

    let why = home.run("job why 25").await.ok().stdout;
    let expected = "job 25: queued\n  24 jobs come before it\n  it could start now\n";
    assert_eq!(why, expected);
    let shown = home.run("job show 25").await.ok().stdout;
    assert!(shown.starts_with("job 25: queued\n"), "{shown}");
    assert!(shown.contains("name       job-24"), "{shown}");
    let cancelled = home.run("job cancel 25").await.ok().stdout;
    assert_eq!(cancelled, "job 25: cancelled\n");
    home.run("job cancel 25").await.failed(2, "job 25 is over");
    home.run("job show 99")
        .await
        .failed(2, "no job is called 99");
}

#[tokio::test]
async fn logs_are_copied_byte_by_byte() {
    let (fake, home) = start().await;
    let id = JobId(1);
    home.run("run --detach x").await.ok();
    let node = NodeId::try_from("n1".to_owned()).unwrap();
    fake.change(|state| {
        state.assign(id, &node, "1");
        let job = state.jobs.get_mut(&id).unwrap();
        job.stdout = b"out\x1b[0m\n\0".to_vec();
        job.stderr = b"err\n".to_vec();
    });
    assert_eq!(home.run("job logs 1").await.ok().stdout, "out\x1b[0m\n\0");
    let errors = home.run("job logs 1 --stream stderr").await.ok();
    assert_eq!(errors.stdout, "err\n");
    let following = home.command("job logs 1 --follow").spawn().unwrap();
    let more = async {
        let asked = || fake.calls().iter().any(|it| it.contains("follow=true"));
        while !asked() {
            tokio::task::yield_now().await;
        }
        fake.change(|state| {
            state.jobs.get_mut(&id).unwrap().stdout.extend(b"more\n");
            state.advance(id, JobState::Done);
        });
    };
    let (followed, ()) = tokio::join!(ended(following), more);
    assert_eq!(followed.ok().stdout, "out\x1b[0m\n\0more\n");
    fake.change(|state| {
        let other = NodeId::try_from("n2".to_owned()).unwrap();
        state.assign(id, &other, "1");
    });
    home.run("job logs 1")
        .await
        .failed(2, "name one with --node");
    home.run("job logs 1 --node n2").await.ok();
}

#[tokio::test]
async fn events() {
    let (fake, home) = start().await;
    fake.change(|state| {
        for _ in 0..3 {
            state.tell("node.connected", None, None);
        }
    });
    let lines = home.run("events --after 1").await.ok().stdout;
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.contains("      2 node.connected\n"), "{lines}");
    let json = home.run("events --limit 1 --json").await.ok();
    assert_eq!(json.json()["seq"], 1);
}

#[tokio::test]
async fn images() {
    let (fake, home) = start().await;
    let archive = home.path().join("image.tar");
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    std::fs::write(&archive, &bytes).unwrap();
    let push = format!("image push {} --json", archive.display());
    let pushed = home.run(&push).await.ok().json();
    assert_eq!(pushed["bytes"], 1_000_000);
    home.run("image push nothing.tar")
        .await
        .failed(2, "nothing.tar");

    // a docker client that saves, and one that fails in the middle
    let docker = home.path().join("docker");
    let script = |rest: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let text = format!("#!/bin/sh\n[ \"$1 $2\" = 'save --' ] || exit 9\n{rest}\n");
        std::fs::write(&docker, text).unwrap();
        std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let push = async || {
        let mut command = home.command("image push docker:mine:1 --json");
        command.env("STILLMETAL_DOCKER", &docker);
        ended(command.spawn().unwrap()).await
    };
    script(&format!("cat '{}'", archive.display()));
    let from_docker = push().await.ok().json();
    assert_eq!(from_docker["digest"], pushed["digest"]);
    script("echo half; echo 'no such image' >&2; exit 1");
    push().await.failed(3, "docker save mine:1: no such image");
    assert_eq!(fake.read(|state| state.images.len()), 2);
    let listed = home.run("image list").await.ok().stdout;
    assert!(listed.contains("pushed:1"), "{listed}");
}

#[tokio::test]
async fn docker_contexts() {
    let (fake, home) = start().await;
    fake.change(|state| state.nodes.push(node("n1", NodeState::Ready)));
    let printed = home.run("node docker-context n1 --print").await.ok().stdout;
    let address = fake.address();
    let expected =
        format!("context create stillmetal-n1 --docker host=tcp://{address}/nodes/n1,ca=");
    assert!(printed.contains(&expected), "{printed}");
    home.run("node docker-context n2").await.failed(2, "n2");

    let docker = home.path().join("docker");
    let log = home.path().join("log");
    std::fs::write(
        &docker,
        format!(
            "#!/bin/sh\necho \"$@\" >> '{}'\n[ \"$2\" != inspect ]\n",
            log.display()
        ),
    )
    .unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = home.command("node docker-context n1");
    command.env("STILLMETAL_DOCKER", &docker);
    let made = ended(command.spawn().unwrap()).await.ok().stdout;
    assert!(made.contains("--context stillmetal-n1 info"), "{made}");
    let log = std::fs::read_to_string(log).unwrap();
    let folder = home.config().join("contexts/fake");
    let expected = format!("cert={}/cert.pem", folder.display());
    assert!(log.contains("context create stillmetal-n1"), "{log}");
    assert!(log.contains(&expected), "{log}");
}

#[tokio::test]
async fn refusals_say_what_where_and_what_next() {
    let (fake, home) = start().await;
    let refuse = |status, kind: &str| Fault::Refuse {
        path: "/v1/queues".into(),
        problem: Problem {
            kind: format!("stillmetal:{kind}"),
            title: "not with this role".into(),
            status,
            detail: "queues are for admins".into(),
            instance: Some("/name".into()),
            next: Some("ask an admin".into()),
        },
        retry_after_seconds: None,
    };
    fake.break_once(refuse(403, "forbidden"));
    let refused = home.run("queue list").await;
    let said =
        "still: not with this role: queues are for admins\n  where: /name\n  next: ask an admin\n";
    assert_eq!(refused.stderr, said);
    assert_eq!(refused.code, Some(2));
    fake.break_once(refuse(507, "store-full"));
    home.run("queue list")
        .await
        .failed(3, "queues are for admins");
    fake.break_once(Fault::Answer {
        path: "/v1/queues".into(),
        status: 200,
        body: "<html>".into(),
    });
    home.run("queue list")
        .await
        .failed(3, "not the answer of a controller");
}

#[tokio::test]
async fn a_reader_that_has_enough_is_no_error() {
    let (fake, home) = start().await;
    fake.change(|state| {
        for _ in 0..20_000 {
            state.tell("node.connected", None, None);
        }
    });
    let mut child = home.command("events").spawn().unwrap();
    // as `head -0` does
    drop(child.stdout.take());
    ended(child).await.ok();
}
