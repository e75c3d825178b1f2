//! The agent as a daemon: what it takes, what it says, what it leaves.

use testkit::scratch_folder;

use crate::engine::Engine;
use stillmetal_tests::people::{Agent, People, program};

const WHY: &str = "the host has no isolated CPU";

#[test]
#[ignore = "needs root and docker.io: root lane"]
fn a_host_takes_unproven_work_and_its_agent_comes_back_to_it() {
    let (engine, people) = (Engine::start(), People::start(program));
    let home = scratch_folder("agent").unwrap();
    people.token(&home.path().join("token"));
    let agent = || Agent::start(&people, &engine.socket(), home.path(), &[]);
    let first = agent();
    let node = people.node_in("ready");
    assert!(!home.path().join("token").exists(), "the token is taken");
    it_says_what_it_is(&people);
    a_job_comes_back_unproven_with_the_reason(&people);
    work_that_wants_more_waits_and_is_told_why(&people);
    its_power_is_the_hosts(&people);
    an_image_comes_without_the_layers_that_are_there(&people, &engine);

    // what runs goes on without the agent, and the next one brings its result
    let words = ["run", "--unproven", "--detach", "busybox", "sleep", "6"];
    let id = people.json(words)["id"].to_string();
    drop(people.job_in(&id, "measuring"));
    let runs = engine.containers();
    assert!(runs.starts_with("stillmetal-run-"), "{runs}");
    first.end();
    assert_eq!(engine.text(["ps", "--format", "{{.Names}}"]), runs);
    let second = agent();
    assert_eq!(people.node_in("ready")["id"], node["id"], "the same node");
    let job = people.job_in(&id, "done");
    assert_eq!(job["parts"][0]["ending"]["verdict"], "unproven", "{job:#}");
    second.end();
    assert_eq!(engine.containers(), "");
    people.stop();
}

fn an_image_comes_without_the_layers_that_are_there(people: &People, engine: &Engine) {
    let folder = people.home.path().join("grown");
    std::fs::create_dir(&folder).unwrap();
    let at = |name: &str| folder.join(name).display().to_string();
    std::fs::write(at("new"), "a layer of its own\n").unwrap();
    engine.text(["create", "--network", "none", "--name", "base", "busybox"]);
    engine.text(["cp", &at("new"), "base:/new"]);
    engine.text(["commit", "base", "grown:1"]);
    engine.text(["save", "-o", &at("grown.tar"), "grown:1"]);
    engine.text(["rm", "base"]);
    // its own layer goes, those of busybox stay
    engine.text(["rmi", "grown:1"]);
    let push = ["image", "push", &at("grown.tar")];
    people.still(push).ok().unwrap();
    let job = ["run", "--unproven", "grown:1", "cat", "/new"];
    let said = people.still(job).ok().unwrap().text();
    assert!(said.contains("a layer of its own"), "{said}");
    let events = people.still(["--json", "events"]).ok().unwrap().text();
    let sent: Vec<serde_json::Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|event: &serde_json::Value| event["kind"] == "node.image")
        .map(|mut event| event["data"].take())
        .collect();
    let [whole, rest] = &sent[..] else {
        panic!("{events}");
    };
    assert_eq!(whole["bytes"], whole["of"], "{whole}");
    assert_eq!(rest["layers_there"], 1, "{rest}");
    let bytes = |name: &str| rest[name].as_u64().unwrap();
    // a file of one line, the configuration, the manifest
    assert!(bytes("bytes") < 64 * 1024, "{rest}");
    assert!(bytes("of") > 1024 * 1024, "{rest}");
}

fn it_says_what_it_is(people: &People) {
    let facts = people.node()["facts"].take();
    assert_eq!(facts["isolated"], false, "{facts:#}");
    let why = facts["unproven"].as_str().unwrap();
    assert!(why.starts_with(WHY), "{why}");
    let lacks = facts["lacks"].to_string();
    assert!(lacks.contains("--allow-power"), "{lacks}");
}

fn a_job_comes_back_unproven_with_the_reason(people: &People) {
    let script = "grep Cpus_allowed_list /proc/self/status";
    let words = ["run", "--unproven", "busybox", "sh", "-c", script];
    let output = people.still(words).ok().unwrap();
    let said = output.text();
    let job = people.json(["job", "show", "1"]);
    let part = &job["job"]["parts"][0];
    // pinned to what it was given
    let cpus = part["cpus"].as_str().unwrap();
    assert!(
        said.contains(&format!("Cpus_allowed_list:\t{cpus}\n")),
        "{said}"
    );
    assert!(
        said.contains("done, unproven") && said.contains(WHY),
        "{said}"
    );
    let proof = people.home.path().join("proof");
    let folder = proof.to_str().unwrap();
    let certificate = ["job", "certificate", "1", "--out", folder];
    people.still(certificate).ok().unwrap();
    let file = std::fs::read_dir(&proof).unwrap().next().unwrap().unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    let certificate: quiet::Certificate = serde_json::from_str(&text).unwrap();
    assert_eq!(certificate.verdict, quiet::Verdict::Unproven);
    assert!(certificate.evidence.troubles[0].starts_with(WHY));
    let ca = people.home.path().join("admin/ca.pem");
    let verify = ["verify", "--ca", ca.to_str().unwrap(), folder];
    people.still(verify).ok().unwrap();
    let failed = people.still(["run", "--unproven", "busybox", "sh", "-c", "exit 7"]);
    assert_eq!(failed.code, Some(1), "{}", failed.text());
    assert!(failed.text().contains("exited with 7"), "{}", failed.text());
}

fn work_that_wants_more_waits_and_is_told_why(people: &People) {
    let id = people.json(["run", "--detach", "busybox", "true"])["id"].to_string();
    let why = people.still(["job", "why", &id]).ok().unwrap().text();
    assert!(why.contains("--unproven") && why.contains(WHY), "{why}");
    people.still(["job", "cancel", &id]).ok().unwrap();
}

fn its_power_is_the_hosts(people: &People) {
    let name = people.node()["name"].as_str().unwrap().to_owned();
    let refused = people.still(["node", "reboot", &name]);
    assert_eq!(refused.code, Some(2), "{}", refused.error_text());
    let said = refused.error_text();
    assert!(said.contains("not the agent's to switch"), "{said}");
}
