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
async fn nodes_are_booked_and_given_back() {
    let bench = Bench::new();
    bench.fake.add_node("bench1");
    let book = |who: Peer, body: Value| bench.ask(who, "POST", "/v1/bookings").json(&body);
    let wish = json!({ "nodes": ["bench1"], "for_seconds": 3600 });
    let made = book(alice(), wish.clone()).send().await.json(201);
    assert_eq!(made["users"], json!(["alice"]));
    assert_eq!(made["node_names"], json!(["bench1"]));
    assert_eq!(bench.get("/v1/bookings").await.json(200), json!([made]));
    let got = book(root(), wish).send().await;
    got.problem(409, "conflict");
    let got = book(root(), json!({ "nodes": ["nowhere"], "for_seconds": 1 }));
    got.send().await.problem(404, "no-such-node");
    for (at, wrong) in [
        ("/nodes", json!({ "nodes": [], "for_seconds": 1 })),
        ("/nodes/0", json!({ "nodes": ["a\nb"], "for_seconds": 1 })),
        (
            "/users/0",
            json!({ "nodes": ["a"], "users": [""], "for_seconds": 1 }),
        ),
        ("/for_seconds", json!({ "nodes": ["a"], "for_seconds": 0 })),
        (
            "/in_seconds",
            json!({ "nodes": ["a"], "for_seconds": 1, "in_seconds": 31_536_001 }),
        ),
    ] {
        assert_eq!(book(root(), wrong).send().await.at(400, "invalid"), at);
    }
    let end = |id: &str| bench.ask(alice(), "DELETE", &format!("/v1/bookings/{id}"));
    for id in ["2", "x", "-1", "99999999999999999999"] {
        end(id).send().await.problem(404, "no-such-booking");
    }
    assert_eq!(end("1").send().await.status, 204);
    assert_eq!(bench.get("/v1/bookings").await.json(200), json!([]));
}

#[tokio::test]
async fn a_health_check_is_set_and_ended() {
    let bench = Bench::new();
    bench.fake.add_node("bench1");
    let put = |body: Value| bench.ask(root(), "PUT", "/v1/health-check").json(&body);
    let check = json!({ "every_seconds": 3600, "job": { "image": "busybox", "argv": ["true"] } });
    let got = put(check).send().await.json(200);
    assert_eq!(got["check"]["job"]["argv"], json!(["true"]));
    assert_eq!(got["nodes"][0]["name"], "bench1");
    assert_eq!(got, bench.get("/v1/health-check").await.json(200));
    for (at, wrong) in [
        (
            "/every_seconds",
            json!({ "every_seconds": 59, "job": { "image": "a" } }),
        ),
        (
            "/job/place/cpus",
            json!({ "every_seconds": 60, "job": { "image": "a", "place": { "cpus": 0 } } }),
        ),
        ("/", json!({ "every_seconds": 60 })),
    ] {
        assert_eq!(put(wrong).send().await.at(400, "invalid"), at);
    }
    let got = bench.ask(root(), "DELETE", "/v1/health-check").send().await;
    assert_eq!(got.status, 204);
    assert_eq!(
        bench.get("/v1/health-check").await.json(200)["check"],
        Value::Null
    );
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
