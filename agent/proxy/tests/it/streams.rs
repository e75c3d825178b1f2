//! What streams, streams: in small pieces, in large ones, and to its honest end.

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::{Request, StatusCode};
use serde_json::json;
use stillmetal_proxy::{BodyError, Limits};

use crate::client::request;
use crate::rig::{Over, Rig, soon};

port_and_tunnel!(
    each_piece_of_an_answer_arrives_before_the_next_is_made,
    an_engine_that_dies_in_the_middle_is_not_a_clean_end,
    a_client_that_leaves_ends_the_engines_request,
    an_upload_streams_through,
);

async fn each_piece_of_an_answer_arrives_before_the_next_is_made(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    let mut client = rig.user().await;
    let target = "/containers/told/logs?follow=1&stdout=1";
    let mut response = client.send(request("GET", target, "")).await.unwrap();
    for word in ["one", "two", "three"] {
        rig.engine.tell.send(word.into()).await.unwrap();
        let frame = soon(word, response.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
}

async fn an_engine_that_dies_in_the_middle_is_not_a_clean_end(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    let mut client = rig.user().await;
    let target = "/containers/told/logs?follow=1&stdout=1";
    let mut response = client.send(request("GET", target, "")).await.unwrap();
    rig.engine.tell.send("some".into()).await.unwrap();
    soon("some", response.frame()).await.unwrap().unwrap();
    rig.engine.die().await;
    assert!(soon("end", response.collect()).await.is_err());
}

async fn a_client_that_leaves_ends_the_engines_request(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    for target in [
        "/containers/told/wait",
        "/containers/told/logs?follow=1&stdout=1",
    ] {
        let mut client = rig.user().await;
        let method = if target.ends_with("wait") {
            "POST"
        } else {
            "GET"
        };
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
}

/// An upload of unknown length, 16 MiB.
fn upload(target: &str, method: &str) -> Request<stillmetal_proxy::Body> {
    let (mut sender, body) = Channel::<Bytes, BodyError>::new(2);
    tokio::spawn(async move {
        let chunk = Bytes::from(vec![0; 1024 * 1024]);
        for _ in 0..16 {
            if sender.send_data(chunk.clone()).await.is_err() {
                return;
            }
        }
    });
    let mut request = request(method, target, "").map(|_| body.boxed());
    request
        .headers_mut()
        .insert("content-type", "application/x-tar".parse().unwrap());
    request
}

async fn an_upload_streams_through(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    let mut client = rig.user().await;
    let response = client
        .send(upload("/images/load?quiet=1", "POST"))
        .await
        .unwrap();
    let body = soon("answer", response.collect()).await.unwrap().to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer, json!({ "ok": true, "bytes": 16 * 1024 * 1024 }));
    let seen = rig.engine.seen().pop().unwrap();
    assert_eq!(seen.headers["content-type"], "application/x-tar");
}

#[tokio::test]
async fn an_upload_that_is_refused_half_way_gets_its_answer() {
    let rig = Rig::new().await;
    // By the engine, and by the proxy itself.
    for (target, status) in [
        ("/images/load?quiet=1&platform=early", StatusCode::NOT_FOUND),
        ("/no/such/thing", StatusCode::NOT_FOUND),
    ] {
        for _ in 0..5 {
            let mut client = rig.user().await;
            let response = client.send(upload(target, "POST")).await.unwrap();
            assert_eq!(response.status(), status, "{target}");
            let body = soon("answer", response.collect()).await.unwrap().to_bytes();
            let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(answer["message"].is_string());
        }
    }
}

#[tokio::test]
async fn headers_are_rebuilt() {
    let rig = Rig::new().await;
    let mut client = rig.user().await;
    let mut pull = request("POST", "/v1.45/images/create?fromImage=a&tag=b", "");
    for (name, value) in [
        ("x-registry-auth", "e30="),
        ("user-agent", "Docker-Client/28"),
        ("authorization", "Bearer x"),
        ("x-forwarded-for", "10.0.0.1"),
        ("cookie", "a=b"),
    ] {
        pull.headers_mut().insert(name, value.parse().unwrap());
    }
    assert_eq!(client.send(pull).await.unwrap().status(), StatusCode::OK);
    let headers = rig.engine.seen().pop().unwrap().headers;
    let mut names: Vec<&str> = headers
        .keys()
        .map(hyper::header::HeaderName::as_str)
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["content-type", "host", "user-agent", "x-registry-auth"]
    );
    assert_eq!(headers["host"], "docker");
}

#[tokio::test]
async fn a_full_image_store_is_told_in_bytes() {
    let rig = Rig::new().await;
    let mut client = rig.user().await;
    let image = "0".repeat(stillmetal_fakes::MEMORY + 1);
    let response = client
        .send(request("POST", "/images/load", &image))
        .await
        .unwrap();
    let body = soon("the answer", response.collect()).await.unwrap();
    let told: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    let message = told["errorDetail"]["message"].as_str().unwrap();
    assert!(message.contains("no space left on device"), "{message}");
    assert!(
        message.contains("5678 bytes in all, 1234 free now"),
        "{message}"
    );
}
