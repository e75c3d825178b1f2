//! Attach and exec: raw streams, each half for itself.

use std::time::Duration;

use hyper::StatusCode;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::json;
use stillmetal_proxy::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tunnel::Stream;

use crate::client::{Client, Tls, tls_as, upgrade};
use crate::rig::{Over, PATIENCE, Rig, soon};

port_and_tunnel!(
    sixty_four_mebibytes_go_in_and_come_out_and_the_last_words_follow_the_end_of_input,
    input_goes_on_after_the_engine_has_ended_its_output,
    output_may_take_its_time_after_the_end_of_input,
    a_client_that_vanishes_after_its_input_closes_the_engines_side,
    a_client_that_vanishes_in_the_middle_closes_the_engines_side,
    an_engine_that_dies_ends_the_stream,
    shutdown_cuts_hijacked_streams_off,
    without_an_upgrade_only_output_is_possible,
);

type Raw = TokioIo<Upgraded>;

const EXEC: &str = r#"{"Detach":false,"Tty":false}"#;
const LONG: u64 = 64 * 1024 * 1024;

/// The raw stream of an exec or attach.
async fn hijack(rig: &Rig, target: &str, body: &str) -> Raw {
    let mut client = rig.admin().await;
    let response = client.send(upgrade(target, body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["upgrade"], "tcp");
    assert_eq!(
        response.headers()["content-type"],
        "application/vnd.docker.raw-stream"
    );
    TokioIo::new(soon("upgrade", hyper::upgrade::on(response)).await.unwrap())
}

async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<u64> {
    let mut chunk = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        match soon("output", stream.read(&mut chunk)).await? {
            0 => return Ok(total),
            count => total += count as u64,
        }
    }
}

async fn sixty_four_mebibytes_go_in_and_come_out_and_the_last_words_follow_the_end_of_input(
    over: Over,
) {
    let rig = Rig::over(over, Limits::default()).await;
    let stream = hijack(&rig, "/exec/echo/start", EXEC).await;
    let seen = rig.engine.seen().pop().unwrap();
    assert_eq!(seen.headers["connection"], "Upgrade");
    assert_eq!(seen.headers["upgrade"], "tcp");
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&seen.body).unwrap()["Tty"],
        json!(false)
    );

    let (mut read, mut write) = tokio::io::split(stream);
    let input = tokio::spawn(async move {
        let chunk = vec![7; 1024 * 1024];
        for _ in 0..LONG / chunk.len() as u64 {
            soon("input", write.write_all(&chunk)).await.unwrap();
        }
        soon("end of input", write.shutdown()).await.unwrap();
    });
    let words = format!("got {LONG}");
    assert_eq!(
        read_all(&mut read).await.unwrap(),
        LONG + words.len() as u64
    );
    input.await.unwrap();
    assert_eq!(rig.engine.look(|state| state.received), LONG);
}

async fn input_goes_on_after_the_engine_has_ended_its_output(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    let mut stream = hijack(&rig, "/exec/source/start", EXEC).await;
    assert_eq!(read_all(&mut stream).await.unwrap(), LONG);
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    rig.engine
        .until("the input", |state| state.input_ended == 1)
        .await;
    assert_eq!(rig.engine.look(|state| state.received), 10);
}

async fn output_may_take_its_time_after_the_end_of_input(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    let mut stream = hijack(
        &rig,
        "/containers/late/attach?stream=1&stdin=1&stdout=1",
        "",
    )
    .await;
    stream.write_all(b"12345").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut words = String::new();
    soon("last words", stream.read_to_string(&mut words))
        .await
        .unwrap();
    assert_eq!(words, "got 5");
}

async fn a_client_that_vanishes_after_its_input_closes_the_engines_side(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    let stream = hijack(&rig, "/exec/silent/start", EXEC).await;
    let mut below = Below::of(stream);
    below.end_input().await;
    rig.engine
        .until("the end of input", |state| state.input_ended == 1)
        .await;
    below.vanish();
    rig.engine
        .until("the engine's side closed", |state| state.open == 0)
        .await;
}

async fn a_client_that_vanishes_in_the_middle_closes_the_engines_side(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    let mut stream = hijack(&rig, "/exec/silent/start", EXEC).await;
    stream.write_all(b"half a sen").await.unwrap();
    rig.engine
        .until("some input", |state| state.received == 10)
        .await;
    Below::of(stream).vanish();
    rig.engine
        .until("the engine's side closed", |state| state.open == 0)
        .await;
}

/// What a raw stream runs over.
enum Below {
    Tls(Box<Tls>),
    Tunnel(Stream),
}

impl Below {
    fn of(stream: Raw) -> Self {
        match stream.into_inner().downcast::<TokioIo<Tls>>() {
            Ok(parts) => Self::Tls(Box::new(parts.io.into_inner())),
            Err(upgraded) => {
                let parts = upgraded.downcast::<TokioIo<Stream>>().unwrap();
                Self::Tunnel(parts.io.into_inner())
            }
        }
    }

    /// As Docker's client does: TLS says so, TCP does not.
    async fn end_input(&mut self) {
        match self {
            Self::Tls(tls) => {
                tls.get_mut().1.send_close_notify();
                tls.flush().await.unwrap();
            }
            Self::Tunnel(stream) => stream.shutdown().await.unwrap(),
        }
    }

    /// As a machine does that lost its memory of the connection.
    fn vanish(self) {
        match self {
            Self::Tls(tls) => {
                let (tcp, _): (TcpStream, _) = tls.into_inner();
                socket2::SockRef::from(&tcp)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
            Self::Tunnel(stream) => drop(stream),
        }
    }
}

async fn an_engine_that_dies_ends_the_stream(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    let mut stream = hijack(&rig, "/exec/silent/start", EXEC).await;
    rig.engine.die().await;
    // The engine's part of a hijack has no framing, so this can only look like an end.
    drop(soon("end", read_all(&mut stream)).await);
}

async fn shutdown_cuts_hijacked_streams_off(over: Over) {
    let limits = Limits {
        drain: Duration::from_millis(50),
        ..Default::default()
    };
    let mut rig = Rig::over(over, limits).await;
    let mut stream = hijack(&rig, "/exec/silent/start", EXEC).await;
    rig.shutdown.cancel();
    soon("server's end", rig.server.take().unwrap())
        .await
        .unwrap();
    match over {
        Over::Port => assert!(TcpStream::connect(rig.address).await.is_err()),
        // Reset, and no clean end.
        Over::Tunnel => assert!(read_all(&mut stream).await.is_err()),
    }
}

async fn without_an_upgrade_only_output_is_possible(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    let mut client = rig.admin().await;
    for (target, body) in [
        ("/exec/with-stdin/start", EXEC),
        ("/containers/told/attach?stdin=1&stream=1", ""),
    ] {
        let (status, body) = client.post(target, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{target}");
        assert!(
            body["message"].as_str().unwrap().contains("Upgrade"),
            "{body}"
        );
    }
    let asked = rig.engine.asked();
    assert!(
        !asked.iter().any(|asked| asked.starts_with("POST")),
        "{asked:?}"
    );

    let (status, _) = client.post("/exec/plain/start", EXEC).await;
    assert_eq!(status, StatusCode::OK);
    let detached = r#"{"Detach":true}"#;
    assert_eq!(
        client.post("/exec/with-stdin/start", detached).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn only_known_protocols_and_endpoints_are_upgraded() {
    let rig = Rig::new().await;
    let mut client = rig.admin().await;
    let mut request = upgrade("/exec/echo/start", EXEC);
    request
        .headers_mut()
        .insert("upgrade", "websocket".parse().unwrap());
    assert_eq!(
        client.send(request).await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
    let (status, _) = client.post("/session", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(rig.engine.seen().is_empty());

    let mut request = upgrade("/_ping", "");
    *request.method_mut() = hyper::Method::GET;
    assert_eq!(client.send(request).await.unwrap().status(), StatusCode::OK);
    assert!(!rig.engine.seen()[0].headers.contains_key("upgrade"));
}

/// A node without a port counts by user.
#[tokio::test]
async fn a_user_has_so_many_streams_and_no_more() {
    let limits = Limits {
        connections_per_certificate: 1,
        ..Limits::default()
    };
    let rig = Rig::over(Over::Tunnel, limits).await;
    let held = hijack(&rig, "/exec/silent/start", EXEC).await;
    let (status, _) = rig.admin().await.get("/_ping").await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(rig.user().await.get("/_ping").await.0, StatusCode::OK);
    drop(held);
    soon("a free place", async {
        while rig.admin().await.get("/_ping").await.0 != StatusCode::OK {}
    })
    .await;
}

/// The certificate's places are given back when the hijacked stream ends, not before.
#[tokio::test]
async fn a_hijacked_stream_counts_as_a_connection() {
    let limits = Limits {
        connections_per_certificate: 1,
        ..Default::default()
    };
    let rig = Rig::with(limits).await;
    let issued = rig.issue(pki::RoleName::Admin);
    let stream = tls_as(rig.address, &rig.authority, &issued).await.unwrap();
    let mut client = Client::over(stream).await;
    let response = client
        .send(upgrade("/exec/silent/start", EXEC))
        .await
        .unwrap();
    let upgraded = hyper::upgrade::on(response).await.unwrap();
    let mut second = Client::connect(rig.address, &rig.authority, &issued)
        .await
        .unwrap();
    assert_eq!(second.get("/_ping").await.0, StatusCode::TOO_MANY_REQUESTS);
    drop(upgraded);
    let began = tokio::time::Instant::now();
    loop {
        let mut third = Client::connect(rig.address, &rig.authority, &issued)
            .await
            .unwrap();
        if third.get("/_ping").await.0 == StatusCode::OK {
            break;
        }
        assert!(began.elapsed() < PATIENCE);
    }
}
