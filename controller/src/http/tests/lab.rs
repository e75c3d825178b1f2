//! Nodes, queues, images, and the controller itself.

use futures_util::stream;

use super::*;

#[tokio::test]
async fn nodes_are_found_by_id_and_name() {
    let bench = Bench::new();
    let id = bench.fake.add_node("Bench 1");
    for name in ["Bench%201", id.as_str()] {
        let got = bench.get(&format!("/v1/nodes/{name}")).await.json(200);
        assert_eq!(got["id"], id.as_str());
        assert_eq!(got["state"], "ready");
    }
    let long = "x".repeat(257);
    for name in ["nowhere", "%00", "%0a", "%2F", long.as_str()] {
        bench
            .get(&format!("/v1/nodes/{name}"))
            .await
            .problem(404, "no-such-node");
    }
}

#[tokio::test]
async fn an_admin_changes_a_node() {
    let bench = Bench::new();
    let id = bench.fake.add_node("Bench 1");
    let patch = |body: Value| {
        bench
            .ask(root(), "PATCH", "/v1/nodes/Bench%201")
            .json(&body)
    };
    let got = patch(json!({ "draining": true, "labels": { "nic": "100g" } }))
        .send()
        .await
        .json(200);
    assert_eq!(
        (&got["state"], &got["labels"]["nic"]),
        (&json!("draining"), &json!("100g"))
    );
    let got = patch(json!({ "draining": false, "labels": { "nic": "" } }))
        .send()
        .await
        .json(200);
    assert_eq!(
        (&got["state"], &got["labels"]),
        (&json!("ready"), &json!({}))
    );
    assert_eq!(
        patch(json!({ "labels": { "": "x" } }))
            .send()
            .await
            .at(400, "invalid"),
        "/labels/"
    );
    assert_eq!(
        patch(json!({ "state": "x" }))
            .send()
            .await
            .at(400, "invalid"),
        "/state"
    );
    let uri = format!("/v1/nodes/{id}/revoke");
    let got = bench.ask(root(), "POST", &uri).send().await.json(200);
    assert_eq!(got["state"], "offline");
    let got = bench
        .ask(root(), "POST", "/v1/nodes/nowhere/revoke")
        .send()
        .await;
    got.problem(404, "no-such-node");
}

#[tokio::test]
async fn queues_are_made_changed_and_removed() {
    let bench = Bench::new();
    let put = |name: &str, body: Value| {
        bench
            .ask(root(), "PUT", &format!("/v1/queues/{name}"))
            .json(&body)
    };
    let got = put("fast", json!({ "priority": 5, "users": ["alice"] }))
        .send()
        .await
        .json(200);
    assert_eq!(
        (&got["name"], &got["settings"]["priority"]),
        (&json!("fast"), &json!(5))
    );
    let got = bench.get("/v1/queues").await.json(200);
    let names: Vec<_> = got
        .as_array()
        .unwrap()
        .iter()
        .map(|queue| &queue["name"])
        .collect();
    assert_eq!(names, ["default", "fast"]);
    let got = put("Fast%20One", json!({})).send().await;
    assert_eq!(got.at(400, "invalid"), "path parameter name");
    let got = put("fast", json!({ "limit_seconds": 0 })).send().await;
    assert_eq!(got.at(400, "invalid"), "/limit_seconds");
    let got = put("fast", json!({ "users": ["a\nb"] })).send().await;
    assert_eq!(got.at(400, "invalid"), "/users/0");
    let delete = |name: &str| bench.ask(root(), "DELETE", &format!("/v1/queues/{name}"));
    assert_eq!(delete("fast").send().await.status, 204);
    delete("fast").send().await.problem(404, "no-such-queue");
    bench.job().await;
    delete("default").send().await.problem(409, "conflict");
}

#[tokio::test]
async fn an_image_is_streamed_in() {
    let bench = Bench::new();
    let pieces = (0..100).map(|_| Ok::<_, std::io::Error>(vec![7_u8; 50_000]));
    let body = Body::from_stream(stream::iter(pieces));
    let ask = bench
        .ask(alice(), "POST", "/v1/images")
        .bytes("application/x-tar", body);
    let image = ask.send().await.json(201);
    assert_eq!(image["bytes"], 5_000_000);
    assert_eq!(image["user"], "alice");
    assert!(image["digest"].as_str().unwrap().starts_with("sha256:"));
    let listed = bench.get("/v1/images").await.json(200);
    assert_eq!(listed, json!([image]));
    let got = bench
        .ask(alice(), "POST", "/v1/images")
        .bytes("text/plain", "x")
        .send()
        .await;
    got.problem(415, "media-type");
    let got = bench.ask(alice(), "POST", "/v1/images").send().await;
    got.problem(415, "media-type");
    let got = bench
        .ask(alice(), "POST", "/v1/images")
        .bytes("application/gzip", "")
        .send()
        .await;
    got.problem(400, "invalid");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_stalls_is_given_up() {
    let bench = Bench::new();
    let pieces = stream::iter([Ok::<_, std::io::Error>("begin")]);
    let body = Body::from_stream(futures_util::StreamExt::chain(pieces, stream::pending()));
    let ask = bench
        .ask(alice(), "POST", "/v1/images")
        .bytes("application/x-tar", body);
    let got = ask.send().await;
    assert!(
        got.problem(400, "invalid")
            .detail
            .contains("nothing came for 60 s")
    );
}

#[tokio::test]
async fn the_controller_itself() {
    let bench = Bench::new();
    let got = bench.ask(nobody(), "GET", "/healthz").send().await;
    assert_eq!(got.json(200), json!({ "healthy": true }));
    let got = bench.get("/v1/version").await.json(200);
    assert_eq!(
        got,
        json!({ "version": env!("CARGO_PKG_VERSION"), "api": "v1" })
    );
    let got = bench.get("/openapi.json").await.json(200);
    assert_eq!(got["openapi"], "3.1.0");
}

#[tokio::test]
async fn metrics_count_the_calls() {
    let bench = Bench::new();
    bench.get("/v1/jobs").await.json(200);
    bench.get("/v1/jobs/7").await.problem(404, "no-such-job");
    bench.get("/v1/jobs/8").await.problem(404, "no-such-job");
    bench
        .ask(alice(), "BREW", "/v1/jobs")
        .send()
        .await
        .problem(405, "wrong-method");
    bench.get("/coffee").await.problem(404, "no-such-route");
    let got = bench.get("/metrics").await;
    assert_eq!(
        got.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = String::from_utf8(got.body).unwrap();
    for line in [
        r#"stillmetal_http_requests_total{method="GET",route="/v1/jobs",status="200"} 1"#,
        r#"stillmetal_http_requests_total{method="GET",route="/v1/jobs/{id}",status="404"} 2"#,
        r#"stillmetal_http_requests_total{method="other",route="-",status="405"} 1"#,
        r#"stillmetal_http_requests_total{method="GET",route="-",status="404"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}
