//! What jobs leave behind.

use api::job::JobState;
use axum::http::StatusCode;

use super::*;

const TEXT: &str = "0123456789";
const SHA256: &str = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882";

async fn bench() -> (Bench, JobId) {
    let bench = Bench::new();
    let (job, nodes) = bench.placed(&["n1"]).await;
    bench.fake.store_document(job, &nodes[0], "stdout", TEXT);
    bench
        .fake
        .store_document(job, &nodes[0], "tools/perf stat.json", "{}");
    bench.fake.store_document(job, &nodes[0], "empty.bin", "");
    bench.fake.advance(job, JobState::Done);
    (bench, job)
}

#[tokio::test]
async fn a_document_by_node_and_name() {
    let (bench, job) = bench().await;
    let got = bench
        .get(&format!("/v1/jobs/{job}/documents/n1/stdout"))
        .await;
    assert_eq!(
        (got.status, got.body.as_slice()),
        (StatusCode::OK, TEXT.as_bytes())
    );
    assert_eq!(got.header("etag"), format!("\"{SHA256}\""));
    assert_eq!(got.header("content-length"), "10");
    assert_eq!(got.header("accept-ranges"), "bytes");
    assert_eq!(got.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(got.header("content-security-policy"), "sandbox");
    assert_eq!(got.header("x-content-type-options"), "nosniff");
    for name in ["tools/perf%20stat.json", "tools%2Fperf%20stat.json"] {
        let got = bench
            .get(&format!("/v1/jobs/{job}/documents/n1/{name}"))
            .await;
        assert_eq!(
            (got.status, got.body.as_slice()),
            (StatusCode::OK, b"{}".as_slice())
        );
        assert_eq!(got.header("content-type"), "application/json");
    }
    let got = bench
        .get(&format!("/v1/jobs/{job}/documents/n1/empty.bin"))
        .await;
    assert_eq!((got.status, got.body.len()), (StatusCode::OK, 0));
    assert_eq!(got.header("content-type"), "application/octet-stream");
    let uri = format!("/v1/jobs/{job}/documents/n1/stdout");
    let got = bench.ask(alice(), "HEAD", &uri).send().await;
    assert_eq!((got.status, got.body.len()), (StatusCode::OK, 0));
    assert_eq!(got.header("content-length"), "10");
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let (bench, job) = bench().await;
    let got = bench
        .get(&format!("/v1/jobs/{job}/documents/n9/stdout"))
        .await;
    let problem = got.problem(404, "no-such-document");
    assert!(problem.next.unwrap().contains("n1"));
    let got = bench
        .get(&format!("/v1/jobs/{job}/documents/n1/stdout%00"))
        .await;
    let problem = got.problem(404, "no-such-document");
    assert!(problem.next.unwrap().contains("stdout"));
    for name in ["../stdout", "%2e%2e/stdout", "stdout/", "Stdout"] {
        let got = bench
            .get(&format!("/v1/jobs/{job}/documents/n1/{name}"))
            .await;
        got.problem(404, "no-such-document");
    }
    let waiting = bench.job().await;
    let got = bench.get(&format!("/v1/jobs/{waiting}/logs")).await;
    let problem = got.problem(404, "no-such-document");
    assert!(problem.next.unwrap().contains("wait=60"));
}

#[tokio::test]
async fn ranges() {
    let (bench, job) = bench().await;
    let uri = format!("/v1/jobs/{job}/documents/n1/stdout");
    let ask = |range: &str| bench.ask(alice(), "GET", &uri).header("range", range);
    for (range, content_range, text) in [
        ("bytes=0-3", "bytes 0-3/10", "0123"),
        ("bytes=4-", "bytes 4-9/10", "456789"),
        ("bytes=-2", "bytes 8-9/10", "89"),
        ("bytes=9-99", "bytes 9-9/10", "9"),
    ] {
        let got = ask(range).send().await;
        assert_eq!(
            (got.status, got.body.as_slice()),
            (StatusCode::PARTIAL_CONTENT, text.as_bytes())
        );
        assert_eq!(got.header("content-range"), content_range);
        assert_eq!(got.header("content-length"), text.len().to_string());
    }
    let got = ask("bytes=10-").send().await;
    got.problem(416, "range");
    assert_eq!(got.header("content-range"), "bytes */10");
    for range in ["bytes=0-1,3-4", "bytes=x", "rows=1-2"] {
        let got = ask(range).send().await;
        assert_eq!(
            (got.status, got.body.len()),
            (StatusCode::OK, 10),
            "{range}"
        );
    }
    // a range of what the caller knows, not of what came after it
    let other = "0".repeat(64);
    for (known, status) in [(SHA256, 206), (other.as_str(), 200)] {
        let ask = ask("bytes=0-3").header("if-range", format!("\"{known}\""));
        assert_eq!(ask.send().await.status, status);
    }
}

#[tokio::test]
async fn what_the_caller_has_is_not_sent_again() {
    let (bench, job) = bench().await;
    let uri = format!("/v1/jobs/{job}/documents/n1/stdout");
    let tag = format!("\"{SHA256}\"");
    for known in [tag.clone(), format!("\"a\", W/{tag}"), "*".to_owned()] {
        let ask = bench
            .ask(alice(), "GET", &uri)
            .header("if-none-match", known);
        let got = ask.send().await;
        assert_eq!((got.status, got.body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(got.header("etag"), tag);
    }
    let ask = bench
        .ask(alice(), "GET", &uri)
        .header("if-none-match", "\"other\"");
    assert_eq!(ask.send().await.status, 200);
}

#[tokio::test]
async fn logs_of_one_of_several_parts() {
    let bench = Bench::new();
    let (job, nodes) = bench.placed(&["n1", "n2"]).await;
    bench.fake.store_document(job, &nodes[0], "stderr", "first");
    bench
        .fake
        .store_document(job, &nodes[1], "stderr", "second");
    bench.fake.advance(job, JobState::Done);
    let got = bench
        .get(&format!("/v1/jobs/{job}/logs?stream=stderr"))
        .await;
    let problem = got.problem(400, "invalid");
    assert_eq!(problem.instance.as_deref(), Some("query parameter node"));
    assert!(problem.next.unwrap().contains("n1, n2"));
    let got = bench
        .get(&format!("/v1/jobs/{job}/logs?stream=stderr&node=n2"))
        .await;
    assert_eq!(got.body, b"second");
    let got = bench.get(&format!("/v1/jobs/{job}/logs?node=n2")).await;
    got.problem(404, "no-such-document");
}

#[tokio::test]
async fn logs_of_a_job_that_runs() {
    let bench = Bench::new();
    let (job, nodes) = bench.placed(&["n1"]).await;
    bench.fake.advance(job, JobState::Measuring);
    bench.fake.write(job, &nodes[0], "stdout", "one\n");
    let got = bench.get(&format!("/v1/jobs/{job}/logs")).await;
    assert_eq!(
        (got.status, got.body.as_slice()),
        (StatusCode::OK, b"one\n".as_slice())
    );
    assert_eq!(got.header("content-security-policy"), "sandbox");
    let uri = format!("/v1/jobs/{job}/logs?follow=true");
    let mut body = bench.ask(alice(), "GET", &uri).begin().await.into_body();
    let first = soon(body.frame()).await.unwrap().unwrap();
    assert_eq!(first.data_ref().unwrap(), "one\n");
    bench.fake.write(job, &nodes[0], "stdout", "two\n");
    let second = soon(body.frame()).await.unwrap().unwrap();
    assert_eq!(second.data_ref().unwrap(), "two\n");
    bench.fake.advance(job, JobState::Done);
    assert!(soon(body.frame()).await.is_none());
}
