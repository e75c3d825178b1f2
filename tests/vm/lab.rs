//! A lab as a person has it: `still` brings a controller and a node up, runs jobs on it, and takes all
//! of it down again. In the middle its parts are killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::{Docker, Invocation, Output, images, places};

use crate::look::eventually;
use crate::transcript::{self, Material, Seen};

/// An emulated boot beside a controller, on a busy machine.
const UP: Duration = Duration::from_secs(600);
/// A job with all that belongs to it.
const JOB: Duration = Duration::from_secs(300);

/// Counts up in one process for a few seconds of emulated time, without a system call.
const SPIN: &str = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
/// Goes on until it is ended, and does not care who asks.
const STUBBORN: &str = "trap '' TERM INT; while :; do :; done";

/// Somebody's home, with a lab in it. Dropped, the lab is taken down.
struct Lab {
    home: TempDir,
}

impl Lab {
    fn still<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Invocation {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let home = self.home.path().as_os_str().to_owned();
        Invocation::new(places::build_dir().join("still"))
            .args(words)
            .only_env([("PATH", path), ("HOME", home)])
            .env("STILLMETAL_BUILD", places::build_dir())
            .within(JOB)
    }

    /// What it prints as JSON, and its exit code.
    fn json<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> (Value, i32) {
        let output = self
            .still(["--json"].into_iter().chain(words))
            .run()
            .unwrap();
        let code = output.code.unwrap();
        let value = serde_json::from_slice(&output.stdout);
        (
            value.unwrap_or_else(|error| panic!("{error}: {}", both(&output))),
            code,
        )
    }

    fn job(&self, id: &str) -> Value {
        self.json(["job", "show", id]).0["job"].take()
    }

    /// Queues a job and waits until its benchmark runs.
    fn begin(&self, words: &[&str]) -> String {
        let detached = ["run", "--detach", "--canary", "0", "--cpus", "1"];
        let (job, code) = self.json(detached.into_iter().chain(words.iter().copied()));
        assert_eq!(code, 0, "{job:#}");
        let id = job["id"].to_string();
        eventually("it is measured", || {
            let job = self.job(&id);
            assert!(!is_over(&job), "{job:#}");
            job["state"] == "measuring"
        });
        id
    }

    /// The job once it is over.
    fn ended(&self, id: &str) -> Value {
        let mut job = Value::Null;
        eventually("it is over", || {
            job = self.job(id);
            is_over(&job)
        });
        job
    }

    fn node(&self) -> Value {
        let (nodes, code) = self.json(["nodes"]);
        assert_eq!(code, 0);
        assert_eq!(nodes.as_array().unwrap().len(), 1, "{nodes:#}");
        nodes[0].clone()
    }

    fn state_dir(&self) -> PathBuf {
        self.home.path().join(".local/state/stillmetal/lab")
    }

    fn record(&self) -> Value {
        let text = std::fs::read_to_string(self.state_dir().join("record.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The stock client, through the controller, as administrator.
    fn docker(&self) -> Docker {
        self.docker_as(&self.home.path().join(".config/stillmetal/contexts/lab"))
    }

    fn docker_as(&self, certificates: &Path) -> Docker {
        let (context, code) = self.json(["node", "docker-context", "node1", "--print"]);
        assert_eq!(code, 0, "{context:#}");
        let host = context["host"].as_str().unwrap();
        Docker::connect_to(host, certificates).unwrap()
    }

    /// Certificates of somebody who is no administrator.
    fn user(&self) -> TempDir {
        let folder = testkit::scratch_folder("user").unwrap();
        let state = self.state_dir().join("controller");
        Invocation::new(places::build_dir().join("stillmetal-controller"))
            .args(["credentials", "--name", "ada"])
            .arg_path("--state", &state)
            .arg_path("--out", folder.path())
            .run_ok()
            .unwrap();
        folder
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // of a test that failed; the other one has done it already
        drop(self.still(["down"]).run());
    }
}

fn is_over(job: &Value) -> bool {
    let running = ["queued", "assigned", "preparing", "measuring", "collecting"];
    !running.iter().any(|state| job["state"] == *state)
}

fn both(output: &Output) -> String {
    format!("{}{}", output.text(), output.error_text())
}

/// With a node that takes work and an image.
fn a_lab() -> Lab {
    let home = testkit::scratch_folder("lab").unwrap();
    let lab = Lab { home };
    up(&lab);
    lab
}

fn down(lab: &Lab) {
    let down = lab.still(["down"]).run().unwrap();
    assert!(down.success(), "{}", both(&down));
    // a cache is not the lab's: whether KVM works is asked once
    let mut left = files_below(lab.home.path());
    left.retain(|path| !path.starts_with(lab.home.path().join(".cache")));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
#[ignore = "boots the image: VM lane"]
fn jobs_come_back_with_proof_or_say_why_not() {
    let lab = a_lab();
    wrong_use_is_told(&lab);
    a_job_comes_back_with_its_proof(&lab);
    tools_look_at_runs_and_disturb_none(&lab);
    failures_are_told_apart(&lab);
    the_docker_client_goes_through_the_controller(&lab);
    down(&lab);
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_lab_outlives_the_death_of_its_parts() {
    let lab = a_lab();
    a_job_survives_its_controller_and_its_agent(&lab);
    a_cancelled_job_frees_its_node(&lab);
    a_rebooted_node_is_the_same_node(&lab);
    a_revoked_node_is_out(&lab);
    down(&lab);
}

fn up(lab: &Lab) {
    let words = ["--json", "up", "--nodes", "1", "--cpus", "3"];
    let output = lab.still(words).within(UP).run().unwrap();
    assert!(output.success(), "{}", both(&output));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["nodes"][0]["state"], "ready", "{said:#}");
    // twice is no fault, another lab beside it is
    let (again, code) = lab.json(words[1..].iter().copied());
    assert_eq!((again["already"].as_bool(), code), (Some(true), 0));
    let other = lab.still(["up", "--nodes", "2"]).run().unwrap();
    assert_eq!(other.code, Some(2), "{}", both(&other));
    let archive = images::busybox().unwrap();
    let (image, code) = lab.json(["image", "push", archive.to_str().unwrap()]);
    assert_eq!(code, 0, "{image:#}");
    let (images, _) = lab.json(["image", "list"]);
    assert_eq!(images[0]["digest"], image["digest"], "{images:#}");
}

fn wrong_use_is_told(lab: &Lab) {
    for (words, code, said) in [
        (
            &["run", "--cpus", "1"][..],
            2,
            "an image or, with --command",
        ),
        (&["run", "nosuchimage", "true"], 2, "nosuchimage"),
        (&["job", "show", "999"], 2, "999"),
        (&["node", "drain", "nosuchnode"], 2, "nosuchnode"),
    ] {
        let output = lab.still(words.iter().copied()).run().unwrap();
        assert_eq!(output.code, Some(code), "{words:?}: {}", both(&output));
        assert!(output.error_text().contains(said), "{}", both(&output));
    }
    // what nobody can run waits, and says for what
    let (job, _) = lab.json(["run", "--detach", "--cpus", "64", "busybox", "true"]);
    let id = job["id"].to_string();
    let why = lab.still(["job", "why", &id]).run_ok().unwrap().text();
    assert!(why.contains("has so many CPUs"), "{why}");
    let cancelled = lab.still(["job", "cancel", &id]).run_ok().unwrap().text();
    assert!(cancelled.contains("cancelled"), "{cancelled}");
}

fn a_job_comes_back_with_its_proof(lab: &Lab) {
    let script = format!("{SPIN}; echo out; echo err >&2");
    // an overloaded host can delay the sampler: then a run is unproven, and tried again
    let words = ["run", "--cpus", "1", "--canary", "1", "--attempts", "10"];
    let command = ["busybox", "sh", "-c", &script];
    let output = lab.still(words.into_iter().chain(command)).run().unwrap();
    assert_eq!(output.code, Some(0), "{}", both(&output));
    let said = output.text();
    assert!(said.starts_with("out\n"), "{said}");
    assert!(said.contains("done, quiet"), "{said}");
    assert!(
        output.error_text().contains("err\n"),
        "{}",
        output.error_text()
    );

    let (jobs, _) = lab.json(["jobs"]);
    let id = jobs
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["id"].as_u64())
        .max();
    let id = id.flatten().unwrap().to_string();
    let stdout = lab.still(["job", "logs", &id]).run_ok().unwrap().text();
    assert_eq!(stdout, "out\n");
    let (shown, _) = lab.json(["job", "show", &id]);
    let attempts = shown["results"][0]["runs"]["attempts"].as_array().unwrap();
    assert!(
        attempts.iter().any(|run| run["verdict"] == "quiet"),
        "{shown:#}"
    );

    let proof = lab.home.path().join("proof");
    let out = proof.to_str().unwrap();
    lab.still(["job", "certificate", &id, "--out", out])
        .run_ok()
        .unwrap();
    let ca = lab
        .home
        .path()
        .join(".config/stillmetal/contexts/lab/ca.pem");
    let verify = || {
        lab.still(["verify", "--ca", ca.to_str().unwrap(), out])
            .run()
            .unwrap()
    };
    let verified = verify();
    assert!(verified.success(), "{}", both(&verified));
    change_one_byte(&proof);
    let refused = verify();
    assert_eq!(refused.code, Some(1), "{}", both(&refused));
    std::fs::remove_dir_all(&proof).unwrap();

    // all of it in one file, which holds by itself
    let bundle = lab.home.path().join("bundle.tar");
    let out = bundle.to_str().unwrap();
    lab.still(["results", "export", &id, "--out", out])
        .run_ok()
        .unwrap();
    let verify = || {
        lab.still(["verify", "--ca", ca.to_str().unwrap(), out])
            .run()
            .unwrap()
    };
    let verified = verify();
    assert!(verified.success(), "{}", both(&verified));
    assert!(
        verified.text().contains("of the given authority"),
        "{}",
        both(&verified)
    );
    let mut bytes = std::fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    let refused = verify();
    assert_eq!(refused.code, Some(1), "{}", both(&refused));
    std::fs::remove_file(&bundle).unwrap();
}

/// Series of a run that is as quiet as without them, and a reason for each that is not there.
fn tools_look_at_runs_and_disturb_none(lab: &Lab) {
    let words = ["run", "--cpus", "1", "--canary", "1", "--attempts", "10"];
    let tools = [
        "--tool",
        "light:200ms,network,energy?",
        "--tool",
        "perf:task-clock,page-faults",
    ];
    let command = ["busybox", "sh", "-c", SPIN];
    let (value, code) = lab.json(words.into_iter().chain(tools).chain(command));
    assert_eq!(code, 0, "{value:#}");
    let id = value["job"]["id"].to_string();
    let attempts = value["results"][0]["runs"]["attempts"].as_array().unwrap();
    let quiet = attempts.iter().find(|run| run["verdict"] == "quiet");
    let quiet = quiet.unwrap_or_else(|| panic!("none is quiet: {value:#}"));
    let missing = quiet["tools"]["energy"]["missing"].as_str().unwrap();
    assert!(missing.contains("virtual machine"), "{missing}");

    let series = lab.home.path().join("series");
    let out = series.to_str().unwrap();
    lab.still(["job", "tools", &id, "--out", out])
        .run_ok()
        .unwrap();
    let run = series.join(quiet["number"].to_string());
    for tool in ["cpu", "interrupts", "memory", "network"] {
        let text = std::fs::read_to_string(run.join(format!("{tool}.jsonl"))).unwrap();
        let mut lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let head = lines.next().unwrap();
        let times: Vec<i64> = lines.map(|row| row[0].as_i64().unwrap()).collect();
        let end = head["window_ns"][1].as_i64().unwrap();
        assert!(end > 0 && times[0] <= 0, "{tool}: {head:#}");
        assert!(*times.last().unwrap() >= end, "{tool}: {head:#}");
        assert!(times.is_sorted(), "{tool}: {times:?}");
        let samples = quiet["tools"][tool]["samples"].as_u64().unwrap();
        assert_eq!(times.len() as u64, samples, "{tool}");
    }
    // the job was on its CPU for as long as its window, and nobody else was
    let text = std::fs::read_to_string(run.join("perf.json")).unwrap();
    let counts: Value = serde_json::from_str(&text).unwrap();
    let clock = &counts["counts"][0];
    assert_eq!(clock["event"], "task-clock", "{counts:#}");
    let nanoseconds = clock["count"].as_u64().unwrap();
    let window = quiet["duration_ns"].as_u64().unwrap();
    assert!(
        nanoseconds > window / 2 && nanoseconds < window * 2,
        "{counts:#}"
    );
    std::fs::remove_dir_all(&series).unwrap();

    // what a machine lacks is named, and nothing is begun
    let refused = ["run", "--tool", "energy", "busybox", "true"];
    let refused = lab.still(refused).run().unwrap();
    assert_eq!(refused.code, Some(1), "{}", both(&refused));
    let said = refused.text() + &refused.error_text();
    assert!(
        said.contains("tool energy cannot run on this node"),
        "{said}"
    );

    // a program of the node is looked at as well, and counted by its cgroup
    let words = ["run", "--tool", "cpu:200ms,perf:task-clock", "--command"];
    let burn = ["/sbin/stillmetal-agent", "burn", "--seconds", "3"];
    let (value, code) = lab.json(words.into_iter().chain(burn));
    assert_eq!(code, 0, "{value:#}");
    let figures = &value["job"]["parts"][0]["ending"]["figures"];
    let samples = figures["tool cpu"].as_str().unwrap();
    assert!(samples.ends_with(" samples"), "{value:#}");
    assert_eq!(figures["tool perf"], "1 counts", "{value:#}");
    let id = value["job"]["id"].to_string();
    lab.still(["job", "tools", &id, "--out", out])
        .run_ok()
        .unwrap();
    let text = std::fs::read_to_string(series.join("1/perf.json")).unwrap();
    let counts: Value = serde_json::from_str(&text).unwrap();
    let nanoseconds = counts["counts"][0]["count"].as_u64().unwrap();
    assert!(nanoseconds > 2_000_000_000, "{counts:#}");
    std::fs::remove_dir_all(&series).unwrap();

    // its threads are where no run is
    let id = lab.begin(&[
        "--attempts",
        "1",
        "--tool",
        "all:100ms",
        "busybox",
        "sh",
        "-c",
        STUBBORN,
    ]);
    let find = "for t in /proc/[0-9]*/task/*; do [ \"$(cat $t/comm 2>/dev/null)\" = collect ] && \
                grep Cpus_allowed_list $t/status; done; true";
    let words = [
        "run",
        "--rm",
        "--privileged",
        "--pid",
        "host",
        "busybox",
        "sh",
        "-c",
        find,
    ];
    let docker = lab.docker();
    let found = docker.run(words).unwrap();
    assert!(found.success(), "{}", both(&found));
    assert_eq!(found.text(), "Cpus_allowed_list:\t0\n");
    lab.still(["job", "cancel", &id]).run_ok().unwrap();
    let job = lab.ended(&id);
    let documents = job["parts"][0]["documents"].as_array().unwrap();
    let kept = documents
        .iter()
        .any(|document| document["name"] == "tools/1/cpu.jsonl");
    assert!(kept, "{job:#}");
}

/// The first digit of a count in some certificate.
fn change_one_byte(folder: &Path) {
    let entry = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap();
    let text = std::fs::read_to_string(entry.path()).unwrap();
    let at = text.find("\"foreign").unwrap();
    let digit = at + text[at..].find(|c: char| c.is_ascii_digit()).unwrap();
    let other = if text.as_bytes()[digit] == b'7' {
        "8"
    } else {
        "7"
    };
    let changed = format!("{}{other}{}", &text[..digit], &text[digit + 1..]);
    std::fs::write(entry.path(), changed).unwrap();
}

fn failures_are_told_apart(lab: &Lab) {
    let run = |more: &[&str], script: &str| {
        let words = ["run", "--cpus", "1", "--canary", "0"];
        let command = ["busybox", "sh", "-c", script];
        let words = words.into_iter().chain(more.iter().copied()).chain(command);
        let (value, code) = lab.json(words);
        assert_eq!(code, 1, "{value:#}");
        value["job"].clone()
    };
    let ending = |job: &Value| job["parts"][0]["ending"].clone();
    let failed = run(&[], "exit 7");
    assert_eq!(failed["state"], "failed", "{failed:#}");
    assert_eq!(ending(&failed)["exit_code"], 7, "{failed:#}");
    let late = run(&["--timeout", "3s"], STUBBORN);
    assert_eq!(late["state"], "timed-out", "{late:#}");
    let mute = run(&["--output-timeout", "3s"], STUBBORN);
    assert_eq!(mute["state"], "timed-out", "{mute:#}");
    assert!(
        mute["reason"].as_str().unwrap().contains("wrote nothing"),
        "{mute:#}"
    );
    assert_eq!(lab.node()["jobs"], serde_json::json!([]));
}

fn the_docker_client_goes_through_the_controller(lab: &Lab) {
    let ada = lab.user();
    let docker = lab.docker_as(ada.path());
    // through controller, tunnel and the node's API, beside the engine itself
    let engine = crate::shared::ready().unwrap().bare_engine().unwrap();
    let archive = images::busybox().unwrap();
    // at the same time: each takes minutes, mostly of waiting for its own machine
    let (through, engine) = std::thread::scope(|scope| {
        let through = scope.spawn(|| transcript_of(&docker, &archive));
        let engine = transcript_of(&engine, &archive);
        (through.join().unwrap(), engine)
    });
    let found = transcript::unexpected_differences(&through, &engine);
    assert!(
        found.is_empty(),
        "not the engine's answers:\n{}",
        found.join("\n")
    );
    let forbidden = ["run", "--rm", "--privileged", "busybox", "true"];
    let refused = docker.run(forbidden).unwrap();
    assert!(!refused.success(), "a user ran it");
    let said = refused.error_text();
    assert!(said.contains("refused for role user"), "{said}");
}

/// What the client sees at an endpoint that has no containers.
fn transcript_of(docker: &Docker, archive: &Path) -> Vec<Seen> {
    let dir = testkit::scratch_folder("transcript").unwrap();
    let material = Material::prepare(dir.path(), archive, "busybox:latest").unwrap();
    transcript::run(docker, &material).unwrap()
}

/// Both are killed while a benchmark runs, which is neither ended nor begun again.
fn a_job_survives_its_controller_and_its_agent(lab: &Lab) {
    let script = "i=0; while [ $i -lt 20 ]; do sleep 1; i=$((i+1)); done; echo survived";
    let id = lab.begin(&["--attempts", "1", "busybox", "sh", "-c", script]);
    let controller = &lab.record()["controller"]["process"]["pid"];
    kill(controller.as_u64().unwrap());
    let docker = lab.docker();
    // `?` stands for the zero between the words; the shell must not find itself
    let agent = "sleep 1; for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline) in \
                 *stillmetal-agent?serve*) [ ${p#/proc/} -ne $$ ] && kill -9 ${p#/proc/};; esac; done";
    let words = [
        "run",
        "-d",
        "--privileged",
        "--pid",
        "host",
        "busybox",
        "sh",
        "-c",
        agent,
    ];
    eventually("the node is reached again", || {
        docker.run(words).unwrap().success()
    });
    let connected = lab.node()["connected_ms"].clone();
    eventually("the agent is another one", || {
        let node = lab.node();
        node["state"] == "ready" && node["connected_ms"] != connected
    });
    assert_eq!(lab.record()["controller"]["restarts"], 1);
    let job = lab.ended(&id);
    // it sleeps and is interrupted for that, which its certificate says
    let code = &job["parts"][0]["ending"]["exit_code"];
    assert_eq!((code, &job["attempts"]), (&0.into(), &1.into()), "{job:#}");
    let stdout = lab.still(["job", "logs", &id]).run_ok().unwrap().text();
    assert_eq!(stdout, "survived\n");
}

fn a_cancelled_job_frees_its_node(lab: &Lab) {
    let id = lab.begin(&["busybox", "sh", "-c", STUBBORN]);
    lab.still(["job", "cancel", &id, "--reason", "enough"])
        .run_ok()
        .unwrap();
    let job = lab.ended(&id);
    assert_eq!(job["state"], "cancelled", "{job:#}");
    let (next, code) = lab.json(["run", "--canary", "0", "busybox", "true"]);
    assert_eq!(code, 0, "{next:#}");
    // control-C asks for the same
    let words = ["run", "--canary", "0", "busybox", "sh", "-c", STUBBORN];
    let mut running = lab.still(words).spawn().unwrap();
    eventually("it runs", || lab.node()["jobs"] != serde_json::json!([]));
    running.interrupt().unwrap();
    let output = running.wait(JOB).unwrap();
    assert_eq!(output.code, Some(1), "{}", both(&output));
    assert!(output.text().contains("cancelled"), "{}", both(&output));
}

fn a_rebooted_node_is_the_same_node(lab: &Lab) {
    let before = lab.node();
    let rebooted = lab.still(["node", "reboot", "node1"]).run().unwrap();
    assert!(rebooted.success(), "{}", both(&rebooted));
    let boot = |node: &Value| node["facts"]["boot_id"].clone();
    let mut after = Value::Null;
    let back = testkit::poll(testkit::Deadline::after(UP), Duration::from_secs(1), || {
        after = lab.node();
        (after["state"] == "ready" && boot(&after) != boot(&before)).then_some(())
    });
    assert!(back.is_some(), "{after:#}");
    assert_eq!(
        (&after["id"], &after["name"]),
        (&before["id"], &before["name"])
    );
    let (next, code) = lab.json(["run", "--canary", "0", "busybox", "true"]);
    assert_eq!(code, 0, "{next:#}");
}

fn a_revoked_node_is_out(lab: &Lab) {
    lab.still(["node", "revoke", "node1"]).run_ok().unwrap();
    let (nodes, _) = lab.json(["nodes"]);
    let connected = |node: &Value| node["state"] != "offline";
    assert!(
        !nodes.as_array().unwrap().iter().any(connected),
        "{nodes:#}"
    );
}

fn kill(pid: u64) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found
}
