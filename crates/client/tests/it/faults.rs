//! A bad way between: what is repeated, what is not, and how it is told.

use std::time::Duration;

use api::fleet::TokenRequest;
use api::job::JobId;
use api::problem::Problem;
use api::queue::QueueSettings;
use client::fake::Fault;
use client::{Client, Error, Strange};

use crate::{request, start};

fn problem(status: u16, name: &str) -> Problem {
    Problem {
        kind: format!("stillmetal:{name}"),
        title: name.into(),
        status,
        detail: "because".into(),
        instance: None,
        next: None,
    }
}

fn refuse(path: &str, status: u16, name: &str) -> Fault {
    Fault::Refuse {
        path: path.into(),
        problem: problem(status, name),
        retry_after_seconds: None,
    }
}

#[tokio::test]
async fn a_submission_whose_answer_is_lost_is_one_job() {
    let (fake, client) = start().await;
    for _ in 0..2 {
        fake.break_once(Fault::LoseAnswer {
            path: "/v1/jobs".into(),
        });
    }
    let job = client.submit(&request("a")).await.unwrap();
    assert_eq!(job.id, JobId(1));
    assert_eq!(fake.read(|state| state.jobs.len()), 1);
    assert_eq!(fake.calls().len(), 3);
    // another submission has another key
    assert_eq!(client.submit(&request("a")).await.unwrap().id, JobId(2));
    // the caller's own key is kept
    let again = client.submit_as(&request("a"), "mine").await.unwrap();
    let same = client.submit_as(&request("a"), "mine").await.unwrap();
    assert_eq!((again.id, same.id), (JobId(3), JobId(3)));
}

#[tokio::test]
async fn what_must_not_happen_twice_is_not_repeated() {
    let (fake, client) = start().await;
    fake.break_once(Fault::LoseAnswer {
        path: "/v1/tokens".into(),
    });
    let token = TokenRequest {
        valid_seconds: 60,
        machine: None,
    };
    let error = client.create_token(&token).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(fake.calls(), ["POST /v1/tokens"]);
    // unless it certainly was not taken
    fake.break_once(refuse("/v1/tokens", 503, "store-unavailable"));
    client.create_token(&token).await.unwrap();
    assert_eq!(fake.calls().len(), 3);
    fake.break_once(refuse("/v1/tokens", 503, "outcome-unknown"));
    let error = client.create_token(&token).await.unwrap_err();
    assert_eq!(error.problem().unwrap().status, 503);
    assert_eq!(fake.calls().len(), 4);
}

#[tokio::test]
async fn refusals_are_told_as_they_are_and_not_repeated() {
    let (fake, client) = start().await;
    for (status, name) in [
        (400, "invalid"),
        (403, "forbidden"),
        (429, "queue-full"),
        (500, "internal"),
        (503, "node-offline"),
        (507, "store-full"),
    ] {
        let before = fake.calls().len();
        fake.break_once(refuse("/v1/jobs", status, name));
        let error = client.submit(&request("a")).await.unwrap_err();
        assert_eq!(error.problem(), Some(&problem(status, name)));
        assert_eq!(error.to_string(), format!("{name}: because"));
        assert_eq!(fake.calls().len(), before + 1, "{name}");
    }
    assert!(fake.read(|state| state.jobs.is_empty()));
}

#[tokio::test]
async fn whoever_says_when_to_come_back_is_believed() {
    let (fake, client) = start().await;
    fake.break_once(Fault::Refuse {
        path: "/v1/queues".into(),
        problem: problem(429, "queue-full"),
        retry_after_seconds: Some(1),
    });
    let begun = std::time::Instant::now();
    client.queues().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn an_answer_of_somebody_else_is_quoted() {
    let (fake, client) = start().await;
    let answer = |status, body: &str| Fault::Answer {
        path: "/v1/queues".into(),
        status,
        body: body.into(),
    };
    fake.break_once(answer(418, "<h1>teapot</h1>"));
    let error = client.queues().await.unwrap_err();
    let Error::Protocol { call, source } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(call, "GET /v1/queues");
    let quoted = "status 418 with \"<h1>teapot</h1>\"";
    assert_eq!(source.to_string(), quoted);
    fake.break_once(answer(200, "{\"queues\": 3}"));
    let error = client.queues().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Protocol {
                source: Strange::Json(_),
                ..
            }
        ),
        "{error:?}"
    );
    // a gateway that has nobody behind it may have somebody soon
    fake.break_once(answer(502, "bad gateway"));
    client.queues().await.unwrap();
}

#[tokio::test]
async fn a_cut_answer_is_never_half_an_answer() {
    let (fake, client) = start().await;
    fake.change(|state| {
        for n in 0..500 {
            let settings = QueueSettings::default();
            state.queues.insert(format!("queue-{n}"), settings);
        }
    });
    // before the head is sent and after
    for after in [0, 10, 30_000] {
        fake.break_once(Fault::Cut {
            path: "/v1/queues".into(),
            after,
        });
    }
    assert_eq!(client.queues().await.unwrap().len(), 501);
    assert_eq!(fake.calls().len(), 4);

    for after in [0, 10] {
        fake.break_once(Fault::Cut {
            path: "/v1/tokens".into(),
            after,
        });
        let token = TokenRequest {
            valid_seconds: 60,
            machine: None,
        };
        let error = client.create_token(&token).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn nobody_there() {
    let (fake, client) = start().await;
    let mut context = fake.context();
    // a port that was free a moment ago
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    context.controller.set_port(Some(port)).unwrap();
    let nobody = Client::new(&context).unwrap();
    let error = nobody.healthy_now().await.unwrap_err();
    let Error::Unreachable { url, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*url, format!("https://127.0.0.1:{port}"));
    drop((fake, client));
}

#[tokio::test]
async fn names_that_would_lead_elsewhere_are_refused() {
    let (fake, client) = start().await;
    for name in ["", ".", ".."] {
        let error = client.node(name).await.unwrap_err();
        assert!(matches!(error, Error::Name(_)), "{error:?}");
    }
    assert!(fake.calls().is_empty());
    let missing = client.node("../queues?x#y").await.unwrap_err();
    assert!(missing.is_not_found());
    assert_eq!(fake.calls(), ["GET /v1/nodes/..%2Fqueues%3Fx%23y"]);
}
