use std::pin::Pin;
use std::task::{Context, Poll};

use api::work::{Key, Order, Report};
use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::*;

/// Gives its bytes in pieces of the given sizes, over and over, each after a wake-up.
struct Pieces {
    bytes: Vec<u8>,
    sizes: Vec<usize>,
    at: usize,
    count: usize,
    pause: bool,
}

impl Pieces {
    fn new(bytes: Vec<u8>, sizes: Vec<usize>) -> Self {
        Self {
            bytes,
            sizes,
            at: 0,
            count: 0,
            pause: false,
        }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.pause = !self.pause;
        if self.pause {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let size = self.sizes[self.count % self.sizes.len()];
        let end = (self.at + size.min(buf.remaining())).min(self.bytes.len());
        buf.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        self.count += 1;
        Poll::Ready(Ok(()))
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(future)
}

fn raw(length: u32, body: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes(), body].concat()
}

async fn both(bytes: Vec<u8>) -> [Result<Option<String>, FrameError>; 2] {
    let mut reader = FrameReader::new(Pieces::new(bytes.clone(), vec![1]));
    [
        reader.next().await,
        read_frame(&mut Pieces::new(bytes, vec![1])).await,
    ]
}

#[tokio::test]
async fn orders_and_reports_pass_unchanged() {
    let key = Key {
        job: api::job::JobId(7),
        attempt: 1,
        fence: 9,
    };
    let (mut here, there) = tokio::io::duplex(64);
    let order = Order::Cancel {
        key,
        why: "naïve\n\u{1b}[2J".into(),
    };
    let report = Report::Heartbeat {};
    let write = async {
        write_frame(&mut here, &order).await.unwrap();
        write_frame(&mut here, &report).await.unwrap();
        drop(here);
    };
    let read = async {
        let mut reader = FrameReader::new(there);
        assert_eq!(reader.next::<Order>().await.unwrap(), Some(order.clone()));
        assert_eq!(reader.next::<Report>().await.unwrap(), Some(report.clone()));
        assert_eq!(reader.next::<Report>().await.unwrap(), None);
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn an_end_within_a_frame_is_an_error_wherever_it_comes() {
    let frame = encode(&"text").unwrap();
    for cut in 1..frame.len() {
        for result in both(frame[..cut].to_vec()).await {
            let expected = if cut < HEAD { HEAD } else { frame.len() };
            assert!(
                matches!(result, Err(FrameError::Truncated { got, of }) if got == cut && of == expected),
                "{cut}: {result:?}"
            );
        }
    }
    for result in both(Vec::new()).await {
        assert_eq!(result.unwrap(), None);
    }
}

#[tokio::test]
async fn empty_and_long_frames_are_refused_by_their_head_alone() {
    for result in both(raw(0, b"")).await {
        assert!(matches!(result, Err(FrameError::Empty)), "{result:?}");
    }
    let over = u32::try_from(FRAME).unwrap() + 1;
    for length in [over, u32::MAX] {
        for result in both(raw(length, b"")).await {
            assert!(
                matches!(result, Err(FrameError::TooLong { bytes }) if bytes == length as usize),
                "{result:?}"
            );
        }
    }
    // two quotes are part of it
    let longest = "x".repeat(FRAME - 2);
    assert_eq!(encode(&longest).unwrap().len(), HEAD + FRAME);
    let longer = "x".repeat(FRAME - 1);
    assert!(matches!(encode(&longer), Err(FrameError::TooLong { .. })));
}

#[tokio::test]
async fn after_a_frame_that_is_no_message_the_next_one_is_read() {
    let mut bytes = raw(5, b"\"a\" b");
    bytes.extend_from_slice(&encode(&"next").unwrap());
    let mut reader = FrameReader::new(Pieces::new(bytes, vec![3, 9]));
    let first: Result<Option<String>, _> = reader.next().await;
    assert!(
        matches!(first, Err(FrameError::Content { .. })),
        "{first:?}"
    );
    assert_eq!(reader.next::<String>().await.unwrap().unwrap(), "next");
}

#[tokio::test]
async fn an_announced_length_takes_no_memory() {
    let (mut here, there) = tokio::io::duplex(64);
    here.write_all(&u32::try_from(FRAME).unwrap().to_be_bytes())
        .await
        .unwrap();
    let mut reader = FrameReader::new(there);
    {
        let mut next = Box::pin(reader.next::<String>());
        for _ in 0..3 {
            assert!(futures_util::poll!(&mut next).is_pending());
        }
    }
    assert!(reader.buffer.capacity() <= 4 * STEP);
}

#[tokio::test]
async fn a_frame_of_an_unknown_kind_or_with_unknown_fields_is_refused() {
    for text in [
        r#"{"order":"exec","argv":["/bin/sh"]}"#,
        r#"{"order":"begin","key":{"job":1,"attempt":1,"fence":1},"then":"rm"}"#,
        r#"{"order":"begin","key":{"job":-1,"attempt":1,"fence":1}}"#,
        r#"{"order":"begin"}"#,
        r#"["begin"]"#,
        "null",
    ] {
        let bytes = raw(u32::try_from(text.len()).unwrap(), text.as_bytes());
        let mut reader = FrameReader::new(&bytes[..]);
        let order: Result<Option<Order>, _> = reader.next().await;
        assert!(matches!(order, Err(FrameError::Content { .. })), "{text}");
    }
}

proptest! {
    #[test]
    fn messages_come_as_they_went_however_the_stream_cuts_them(
        messages in prop::collection::vec(".{0,900}", 0..12),
        sizes in prop::collection::vec(1..700_usize, 1..8),
        dropped in 0..5_usize,
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|text| encode(text).unwrap()).collect();
        let found: Vec<String> = wait(async {
            let mut reader = FrameReader::new(Pieces::new(bytes.clone(), sizes.clone()));
            let mut found = Vec::new();
            loop {
                for _ in 0..dropped {
                    // dropped while it waits
                    if let Poll::Ready(Ok(Some(text))) = futures_util::poll!(Box::pin(reader.next())) {
                        found.push(text);
                    }
                }
                match reader.next().await.unwrap() {
                    Some(text) => found.push(text),
                    None => break found,
                }
            }
        });
        prop_assert_eq!(&found, &messages);
        let one_by_one: Vec<String> = wait(async {
            let mut stream = Pieces::new(bytes, sizes);
            let mut found = Vec::new();
            while let Some(text) = read_frame(&mut stream).await.unwrap() {
                found.push(text);
            }
            found
        });
        prop_assert_eq!(&one_by_one, &messages);
    }

    #[test]
    fn garbage_is_refused_and_never_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        sizes in prop::collection::vec(1..99_usize, 1..4),
    ) {
        wait(async {
            let mut reader = FrameReader::new(Pieces::new(bytes, sizes));
            for _ in 0..200 {
                match reader.next::<Order>().await {
                    Ok(Some(order)) => panic!("{order:?} out of garbage"),
                    Err(FrameError::Content { .. }) => {}
                    Ok(None) | Err(_) => return,
                }
            }
        });
    }
}
