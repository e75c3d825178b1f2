//! Who did what.

use std::io;
use std::sync::{Mutex, PoisonError};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::http::audit::escape;

/// The audit log of this thread.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_ansi(false)
            .without_time()
            .with_env_filter("audit=info")
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self) -> Vec<String> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8(std::mem::take(&mut log)).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn what_changes_something_and_what_is_refused() {
    let (log, _guard) = Log::begin();
    let bench = Bench::new();
    let submit = |body: Value| bench.ask(alice(), "POST", "/v1/jobs").json(&body);
    submit(json!({ "image": "a" })).send().await.job(201);
    assert_eq!(
        log.lines(),
        [
            " INFO audit: call who=alice role=\"user\" address=192.0.2.7:40000 method=POST \
          route=\"/v1/jobs\" subject=job:1 status=201 problem=\"-\""
        ]
    );
    bench.get("/v1/jobs/1").await.job(200);
    assert_eq!(log.lines(), Vec::<String>::new(), "reading is not noted");
    submit(json!({ "image": "" }))
        .send()
        .await
        .problem(400, "invalid");
    bench.get("/v1/jobs/2").await.problem(404, "no-such-job");
    bench
        .ask(nobody(), "GET", "/v1/jobs")
        .send()
        .await
        .problem(401, "unauthenticated");
    bench
        .ask(node(), "DELETE", "/v1/tokens/x")
        .send()
        .await
        .problem(403, "forbidden");
    bench
        .ask(root(), "PUT", "/v1/queues/fast")
        .json(&json!({}))
        .send()
        .await
        .json(200);
    let lines = log.lines();
    let expected = [
        "who=alice role=\"user\" address=192.0.2.7:40000 method=POST route=\"/v1/jobs\" \
         subject=/v1/jobs status=400 problem=\"stillmetal:invalid\"",
        "who=alice role=\"user\" address=192.0.2.7:40000 method=GET route=\"/v1/jobs/{id}\" \
         subject=/v1/jobs/2 status=404 problem=\"stillmetal:no-such-job\"",
        "who=nobody role=\"none\" address=192.0.2.7:40000 method=GET route=\"/v1/jobs\" \
         subject=/v1/jobs status=401 problem=\"stillmetal:unauthenticated\"",
        "who=bench1 role=\"node\" address=192.0.2.7:40000 method=DELETE route=\"/v1/tokens/{id}\" \
         subject=/v1/tokens/x status=403 problem=\"stillmetal:forbidden\"",
        "who=root role=\"admin\" address=192.0.2.7:40000 method=PUT route=\"/v1/queues/{name}\" \
         subject=queue:fast status=200 problem=\"-\"",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.ends_with(expected), "{line}\n{expected}");
    }
}

#[tokio::test]
async fn no_secret_is_written() {
    let (log, _guard) = Log::begin();
    let bench = Bench::new();
    let made = bench
        .ask(root(), "POST", "/v1/tokens")
        .json(&json!({}))
        .send()
        .await
        .json(201);
    let secret = made["token"].as_str().unwrap();
    let body = json!({ "csr_pem": "x", "token": secret, "machine": { "hostname": "h" } });
    bench
        .ask(nobody(), "POST", "/v1/enrol")
        .json(&body)
        .send()
        .await
        .problem(400, "invalid");
    let body = json!({ "image": "a", "env": { "PASSWORD": "hunter2" } });
    bench
        .ask(alice(), "POST", "/v1/jobs")
        .json(&body)
        .send()
        .await
        .job(201);
    let lines = log.lines();
    assert_eq!(lines.len(), 3);
    let text = lines.join("\n");
    assert!(
        !text.contains(secret) && !text.contains("hunter2"),
        "{text}"
    );
    assert!(text.contains("subject=token:t1 status=201"), "{text}");
}

#[tokio::test]
async fn no_name_makes_a_line_of_its_own() {
    let (log, _guard) = Log::begin();
    let bench = Bench::new();
    let evil = "eve\n INFO audit: call who=root role=\"admin\" \u{1b}[2J\u{202e}";
    let peer = client(evil, Role::User);
    let got = bench
        .ask(peer, "GET", "/v1/jobs/1%0a%1b[2Jwho=root")
        .send()
        .await;
    got.problem(400, "invalid");
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        !lines[0].chars().any(|c| c.is_control() || c == '\u{202e}'),
        "{lines:?}"
    );
    assert_eq!(lines[0].matches("who=").count(), 1, "{lines:?}");
    assert_eq!(lines[0].matches("role=").count(), 1, "{lines:?}");
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_any_more() {
    use crate::http::fakes::Trouble;
    let (log, _guard) = Log::begin();
    let bench = Bench::new();
    bench.fake.set_trouble(Some(Trouble::Hang));
    for (method, uri) in [("POST", "/v1/jobs"), ("GET", "/v1/jobs")] {
        let ask = bench
            .ask(alice(), method, uri)
            .json(&json!({ "image": "a" }));
        let gone = tokio::time::timeout(Duration::from_millis(20), ask.send()).await;
        assert!(gone.is_err());
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].ends_with("subject=/v1/jobs status=0 problem=\"abandoned\""),
        "{lines:?}"
    );
    let text = bench.metrics.render().unwrap();
    let line = r#"stillmetal_http_abandoned_requests_total{route="/v1/jobs"} 2"#;
    assert!(text.contains(line), "{text}");
}

proptest::proptest! {
    #[test]
    fn escaped_text_is_one_word(text in "\\PC*|.*|[\\x00-\\x20=\\\\\"a]{0,20}") {
        let escaped = escape(&text);
        proptest::prop_assert!(!escaped.chars().any(|c| c.is_control() || c.is_whitespace()));
        proptest::prop_assert!(!escaped.contains(['=', '"']));
        proptest::prop_assert!(escaped.chars().count() <= 257 * 10);
    }
}
