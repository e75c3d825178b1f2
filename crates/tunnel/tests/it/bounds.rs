//! How much there may be of everything.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::time::sleep;
use tunnel::limits::{STREAM_WINDOW, STREAMS};
use tunnel::{Head, Limits, Liveness, OpenError};

use crate::rig::{Over, echo_once, pair, pair_with, pattern, read_all};

/// With the clock paused this returns when nothing else can go on.
async fn quiet() {
    sleep(Duration::from_millis(1)).await;
}

fn silent() -> Limits {
    Limits {
        liveness: Liveness::Silent,
        ..Limits::default()
    }
}

#[tokio::test(start_paused = true)]
async fn who_writes_to_a_stalled_reader_stops_at_its_window() {
    let served = pair(Over::Memory).await.serve();
    for service in ["flood", "drip"] {
        let before = served.written();
        let mut stream = served.open(service).await;
        quiet().await;
        assert_eq!(served.written() - before, u64::from(STREAM_WINDOW));
        let mut some = vec![0; 40_000];
        stream.read_exact(&mut some).await.unwrap();
        quiet().await;
        assert!(served.written() - before <= u64::from(STREAM_WINDOW) + 40_000);
        assert!(served.written() - before > u64::from(STREAM_WINDOW));
    }
    // And the other way round.
    let stream = served.open("deaf").await;
    let (_read, mut write) = split(stream);
    let mut written = 0;
    let filled = tokio::time::timeout(Duration::from_secs(1), async {
        loop {
            written += write.write(&[0; 1000]).await.unwrap();
        }
    });
    filled.await.unwrap_err();
    assert_eq!(written, STREAM_WINDOW as usize);
}

#[tokio::test(start_paused = true)]
async fn opens_beyond_the_bound_wait_for_their_turn() {
    let limits = Limits {
        pending_opens: 3,
        ..silent()
    };
    let served = pair_with(Over::Memory, &limits).await.serve();
    let mut held = Vec::new();
    for _ in 0..STREAMS {
        held.push(served.open("echo").await);
    }
    let head = Head::new("echo").unwrap();
    let late = served.tunnel.open(&head).await.unwrap_err();
    assert!(matches!(late, OpenError::Deadline { within } if within == limits.open));

    let waiting = [(); 3].map(|()| {
        let (tunnel, head) = (served.tunnel.clone(), head.clone());
        tokio::spawn(async move { tunnel.open(&head).await })
    });
    quiet().await;
    let busy = served.tunnel.open(&head).await.unwrap_err();
    assert!(matches!(busy, OpenError::Busy { pending: 3 }));
    held.truncate(STREAMS as usize - 3);
    for open in waiting {
        echo_once(&mut open.await.unwrap().unwrap(), b"at last").await;
    }
}

/// For HTTP/2 such a stream is closed and could be followed by another one, and 256 of these, and so
/// on, until their unread bytes have used up the connection's window.
#[tokio::test(start_paused = true)]
async fn a_stream_that_has_ended_unread_counts_at_the_controller() {
    let served = pair_with(Over::Memory, &silent()).await.serve();
    let mut unread = Vec::new();
    for _ in 1..STREAMS {
        let mut stream = served.open("answer").await;
        stream.shutdown().await.unwrap();
        unread.push(stream);
    }
    quiet().await;
    let mut echo = served.open("echo").await;
    echo_once(&mut echo, &pattern(300_000, 1)[..60_000]).await;
    let head = Head::new("echo").unwrap();
    served.tunnel.open(&head).await.unwrap_err();
    for mut stream in unread {
        assert!(read_all(&mut stream).await == pattern(60_000, 5));
    }
    echo_once(&mut served.open("echo").await, b"hello").await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_ended_unread_counts_at_the_agent() {
    let mut pair = pair_with(Over::Memory, &silent()).await;
    let head = Head::new("any").unwrap();
    let mut unread = Vec::new();
    for _ in 0..STREAMS {
        let (opened, accepted) = tokio::join!(pair.tunnel.open(&head), async {
            pair.acceptor.next().await.unwrap().accept().unwrap()
        });
        let (mut ours, mut theirs) = (opened.unwrap(), accepted);
        theirs.shutdown().await.unwrap();
        ours.write_all(&[7; 60_000]).await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(read_all(&mut ours).await, b"");
        unread.push(theirs);
    }
    // However many are given up meanwhile: the tunnel and its streams take no harm.
    for _ in 0..5 {
        let opens = (0..1_000).map(|_| pair.tunnel.open(&head));
        for open in futures_util::future::join_all(opens).await {
            assert!(matches!(open.unwrap_err(), OpenError::Deadline { .. }));
        }
    }
    for mut stream in unread.drain(..) {
        assert!(read_all(&mut stream).await == [7; 60_000]);
    }
    let (opened, accepted) = tokio::join!(pair.tunnel.open(&head), async {
        pair.acceptor.next().await.unwrap().accept().unwrap()
    });
    drop((opened.unwrap(), accepted));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_given_up_holds_up_nobody() {
    let served = Arc::new(pair_with(Over::Memory, &silent()).await.serve());
    let mut full = Vec::new();
    for _ in 0..200 {
        let mut stream = served.open("deaf").await;
        let filled = tokio::time::timeout(Duration::from_secs(1), async {
            loop {
                stream.write_all(&[0; 5_000]).await.unwrap();
            }
        });
        filled.await.unwrap_err();
        full.push(stream);
    }
    let mut echo = served.open("echo").await;
    for _ in 0..20 {
        echo_once(&mut echo, &pattern(60_000, 9)).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Chunks of any size, written and read in different ones.
    #[test]
    fn bytes_keep_their_order(
        writes in prop::collection::vec(0..100_000_usize, 0..12),
        read in 1..70_000_usize,
        streams in 1..4_u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let served = pair(Over::Memory).await.serve();
            let tasks = (0..streams).map(|seed| {
                let (served, writes) = (&served, &writes);
                async move {
                    let sent = pattern(writes.iter().sum(), seed);
                    let (mut reader, mut writer) = split(served.open("echo").await);
                    let write = async {
                        let mut rest = sent.as_slice();
                        for count in writes {
                            let (chunk, more) = rest.split_at(*count);
                            writer.write_all(chunk).await.unwrap();
                            rest = more;
                        }
                        writer.shutdown().await.unwrap();
                    };
                    let back = async {
                        let (mut all, mut chunk) = (Vec::new(), vec![0; read]);
                        loop {
                            match reader.read(&mut chunk).await.unwrap() {
                                0 => return all,
                                count => all.extend_from_slice(&chunk[..count]),
                            }
                        }
                    };
                    let ((), back) = tokio::join!(write, back);
                    assert!(back == sent);
                }
            });
            futures_util::future::join_all(tasks).await;
        });
    }
}
