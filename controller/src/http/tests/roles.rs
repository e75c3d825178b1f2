//! Who may make which call: every call, every kind of peer.

use axum::http::StatusCode;

use super::*;
use crate::http::operation::{Operation, Takes};
use crate::http::peer::Access;

/// A path that a call's pattern matches.
fn concrete(path: &str) -> String {
    path.replace("{id}", "1")
        .replace("{node}", "bench1")
        .replace("{*name}", "stdout")
        .replace("{name}", "default")
}

/// Whether these may make it: nobody, a user, an admin, a node.
fn expected(operation: Operation) -> [bool; 4] {
    use Operation as O;
    match operation {
        O::Health | O::Enrol => [true, true, true, true],
        O::Renew => [false, false, false, true],
        O::OpenApi
        | O::Metrics
        | O::Version
        | O::Submit
        | O::SubmitBatch
        | O::Jobs
        | O::Job
        | O::Why
        | O::Cancel
        | O::Document
        | O::Logs
        | O::Nodes
        | O::Pending
        | O::Node
        | O::Queues
        | O::Bookings
        | O::Book
        | O::Unbook
        | O::HealthCheck
        | O::Images
        | O::PushImage
        | O::Events => [false, true, true, false],
        O::Approve
        | O::ChangeNode
        | O::RevokeNode
        | O::SetQueue
        | O::RemoveQueue
        | O::SetHealthCheck
        | O::RemoveHealthCheck
        | O::Tokens
        | O::MakeToken
        | O::RevokeToken => [false, false, true, false],
    }
}

#[tokio::test]
async fn every_call_by_every_peer() {
    for operation in Operation::ALL {
        let spec = operation.spec();
        let peers = [nobody(), alice(), root(), node()];
        for (peer, may) in peers.into_iter().zip(expected(operation)) {
            let bench = Bench::new();
            let said = format!("{operation:?} by {peer:?}");
            let stranger = matches!(peer, Peer::Nobody { .. });
            // not even the body is looked at before that
            let ask = bench.ask(peer, spec.method.as_str(), &concrete(spec.path));
            let got = match spec.body {
                Takes::Nothing => ask,
                _ => ask.bytes("text/wrong", "{"),
            };
            let got = got.send().await;
            if may {
                assert!(
                    !matches!(got.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
                    "{said}: {got:?}"
                );
            } else if stranger {
                got.problem(401, "unauthenticated");
            } else {
                got.problem(403, "forbidden");
            }
        }
    }
}

#[tokio::test]
async fn strangers_and_nodes_are_not_told_what_there_is() {
    let bench = Bench::new();
    for uri in ["/", "/v1", "/v1/secrets", "/healthz/", "/nodes/a/_ping"] {
        let got = bench.ask(nobody(), "GET", uri).send().await;
        got.problem(401, "unauthenticated");
        let got = bench.ask(node(), "GET", uri).send().await;
        got.problem(403, "forbidden");
        let got = bench.ask(alice(), "GET", uri).send().await;
        got.problem(404, "no-such-route");
    }
    let got = bench.ask(nobody(), "DELETE", "/v1/jobs").send().await;
    got.problem(401, "unauthenticated");
    let got = bench.ask(nobody(), "DELETE", "/healthz").send().await;
    got.problem(405, "wrong-method");
    assert_eq!(got.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn a_request_of_no_known_peer_is_refused() {
    let bench = Bench::new();
    for uri in ["/healthz", "/v1/jobs", "/nowhere"] {
        let mut ask = bench.ask(root(), "GET", uri);
        ask.peer = None;
        ask.send().await.problem(500, "internal");
    }
}

#[tokio::test]
async fn other_routes_can_be_merged_and_are_left_alone() {
    let bench = Bench::new();
    let relay = axum::routing::any(|| async { "relayed" });
    let relay = Router::new().route("/nodes/{node}/{*path}", relay);
    let bench = Bench {
        router: bench.router.clone().merge(relay),
        ..bench
    };
    let got = bench
        .ask(nobody(), "BREW", "/nodes/bench1/v1.45/_ping")
        .send()
        .await;
    assert_eq!(
        (got.status, got.body.as_slice()),
        (StatusCode::OK, b"relayed".as_slice())
    );
    // the API beside it is as it was
    bench.get("/v1/version").await.json(200);
    bench.get("/nodes").await.problem(404, "no-such-route");
    let got = bench.ask(nobody(), "GET", "/nodes").send().await;
    got.problem(401, "unauthenticated");
}

#[test]
fn the_table_agrees_with_itself() {
    let mut seen = std::collections::HashSet::new();
    for operation in Operation::ALL {
        let spec = operation.spec();
        assert!(
            seen.insert((spec.method.clone(), spec.path)),
            "{operation:?} twice"
        );
        let reads = spec.method == axum::http::Method::GET;
        assert_eq!(reads, !spec.changes, "{operation:?}");
        assert!(!reads || spec.body == Takes::Nothing, "{operation:?}");
        // everything but this needs a certificate
        let open = matches!(operation, Operation::Health | Operation::Enrol);
        assert_eq!(open, spec.access == Access::Everybody, "{operation:?}");
    }
}
