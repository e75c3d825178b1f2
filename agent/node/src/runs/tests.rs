//! What is refused before anything is made.

use serde_json::{Value, json};

use super::*;
use crate::Node;

/// Of which nothing can be read, and whose engine does not answer.
fn node(folder: &std::path::Path) -> Node {
    let node = crate::node::tests::node(folder);
    let report = json!({
        "state": "fit",
        "cpus": {
            "online": "0-1", "present": "0-1", "isolated": "1", "housekeeping": "0", "nohz_full": "1",
            "boot_isolated": "", "offlined_siblings": "", "numa_nodes": {},
        },
        "cpufreq_drivers": {}, "hypervisor": false, "clocksource": null, "warnings": [], "knobs": [],
        "irqs_unmovable": [], "kthreads_unmovable": [],
    });
    node.set_report(serde_json::from_value(report).unwrap());
    node
}

fn with(field: &str, value: Value) -> RunRequest {
    let mut request = json!({ "image": "x", "cpus": 1 });
    request[field] = value;
    serde_json::from_value(request).unwrap()
}

#[tokio::test]
async fn a_tool_that_cannot_run_is_named_before_the_image_is_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path());
    let prepare = async |tools: Value| {
        let request = with("tools", tools);
        let prepared = node.runs().prepare(Role::User, request, Seat::default());
        prepared.await.unwrap_err()
    };
    let denial = prepare(json!(["energy?", "energy:1s"])).await;
    assert!(
        denial.message.contains("energy is asked for twice"),
        "{denial:?}"
    );
    let denial = prepare(json!(["light", "energy"])).await;
    assert_eq!(denial.status, 400, "no node would take it: {denial:?}");
    for part in ["tool energy cannot run on this node", "no RAPL"] {
        assert!(denial.message.contains(part), "{denial:?}");
    }
    // the next thing that is missing
    let denial = prepare(json!(["light", "energy?"])).await;
    assert_eq!(denial.status, 503, "the engine: {denial:?}");
}

#[tokio::test]
async fn a_series_of_the_nodes_own_keeps_neither_artifacts_nor_series_of_tools() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path());
    for (field, value) in [("artifacts", json!(["/a"])), ("tools", json!(["cpu"]))] {
        let denial = node.runs().start(Role::User, with(field, value)).await;
        let denial = denial.unwrap_err();
        assert_eq!(denial.status, 400);
        assert!(denial.message.contains("nowhere to keep"), "{denial:?}");
    }
}
