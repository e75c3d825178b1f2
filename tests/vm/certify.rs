//! Noise certificates of runs that the stock `docker` client starts.

use std::time::Duration;

use serde_json::Value;
use testkit::{Client, Output};

use crate::look::{self, Looked};

/// Counts up in one process for a few seconds of emulated time, without a system call.
const SPIN: &str = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";

/// Runs a certified container to its end; the client's output and the certificate. Again when the
/// host, overloaded, stopped the whole node for a second: that says nothing of the node.
pub(crate) fn certified(
    at: &Looked<'_>,
    name: &str,
    options: &[&str],
    program: &[&str],
) -> (Output, Value) {
    let mut command = vec!["run", "--name", name, "--label", "stillmetal.certify=true"];
    if !options.iter().any(|option| option.contains("canary")) {
        command.extend(["--label", "stillmetal.canary=1"]);
    }
    if !options.contains(&"--cpuset-cpus") {
        command.extend(["--cpuset-cpus", "1"]);
    }
    command.extend(options);
    command.push("busybox");
    command.extend(program);
    let run = || {
        let run = at.user.command(command.clone());
        let output = run.within(Duration::from_secs(300)).run().unwrap();
        (output, certificate(at, name))
    };
    let mut last = run();
    for _ in 0..4 {
        let unproven = codes(&last.1, "unproven");
        if !unproven.iter().any(|code| code == "sampler_late") {
            break;
        }
        last = run();
    }
    last
}

/// The certificate of a container that has ended, and the container's removal.
fn certificate(at: &Looked<'_>, name: &str) -> Value {
    let ended = at.user.command(["wait", name]);
    ended.within(Duration::from_secs(300)).run_ok().unwrap();
    let inspect = |format: &str| {
        at.user
            .run_ok(["inspect", "-f", format, name])
            .unwrap()
            .text()
    };
    let id = inspect("{{.Id}}");
    let path = format!("/stillmetal/v1/certificates/{}?wait=20", id.trim());
    let answer = at.node.get(Client::User, &path).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let certificate = answer.json();
    let shown = inspect("{{index .Config.Labels \"stillmetal.verdict\"}}");
    assert_eq!(
        shown.trim(),
        certificate["verdict"],
        "inspect shows the verdict"
    );
    at.user.run_ok(["rm", name]).unwrap();
    certificate
}

fn window<'a>(certificate: &'a Value, name: &str) -> &'a Value {
    let windows = certificate["evidence"]["windows"].as_array().unwrap();
    windows
        .iter()
        .find(|window| window["name"] == name)
        .unwrap()
}

/// The codes of `reasons` or `unproven`.
fn codes(certificate: &Value, list: &str) -> Vec<String> {
    let all = certificate[list].as_array().unwrap();
    all.iter()
        .map(|reason| reason["code"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
#[ignore = "boots the image: VM lane"]
fn an_undisturbed_spin_is_quiet_and_says_what_a_vm_cannot_see() {
    let node = look::shared();
    let (output, certificate) = certified(node, "spin", &[], &["sh", "-c", SPIN]);
    assert!(output.success(), "{}", output.error_text());
    assert_eq!(
        certificate["verdict"], "quiet",
        "{:#} {:#}",
        certificate["reasons"], certificate["unproven"]
    );
    assert_eq!(certificate["quiet_class"], "os-quiet");
    assert_eq!(certificate["outcome"], "succeeded");
    for name in ["canary_pre", "job", "canary_post"] {
        let cpu = &window(&certificate, name)["cpus"]["1"];
        for counter in ["RES", "CAL", "IWI", "TLB"] {
            let zero = serde_json::json!({"status": "measured", "value": 0});
            assert_eq!(cpu["interrupts"][counter], zero, "{name} {counter}");
        }
    }
    let gate = &certificate["evidence"]["job"]["gate"];
    assert!(
        gate["exec_ns"].as_u64() >= gate["released_ns"].as_u64(),
        "{gate}"
    );
    let unproven = codes(&certificate, "unproven");
    for witness in ["hw_smi", "hw_frequency", "hw_thermal", "hw_host_steal"] {
        assert!(unproven.iter().any(|code| code == witness), "{unproven:?}");
    }
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_certificate_is_signed_and_one_altered_word_is_named() {
    let node = look::shared();
    let (_, certificate) = certified(node, "sealed", &[], &["false"]);
    assert_eq!(certificate["outcome"], "failed");
    let id = certificate["evidence"]["container_id"].as_str().unwrap();
    let path = format!("/stillmetal/v1/certificates/{id}");
    let text = node.node.get(Client::User, &path).unwrap().text();
    let folder = testkit::scratch_folder("certificate").unwrap();
    let file = folder.path().join("certificate.json");
    let ca = node
        .node
        .credentials()
        .client_folder(Client::User)
        .join("ca.pem");
    let verify = |text: &str| {
        std::fs::write(&file, text).unwrap();
        testkit::Invocation::new(testkit::places::build_dir().join("stillmetal-agent"))
            .args(["verify"])
            .args([&file])
            .arg_path("--ca", &ca)
            .run()
            .unwrap()
    };
    let intact = verify(&text);
    assert!(
        intact.success() && intact.text().contains("(Failed)"),
        "{}",
        intact.text()
    );
    let broken = verify(&text.replacen("\"failed\"", "\"succeeded\"", 1));
    assert_eq!(broken.code, Some(1));
    assert!(
        broken.text().contains("/outcome was changed"),
        "{}",
        broken.text()
    );
}

#[test]
#[ignore = "boots the image: VM lane"]
fn the_gate_leaves_the_program_as_the_user_wrote_it() {
    let node = look::shared();
    let script =
        "cat /proc/1/cmdline | tr '\\0' ' '; id -u; pwd; env | sort; ls /proc/self/fd | wc -l";
    let options = [
        "--user",
        "1000",
        "--read-only",
        "-w",
        "/tmp",
        "-e",
        "A=b c",
        "--entrypoint",
        "/bin/sh",
        "-h",
        "same",
    ];
    let (output, certificate) = certified(node, "bare", &options, &["-c", script]);
    assert!(output.success(), "{}", output.error_text());
    let mut plain = vec!["run", "--rm", "--cpuset-cpus", "1"];
    plain.extend(options);
    plain.extend(["busybox", "-c", script]);
    let expected = node.user.run_ok(plain).unwrap().text();
    assert_eq!(output.text(), expected);
    assert_eq!(certificate["evidence"]["argv"][0], "/bin/sh");
    // as PID 1 in the user's stead
    let (output, _) = certified(node, "init", &["--init"], &["cat", "/proc/1/comm"]);
    assert_eq!(output.text().trim(), "docker-init");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_second_task_on_the_cpu_makes_the_run_noisy() {
    let node = look::shared();
    node.user
        .run_ok([
            "run",
            "-d",
            "--name",
            "shared-cpu",
            "--cpuset-cpus",
            "1",
            "--label",
            "stillmetal.certify=true",
            "--label",
            "stillmetal.canary=1",
            "busybox",
            "sh",
            "-c",
            "i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done",
        ])
        .unwrap();
    // it joins the container's own cgroup once the program runs
    look::eventually("the job runs", || {
        let top = node.user.run_ok(["top", "shared-cpu"]).unwrap().text();
        top.contains("sh -c") && !top.contains("/dev/.stillmetal/gate")
    });
    node.user
        .run_ok(["exec", "shared-cpu", "sh", "-c", SPIN])
        .unwrap();
    let certificate = certificate(node, "shared-cpu");
    assert_eq!(certificate["verdict"], "noisy");
    let reasons = codes(&certificate, "reasons");
    for code in ["interrupts.LOC", "foreign_timeslices"] {
        assert!(reasons.iter().any(|found| found == code), "{reasons:?}");
    }
    let said = certificate["reasons"].to_string();
    assert!(said.contains("is a second task runnable there"), "{said}");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn failures_are_told_apart_and_keep_their_exit_codes() {
    let node = look::shared();
    let (output, certificate) = certified(node, "three", &[], &["sh", "-c", "exit 3"]);
    assert_eq!(output.code, Some(3));
    assert_eq!(certificate["outcome"], "failed");
    assert_eq!(certificate["evidence"]["job"]["exit_code"], 3);

    let (output, certificate) = certified(node, "absent", &[], &["no-such-program"]);
    assert_eq!(output.code, Some(127));
    assert!(
        output.error_text().contains("not found in $PATH"),
        "{}",
        output.error_text()
    );
    assert_eq!(certificate["verdict"], "unproven");
    assert_eq!(certificate["outcome"], "failed");

    let hungry = "x=x; while :; do x=$x$x; done";
    let (output, certificate) =
        certified(node, "hungry", &["--memory", "16m"], &["sh", "-c", hungry]);
    assert_eq!(output.code, Some(137));
    assert_eq!(certificate["evidence"]["job"]["oom_killed"], true);
    assert_eq!(certificate["outcome"], "oom-killed");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn without_a_canary_nothing_is_proven_and_wrong_labels_are_refused() {
    let node = look::shared();
    let off = ["--label", "stillmetal.canary=0"];
    let (output, certificate) = certified(node, "smoke", &off, &["true"]);
    assert!(output.success(), "{}", output.error_text());
    assert_ne!(certificate["verdict"], "quiet");
    assert!(codes(&certificate, "unproven").contains(&"no_canary".to_owned()));
    for (options, why) in [
        (&["--label", "stillmetal.certify=true"][..], "isolated CPUs"),
        (
            &[
                "--label",
                "stillmetal.certify=true",
                "--cpuset-cpus",
                "1",
                "--restart",
                "always",
            ],
            "--restart",
        ),
        (
            &[
                "--label",
                "stillmetal.certify=true",
                "--cpuset-cpus",
                "1",
                "--label",
                "stillmetal.class=calm",
            ],
            "no job class",
        ),
    ] {
        let mut command = vec!["run", "--rm"];
        command.extend(options);
        command.extend(["busybox", "true"]);
        let refused = node.user.run(command).unwrap();
        assert!(!refused.success());
        assert!(
            refused.error_text().contains(why),
            "{}",
            refused.error_text()
        );
    }
    let nothing = node
        .node
        .get(Client::User, "/stillmetal/v1/certificates/0123456789ab")
        .unwrap();
    assert_eq!(nothing.status, 404, "{}", nothing.text());
}

#[test]
#[ignore = "boots the image: VM lane"]
fn several_cpus_are_certified_together() {
    let node = look::shared();
    let both = format!("({SPIN}) & ({SPIN}); wait");
    let options = [
        "--cpuset-cpus",
        "1,2",
        "--label",
        "stillmetal.class=forking",
    ];
    let (output, certificate) = certified(node, "both", &options, &["sh", "-c", &both]);
    assert!(output.success(), "{}", output.error_text());
    // two threads that the kernel left on one CPU are moved apart, and that is not kept quiet
    let reasons = codes(&certificate, "reasons");
    assert!(
        reasons.is_empty() || reasons.contains(&"action".to_owned()),
        "{:#}",
        certificate["reasons"]
    );
    for cpu in ["1", "2"] {
        for name in ["canary_pre", "canary_post"] {
            let loc = &window(&certificate, name)["cpus"][cpu]["interrupts"]["LOC"];
            assert!(loc["value"].as_u64().unwrap() <= 1, "{name} {cpu} {loc}");
        }
    }
}

/// Starts a certified spin in the background, lets `disturb` have its cgroup once it runs, and
/// returns the reasons of the certificate.
fn disturbed(at: &Looked<'_>, name: &str, disturb: impl FnOnce(&str)) -> Vec<String> {
    let long = "i=0; while [ $i -lt 700000 ]; do i=$((i+1)); done";
    at.user
        .run_ok([
            "run",
            "-d",
            "--name",
            name,
            "--cpuset-cpus",
            "1",
            "--label",
            "stillmetal.certify=true",
            "--label",
            "stillmetal.canary=1",
            "busybox",
            "sh",
            "-c",
            long,
        ])
        .unwrap();
    look::eventually("the job runs", || {
        let top = at.user.run_ok(["top", name]).unwrap().text();
        top.contains("sh -c") && !top.contains("/dev/.stillmetal/gate")
    });
    let claims = look::claims(at);
    disturb(claims[0]["cgroup"].as_str().unwrap());
    let certificate = certificate(at, name);
    assert_eq!(
        certificate["verdict"], "noisy",
        "{name}: {:#}",
        certificate["unproven"]
    );
    codes(&certificate, "reasons")
}

#[test]
#[ignore = "boots the image: VM lane"]
fn what_is_changed_behind_the_nodes_back_makes_the_run_noisy_and_is_named() {
    let node = look::shared();
    // a container that may write to the node's kernel files
    let hand = |script: &str| {
        node.docker
            .run_ok([
                "run",
                "--rm",
                "--privileged",
                "--pid",
                "host",
                // or the kernel refuses to move a task to a cgroup outside of its own tree
                "--cgroupns",
                "host",
                "-v",
                "/sys:/node",
                "busybox",
                "sh",
                "-c",
                script,
            ])
            .unwrap();
    };
    let has = |reasons: &[String], code: &str| {
        assert!(
            reasons.iter().any(|found| found == code),
            "{code}: {reasons:?}"
        );
    };
    let quota = disturbed(node, "quota", |cgroup| {
        hand(&format!(
            "for f in /node/fs/cgroup{cgroup}/*/cpu.max; do echo 100000 100000 > $f; done"
        ));
    });
    has(&quota, "drift");
    has(&quota, "interrupts.LOC");

    let dissolved = disturbed(node, "dissolved", |cgroup| {
        hand(&format!(
            "echo member > /node/fs/cgroup{cgroup}/cpuset.cpus.partition"
        ));
    });
    has(&dissolved, "drift");

    let intruder = disturbed(node, "intruder", |cgroup| {
        hand(&format!(
            "set -e; at=/node/fs/cgroup{cgroup}/intruder; mkdir $at; echo $$ > $at/cgroup.procs; {SPIN}; \
             echo $$ > /node/fs/cgroup/cgroup.procs; rmdir $at"
        ));
    });
    has(&intruder, "foreign_timeslices");

    let server = "/node/kernel/debug/sched/fair_server/cpu1/runtime";
    let served = disturbed(node, "served", |_| {
        hand(&format!("echo 50000000 > {server}"))
    });
    hand(&format!("echo 0 > {server}"));
    has(&served, "drift");
}

/// Of a traced run, those that meet a window.
fn interruptions(certificate: &Value, name: &str) -> Vec<Value> {
    let trace = &certificate["evidence"]["interruptions"];
    assert_eq!(trace["status"], "recorded", "{trace:#}");
    let window = window(certificate, name);
    let ns = |value: &Value| value.as_u64().unwrap();
    let (start, end) = (ns(&window["start_ns"]), ns(&window["end_ns"]));
    let all = trace["events"].as_array().unwrap().iter();
    all.filter(|event| {
        let at = ns(&event["at_ns"]);
        at <= end && at + ns(&event["duration_ns"]) >= start
    })
    .cloned()
    .collect()
}

/// `stillmetal-agent certificate` with a picture: what it printed, and the picture.
fn drawn(certificate: &Value) -> (Output, Option<String>) {
    let folder = testkit::scratch_folder("timeline").unwrap();
    let (file, svg) = (folder.path().join("c.json"), folder.path().join("c.svg"));
    std::fs::write(&file, certificate.to_string()).unwrap();
    let output = testkit::Invocation::new(testkit::places::build_dir().join("stillmetal-agent"))
        .args(["certificate"])
        .args([&file])
        .arg_path("--svg", &svg)
        .run()
        .unwrap();
    (output, std::fs::read_to_string(svg).ok())
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_traced_spin_stays_quiet() {
    let node = look::shared();
    let traced = ["--label", "stillmetal.trace=true"];
    let (output, quiet) = certified(node, "traced", &traced, &["sh", "-c", SPIN]);
    assert!(output.success(), "{}", output.error_text());
    assert_eq!(
        quiet["verdict"], "quiet",
        "{:#} {:#}",
        quiet["reasons"], quiet["unproven"]
    );
    for name in ["canary_pre", "job", "canary_post"] {
        // the emulated APIC's own timer, once in 34 s, with the softirq that it raises
        let seen = interruptions(&quiet, name);
        let timer = |event: &&Value| {
            let name = event["name"].as_str().unwrap();
            name.starts_with("local_timer:") || name.starts_with("TIMER:")
        };
        assert!(seen.iter().all(|event| timer(&event)), "{name}: {seen:#?}");
        let cpu = &window(&quiet, name)["cpus"]["1"]["interrupts"];
        for counter in ["RES", "CAL", "IWI", "TLB"] {
            assert_eq!(cpu[counter]["value"], 0, "{name} {counter}");
        }
    }
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_trace_shows_who_took_the_cpu() {
    let node = look::shared();
    let instances = "/sys/kernel/tracing/instances";
    let long = "i=0; while [ $i -lt 700000 ]; do i=$((i+1)); done";
    let mut command = vec!["run", "-d", "--name", "watched", "--cpuset-cpus", "1"];
    command.extend(["--label", "stillmetal.certify=true"]);
    command.extend(["--label", "stillmetal.canary=1"]);
    command.extend(["--label", "stillmetal.trace=true"]);
    command.extend(["busybox", "sh", "-c", long]);
    node.user.run_ok(command).unwrap();
    look::eventually("the job runs", || {
        let top = node.user.run_ok(["top", "watched"]).unwrap().text();
        top.contains("sh -c") && !top.contains("/dev/.stillmetal/gate")
    });
    let armed = look::host_list(node, instances);
    assert_eq!(armed.len(), 1, "{armed:?}");
    let mut stranger = vec!["exec", "watched", "sh", "-c"];
    stranger.push("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    node.user.run_ok(stranger).unwrap();
    let noisy = certificate(node, "watched");
    assert_eq!(noisy["verdict"], "noisy");
    let of_threads = interruptions(&noisy, "job");
    let of_threads: Vec<_> = of_threads
        .iter()
        .filter(|event| event["kind"] == "thread")
        .collect();
    let named = |name: &str| {
        let mut names = of_threads
            .iter()
            .map(|event| event["name"].as_str().unwrap());
        names.any(|found| found.starts_with(name))
    };
    assert!(named("sh:"), "{of_threads:#?}");
    let (output, svg) = drawn(&noisy);
    assert!(output.success(), "{}", output.error_text());
    assert!(output.text().contains("traced interruptions:"));
    assert!(svg.unwrap().contains("sh:"), "the stranger has a mark");

    look::eventually("the tracer is off again", || {
        look::host_list(node, instances).is_empty()
    });
    let (_, untraced) = certified(node, "untraced", &[], &["true"]);
    let (output, svg) = drawn(&untraced);
    assert!(!output.success() && svg.is_none());
    assert!(
        output.error_text().contains("stillmetal.trace=true"),
        "{}",
        output.error_text()
    );
}
