//! Attach and exec through controller and tunnel: raw streams, each half for itself.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{Raw, Rig, Tls, soon};

const MEBIBYTE: u64 = 1024 * 1024;

/// Bytes that tell a shift, a gap and a mix-up of streams.
fn pattern(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next)
        .take(usize::try_from(MEBIBYTE).unwrap())
        .collect()
}

async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    soon("output", stream.read_to_end(&mut all)).await?;
    Ok(all)
}

#[tokio::test]
async fn a_mebibyte_of_input_comes_back_byte_for_byte_and_its_end_is_seen() {
    let rig = Rig::new().await;
    let mut sessions = Vec::new();
    for session in 0..8 {
        let mut client = rig.admin().await;
        let stream = client.hijack("/nodes/n1/v1.45/exec/echo/start").await;
        sessions.push(tokio::spawn(async move {
            let input = pattern(session);
            let (mut read, mut write) = tokio::io::split(stream);
            let sent = input.clone();
            let writer = tokio::spawn(async move {
                soon("input", write.write_all(&sent)).await.unwrap();
                soon("end of input", write.shutdown()).await.unwrap();
            });
            let output = read_all(&mut read).await.unwrap();
            writer.await.unwrap();
            let (echo, words) = output.split_at(input.len());
            assert!(echo == input);
            assert_eq!(words, format!("got {MEBIBYTE}").as_bytes());
        }));
    }
    for session in sessions {
        session.await.unwrap();
    }
    let entry = rig.log.entry("/v1.45/exec/echo/start").await;
    assert_eq!(entry.status.unwrap(), 101);
    assert!(entry.input > MEBIBYTE, "{entry:?}");
    assert!(entry.output > MEBIBYTE, "{entry:?}");
    assert_eq!(entry.caller.user, "admin");
}

#[tokio::test]
async fn output_may_take_its_time_after_the_end_of_input() {
    let rig = Rig::new().await;
    let target = "/nodes/n1/containers/late/attach?stream=1&stdin=1&stdout=1";
    let mut stream = rig.admin().await.hijack(target).await;
    stream.write_all(b"12345").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await.unwrap(), b"got 5");
}

#[tokio::test]
async fn input_goes_on_after_the_output_has_ended() {
    let rig = Rig::new().await;
    let mut stream = rig
        .admin()
        .await
        .hijack("/nodes/n1/exec/source/start")
        .await;
    let output = read_all(&mut stream).await.unwrap();
    assert_eq!(output.len() as u64, 64 * MEBIBYTE);
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    rig.engine
        .until("the input", |state| state.input_ended == 1)
        .await;
    assert_eq!(rig.engine.look(|state| state.received), 10);
}

fn tls_of(stream: Raw) -> Box<Tls> {
    let parts = stream.into_inner().downcast::<TokioIo<Tls>>().unwrap();
    Box::new(parts.io.into_inner())
}

/// As a machine does that lost its memory of the connection.
fn reset(stream: Tls) {
    let (tcp, _): (TcpStream, _) = stream.into_inner();
    tcp.set_zero_linger().unwrap();
}

#[tokio::test]
async fn a_client_that_vanishes_ends_the_engines_side() {
    let rig = Rig::new().await;
    for ended in [false, true] {
        let stream = rig
            .admin()
            .await
            .hijack("/nodes/n1/exec/silent/start")
            .await;
        rig.engine
            .until("the engine's side", |state| state.open == 1)
            .await;
        let mut stream = tls_of(stream);
        if ended {
            // As Docker's client does: TLS says so, TCP does not.
            stream.get_mut().1.send_close_notify();
            stream.flush().await.unwrap();
            rig.engine
                .until("the end of input", |state| state.input_ended == 2)
                .await;
        }
        reset(*stream);
        rig.engine
            .until("the engine's side closed", |state| state.open == 0)
            .await;
    }
}

#[tokio::test]
async fn a_node_that_loses_its_power_is_no_clean_end() {
    let rig = Rig::new().await;
    let mut stream = rig
        .admin()
        .await
        .hijack("/nodes/n1/exec/silent/start")
        .await;
    rig.nodes.dialled.cut();
    let error = read_all(&mut stream).await.unwrap_err();
    // The connection is closed, and TLS misses the farewell.
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    let entry = rig.log.entry("/exec/silent/start").await;
    assert_eq!(entry.status.unwrap(), 101);
}

#[tokio::test]
async fn a_node_that_goes_down_in_order_ends_what_is_under_way() {
    let rig = Rig::new().await;
    let mut stream = rig
        .admin()
        .await
        .hijack("/nodes/n1/exec/silent/start")
        .await;
    soon("the node's end", rig.service.end()).await;
    soon("end", read_all(&mut stream)).await.unwrap_err();
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let rig = Rig::new().await;
    for _ in 0..4 {
        let mut stream = rig.admin().await.hijack("/nodes/n1/exec/echo/start").await;
        stream.write_all(b"1").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read_all(&mut stream).await.unwrap(), b"1got 1");
    }
    rig.tasks.close();
    tokio::time::timeout(Duration::from_secs(60), rig.tasks.wait())
        .await
        .unwrap();
}
