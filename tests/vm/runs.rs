//! Series of certified runs through the node's own API.

use serde_json::{Value, json};
use testkit::{Answer, Client};

use crate::look::{self, Looked};

/// Counts up in one process for a few seconds of emulated time, without a system call.
const SPIN: &str = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";

fn start(at: &Looked<'_>, client: Client, request: &Value) -> Answer {
    at.node
        .post(client, "/stillmetal/v1/runs", request)
        .unwrap()
}

/// Asks for a series of short runs on CPU 1; `more` is added to the request.
fn request(script: &str, more: Value) -> Value {
    let mut request = json!({
        "image": "busybox", "argv": ["sh", "-c", script], "cpus": "1", "canary_seconds": 1,
    });
    for (key, value) in more.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

/// The status of a series once it has ended.
fn ended(at: &Looked<'_>, id: &str) -> Value {
    let mut status = Value::Null;
    let path = format!("/stillmetal/v1/runs/{id}?wait=20");
    for _ in 0..30 {
        status = at.node.get(Client::User, &path).unwrap().json();
        if status["state"] != "running" {
            break;
        }
    }
    status
}

fn whole(at: &Looked<'_>, request: &Value) -> Value {
    let answer = start(at, Client::User, request);
    assert_eq!(answer.status, 201, "{}", answer.text());
    ended(at, answer.json()["id"].as_str().unwrap())
}

fn certificate(at: &Looked<'_>, attempt: &Value) -> Value {
    let id = attempt["container"].as_str().unwrap();
    let path = format!("/stillmetal/v1/certificates/{id}");
    let answer = at.node.get(Client::User, &path).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_series_holds_its_cpus_and_reports_the_spread_of_its_quiet_runs() {
    let node = look::shared();
    let script = format!("{SPIN}; echo out; echo err >&2");
    let wanted = request(
        &script,
        json!({
            // an overloaded host can delay the sampler: then a run is unproven, and tried again
            "warmups": 1, "repetitions": 2, "attempts": 10,
        }),
    );
    let answer = start(node, Client::User, &wanted);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    // between two runs nobody else gets the CPU either
    let path = format!("/stillmetal/v1/runs/{id}");
    let running = || {
        let status = node.node.get(Client::User, &path).unwrap().json();
        status["state"] == "running"
    };
    let mut refusals = 0;
    while running() {
        let command = ["run", "--rm", "--cpuset-cpus", "1", "busybox", "true"];
        let output = node.user.run(command).unwrap();
        if output.success() {
            assert!(!running(), "the CPU was given away within the series");
            break;
        }
        let said = output.error_text();
        assert!(said.contains("stillmetal-run-"), "{said}");
        refusals += 1;
    }
    assert!(refusals > 3, "{refusals}");

    let status = ended(node, &id);
    assert_eq!(status["state"], "done", "{status:#}");
    let attempts = status["attempts"].as_array().unwrap();
    assert_eq!(attempts[0]["repetition"], Value::Null);
    let measured = &attempts[1..];
    assert!(
        measured
            .iter()
            .all(|run| run["stdout"] == "out\n" && run["stderr"] == "err\n")
    );
    let quiet: Vec<u64> = measured
        .iter()
        .filter(|run| run["verdict"] == "quiet")
        .map(|run| run["duration_ns"].as_u64().unwrap())
        .collect();
    assert_eq!(quiet.len(), 2);
    let figures = &status["duration_ns"];
    assert_eq!(figures["samples"], 2);
    #[allow(clippy::cast_precision_loss, reason = "seconds in ns")]
    let middle = (quiet[0] + quiet[1]) as f64 / 2.0;
    assert!(
        (figures["median"].as_f64().unwrap() - middle).abs() < 1.0,
        "{figures}"
    );
    assert!(figures["interval"]["low"].as_f64() <= figures["interval"]["high"].as_f64());

    let proven = certificate(node, &measured[0]);
    assert_eq!(
        proven["evidence"]["job"]["output"]["stdout"],
        // printf 'out\n' | sha256sum
        json!({"status": "measured", "bytes": 4, "sha256": "54034ac5c6e9ea95734ec2b729fd6d62abf64af34a9f9ce5d466cb788191a73d"})
    );
    let text = node.node.get(
        Client::User,
        &format!("/stillmetal/v1/runs/{id}?format=text"),
    );
    let text = text.unwrap().text();
    assert!(
        text.starts_with("DONE") && text.contains("quiet runs: 2"),
        "{text}"
    );
    assert!(look::claims(node).is_empty());
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_noisy_repetition_is_tried_again_and_every_attempt_is_shown() {
    let node = look::shared();
    // what sleeps is woken by interrupts: more than a computing job causes
    let wanted = request("sleep 0.2; sleep 0.2; sleep 0.2", json!({"attempts": 2}));
    let status = whole(node, &wanted);
    assert_eq!(status["state"], "noisy", "{status:#}");
    assert_eq!(status["left_out"], json!([1, 2]));
    assert_eq!(status["duration_ns"], Value::Null);
    for attempt in status["attempts"].as_array().unwrap() {
        assert_eq!(attempt["verdict"], "noisy");
        assert!(!attempt["reasons"].as_array().unwrap().is_empty());
        assert_eq!(certificate(node, attempt)["verdict"], "noisy");
    }
}

#[test]
#[ignore = "boots the image: VM lane"]
fn each_way_to_fail_is_told_apart_and_leaves_nothing() {
    let node = look::shared();
    let failed = |request: &Value, act: &dyn Fn(&str)| {
        let answer = start(node, Client::User, request);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        act(&id);
        let status = ended(node, &id);
        assert_eq!(status["state"], "failed", "{status:#}");
        let attempts = status["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 1, "a failed run ends the series");
        let proven = certificate(node, &attempts[0]);
        assert_eq!(proven["outcome"], attempts[0]["outcome"]);
        assert_ne!(proven["verdict"], "quiet", "there was no canary");
        attempts[0].clone()
    };
    let told = |run: &Value| {
        let signal = run["signal"].as_i64();
        (run["outcome"].clone(), run["exit_code"].as_i64(), signal)
    };
    let request = |script: &str, more: Value| {
        let mut request = request(script, more);
        request["canary_seconds"] = 0.into();
        request
    };
    let by_itself = |_: &str| {};
    let run = failed(&request("exit 3", json!({"repetitions": 3})), &by_itself);
    assert_eq!(told(&run), (json!("failed"), Some(3), None));
    // an exit code that looks like a signal is none
    let run = failed(&request("exit 137", json!({})), &by_itself);
    assert_eq!(told(&run), (json!("failed"), Some(137), None));
    // the whole cgroup goes at the time limit, not only the first process
    let script = "sleep 9999 & sleep 9999 & trap '' TERM; while :; do sleep 1; done";
    let run = failed(&request(script, json!({"timeout_seconds": 2})), &by_itself);
    assert_eq!(told(&run), (json!("timed-out"), Some(137), Some(9)));
    let sleepers = [
        "exec",
        "observer",
        "sh",
        "-c",
        "ps | grep -c '[s]leep 9999'",
    ];
    assert_eq!(node.docker.run(sleepers).unwrap().text().trim(), "0");
    let hungry = request(
        "x=x; while :; do x=$x$x; done",
        json!({"memory_bytes": 16 << 20}),
    );
    let run = failed(&hungry, &by_itself);
    assert_eq!(run["outcome"], "oom-killed");
    let run = failed(&request("while :; do :; done", json!({})), &|id| {
        let name = format!("stillmetal-run-{id}-1");
        look::eventually("the program runs", || {
            let top = node.user.run(["top", &name]).unwrap().text();
            top.contains("while :") && !top.contains("/dev/.stillmetal/gate")
        });
        node.user.run_ok(["kill", "-s", "KILL", &name]).unwrap();
    });
    assert_eq!(told(&run), (json!("signalled"), Some(137), Some(9)));

    let left = node
        .user
        .run_ok(["ps", "-aq", "-f", "name=stillmetal-run-"]);
    assert_eq!(left.unwrap().text(), "");
    assert!(look::claims(node).is_empty());
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_series_can_be_cancelled_and_wrong_requests_are_refused_with_the_reason() {
    let node = look::shared();
    let endless = request("while :; do :; done", json!({}));
    let answer = start(node, Client::User, &endless);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/stillmetal/v1/runs/{id}");
    let api = node.node.api(Client::User).unwrap();
    assert_eq!(api.delete(&path).unwrap().status, 204);
    assert_eq!(ended(node, &id)["state"], "cancelled");
    look::eventually("its CPU is free", || look::claims(node).is_empty());

    for (more, status, why) in [
        (json!({"image": "no-such-image"}), 404, "docker load"),
        (json!({"cpus": "0"}), 400, "isolated"),
        (json!({"cpus": "1,77"}), 400, "not online"),
        (json!({"cpus": 99}), 409, "more CPUs than the node isolates"),
        (json!({"repetitions": 0}), 400, "`repetitions` is 0"),
        (json!({"timeout_seconds": 0}), 400, "stillmetal.timeout"),
        (json!({"nice": 1, "fifo": 1}), 400, "exclude each other"),
        (json!({"fifo": 1}), 403, "role user"),
        (json!({"tick_mode": "tick"}), 409, "when the kernel boots"),
        (json!({"class": "calm"}), 400, "calm"),
        (json!({"repetition": 1}), 400, "repetition"),
        (json!({"env": {"A=B": "x"}}), 400, "A=B"),
    ] {
        let answer = start(node, Client::User, &request("true", more.clone()));
        assert_eq!(answer.status, status, "{more}: {}", answer.text());
        assert!(answer.text().contains(why), "{more}: {}", answer.text());
    }
    assert_eq!(api.get("/stillmetal/v1/runs/00000000").unwrap().status, 404);
    assert_eq!(api.delete("/stillmetal/v1/runs/zz").unwrap().status, 404);
    assert!(look::claims(node).is_empty());
}

#[test]
#[ignore = "boots the image: VM lane"]
fn what_is_set_on_a_job_is_what_it_runs_with_and_is_in_its_certificate() {
    let node = look::shared();
    // policy and priority: proc_pid_stat(5), fields 40 and 41
    let script = "cat /proc/self/personality; cut -d' ' -f19,40,41 /proc/self/stat";
    let run = |more: Value| {
        let mut request = request(script, more);
        request["canary_seconds"] = 0.into();
        let answer = start(node, Client::Admin, &request);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let status = ended(node, answer.json()["id"].as_str().unwrap());
        let attempt = &status["attempts"][0];
        assert_eq!(attempt["outcome"], "succeeded", "{status:#}");
        let proven = certificate(node, attempt);
        assert_eq!(proven["evidence"]["troubles"], json!([]));
        let said = attempt["stdout"].as_str().unwrap().to_owned();
        (said, proven["evidence"]["job"]["settings"].clone())
    };
    let (said, settings) = run(json!({"tick_mode": "nohz_full"}));
    assert_eq!(said, "00000000\n0 0 0\n");
    assert_eq!(
        settings,
        json!({"aslr": "on", "policy": "SCHED_OTHER", "rt_priority": 0, "nice": 0})
    );
    let (said, settings) = run(json!({"fixed_addresses": true, "nice": -5}));
    assert_eq!(said, "00040000\n-5 0 0\n");
    assert_eq!(
        (&settings["aslr"], &settings["nice"]),
        (&json!("off"), &json!(-5))
    );
    let (said, settings) = run(json!({"fifo": 30}));
    assert_eq!(said, "00000000\n0 30 1\n");
    assert_eq!(settings["policy"], "SCHED_FIFO");
}
