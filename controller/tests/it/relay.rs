//! Requests and answers through controller and tunnel.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Request, StatusCode};
use serde_json::json;
use stillmetal_controller::relay::{CallError, Recipient};
use stillmetal_proxy::{Body, BodyError, full};
use tokio::time::Instant;

use crate::rig::{Rig, request, soon};

const LOGS: &str = "/nodes/n1/containers/told/logs?follow=1&stdout=1";

#[tokio::test]
async fn the_nodes_router_answers_for_whom_the_certificate_says() {
    let rig = Rig::new().await;
    let (status, version) = rig.user().await.get("/nodes/n1/version").await;
    assert_eq!(
        (status, version),
        (StatusCode::OK, json!({ "Version": "fake" }))
    );
    for role in [pki::RoleName::User, pki::RoleName::Admin] {
        let mut client = rig.client(role).await;
        let (_, own) = client.get("/nodes/n1/stillmetal/v1/node").await;
        let expected = json!({ "role": role.as_str(), "path": "/stillmetal/v1/node" });
        assert_eq!(own, expected);
    }
    let privileged = r#"{"Image":"x","HostConfig":{"Privileged":true}}"#;
    let create = "/nodes/n1/v1.45/containers/create?name=job";
    let (status, body) = rig.user().await.post(create, privileged).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    let pinned = r#"{"Image":"x","HostConfig":{"CpusetCpus":"2"}}"#;
    let (status, body) = rig.user().await.post(create, pinned).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let (_, shown) = rig.user().await.get("/nodes/n1/containers/c0/json").await;
    assert_eq!(shown["HostConfig"]["CpusetCpus"], "2");
    assert_eq!(rig.node.events(), ["claim 2 for job", "created t1 c0"]);
}

#[tokio::test]
async fn each_call_is_audited_without_secrets() {
    let rig = Rig::new().await;
    let mut client = rig.user().await;
    client
        .post("/nodes/n1/images/create?fromImage=secret&tag=b", "")
        .await;
    let entry = rig.log.entry("/images/create?fromImage&tag").await;
    assert_eq!(entry.caller.user, "user");
    assert_eq!(entry.caller.role, policy::Role::User);
    assert_eq!((entry.node.as_str(), entry.method.as_str()), ("n1", "POST"));
    assert_eq!(entry.status, Some(StatusCode::OK));
    assert!(entry.output > 0, "{entry:?}");
    client.get("/nodes/nowhere/_ping").await;
    let entry = rig.log.entry("/_ping").await;
    assert_eq!(entry.status, Some(StatusCode::NOT_FOUND));
}

#[tokio::test]
async fn each_piece_of_an_answer_arrives_before_the_next_is_made() {
    let rig = Rig::new().await;
    let mut client = rig.user().await;
    let mut response = client.send(request("GET", LOGS, "")).await.unwrap();
    for word in ["one", "two", "three"] {
        rig.engine.tell.send(word.into()).await.unwrap();
        let frame = soon(word, response.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    // It is not over, so there is no entry yet.
    drop(client);
    drop(response);
    let entry = rig.log.entry("/containers/told/logs?follow&stdout").await;
    assert_eq!(entry.output, 11);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_engines_request() {
    let rig = Rig::new().await;
    for (method, target) in [("POST", "/nodes/n1/containers/told/wait"), ("GET", LOGS)] {
        let mut client = rig.user().await;
        let sent = tokio::spawn(async move {
            let response = client.send(request(method, target, "")).await?;
            response.collect().await
        });
        rig.engine
            .until("the request", |state| state.open == 1)
            .await;
        sent.abort();
        rig.engine
            .until("the request's end", |state| state.open == 0)
            .await;
    }
    let entry = rig.log.entry("/containers/told/wait").await;
    assert_eq!(entry.status, None);
}

#[tokio::test]
async fn a_node_that_leaves_is_an_error_and_no_hang() {
    let rig = Rig::new().await;
    let mut client = rig.user().await;
    let mut response = client.send(request("GET", LOGS, "")).await.unwrap();
    rig.engine.tell.send("some".into()).await.unwrap();
    soon("some", response.frame()).await.unwrap().unwrap();
    let mut waiting = rig.user().await;
    let waits =
        tokio::spawn(async move { waiting.post("/nodes/n1/containers/told/wait", "").await });
    rig.engine
        .until("both requests", |state| state.open == 2)
        .await;
    rig.nodes.dialled.cut();
    assert!(soon("end", response.collect()).await.is_err());
    let (status, body) = soon("answer", waits).await.unwrap();
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("n1"), "{message}");
    let (status, _) = rig.user().await.get("/nodes/n1/_ping").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

/// So many mebibytes in pieces, of unknown length.
fn upload(target: &str, mebibytes: usize) -> Request<Body> {
    let piece = Bytes::from(vec![0; 1024 * 1024]);
    let pieces = (0..mebibytes).map(move |_| Ok::<_, BodyError>(Frame::data(piece.clone())));
    let body = BodyExt::boxed(StreamBody::new(stream::iter(pieces)));
    let mut request = request("POST", target, "").map(|_| body);
    let tar = "application/x-tar".parse().unwrap();
    request.headers_mut().insert("content-type", tar);
    request
}

#[tokio::test]
async fn bulk_streams_both_ways() {
    let rig = Rig::new().await;
    let mut client = rig.user().await;
    let sent = client
        .send(upload("/nodes/n1/images/load?quiet=1", 32))
        .await;
    let body = soon("answer", sent.unwrap().collect()).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    assert_eq!(answer, json!({ "ok": true, "bytes": 32 << 20 }));
    assert_eq!(rig.log.entry("/images/load?quiet").await.input, 32 << 20);

    rig.engine.change(|state| state.export_bytes = 64 << 20);
    let export = request("GET", "/nodes/n1/images/any/get", "");
    let mut response = client.send(export).await.unwrap();
    let mut total = 0;
    while let Some(frame) = soon("a piece", response.frame()).await {
        total += frame.unwrap().into_data().map_or(0, |data| data.len());
    }
    assert_eq!(total, 64 << 20);
    assert_eq!(rig.log.entry("/images/any/get").await.output, 64 << 20);
}

/// By the engine, which does not read it, and by the node's proxy.
#[tokio::test]
async fn an_upload_that_is_refused_half_way_gets_its_answer() {
    let rig = Rig::new().await;
    for target in ["/images/load?quiet=1&platform=early", "/no/such/thing"] {
        let request = upload(target, 16);
        let called = rig.relay.call(Recipient::ourselves("n1"), request, None);
        let answer = soon("answer", called).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        let body = soon("answer", answer.collect()).await.unwrap().to_bytes();
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(answer["message"].is_string());
    }
}

#[tokio::test]
async fn two_hundred_stalled_readers_hold_up_nobody() {
    let rig = Rig::new().await;
    rig.engine.change(|state| state.export_bytes = 1 << 40);
    let mut stalled = Vec::new();
    for _ in 0..200 {
        let mut client = rig.user().await;
        let export = request("GET", "/nodes/n1/images/any/get", "");
        let response = client.send(export).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        stalled.push((client, response));
    }
    let mut client = rig.admin().await;
    let began = Instant::now();
    for _ in 0..20 {
        let (status, _) = client.get("/nodes/n1/_ping").await;
        assert_eq!(status, StatusCode::OK);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    // The same user is still served, up to its own bound.
    assert_eq!(
        rig.user().await.get("/nodes/n1/_ping").await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_deadline_holds_where_it_is_given() {
    let rig = Rig::new().await;
    let wait = Request::post("/containers/told/wait")
        .body(full(""))
        .unwrap();
    let within = Duration::from_millis(200);
    let called = rig
        .relay
        .call(Recipient::ourselves("n1"), wait, Some(within));
    match soon("deadline", called).await {
        Err(CallError::Deadline { node, within: told }) => {
            assert_eq!((node.as_str(), told), ("n1", within));
        }
        other => panic!("{other:?}"),
    }
    rig.engine
        .until("the request's end", |state| state.open == 0)
        .await;
}
