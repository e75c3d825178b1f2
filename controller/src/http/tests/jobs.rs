//! Submitting, reading and cancelling jobs.

use super::*;

#[tokio::test]
async fn a_job_is_submitted_read_and_cancelled() {
    let bench = Bench::new();
    let body = json!({ "image": "bench/demo:1", "argv": ["-n", "3"], "place": { "cpus": 2 } });
    let got = bench
        .ask(alice(), "POST", "/v1/jobs")
        .json(&body)
        .send()
        .await;
    assert_eq!(got.header("location"), "/v1/jobs/1");
    assert_eq!(got.header("cache-control"), "no-store");
    assert_eq!(got.header("x-content-type-options"), "nosniff");
    let job = got.job(201);
    assert_eq!(
        (job.id, job.user.as_str(), job.request.place.cpus),
        (JobId(1), "alice", 2)
    );
    assert_eq!(bench.get("/v1/jobs/1").await.job(200), job);
    let why = bench.get("/v1/jobs/1/why").await.json(200);
    assert_eq!(why["state"], "queued");
    assert_eq!(why["reasons"][0]["code"], "can-start");
    let got = bench
        .ask(alice(), "POST", "/v1/jobs/1/cancel")
        .json(&json!({ "reason": "no need" }))
        .send()
        .await;
    let job = got.job(200);
    assert_eq!(
        (job.state.as_str(), job.reason.as_deref()),
        ("cancelled", Some("no need"))
    );
    // once more, and without a body
    let got = bench.ask(alice(), "POST", "/v1/jobs/1/cancel").send().await;
    assert_eq!(got.at(409, "conflict"), "/v1/jobs/1/cancel");
}

#[tokio::test]
async fn a_metric_names_its_source_as_a_word_or_a_file() {
    let bench = Bench::new();
    let from = json!([
        { "name": "a", "regex": "(.*)" },
        { "name": "b", "regex": "(.*)", "from": "stderr" },
        { "name": "c", "pointer": "/c", "from": { "file": "/out.json" } },
    ]);
    let body = json!({ "image": "bench/demo:1", "metrics": from });
    let got = bench.ask(alice(), "POST", "/v1/jobs").json(&body).send();
    let job = got.await.job(201);
    let source = &job.request.metrics[2].from;
    assert_eq!(*source, api::metric::Source::File("/out.json".into()));
    for wrong in [json!({ "stdout": null }), json!("file"), json!(["/x"])] {
        let metrics = json!([{ "name": "a", "regex": "(.*)", "from": wrong }]);
        let body = json!({ "image": "bench/demo:1", "metrics": metrics });
        let got = bench.ask(alice(), "POST", "/v1/jobs").json(&body).send();
        got.await.problem(400, "invalid");
    }
}

#[tokio::test]
async fn somebody_elses_job_is_not_ones_own() {
    let bench = Bench::new();
    let id = bench.job().await;
    let uri = format!("/v1/jobs/{id}/cancel");
    let bob = client("bob", Role::User);
    bench
        .ask(bob, "POST", &uri)
        .send()
        .await
        .problem(403, "forbidden");
    bench.ask(root(), "POST", &uri).send().await.job(200);
}

#[tokio::test]
async fn a_batch_is_all_or_none() {
    let bench = Bench::new();
    let good = json!({ "image": "a" });
    let batch = |jobs: Value| bench.ask(alice(), "POST", "/v1/jobs/batch").json(&jobs);
    let got = batch(json!([good, good, good])).send().await.json(201);
    let ids: Vec<_> = got
        .as_array()
        .unwrap()
        .iter()
        .map(|job| &job["id"])
        .collect();
    assert_eq!(ids, [1, 2, 3]);
    let got = batch(json!([good, { "image": "a", "place": { "cpus": 0 } }]))
        .send()
        .await;
    assert_eq!(got.at(400, "invalid"), "/1/place/cpus");
    let got = batch(json!([good, { "image": "a", "queue": "nowhere" }]))
        .send()
        .await;
    assert_eq!(got.at(404, "no-such-queue"), "/1/queue");
    let got = batch(json!([good, { "image": "a", "speed": 1 }]))
        .send()
        .await;
    assert_eq!(got.at(400, "invalid"), "/1/speed");
    assert_eq!(batch(json!([])).send().await.at(400, "invalid"), "/");
    let got = batch(json!(vec![good.clone(); 10_001])).send().await;
    assert_eq!(got.at(400, "invalid"), "/");
    let page = bench.get("/v1/jobs").await.json(200);
    assert_eq!(
        page["items"].as_array().unwrap().len(),
        3,
        "nothing of the others is left"
    );
}

#[tokio::test]
async fn a_large_batch_is_taken() {
    let bench = Bench::new();
    let jobs = json!(vec![
        json!({ "image": "a", "argv": ["x".repeat(100)] });
        10_000
    ]);
    let got = bench
        .ask(alice(), "POST", "/v1/jobs/batch")
        .json(&jobs)
        .send()
        .await;
    assert_eq!(got.json(201).as_array().unwrap().len(), 10_000);
}

#[tokio::test]
async fn the_same_key_is_the_same_submission() {
    let bench = Bench::new();
    let submit = |peer: Peer, key: &'static [u8], image: &str| {
        let ask = bench.ask(peer, "POST", "/v1/jobs");
        ask.json(&json!({ "image": image }))
            .header("idempotency-key", key)
    };
    let first = submit(alice(), b"k 1", "a").send().await.job(201);
    let again = submit(alice(), b"k 1", "a").send().await.job(201);
    assert_eq!(first.id, again.id);
    let other = submit(alice(), b"k 1", "b").send().await;
    other.problem(409, "key-reused");
    let bob = client("bob", Role::User);
    assert_ne!(submit(bob, b"k 1", "a").send().await.job(201).id, first.id);
    let long = &*vec![b'k'; 129].leak();
    for key in [b"".as_slice(), b"\xc3\xa4", b"\xff", b"a\tb", long] {
        let got = submit(alice(), key, "a").send().await;
        assert_eq!(got.at(400, "invalid"), "header Idempotency-Key", "{key:?}");
    }
    let twice = submit(alice(), b"a", "a").header("idempotency-key", "b");
    assert_eq!(
        twice.send().await.at(400, "invalid"),
        "header Idempotency-Key"
    );
    let longest = &*vec![b'k'; 128].leak();
    submit(alice(), longest, "a").send().await.job(201);
}

#[tokio::test]
async fn full_and_closed_queues_say_so() {
    let bench = Bench::new();
    for (name, settings) in [
        ("small", json!({ "capacity": 1 })),
        ("closed", json!({ "draining": true })),
        ("private", json!({ "users": ["bob"] })),
    ] {
        let uri = format!("/v1/queues/{name}");
        bench
            .ask(root(), "PUT", &uri)
            .json(&settings)
            .send()
            .await
            .json(200);
    }
    let submit = |queue: &str| {
        let body = json!({ "image": "a", "queue": queue });
        bench.ask(alice(), "POST", "/v1/jobs").json(&body)
    };
    submit("small").send().await.job(201);
    let got = submit("small").send().await;
    got.problem(429, "queue-full");
    assert_eq!(got.header("retry-after"), "5");
    submit("closed").send().await.problem(409, "queue-draining");
    submit("private").send().await.problem(403, "forbidden");
    submit("nowhere").send().await.problem(404, "no-such-queue");
}

#[tokio::test]
async fn numbers_of_jobs_are_read_strictly() {
    let bench = Bench::new();
    for text in [
        "7",
        "9223372036854775807",
        "9223372036854775808",
        "99999999999999999999999",
    ] {
        for end in ["", "/why", "/logs", "/documents/a/b"] {
            let got = bench.get(&format!("/v1/jobs/{text}{end}")).await;
            got.problem(404, "no-such-job");
        }
    }
    for text in ["x", "-1", "+1", "1.0", "0x1", "%20", "1%00"] {
        let got = bench.get(&format!("/v1/jobs/{text}")).await;
        assert_eq!(got.at(400, "invalid"), "path parameter id", "{text}");
    }
    let got = bench.get("/v1/jobs/%ff").await;
    assert_eq!(got.at(400, "invalid"), "path");
}

#[tokio::test]
async fn a_reason_is_one_line() {
    let bench = Bench::new();
    let id = bench.job().await;
    let cancel = |body: Value| {
        bench
            .ask(alice(), "POST", &format!("/v1/jobs/{id}/cancel"))
            .json(&body)
    };
    for reason in ["a\u{1b}[2Jb".to_owned(), "x".repeat(1001)] {
        let got = cancel(json!({ "reason": reason })).send().await;
        assert_eq!(got.at(400, "invalid"), "/reason");
    }
    let got = cancel(json!({ "why": "x" })).send().await;
    assert_eq!(got.at(400, "invalid"), "/why");
    cancel(json!({})).send().await.job(200);
}
