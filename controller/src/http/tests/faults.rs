//! Calls that are not answered as asked.

use futures_util::stream;

use super::*;
use crate::http::fakes::Trouble;
use crate::refusal::{Kind, Refusal};

#[tokio::test]
async fn json_is_read_strictly() {
    let bench = Bench::new();
    let submit = |text: &str| bench.ask(alice(), "POST", "/v1/jobs").text(text);
    for (text, at, detail) in [
        ("", "/", "line 1 column 0"),
        ("{", "/", "line 1 column 1"),
        ("{\n \"image\": \"a\",\n}", "/", "line 3 column 1"),
        ("{\"image\":\"a\"} x", "/", "line 1 column 15"),
        ("[]", "/", "line 1 column"),
        ("null", "/", "line 1 column"),
        ("{\"image\":\"a\",\n\"speed\":1}", "/speed", "line 2 column"),
        (
            "{\"image\":\"a\",\n\"place\":{\"cpus\":-1}}",
            "/place/cpus",
            "line 2 column",
        ),
        (
            "{\"image\":\"a\",\"argv\":[\"a\",7]}",
            "/argv/1",
            "line 1 column",
        ),
        (
            "{\"image\":\"a\",\"env\":{\"a/b\":7}}",
            "/env/a~1b",
            "line 1 column",
        ),
        ("{\"image\":\"a\",\"image\":\"b\"}", "/", "line 1 column"),
        ("{\"image\":\"\u{7}\"}", "/image", "line 1 column"),
        ("{\"image\":\"\\ud800\"}", "/image", "line 1 column"),
        (
            "{\"image\":\"a\",\"measure\":{\"class\":\"fast\"}}",
            "/measure/class",
            "line 1",
        ),
    ] {
        let problem = submit(text).send().await.problem(400, "invalid");
        assert_eq!(problem.instance.as_deref(), Some(at), "{text}");
        assert!(
            problem.detail.contains(detail),
            "{text}: {}",
            problem.detail
        );
    }
    let deep = "[".repeat(100_000);
    submit(&deep).send().await.problem(400, "invalid");
    let ask = bench.ask(alice(), "POST", "/v1/jobs");
    ask.bytes("application/json", vec![b'"', 0xff, b'"'])
        .send()
        .await
        .problem(400, "invalid");
}

#[tokio::test]
async fn json_is_said_to_be_json() {
    let bench = Bench::new();
    let body = r#"{"image":"a"}"#;
    let submit = |format: &str| bench.ask(alice(), "POST", "/v1/jobs").bytes(format, body);
    for format in ["application/json", "Application/JSON ; charset=utf-8"] {
        submit(format).send().await.job(201);
    }
    for format in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "",
    ] {
        let got = submit(format).send().await;
        let problem = got.problem(415, "media-type");
        assert!(problem.next.unwrap().contains("application/json"));
    }
    let ask = bench.ask(alice(), "POST", "/v1/jobs");
    ask.send().await.problem(415, "media-type");
}

#[tokio::test]
async fn bodies_are_bounded() {
    let bench = Bench::new();
    let long = format!(r#"{{"image":"{}"}}"#, "a".repeat(1024 * 1024));
    let got = bench
        .ask(alice(), "POST", "/v1/jobs")
        .text(&long)
        .send()
        .await;
    got.problem(413, "too-large");
    // an endless one is not read to its end
    let pieces = stream::repeat_with(|| Ok::<_, std::io::Error>("[".repeat(65_536)));
    let body = Body::from_stream(pieces);
    let ask = bench
        .ask(alice(), "POST", "/v1/jobs")
        .bytes("application/json", body);
    soon(ask.send()).await.problem(413, "too-large");
    let broken = stream::iter([Ok("{"), Err(std::io::Error::other("reset"))]);
    let ask = bench.ask(alice(), "POST", "/v1/jobs");
    let ask = ask.bytes("application/json", Body::from_stream(broken));
    assert_eq!(ask.send().await.at(400, "invalid"), "body");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let bench = Bench::new();
    let body = Body::from_stream(stream::pending::<Result<&str, std::io::Error>>());
    let ask = bench
        .ask(alice(), "POST", "/v1/jobs")
        .bytes("application/json", body);
    ask.send().await.problem(408, "too-slow");
}

#[tokio::test]
async fn other_methods_are_refused_everywhere() {
    use crate::http::operation::Operation;
    let bench = Bench::new();
    for operation in Operation::ALL {
        let path = operation
            .spec()
            .path
            .replace("{*name}", "a")
            .replace(['{', '}'], "");
        let offered: Vec<_> = Operation::ALL
            .into_iter()
            .map(Operation::spec)
            .filter(|spec| spec.path == operation.spec().path)
            .map(|spec| spec.method.to_string())
            .collect();
        for method in ["PUT", "DELETE", "PATCH", "POST", "OPTIONS", "TRACE", "BREW"] {
            if offered.iter().any(|known| known == method) {
                continue;
            }
            let got = bench.ask(root(), method, &path).send().await;
            // a path of words may be a name too: /v1/nodes/pending
            got.problem(405, "wrong-method");
            let allow = got.header("allow");
            for known in &offered {
                assert!(
                    allow.split(',').any(|a| a == known),
                    "{method} {path}: {allow}"
                );
            }
        }
    }
}

#[tokio::test]
async fn each_refusal_becomes_its_problem() {
    let bench = Bench::new();
    for kind in [
        Kind::Invalid,
        Kind::Forbidden,
        Kind::Conflict,
        Kind::QueueFull,
        Kind::Busy,
        Kind::NodeOffline,
        Kind::NodeFailed,
        Kind::Deadline,
        Kind::StoreUnavailable,
        Kind::StoreFull,
        Kind::Unknown,
        Kind::Internal,
    ] {
        let refusal = Refusal::new(kind, "because");
        bench.fake.set_trouble(Some(Trouble::Refuse(refusal)));
        let (status, name, _) = kind.facts();
        for (method, uri) in [
            ("GET", "/v1/jobs"),
            ("GET", "/v1/nodes"),
            ("GET", "/v1/images"),
        ] {
            let got = bench.ask(alice(), method, uri).send().await;
            let problem = got.problem(status, name);
            assert_eq!(
                (problem.detail.as_str(), problem.instance.as_deref()),
                ("because", Some(uri))
            );
        }
        let body = json!({ "image": "a" });
        let got = bench
            .ask(alice(), "POST", "/v1/jobs")
            .json(&body)
            .send()
            .await;
        got.problem(status, name);
    }
}

#[tokio::test]
async fn a_panic_is_a_problem() {
    let bench = Bench::new();
    bench.fake.set_trouble(Some(Trouble::Panic));
    bench.get("/v1/jobs").await.problem(500, "internal");
    bench.fake.set_trouble(None);
    bench.get("/v1/jobs").await.json(200);
}

#[tokio::test(start_paused = true)]
async fn no_call_hangs() {
    let bench = Bench::new();
    bench.fake.set_trouble(Some(Trouble::Hang));
    bench.get("/v1/jobs").await.problem(504, "deadline");
    bench
        .get("/v1/jobs/1?wait=60")
        .await
        .problem(504, "deadline");
    let body = json!({ "image": "a" });
    let got = bench
        .ask(alice(), "POST", "/v1/jobs")
        .json(&body)
        .send()
        .await;
    // it may have been done
    let problem = got.problem(503, "outcome-unknown");
    assert!(problem.next.unwrap().contains("Idempotency-Key"));
}

#[test]
fn every_kind_says_what_to_do() {
    let fault = crate::http::fault::Fault::new(Kind::Busy, "x");
    assert!(fault.problem().next.is_some());
}
