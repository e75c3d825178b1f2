//! Nodes whose clocks are wrong, and nobody near them tells the time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stillmetal_tests::people::{People, built};
use testkit::{ConfigOptions, Credentials, Invocation, Node, node};

/// Emulated, on a busy machine.
const WITHIN: Duration = Duration::from_secs(180);

/// A node of this controller whose clock shows this when it is switched on, in words of `date`.
fn boot(people: &People, name: &str, clock: &str) -> Node {
    let token = people.home.path().join(name);
    people.token(&token);
    let options = ConfigOptions {
        join_token: Some(token),
        ..ConfigOptions::default()
    };
    let date = Invocation::new("date").args(["-u", "+base=%Y-%m-%dT%H:%M:%S", "-d", clock]);
    let date = date.run_ok().unwrap().text();
    let credentials = Arc::new(Credentials::generate().unwrap());
    let description = node::describe(name, &credentials, &options)
        .unwrap()
        .param(&format!("stillmetal.hostname={name}"))
        .param(&format!(
            "stillmetal.controller={}",
            people.guests_address()
        ))
        .param(&format!("stillmetal.ca={}", people.address().1))
        .qemu_args(["-rtc", date.trim()]);
    Node::boot(&description, &credentials).unwrap()
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_clock_that_lags_by_hours_does_no_harm_and_one_that_lags_by_years_is_named() {
    let people = People::start(built);
    // first, while there is no other
    let lost = boot(&people, "lost", "2001-01-01");
    lost.vm.wait_line("check the clock", WITHIN).unwrap();
    assert_eq!(people.json(["nodes"]), serde_json::json!([]));
    lost.vm.kill().unwrap();

    let _lagging = boot(&people, "lagging", "20 hours ago");
    assert_eq!(people.node_in("ready")["name"], "lagging");
    let words = ["run", "--cpus", "1", "--detach", "busybox", "true"];
    let id = people.json(words)["id"].to_string();
    let job = people.job_in(&id, "done");
    // by the controller's clock
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ended = Duration::from_millis(job["ended_ms"].as_u64().unwrap());
    assert!(now.abs_diff(ended) < Duration::from_secs(600), "{job:#}");
    let proof = people.home.path().join("proof");
    let folder = proof.to_str().unwrap();
    let certificate = ["job", "certificate", &id, "--out", folder];
    people.still(certificate).ok().unwrap();
    let ca = people.home.path().join("admin/ca.pem");
    let verify = ["verify", "--ca", ca.to_str().unwrap(), folder];
    people.still(verify).ok().unwrap();
    people.stop();
}
