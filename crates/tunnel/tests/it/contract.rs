//! What holds over every kind of connection.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::task::JoinSet;
use tunnel::{Head, OpenError};

use crate::rig::{Over, echo_once, pair, pattern, read_all, soon};

macro_rules! over_both {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            use super::Over;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(Over::Memory).await;
                }
            )+
        }
        mod tls {
            use super::Over;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(Over::Tls).await;
                }
            )+
        }
    };
}

over_both!(
    the_head_arrives,
    a_stream_echoes,
    each_direction_ends_by_itself,
    stalled_readers_hold_up_nobody,
    short_lines_that_nobody_reads_hold_up_nobody,
    bulk_and_small_messages_both_pass,
    a_dropped_stream_is_an_error_for_the_peer,
    streams_dropped_in_full_flow_harm_nobody,
    an_answer_may_end_before_the_question,
    many_short_streams_one_after_the_other,
    many_short_streams_at_once,
    refusals_say_why,
);

async fn the_head_arrives(over: Over) {
    let mut pair = pair(over).await;
    let head = Head::new("docker").unwrap();
    let head = head.with("role", "admin").unwrap();
    let head = head.with("name", "Jürgen \"O'Neil\", lab 3").unwrap();
    let (opened, got) = tokio::join!(pair.tunnel.open(&head), async {
        let incoming = pair.acceptor.next().await.unwrap();
        let got = incoming.head().clone();
        (incoming.accept().unwrap(), got)
    });
    opened.unwrap();
    assert_eq!(got.1, head);
}

async fn a_stream_echoes(over: Over) {
    let served = pair(over).await.serve();
    let mut stream = served.open("echo").await;
    echo_once(&mut stream, b"hello").await;
    stream.write_all(b"bye").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, b"bye");
    // The end stays the end.
    assert_eq!(read_all(&mut stream).await, b"");
    let late = stream.write(b"more").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::BrokenPipe);
}

async fn each_direction_ends_by_itself(over: Over) {
    let served = pair(over).await.serve();
    // Ours first.
    let mut stream = served.open("after").await;
    let up = pattern(1 << 20, 1);
    soon("write", stream.write_all(&up)).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(read_all(&mut stream).await == pattern(1 << 20, 2));
    // Theirs first.
    let mut stream = served.open("before").await;
    assert!(read_all(&mut stream).await == pattern(1 << 20, 3));
    soon("write", stream.write_all(&pattern(1 << 20, 4)))
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    soon("count", async {
        while served.written() < 1 << 20 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn stalled_readers_hold_up_nobody(over: Over) {
    let served = pair(over).await.serve();
    let mut stalled = Vec::new();
    for _ in 0..200 {
        stalled.push(served.open("flood").await);
    }
    // All of them are stuck.
    let all = 200 * u64::from(tunnel::limits::STREAM_WINDOW);
    soon("stalled", async {
        while served.written() < all {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut echo = served.open("echo").await;
    for number in 0..100_u32 {
        echo_once(&mut echo, &number.to_be_bytes()).await;
    }
    let mut bulk = served.open("flood").await;
    let mut chunk = vec![0; 64 * 1024];
    for _ in 0..128 {
        soon("bulk", bulk.read_exact(&mut chunk)).await.unwrap();
    }
    drop(bulk);
    // And they are only stalled.
    for stream in &mut stalled {
        soon("bulk", stream.read_exact(&mut chunk)).await.unwrap();
    }
    echo_once(&mut echo, b"still there").await;
}

/// Each is a frame of its own. 4,096 of them fill a window; the library's own bound for what it keeps
/// of them is reached by nine such streams.
async fn short_lines_that_nobody_reads_hold_up_nobody(over: Over) {
    let served = pair(over).await.serve();
    let mut stalled = Vec::new();
    for _ in 0..40 {
        stalled.push(served.open("drip").await);
    }
    let all = 40 * u64::from(tunnel::limits::STREAM_WINDOW);
    soon("stalled", async {
        while served.written() < all {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut echo = served.open("echo").await;
    echo_once(&mut echo, b"hello").await;
    let mut line = [0; 16];
    for stream in &mut stalled {
        soon("line", stream.read_exact(&mut line)).await.unwrap();
        assert_eq!(&line, b"a short line....");
    }
}

async fn bulk_and_small_messages_both_pass(over: Over) {
    let served = pair(over).await.serve();
    let mut bulk = served.open("flood").await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let reader = tokio::spawn(async move {
        let mut chunk = vec![0; 64 * 1024];
        let mut total = 0_u64;
        while stopped.try_recv().is_err() {
            total += soon("bulk", bulk.read(&mut chunk)).await.unwrap() as u64;
        }
        total
    });
    let mut up = served.open("echo").await;
    let (mut read, mut write) = {
        let bulk_up = served.open("echo").await;
        split(bulk_up)
    };
    let sent = pattern(4 << 20, 7);
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let back = tokio::spawn(async move { read_all(&mut read).await });
    for number in 0..500_u32 {
        echo_once(&mut up, &number.to_be_bytes()).await;
    }
    writer.await.unwrap();
    assert!(back.await.unwrap() == pattern(4 << 20, 7));
    stop.send(()).unwrap();
    assert!(reader.await.unwrap() > 1 << 20);
}

async fn a_dropped_stream_is_an_error_for_the_peer(over: Over) {
    let mut pair = pair(over).await;
    let head = Head::new("any").unwrap();
    for ours_first in [true, false] {
        let (opened, accepted) = tokio::join!(pair.tunnel.open(&head), async {
            let incoming = soon("incoming", pair.acceptor.next()).await.unwrap();
            incoming.accept().unwrap()
        });
        let (mut gone, mut stays) = if ours_first {
            (opened.unwrap(), accepted)
        } else {
            (accepted, opened.unwrap())
        };
        gone.write_all(b"half of").await.unwrap();
        let mut half = [0; 7];
        soon("half", stays.read_exact(&mut half)).await.unwrap();
        drop(gone);
        let read = soon("read", stays.read(&mut half)).await;
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let written = soon("write", async {
            loop {
                if let Err(error) = stays.write_all(&[0; 1024]).await {
                    return error;
                }
            }
        });
        assert_eq!(written.await.kind(), ErrorKind::ConnectionReset);
    }
}

/// What was under way when they were dropped still arrives, for streams that are no more.
async fn streams_dropped_in_full_flow_harm_nobody(over: Over) {
    let served = pair(over).await.serve();
    let mut echo = served.open("echo").await;
    let kinds = [("flood", 200), ("flood", 200), ("flood", 200), ("drip", 40)];
    for (service, streams) in kinds.repeat(4) {
        let mut flowing = Vec::new();
        for _ in 0..streams {
            flowing.push(served.open(service).await);
        }
        let mut some = vec![0; 20_000];
        for stream in &mut flowing {
            soon("flow", stream.read_exact(&mut some)).await.unwrap();
        }
        drop(flowing);
        echo_once(&mut echo, b"still there").await;
    }
}

async fn an_answer_may_end_before_the_question(over: Over) {
    let served = pair(over).await.serve();
    for _ in 0..50 {
        let mut stream = served.open("early").await;
        let (mut read, mut write) = split(&mut stream);
        let question = async {
            loop {
                if let Err(error) = write.write_all(&[0; 1024]).await {
                    return error;
                }
            }
        };
        let (answer, error) = tokio::join!(read_all(&mut read), soon("question", question));
        assert!(answer == pattern(60_000, 5));
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
}

async fn short(served: &crate::rig::Served, number: u32) {
    let mut stream = served.open("echo").await;
    let message = pattern(number as usize % 3_000, number);
    stream.write_all(&message).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, message);
}

async fn many_short_streams_one_after_the_other(over: Over) {
    let served = pair(over).await.serve();
    for number in 0..1_000 {
        short(&served, number).await;
    }
}

async fn many_short_streams_at_once(over: Over) {
    let served = std::sync::Arc::new(pair(over).await.serve());
    let mut tasks = JoinSet::new();
    for number in 0..1_000 {
        let served = std::sync::Arc::clone(&served);
        tasks.spawn(async move { short(&served, number).await });
    }
    soon("all", async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    })
    .await;
}

async fn refusals_say_why(over: Over) {
    let served = pair(over).await.serve();
    let open = async |service: &str| {
        let head = Head::new(service).unwrap();
        soon("open", served.tunnel.open(&head)).await.unwrap_err()
    };
    match open("nonsense").await {
        OpenError::Refused { reason } => assert_eq!(reason, "no service \"nonsense\" here"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(open("ignore").await, OpenError::Reset { .. }));
    // Neither harms the tunnel.
    echo_once(&mut served.open("echo").await, b"hello").await;
}
