//! Peers that are slow, silent, greedy or malformed, and the others beside them.

use std::time::Duration;

use hyper::StatusCode;
use pki::RoleName;
use serde_json::json;
use stillmetal_proxy::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::client::{Client, raw, tls_as};
use crate::rig::{Over, Rig, soon};

port_and_tunnel!(
    an_engine_that_is_not_ready_says_so,
    shutdown_lets_answers_in_progress_end,
);

#[tokio::test]
async fn silent_peers_do_not_delay_others() {
    let rig = Rig::new().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(rig.address).await.unwrap());
    }
    let issued = rig.issue(RoleName::User);
    for _ in 0..20 {
        let mut stream = tls_as(rig.address, &rig.authority, &issued).await.unwrap();
        stream
            .write_all(b"GET /_ping HTTP/1.1\r\nhos")
            .await
            .unwrap();
        stream.flush().await.unwrap();
        drop(silent.pop());
    }
    let began = Instant::now();
    assert_eq!(rig.admin().await.get("/_ping").await.0, StatusCode::OK);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

/// More silent peers than there are places for handshakes: the oldest make room.
#[tokio::test]
async fn a_flood_of_silent_peers_does_not_lock_others_out() {
    let rig = Rig::with(Limits {
        handshakes: 8,
        ..Limits::default()
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(rig.address).await.unwrap());
        if silent.len() % 10 == 0 {
            assert_eq!(rig.user().await.get("/_ping").await.0, StatusCode::OK);
        }
    }
    let mut end = Vec::new();
    soon("the oldest's end", silent[0].read_to_end(&mut end))
        .await
        .ok();
}

#[tokio::test]
async fn each_phase_has_its_deadline() {
    let short = Duration::from_millis(300);
    let rig = Rig::with(Limits {
        handshake_deadline: short,
        header_deadline: short,
        keep_alive_idle: Duration::from_secs(600),
        body_deadline: short,
        ..Limits::default()
    })
    .await;
    let mut mute = TcpStream::connect(rig.address).await.unwrap();
    assert_eq!(
        soon("no handshake", mute.read_to_end(&mut Vec::new()))
            .await
            .unwrap(),
        0
    );

    let issued = rig.issue(RoleName::User);
    let connect = || tls_as(rig.address, &rig.authority, &issued);
    let mut slow = connect().await.unwrap();
    let began = Instant::now();
    slow.write_all(b"GET /_ping HTTP/1.1\r\n").await.unwrap();
    let trickle = async {
        loop {
            if slow.write_all(b"x: y\r\n").await.is_err() || slow.flush().await.is_err() {
                break;
            }
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(50), slow.read(&mut byte));
            if matches!(read.await, Ok(Ok(0) | Err(_))) {
                break;
            }
        }
    };
    soon("trickling headers", trickle).await;
    assert!(began.elapsed() >= short);

    let mut slow = connect().await.unwrap();
    let answer = raw(
        &mut slow,
        b"POST /containers/create HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{",
    )
    .await
    .unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");

    // Between requests a connection may rest for longer.
    let mut client = Client::over(connect().await.unwrap()).await;
    assert_eq!(client.get("/_ping").await.0, StatusCode::OK);
    tokio::time::sleep(short * 2).await;
    assert_eq!(client.get("/_ping").await.0, StatusCode::OK);
    assert!(
        rig.engine
            .asked()
            .iter()
            .all(|asked| asked.ends_with("/_ping"))
    );
}

#[tokio::test]
async fn bodies_that_cannot_be_checked_are_refused_and_nothing_is_forwarded() {
    let rig = Rig::new().await;
    let mut client = rig.admin().await;
    let create = "/containers/create";
    let huge = format!(r#"{{"Image":"{}"}}"#, "x".repeat(8 * 1024 * 1024));
    for (target, body, expected) in [
        (create, "{", StatusCode::BAD_REQUEST),
        (create, "", StatusCode::BAD_REQUEST),
        (
            create,
            r#"{"Image":"a","Image":"b"}"#,
            StatusCode::BAD_REQUEST,
        ),
        (create, huge.as_str(), StatusCode::PAYLOAD_TOO_LARGE),
        ("/containers/prune", "{}", StatusCode::BAD_REQUEST),
        ("/containers/../secrets", "", StatusCode::BAD_REQUEST),
        ("/swarm/init", "{}", StatusCode::NOT_FOUND),
    ] {
        let (status, answer) = client.post(target, body).await;
        assert_eq!(status, expected, "{target}: {answer}");
        assert!(answer["message"].is_string(), "{answer}");
        client = rig.admin().await;
    }
    // The same without a length announced, and with a length that lies.
    let issued = rig.issue(RoleName::Admin);
    for (head, expected) in [
        (
            "transfer-encoding: chunked\r\n\r\nffffff\r\n",
            "HTTP/1.1 413",
        ),
        ("content-length: 99999999\r\n\r\n", "HTTP/1.1 413"),
        (
            "content-length: 3\r\ncontent-length: 4\r\n\r\n{}  ",
            "HTTP/1.1 400",
        ),
        (
            "content-type: application/x-www-form-urlencoded\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 400",
        ),
    ] {
        let mut stream = tls_as(rig.address, &rig.authority, &issued).await.unwrap();
        let mut bytes =
            format!("POST /containers/create HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}")
                .into_bytes();
        if head.contains("chunked") {
            bytes.resize(bytes.len() + 0xff_ffff, b' ');
        }
        let answer = raw(&mut stream, &bytes)
            .await
            .unwrap_or_else(|error| error.to_string());
        assert!(answer.starts_with(expected), "{head}: {answer}");
    }
    assert!(rig.engine.seen().is_empty(), "{:?}", rig.engine.asked());
}

#[tokio::test]
async fn headers_are_bounded() {
    let rig = Rig::new().await;
    let issued = rig.issue(RoleName::Admin);
    let mut stream = tls_as(rig.address, &rig.authority, &issued).await.unwrap();
    // The bound is not exact: what one read brings on top is taken too.
    let long = format!(
        "GET /_ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\na: {}\r\n\r\n",
        "x".repeat(1_000_000)
    );
    let answer = raw(&mut stream, long.as_bytes()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(rig.engine.seen().is_empty());
}

#[tokio::test]
async fn a_client_is_told_to_continue_only_with_what_will_be_read() {
    let rig = Rig::new().await;
    let issued = rig.issue(RoleName::Admin);
    let ask = |length: usize| {
        format!(
            "POST /containers/create HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n"
        )
    };
    let mut stream = tls_as(rig.address, &rig.authority, &issued).await.unwrap();
    let answer = raw(&mut stream, ask(99_999_999).as_bytes()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let body = r#"{"Image":"x"}"#;
    let mut stream = tls_as(rig.address, &rig.authority, &issued).await.unwrap();
    stream.write_all(ask(body.len()).as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    soon("100", stream.read_exact(&mut go_on)).await.unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100"));
    let answer = raw(&mut stream, body.as_bytes()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(!rig.engine.seen()[0].headers.contains_key("expect"));
}

async fn an_engine_that_is_not_ready_says_so(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    *rig.node.not_ready.lock().unwrap() = Some("containerd is being started".into());
    let mut client = rig.user().await;
    for target in ["/_ping", "/version", "/containers/json"] {
        let response = client
            .send(crate::client::request("GET", target, ""))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "1");
        drop(http_body_util::BodyExt::collect(response).await);
    }
    let (_, body) = client.get("/version").await;
    assert_eq!(
        body,
        json!({ "message": "engine starting: containerd is being started" })
    );
    // The node's own interface does not depend on the engine.
    assert_eq!(client.get("/stillmetal/v1/node").await.0, StatusCode::OK);
    *rig.node.not_ready.lock().unwrap() = None;
    rig.engine.die().await;
    let (status, body) = client.get("/version").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
}

async fn shutdown_lets_answers_in_progress_end(over: Over) {
    let mut rig = Rig::over(over, Limits::default()).await;
    let mut client = rig.user().await;
    let target = "/containers/told/logs?follow=1&stdout=1";
    let response = client
        .send(crate::client::request("GET", target, ""))
        .await
        .unwrap();
    rig.shutdown.cancel();
    rig.engine.tell.send("last".into()).await.unwrap();
    let (tell, _) = tokio::sync::mpsc::channel(1);
    rig.engine.tell = tell;
    let body = soon("answer", http_body_util::BodyExt::collect(response))
        .await
        .unwrap();
    assert_eq!(body.to_bytes(), "last");
    soon("server's end", rig.server.take().unwrap())
        .await
        .unwrap();
}
