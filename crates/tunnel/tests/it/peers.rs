//! Peers that are not what they should be.

use std::time::Duration;

use h2::client;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tunnel::{Acceptor, End, HandshakeError, Limits, accept, connect};

use crate::io::{Wire, wires};

fn broke_the_rules(error: &HandshakeError) -> bool {
    matches!(
        error,
        HandshakeError::Ended(End::Protocol { .. } | End::Io { .. })
    )
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_speaks_something_else_is_no_tunnel() {
    let texts: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: controller\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_10.0p2 Debian-7\r\nand more that is longer than a frame's head\r\n",
        &[0xff; 4096],
    ];
    for text in texts {
        let (mut peer, ours) = duplex(64 * 1024);
        peer.write_all(text).await.unwrap();
        let error = accept(ours, &Limits::default()).await.unwrap_err();
        assert!(broke_the_rules(&error), "{error:?}");

        let (mut peer, ours) = duplex(64 * 1024);
        peer.write_all(text).await.unwrap();
        let error = connect(ours, &Limits::default()).await.unwrap_err();
        assert!(broke_the_rules(&error), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_has_a_deadline() {
    let limits = Limits::default();
    let (_peer, ours) = duplex(64 * 1024);
    let error = accept(ours, &limits).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Deadline { within } if within == limits.handshake));
    let (_peer, ours) = duplex(64 * 1024);
    let error = connect(ours, &limits).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Deadline { within } if within == limits.handshake));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_at_once_is_no_tunnel() {
    let (peer, ours) = duplex(64 * 1024);
    drop(peer);
    let error = accept(ours, &Limits::default()).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Ended(_)), "{error:?}");
    let (peer, ours) = duplex(64 * 1024);
    drop(peer);
    let error = connect(ours, &Limits::default()).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Ended(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn garbage_after_a_good_start_ends_the_tunnel() {
    let (mut peer, ours) = duplex(64 * 1024);
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    // Empty settings, then nonsense.
    peer.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    peer.write_all(&[0xff; 100]).await.unwrap();
    let (mut acceptor, driver) = accept(ours, &Limits::default()).await.unwrap();
    let end = driver.await;
    assert!(matches!(end, End::Protocol { .. }), "{end:?}");
    assert!(acceptor.next().await.is_none());
}

/// A controller of another make.
async fn stranger() -> (client::SendRequest<bytes::Bytes>, Acceptor) {
    let (controller, agent, _) = wires();
    let agent = tokio::spawn(async move {
        let (acceptor, driver) = accept(agent, &Limits::default()).await.unwrap();
        tokio::spawn(driver);
        acceptor
    });
    let (sender, connection): (_, client::Connection<Wire>) =
        client::handshake(controller).await.unwrap();
    tokio::spawn(connection);
    (sender, agent.await.unwrap())
}

async fn answer(
    sender: &client::SendRequest<bytes::Bytes>,
    request: Request<()>,
) -> Result<StatusCode, h2::Error> {
    let mut ready = sender.clone().ready().await?;
    let (response, _send) = ready.send_request(request, false)?;
    Ok(response.await?.status())
}

#[tokio::test(start_paused = true)]
async fn heads_that_are_none_are_refused_and_harm_nobody() {
    let (sender, mut acceptor) = stranger().await;
    let get = Request::get("http://docker/").body(()).unwrap();
    assert_eq!(answer(&sender, get).await.unwrap(), 400);
    let connect = |key: &str, value: &[u8]| {
        Request::connect("docker")
            .header(key, value)
            .body(())
            .unwrap()
    };
    let long = connect("stillmetal-key", &[b'x'; 9_000]);
    assert_eq!(answer(&sender, long).await.unwrap(), 400);
    let binary = connect("stillmetal-key", b"\xff\xfe");
    assert_eq!(answer(&sender, binary).await.unwrap(), 400);
    // Beyond what HTTP/2 was told to take.
    let huge = connect("stillmetal-key", &[b'x'; 20_000]);
    let huge = answer(&sender, huge).await;
    assert!(huge.is_err() || huge.unwrap() == 431);

    let good = connect("stillmetal-role", b"admin");
    let (status, stream) = tokio::join!(answer(&sender, good), async {
        let incoming = acceptor.next().await.unwrap();
        assert_eq!(incoming.head().get("role"), Some("admin"));
        incoming.accept().unwrap()
    });
    assert_eq!(status.unwrap(), 200);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn streams_opened_and_reset_at_once_harm_nobody() {
    let (sender, mut acceptor) = stranger().await;
    let request = || Request::connect("docker").body(()).unwrap();
    for _ in 0..200 {
        for _ in 0..50 {
            let mut ready = sender.clone().ready().await.unwrap();
            let (response, mut send) = ready.send_request(request(), false).unwrap();
            send.send_reset(h2::Reason::CANCEL);
            drop(response);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (status, ()) = tokio::join!(answer(&sender, request()), async {
        // Those that were reset before they were taken may still be here.
        while let Some(incoming) = acceptor.next().await {
            if let Ok(mut stream) = incoming.accept() {
                drop(stream.read_u8().await);
                break;
            }
        }
    });
    assert_eq!(status.unwrap(), 200);
}
