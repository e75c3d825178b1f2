//! Metrics, artifacts and tools: asked for, shown and fetched.

use api::fleet::NodeId;
use api::job::{JobId, JobState};
use api::work::PartOutcome;
use client::fake::{FakeController, ending};
use serde_json::{Value, json};

use crate::program::Home;

const FIRST: JobId = JobId(1);

async fn start() -> (FakeController, Home) {
    let fake = FakeController::start().await.unwrap();
    let home = Home::with(&fake);
    (fake, home)
}

fn node(name: &str) -> NodeId {
    NodeId::try_from(name.to_owned()).unwrap()
}

/// A series with metrics, as a node reports it.
fn result() -> Vec<u8> {
    let interval = json!({ "low": 1000.5, "high": 1300.0, "confidence": 0.95 });
    let values = |median: f64, interval: Value| {
        json!({
            "samples": if interval.is_null() { 1 } else { 3 }, "median": median, "mad": 12.5,
            "min": 1000.5, "max": 1300.0, "interval": interval,
        })
    };
    serde_json::to_vec(&json!({
        "id": "r", "state": "done", "error": null,
        "request": { "image": "x", "cpus": 1, "metrics": [
            { "name": "rate", "unit": "req/s", "direction": "higher", "regex": "(.)" },
            { "name": "cost", "pointer": "/cost" },
        ] },
        "image": "", "cpus": "1", "attempts": [], "duration_ns": null, "left_out": [],
        "metrics": {
            "cost": { "unit": "", "direction": "lower", "values": values(0.25, Value::Null) },
            "rate": { "unit": "req/s", "direction": "higher", "values": values(1234.5, interval) },
        },
    }))
    .unwrap()
}

#[tokio::test]
async fn metrics_are_declared_and_shown_with_their_direction() {
    let (fake, home) = start().await;
    home.run("run --detach --metric rate:req/s:higher=rate:(.*) --artifact /out x")
        .await
        .ok();
    let request = fake.read(|state| state.jobs[&FIRST].status.request.clone());
    assert_eq!(request.metrics[0].regex.as_deref(), Some("rate:(.*)"));
    assert_eq!(request.artifacts, ["/out"]);
    home.run("run --detach --metric rate=rate: x")
        .await
        .failed(2, "metric \"rate\": its regex \"rate:\" has no group");

    fake.change(|state| {
        state.assign(FIRST, &node("n1"), "1");
        state.store(FIRST, &node("n1"), "result.json", &result());
        state.end(FIRST, JobState::Done, &ending(PartOutcome::Done));
    });
    let shown = home.run("job show 1").await.ok().stdout;
    for line in [
        "rate: median 1234.5 req/s, median deviation 12.5, 1000.5 to 1300 (higher is better)\n",
        "95 % interval of the median 1000.5 to 1300\n",
        "cost: 0.25 (lower is better; one run: no spread is known)\n",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    let rate = shown.find("rate: median").unwrap();
    assert!(
        rate < shown.find("cost: 0.25").unwrap(),
        "as declared: {shown}"
    );
}

#[tokio::test]
async fn artifacts_are_listed_and_fetched_by_run() {
    let (fake, home) = start().await;
    home.run("run --detach --nodes 2 --artifact /out x")
        .await
        .ok();
    home.run("job artifacts 1")
        .await
        .failed(3, "job 1 (queued) has no such artifacts");
    fake.change(|state| {
        for name in ["n1", "n2"] {
            state.assign(FIRST, &node(name), "1");
            state.store(FIRST, &node(name), "stdout", b"no artifact");
            for run in 1..=2 {
                let bytes = format!("{name} {run}");
                let name_of = format!("artifacts/{run}/1.tar");
                state.store(FIRST, &node(name), &name_of, bytes.as_bytes());
            }
        }
        state.end(FIRST, JobState::Done, &ending(PartOutcome::Done));
    });
    let listed = home.run("job artifacts 1").await.ok().stdout;
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.starts_with("n1: 1/1.tar (4 B)\n"), "{listed}");

    let out = home.path().join("out");
    let out_text = out.display();
    home.run(&format!("job artifacts 1 --out {out_text}"))
        .await
        .ok();
    for name in ["n1", "n2"] {
        for run in 1..=2 {
            let path = out.join(name).join(run.to_string()).join("1.tar");
            assert_eq!(
                std::fs::read_to_string(path).unwrap(),
                format!("{name} {run}")
            );
        }
    }
    let one = home
        .run("job artifacts 1 --node n2 --run 2 --json")
        .await
        .ok()
        .json();
    assert_eq!(one.as_array().unwrap().len(), 1);
    assert_eq!(one[0]["document"]["name"], "artifacts/2/1.tar");

    // what was changed on its way is not kept
    fake.change(|state| {
        let job = state.jobs.get_mut(&FIRST).unwrap();
        job.documents.values_mut().for_each(|bytes| bytes[0] ^= 1);
    });
    let other = home.path().join("other");
    home.run(&format!(
        "job artifacts 1 --run 1 --out {}",
        other.display()
    ))
    .await
    .failed(3, "SHA-256");
    let left = std::fs::read_dir(other.join("n1/1")).unwrap().count();
    assert_eq!(left, 0);
}

/// A series of two runs that tools looked at.
fn seen() -> Vec<u8> {
    let run = |number: u64, tools: Value| {
        json!({
            "number": number, "repetition": number, "container": "c", "verdict": "unproven", "reasons": [],
            "outcome": "succeeded", "failure": null, "exit_code": 0, "signal": null, "duration_ns": 1,
            "stdout": "", "stderr": "", "truncated": false, "tools": tools,
        })
    };
    let cpu = |samples: u64| json!({ "document": "tools/1/cpu.jsonl", "samples": samples });
    let perf = json!({
        "document": "tools/1/perf.json", "samples": 4, "lost": ["cycles: this CPU does not count it"],
    });
    let none = json!({ "missing": "no RAPL" });
    serde_json::to_vec(&json!({
        "id": "r", "state": "unproven", "error": null, "request": { "image": "x", "cpus": 1 },
        "image": "", "cpus": "1", "duration_ns": null, "left_out": [], "metrics": {},
        "attempts": [
            run(1, json!({ "cpu": cpu(12), "energy": none, "perf": perf })),
            run(2, json!({ "cpu": cpu(14), "energy": none })),
        ],
    }))
    .unwrap()
}

#[tokio::test]
async fn tools_are_asked_for_shown_and_fetched() {
    let (fake, home) = start().await;
    home.run("run --detach --tool light,energy? --tool perf:cycles,branches x")
        .await
        .ok();
    let request = fake.read(|state| state.jobs[&FIRST].status.request.clone());
    assert_eq!(request.tools, ["light", "energy?", "perf:cycles,branches"]);
    home.run("run --detach --tool gpu x")
        .await
        .failed(2, "no tool \"gpu\" is known");
    home.run("run --detach x").await.ok();
    home.run("job tools 2")
        .await
        .failed(3, "asked for no tools");

    fake.change(|state| {
        state.assign(FIRST, &node("n1"), "1");
        state.store(FIRST, &node("n1"), "result.json", &seen());
        state.store(FIRST, &node("n1"), "tools/1/cpu.jsonl", b"{}\n[0]\n");
        state.store(FIRST, &node("n1"), "artifacts/1/cpu.jsonl", b"another");
        state.end(FIRST, JobState::Done, &ending(PartOutcome::Done));
    });
    let shown = home.run("job show 1").await.ok().stdout;
    for line in [
        "light, energy?, perf:cycles,branches\n",
        "cpu: 12 to 14 samples of 2 runs\n",
        "energy: nothing\n",
        "not seen: no RAPL\n",
        "perf: 4 counts of 1 run\n",
        "not seen: cycles: this CPU does not count it\n",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    let listed = home.run("job tools 1").await.ok().stdout;
    assert_eq!(listed, "n1: 1/cpu.jsonl (7 B)\n");
    let out = home.path().join("series");
    home.run(&format!("job tools 1 --out {}", out.display()))
        .await
        .ok();
    let fetched = std::fs::read_to_string(out.join("1/cpu.jsonl")).unwrap();
    assert_eq!(fetched, "{}\n[0]\n");
}
