//! Requests that do not reach a node, in the words of the one who asks.

use std::time::Duration;

use hyper::StatusCode;
use stillmetal_controller::relay::Limits;

use crate::rig::{Rig, request};

#[tokio::test]
async fn docker_is_told_in_its_own_form_and_others_get_a_problem() {
    let rig = Rig::new().await;
    let mut client = rig.user().await;
    for (node, status, kind) in [
        ("nowhere", 404, "stillmetal:no-such-node"),
        ("away", 503, "stillmetal:node-offline"),
        ("a%2fb", 404, "stillmetal:no-such-node"),
    ] {
        let (answered, body) = client.get(&format!("/nodes/{node}/v1.45/info")).await;
        assert_eq!(answered.as_u16(), status, "{body}");
        assert!(body["message"].is_string(), "{body}");
        let own = format!("/nodes/{node}/stillmetal/v1/node");
        let response = client.send(request("GET", &own, "")).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        let expected = if node == "a%2fb" {
            "application/json"
        } else {
            "application/problem+json"
        };
        assert_eq!(response.headers()["content-type"], expected);
        assert_eq!(
            response.headers().contains_key("retry-after"),
            status == 503
        );
        let body = http_body_util::BodyExt::collect(response).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap();
        if expected == "application/problem+json" {
            assert_eq!(body["type"], kind);
            assert_eq!(body["status"], status);
        }
    }
    assert!(rig.engine.seen().is_empty());
}

#[tokio::test]
async fn one_too_many_waits_for_its_turn_and_is_told() {
    let limits = Limits {
        per_user: 1,
        turn: Duration::from_millis(100),
        ..Limits::default()
    };
    let rig = Rig::with(limits).await;
    let mut first = rig.user().await;
    let logs = request("GET", "/nodes/n1/containers/told/logs?follow=1", "");
    let held = first.send(logs).await.unwrap();
    let (status, body) = rig.user().await.get("/nodes/n1/_ping").await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{body}");
    assert_eq!(rig.admin().await.get("/nodes/n1/_ping").await.0, 200);
    drop((first, held));
    crate::rig::soon("a free place", async {
        while rig.user().await.get("/nodes/n1/_ping").await.0 != 200 {}
    })
    .await;
}
