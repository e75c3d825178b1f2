//! The self-test of a booted node: what it sees, what it leaves behind, whom it refuses.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use testkit::{Answer, Client, ConfigOptions, Credentials, Node, node};

use crate::look::{self, Looked};

const RUN: &str = "/stillmetal/v1/selftest";
const LAST: &str = "/stillmetal/v1/selftest/last";
/// About 20 s of a machine that is emulated, on one that is loaded.
const WITHIN: Duration = Duration::from_secs(300);

fn run(node: &Node, query: &str) -> Answer {
    let api = node.api(Client::Admin).unwrap().within(WITHIN);
    api.get(&format!("{RUN}{query}")).unwrap()
}

/// What a self-test turns, and what it could leave behind.
fn state(at: &Looked<'_>) -> Value {
    let status = look::status(at);
    // the brackets: the pattern does not find itself
    // what ends while it is looked at is nobody's fault; any other failure is the test's
    let script = "set -e; cat /host/sys/kernel/debug/sched/fair_server/cpu1/runtime \
                  /host/sys/kernel/debug/sched/fair_server/cpu2/runtime; \
                  ls -d /host/sys/fs/cgroup/*/; cat /host/sys/fs/cgroup/cpuset.cpus.isolated; \
                  ls /host/run/stillmetal/gates; ls /host/run/stillmetal | grep selftest || true; \
                  for p in /proc/[0-9]*; do { tr '\\0' ' ' < $p/cmdline; } 2>/dev/null || true; echo; done \
                  | grep -E '[s]tillmetal-canary|[d]isturb --run-us' || true";
    let command = ["exec", "observer", "sh", "-c", script];
    let host = at.docker.run_ok(command).unwrap().text();
    serde_json::json!({
        "state": status["state"],
        "claims": status["claims"],
        "knobs": status["tuning"]["knobs"],
        "drift": status["tuning"]["drift"],
        "host": host.lines().collect::<Vec<_>>(),
    })
}

fn nothing_pinned(at: &Looked<'_>) {
    look::eventually("no CPU is held", || look::claims(at).is_empty());
}

fn probe<'a>(test: &'a Value, name: &str) -> &'a Value {
    let probes = test["probes"].as_array().unwrap();
    probes.iter().find(|probe| probe["probe"] == name).unwrap()
}

fn codes(test: &Value, list: &str) -> Vec<String> {
    let all = test[list].as_array().unwrap();
    all.iter()
        .map(|reason| reason["code"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
#[ignore = "boots the image: VM lane"]
fn each_disturbance_is_seen_and_the_node_is_as_before() {
    let at = look::shared();
    nothing_pinned(at);
    let before = state(at);
    assert_eq!(at.node.get(Client::User, RUN).unwrap().status, 403);

    let twice = || {
        let test = std::thread::scope(|scope| {
            let tested = scope.spawn(|| run(at.node, "?cpu=2"));
            look::eventually("it holds its CPU", || {
                look::claims(at)
                    .iter()
                    .any(|claim| claim["holder"] == "the node's self-test" && claim["cpus"] == "2")
            });
            let second = run(at.node, "");
            assert_eq!(second.status, 409, "{}", second.text());
            assert!(second.text().contains("under way"), "{}", second.text());
            tested.join().unwrap()
        });
        assert_eq!(test.status, 200, "{}", test.text());
        test.json()
    };
    let mut test = twice();
    // a host that is overloaded stops the whole node for a second: that says nothing of the node
    for _ in 0..4 {
        let reasons = codes(&test, "reasons");
        if !reasons.iter().any(|code| code == "sampler_late") {
            break;
        }
        test = twice();
    }
    assert_eq!(test["schema"], "stillmetal-selftest/1");
    assert_eq!(test["can_prove_quiet"], "yes", "{:#}", test["reasons"]);
    assert_eq!(test["quiet_class"], "os-quiet");
    assert_eq!(test["cpu"], 2);
    for name in [
        "intrusions",
        "second_task",
        "quota",
        "shootdowns",
        "fair_server",
        "partition",
    ] {
        let probe = probe(&test, name);
        assert_eq!(probe["sight"], "seen", "{probe:#}");
    }
    let blind = codes(&test, "cannot_see");
    assert_eq!(
        blind,
        ["hw_smi", "hw_frequency", "hw_thermal", "hw_host_steal"]
    );

    let after = state(at);
    assert_eq!(after, before, "the node is as it was");
    let last = at.node.get(Client::User, LAST).unwrap();
    assert_eq!(last.json(), test, "everybody may read the result");
    let text = at.node.get(Client::User, &format!("{LAST}?format=text"));
    let text = text.unwrap().text();
    assert!(text.contains("this node can prove quiet: YES"), "{text}");
    assert!(text.lines().count() <= 30, "one screen: {text}");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn whoever_uses_an_isolated_cpu_is_not_disturbed() {
    let at = look::shared();
    nothing_pinned(at);
    let pinned = [
        "run",
        "-d",
        "--name",
        "pinned",
        "--cpuset-cpus",
        "1",
        "busybox",
        "sleep",
        "100000",
    ];
    at.user.run_ok(pinned).unwrap();
    let refused = run(at.node, "");
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("pinned"), "{}", refused.text());
    let taken = run(at.node, "?cpu=1&force=true");
    assert_eq!(taken.status, 409, "{}", taken.text());
    assert!(taken.text().contains("held by"), "{}", taken.text());
    at.user.run_ok(["rm", "-f", "pinned"]).unwrap();
    nothing_pinned(at);
    let housekeeping = run(at.node, "?cpu=0");
    assert_eq!(housekeeping.status, 400, "{}", housekeeping.text());
    assert!(look::claims(at).is_empty(), "what is refused holds nothing");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn an_agent_killed_in_the_middle_leaves_nothing_turned_or_held() {
    let at = look::shared();
    nothing_pinned(at);
    let mut before = state(at);
    let server = "/sys/kernel/debug/sched/fair_server/cpu1/runtime";
    // from within, and at once: the fair server is on for 3 s only
    let kill = format!(
        "i=0; until [ \"$(cat /host{server})\" != 0 ]; do i=$((i+1)); [ $i -lt 50000 ] || exit 1; done; \
         for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline) in \
         *stillmetal-agent?serve*) [ ${{p#/proc/}} -ne $$ ] && kill -9 ${{p#/proc/}};; esac; done"
    );
    at.docker
        .run_ok(["exec", "-d", "observer", "sh", "-c", &kill])
        .unwrap();
    let api = at.node.api(Client::Admin).unwrap().within(WITHIN);
    // on an overloaded host there may be no silence to begin with, and so no probe
    let cut_off = (0..5).any(|_| api.get(&format!("{RUN}?cpu=1")).is_err());
    assert!(cut_off, "the agent was killed in the middle");
    look::eventually("the agent is back and the CPU is free", || {
        let answer = at.node.get(Client::Admin, "/stillmetal/v1/node");
        answer.is_ok_and(|answer| {
            answer.status == 200
                && answer.json()["engine"]["ready"] == true
                && answer.json()["tuning"].is_object()
        })
    });
    nothing_pinned(at);
    assert_eq!(at.node.get(Client::User, LAST).unwrap().status, 404);
    // the new agent's report is its own: it found the knobs as the old one had set them, and knows
    // nothing of what drifted in earlier tests
    before["drift"] = serde_json::json!([]);
    let mut after = Value::Null;
    let mut same = || {
        after = state(at);
        after["knobs"] = before["knobs"].clone();
        after == before
    };
    if !(0..20).any(|_| same()) {
        assert_eq!(after["host"], before["host"]);
        assert_eq!(after["drift"], before["drift"]);
        assert_eq!(after, before);
    }
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_node_without_a_trusted_clock_cannot_prove_quiet_and_says_why() {
    let credentials = Arc::new(Credentials::generate().unwrap());
    let options = ConfigOptions::default();
    let description = node::describe("selftest-clock", &credentials, &options).unwrap();
    let description = description.memory_mib(768).cpus(2).without_param("tsc");
    let node = Node::boot_ready(&description, &credentials).unwrap();
    let test = run(&node, "");
    assert_eq!(test.status, 200, "{}", test.text());
    let test = test.json();
    assert_eq!(test["can_prove_quiet"], "no");
    let reasons = codes(&test, "reasons");
    let clock = |code: &String| code == "clocksource" || code == "tsc_watchdog";
    assert!(reasons.iter().any(clock), "{:#}", test["reasons"]);
    for probe in test["probes"].as_array().unwrap() {
        assert_ne!(probe["sight"], "seen", "{probe}");
    }
    let status = node.get(Client::Admin, "/stillmetal/v1/node").unwrap();
    assert_eq!(status.json()["claims"], serde_json::json!([]));
}
