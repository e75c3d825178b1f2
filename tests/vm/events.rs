//! The verdict of a certified run in `docker events` of the stock client.

use std::time::Duration;

use serde_json::Value;

use crate::certify::certified;
use crate::look::{self, Looked};

/// What the client prints of the node's past, from the beginning to the second that is not over: it
/// sends whole seconds.
fn past(at: &Looked<'_>, filters: &[&str]) -> Vec<Value> {
    let mut command = vec!["events", "--since", "1", "--until=-1s"];
    command.extend(["--format", "{{json .}}"]);
    command.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
    lines(&at.user.run_ok(command).unwrap().text())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn find<'a>(events: &'a [Value], action: &str) -> (usize, &'a Value) {
    let begins = |event: &&Value| event["Action"].as_str().unwrap().starts_with(action);
    let index = events.iter().position(|event| begins(&event)).unwrap();
    (index, &events[index])
}

#[test]
#[ignore = "boots the image: VM lane"]
fn a_verdict_is_an_event_among_the_engines() {
    let node = look::shared();
    let only = ["event=stillmetal.verdict", "container=told"];
    let live = node
        .user
        .command([
            "events",
            "--format",
            "{{json .}}",
            "--filter",
            only[0],
            "--filter",
            only[1],
        ])
        .spawn()
        .unwrap();
    let options = ["--label", "team=blue"];
    let (_, certificate) = certified(node, "told", &options, &["sh", "-c", "exit 3"]);
    let action = format!(
        "stillmetal.verdict: {}",
        certificate["verdict"].as_str().unwrap()
    );
    live.wait_output("\n", Duration::from_secs(60)).unwrap();
    let heard = lines(&live.output_so_far());
    drop(live);
    assert_eq!(heard.len(), 1, "{heard:#?}");
    assert_eq!(heard[0]["Action"], action);
    assert_eq!(heard[0]["status"], action);
    assert_eq!(heard[0]["Type"], "container");
    assert_eq!(heard[0]["scope"], "local");
    let id = &certificate["evidence"]["container_id"];
    assert_eq!((&heard[0]["id"], &heard[0]["Actor"]["ID"]), (id, id));

    // the two clocks may differ a little
    let mut all = Vec::new();
    look::eventually("the container's removal is told", || {
        all = past(node, &["container=told"]);
        all.iter().any(|event| event["Action"] == "destroy")
    });
    assert_eq!(past(node, &only), heard);
    let ((died, death), (told, verdict), (gone, _)) = (
        find(&all, "die"),
        find(&all, "stillmetal.verdict"),
        find(&all, "destroy"),
    );
    assert!(died < told && told < gone, "{all:#?}");
    let times: Vec<i64> = all
        .iter()
        .map(|event| event["timeNano"].as_i64().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    // as the engine's own event of the same container, but for what belongs to each
    let attributes = |event: &Value, own: &str| {
        let mut attributes = event["Actor"]["Attributes"].as_object().unwrap().clone();
        attributes.remove(own).map(|_| attributes).unwrap()
    };
    let (ours, engines) = (
        attributes(verdict, "verdict"),
        attributes(death, "execDuration"),
    );
    assert_eq!(ours, engines);
    assert_eq!(
        (&ours["exitCode"], &ours["team"]),
        (&"3".into(), &"blue".into())
    );
    assert_eq!(past(node, &["container=told", "event=die"]).len(), 1);
}
