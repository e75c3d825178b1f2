use serde_json::{Value, json};
use stillmetal_fakes::{FakeEngine, packed};

use super::*;

fn declared(metrics: Value) -> Vec<Metric> {
    serde_json::from_value(metrics).unwrap()
}

fn tail(text: &str) -> Tail {
    let mut tail = Tail::default();
    tail.push(text.as_bytes());
    tail
}

fn run(repetition: Option<u32>, verdict: Verdict, outcome: Outcome) -> Attempt {
    serde_json::from_value(json!({
        "number": 1, "repetition": repetition, "container": "c1", "verdict": verdict, "reasons": [],
        "outcome": outcome, "failure": null, "exit_code": 0, "signal": null, "duration_ns": 5,
        "stdout": "", "stderr": "", "truncated": false,
    }))
    .unwrap()
}

async fn engine() -> (tempfile::TempDir, FakeEngine, EngineClient) {
    let folder = tempfile::tempdir().unwrap();
    let engine = FakeEngine::start(folder.path().join("engine.sock"));
    let client = EngineClient::new(&engine.socket);
    (folder, engine, client)
}

#[tokio::test]
async fn each_metric_is_read_from_its_own_place() {
    let (_folder, engine, client) = engine().await;
    engine.put(
        "c1",
        "/out/r.json",
        packed::file("r.json", br#"{"p": [1, 2.5]}"#),
    );
    let metrics = declared(json!([
        {"name": "rate", "unit": "req/s", "direction": "higher", "regex": "rate: (\\S+)"},
        {"name": "lost", "from": "stderr", "regex": "lost (\\d+)"},
        {"name": "p1", "from": {"file": "/out/r.json"}, "pointer": "/p/1"},
        {"name": "p0", "from": {"file": "/out/r.json"}, "pointer": "/p/0"},
    ]));
    let mut tails = streams(&metrics);
    assert!(tails.stdout.is_some() && tails.stderr.is_some());
    tails.stdout = Some(tail("rate: 1\nrate: 20\n"));
    tails.stderr = Some(tail("lost 3"));
    let found = of_container(&client, "c1", &metrics, Ok(tails)).await;
    assert_eq!(found.lack, None);
    let expected = json!({
        "rate": {"value": 20.0, "unit": "req/s", "direction": "higher"},
        "lost": {"value": 3.0, "unit": "", "direction": "lower"},
        "p1": {"value": 2.5, "unit": "", "direction": "lower"},
        "p0": {"value": 1.0, "unit": "", "direction": "lower"},
    });
    assert_eq!(serde_json::to_value(&found.readings).unwrap(), expected);
    let asked = engine.asked();
    let archives = asked.iter().filter(|asked| asked.contains("/archive"));
    assert_eq!(archives.count(), 1, "{asked:?}");
}

#[tokio::test]
async fn what_is_missing_has_its_reason_and_its_culprit() {
    let (_folder, engine, client) = engine().await;
    engine.put("c1", "/out", packed::folder("out", &[]));
    for (from, why, fault) in [
        (json!("stdout"), "nothing matches", Fault::Benchmark),
        (
            json!({"file": "/x"}),
            "file /x: not in the container",
            Fault::Benchmark,
        ),
        (
            json!({"file": "/out"}),
            "file /out: is a folder",
            Fault::Benchmark,
        ),
    ] {
        let metrics = declared(json!([
            {"name": "there", "regex": "(x)?", "from": "stderr"},
            {"name": "m", "from": from, "regex": "(a)"},
        ]));
        let mut tails = streams(&metrics);
        tails.stderr = Some(tail("7"));
        let found = of_container(&client, "c1", &metrics, Ok(tails)).await;
        let Reading::Missing { missing } = &found.readings["m"] else {
            panic!("{found:?}");
        };
        assert!(missing.contains(why), "{missing}");
        // the first that was declared is the one that is named
        let lack = found.lack.unwrap();
        assert!(lack.why.starts_with("metric there: "), "{lack:?}");
        assert_eq!(lack.fault, fault);
    }
    let metrics = declared(json!([{"name": "m", "regex": "(.)"}]));
    let found = of_container(&client, "c1", &metrics, Err("broken off".into())).await;
    let lack = found.lack.unwrap();
    assert_eq!(
        (lack.why.as_str(), lack.fault),
        ("metric m: broken off", Fault::Node)
    );
    engine.die().await;
    let metrics = declared(json!([{"name": "m", "from": {"file": "/x"}, "regex": "(.)"}]));
    let found = of_container(&client, "c1", &metrics, Ok(Tails::default())).await;
    assert_eq!(found.lack.unwrap().fault, Fault::Node);
}

#[test]
fn a_run_that_lacks_something_is_no_success() {
    let lack = |fault| Lack {
        why: "metric m: nothing matches".into(),
        fault,
    };
    for (before, fault, after) in [
        (Outcome::Succeeded, Fault::Benchmark, Outcome::Failed),
        (Outcome::Succeeded, Fault::Node, Outcome::Unknown),
    ] {
        let mut one = run(Some(1), Verdict::Quiet, before);
        judge(&mut one, Some(lack(fault)));
        assert_eq!(one.outcome, after);
        assert_eq!(one.failure.as_deref(), Some("metric m: nothing matches"));
        assert_eq!(
            figures(&declared(json!([{"name": "m", "regex": "(.)"}])), &[one]),
            BTreeMap::new()
        );
    }
    // why the program failed is not hidden behind what it did not write
    let mut one = run(Some(1), Verdict::Quiet, Outcome::TimedOut);
    one.failure = Some("too long".into());
    let before = one.clone();
    judge(&mut one, Some(lack(Fault::Benchmark)));
    assert_eq!(one, before);
    let mut one = run(Some(1), Verdict::Quiet, Outcome::Succeeded);
    judge(&mut one, None);
    assert_eq!(one.outcome, Outcome::Succeeded);
}

#[test]
fn figures_are_of_the_quiet_runs_that_count() {
    let metrics = declared(json!([
        {"name": "m", "unit": "s", "direction": "higher", "regex": "(.)"},
        {"name": "never", "regex": "(.)"},
    ]));
    let with = |run: Attempt, value: f64| {
        let reading = json!({"value": value, "unit": "s", "direction": "higher"});
        let reading = serde_json::from_value(reading).unwrap();
        Attempt {
            metrics: BTreeMap::from([("m".to_owned(), reading)]),
            ..run
        }
    };
    let done = [
        with(run(None, Verdict::Quiet, Outcome::Succeeded), 1000.0),
        with(run(Some(1), Verdict::Noisy, Outcome::Succeeded), 2000.0),
        with(run(Some(1), Verdict::Quiet, Outcome::Succeeded), 1.0),
        with(run(Some(2), Verdict::Quiet, Outcome::Succeeded), 3.0),
        with(run(Some(3), Verdict::Quiet, Outcome::Succeeded), 2.0),
        with(run(Some(4), Verdict::Quiet, Outcome::Failed), 4000.0),
    ];
    let found = figures(&metrics, &done);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["m"]);
    let figures = &found["m"];
    assert_eq!(figures.unit, "s");
    assert_eq!(figures.direction.as_str(), "higher");
    assert_eq!(
        (
            figures.values.samples,
            figures.values.median,
            figures.values.max
        ),
        (3, 2.0, 3.0)
    );
}
