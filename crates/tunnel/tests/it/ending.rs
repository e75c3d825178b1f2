//! How a tunnel ends, and what its streams are told.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel::limits::STREAMS;
use tunnel::{End, Head, OpenError, StreamError};

use crate::rig::{Over, Served, echo_once, pair, read_all, soon};

pub(crate) fn of_tunnel(error: &std::io::Error) -> &End {
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(StreamError::Tunnel { source }) => source,
        other => panic!("{other:?}"),
    }
}

/// The agent's process is killed, with streams that are read, written and waited for.
async fn cut(over: Over) {
    let served = pair(over).await.serve();
    let mut reading = served.open("hold").await;
    let mut writing = served.open("deaf").await;
    let mut others = Vec::new();
    for _ in 2..STREAMS {
        others.push(served.open("hold").await);
    }
    let head = Head::new("hold").unwrap();
    let opens = (0..20).map(|_| served.tunnel.open(&head));
    let opens = futures_util::future::join_all(opens);
    let read = async {
        let mut byte = [0];
        reading.read(&mut byte).await.unwrap_err()
    };
    let write = async {
        loop {
            if let Err(error) = writing.write(&[0; 1000]).await {
                return error;
            }
        }
    };
    let kill = async {
        tokio::task::yield_now().await;
        served.agent.abort();
    };
    let (read, write, opens, ()) =
        soon("cut", async { tokio::join!(read, write, opens, kill) }).await;
    let gone = |end: &End| matches!(end, End::PeerClosed | End::Io { .. });
    let end = soon("end", served.controller).await.unwrap();
    assert!(gone(&end), "{end:?}");
    assert_eq!(of_tunnel(&read).to_string(), end.to_string());
    assert!(gone(of_tunnel(&read)), "{read:?}");
    assert!(gone(of_tunnel(&write)), "{write:?}");
    for open in opens {
        match open {
            Err(OpenError::Ended(end)) => assert!(gone(&end), "{end:?}"),
            other => panic!("{other:?}"),
        }
    }
    for mut stream in others {
        let error = soon("read", stream.read_u8()).await.unwrap_err();
        assert!(gone(of_tunnel(&error)), "{error:?}");
        let error = soon("write", stream.write_u8(0)).await.unwrap_err();
        assert!(gone(of_tunnel(&error)), "{error:?}");
    }
    assert!(gone(&served.tunnel.handle().closed().await));
    assert!(matches!(served.agent_handle.end(), Some(End::Abandoned)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_ends_every_stream_over_memory() {
    cut(Over::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_ends_every_stream_over_tls() {
    cut(Over::Tls).await;
}

#[tokio::test(start_paused = true)]
async fn what_arrived_before_the_cut_can_still_be_read() {
    let served = pair(Over::Memory).await.serve();
    let mut stream = served.open("flood").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    served.agent.abort();
    served.tunnel.handle().closed().await;
    let mut all = Vec::new();
    let error = stream.read_to_end(&mut all).await.unwrap_err();
    of_tunnel(&error);
    assert_eq!(all.len(), tunnel::limits::STREAM_WINDOW as usize);
}

async fn agent_goes(over: Over) {
    let served = pair(over).await.serve();
    let mut stream = served.open("echo").await;
    echo_once(&mut stream, b"before").await;
    served.agent_handle.go_away(Duration::from_secs(3_600));
    refused_from_now_on(&served).await;
    echo_once(&mut stream, b"after").await;
    stream.write_all(b"last words").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, b"last words");
    drop(stream);
    let end = soon("agent's end", served.agent).await.unwrap();
    assert!(matches!(end, End::Finished), "{end:?}");
    let end = soon("controller's end", served.controller).await.unwrap();
    assert!(matches!(end, End::PeerClosed), "{end:?}");
    let head = Head::new("echo").unwrap();
    let error = served.tunnel.open(&head).await.unwrap_err();
    assert!(matches!(error, OpenError::Ended(End::PeerClosed)));
}

/// The word may take a moment to arrive; a stream accepted before that is as good as any.
async fn refused_from_now_on(served: &Served) {
    let head = Head::new("echo").unwrap();
    soon("going away", async {
        loop {
            match served.tunnel.open(&head).await {
                Ok(_) => {}
                Err(OpenError::Refused { reason }) => assert!(reason.contains("close")),
                Err(OpenError::GoingAway) => return,
                Err(other) => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_goes_lets_streams_finish_over_memory() {
    agent_goes(Over::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_goes_lets_streams_finish_over_tls() {
    agent_goes(Over::Tls).await;
}

async fn controller_goes(over: Over) {
    let served = pair(over).await.serve();
    let mut stream = served.open("echo").await;
    served.tunnel.handle().go_away(Duration::from_secs(3_600));
    refused_from_now_on(&served).await;
    echo_once(&mut stream, b"after").await;
    stream.write_all(b"last words").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, b"last words");
    drop(stream);
    let end = soon("controller's end", served.controller).await.unwrap();
    assert!(matches!(end, End::Finished), "{end:?}");
    let end = soon("agent's end", served.agent).await.unwrap();
    assert!(matches!(end, End::PeerClosed), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_goes_lets_streams_finish_over_memory() {
    controller_goes(Over::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_goes_lets_streams_finish_over_tls() {
    controller_goes(Over::Tls).await;
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_cut_off() {
    for agent in [true, false] {
        let served = pair(Over::Memory).await.serve();
        let mut stream = served.open("hold").await;
        let handle = if agent {
            served.agent_handle.clone()
        } else {
            served.tunnel.handle()
        };
        let began = tokio::time::Instant::now();
        handle.go_away(Duration::from_secs(3_600));
        // A longer time than before changes nothing, a shorter one does.
        handle.go_away(Duration::from_secs(7_200));
        handle.go_away(Duration::from_secs(60));
        let error = stream.read_u8().await.unwrap_err();
        of_tunnel(&error);
        assert!(matches!(
            handle.closed().await,
            End::Cut { within } if within == Duration::from_secs(60)
        ));
        assert_eq!(began.elapsed().as_secs(), 60);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_nobody_holds_closes_after_its_last_stream() {
    let served = pair(Over::Memory).await.serve();
    let mut stream = served.open("echo").await;
    drop(served.tunnel);
    echo_once(&mut stream, b"still there").await;
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, b"");
    drop(stream);
    assert!(matches!(served.controller.await.unwrap(), End::Finished));
    assert!(matches!(served.agent.await.unwrap(), End::PeerClosed));
}

#[tokio::test(start_paused = true)]
async fn an_acceptor_that_is_dropped_takes_the_tunnel_along() {
    let pair = pair(Over::Memory).await;
    drop(pair.acceptor);
    let end = pair.agent.await.unwrap();
    assert!(matches!(end, End::Finished), "{end:?}");
    let end = pair.controller.await.unwrap();
    assert!(matches!(end, End::PeerClosed), "{end:?}");
}

/// The peer's half has ended, and nothing is written: only watching tells that the peer has left.
async fn left(over: Over) {
    let mut pair = pair(over).await;
    let head = Head::new("any").unwrap();
    for whole in [false, true] {
        let incoming = async { pair.acceptor.next().await.unwrap().accept().unwrap() };
        let (opened, mut accepted) = tokio::join!(pair.tunnel.open(&head), incoming);
        let mut opened = opened.unwrap();
        let gone = tokio::spawn(accepted.gone());
        opened.write_all(b"input").await.unwrap();
        opened.shutdown().await.unwrap();
        assert_eq!(read_all(&mut accepted).await, b"input");
        // All of the window is used up, so that there is one who waits to write.
        let mut writer = tokio::spawn(async move {
            let written = accepted.write_all(&[0; 100_000]).await;
            (accepted, written)
        });
        let mut some = vec![0; 50_000];
        soon("output", opened.read_exact(&mut some)).await.unwrap();
        soon("the rest", opened.read_exact(&mut some))
            .await
            .unwrap();
        let (mut accepted, written) = soon("writer", &mut writer).await.unwrap();
        written.unwrap();
        assert!(!gone.is_finished());
        if whole {
            pair.controller.abort();
        } else {
            drop(opened);
        }
        soon("gone", gone).await.unwrap();
        accepted.write_all(&[0; 1]).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_leaves_after_its_half_is_noticed_over_memory() {
    left(Over::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_leaves_after_its_half_is_noticed_over_tls() {
    left(Over::Tls).await;
}

#[tokio::test]
async fn a_watch_does_not_hold_its_stream() {
    let mut pair = pair(Over::Memory).await;
    let head = Head::new("any").unwrap();
    let incoming = async { pair.acceptor.next().await.unwrap().accept().unwrap() };
    let (opened, accepted) = tokio::join!(pair.tunnel.open(&head), incoming);
    let (mut opened, gone) = (opened.unwrap(), accepted.gone());
    drop(accepted);
    let error = soon("reset", opened.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    soon("gone", gone).await;
}
