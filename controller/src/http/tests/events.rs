//! Events as they happen.

use api::event::Event;
use api::job::JobState;
use bytes::BytesMut;
use tokio::time::Instant;

use super::*;
use crate::http::events::{KEEP_ALIVE, PATIENCE};

/// One reader of a stream.
struct Reader {
    body: Body,
    text: BytesMut,
}

/// What a stream said.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Event(Event),
    Comment,
    Retry,
    /// The end, and whether it was a clean one.
    End(bool),
}

impl Reader {
    async fn open(bench: &Bench, uri: &str, last: Option<u64>) -> Self {
        let ask = bench.ask(alice(), "GET", uri);
        let ask = ask.header("accept", "text/event-stream");
        let ask = match last {
            Some(last) => ask.header("last-event-id", last.to_string()),
            None => ask,
        };
        let response = ask.begin().await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut reader = Self {
            body: response.into_body(),
            text: BytesMut::new(),
        };
        assert_eq!(reader.next().await, Said::Retry);
        reader
    }

    async fn next(&mut self) -> Said {
        loop {
            let text = std::str::from_utf8(&self.text).unwrap();
            if let Some(end) = text.find("\n\n") {
                let message = self.text.split_to(end + 2);
                return said(std::str::from_utf8(&message[..end]).unwrap());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.text.extend_from_slice(frame.data_ref().unwrap()),
                Some(Err(_)) => return Said::End(false),
                None => return Said::End(true),
            }
        }
    }

    async fn event(&mut self) -> Event {
        match soon(self.next()).await {
            Said::Event(event) => event,
            other => panic!("no event: {other:?}"),
        }
    }

    async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(self.event().await.seq);
        }
        numbers
    }
}

fn said(message: &str) -> Said {
    if message.starts_with(':') {
        return Said::Comment;
    }
    if message.starts_with("retry: ") {
        return Said::Retry;
    }
    let fields: Vec<_> = message
        .lines()
        .map(|line| line.split_once(": ").unwrap())
        .collect();
    let [("id", id), ("event", kind), ("data", data)] = fields.as_slice() else {
        panic!("not a message: {message:?}");
    };
    let event: Event = serde_json::from_str(data).unwrap();
    assert_eq!(
        (event.seq.to_string().as_str(), event.kind.as_str()),
        (*id, *kind)
    );
    Said::Event(event)
}

#[tokio::test]
async fn what_was_and_what_comes() {
    let bench = Bench::new();
    bench.fake.note_many("queue.set", 3);
    let mut reader = Reader::open(&bench, "/v1/events", None).await;
    assert_eq!(reader.numbers(3).await, [1, 2, 3]);
    bench.fake.note("a");
    assert_eq!(reader.event().await.kind, "a");
    bench.fake.note_many("b", 1000);
    assert_eq!(reader.numbers(1000).await, (5..1005).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_comes_back_misses_nothing() {
    let bench = Bench::new();
    bench.fake.note_many("a", 10);
    let mut reader = Reader::open(&bench, "/v1/events", None).await;
    assert_eq!(reader.numbers(4).await, [1, 2, 3, 4]);
    drop(reader);
    bench.fake.note_many("b", 2);
    // the header comes first
    let mut reader = Reader::open(&bench, "/v1/events?after=2", Some(4)).await;
    assert_eq!(reader.numbers(8).await, (5..13).collect::<Vec<_>>());
    let mut reader = Reader::open(&bench, "/v1/events?after=11", None).await;
    assert_eq!(reader.numbers(1).await, [12]);
    bench.fake.note("c");
    assert_eq!(reader.numbers(1).await, [13]);
}

#[tokio::test]
async fn only_what_fits() {
    let bench = Bench::new();
    let (job, nodes) = bench.placed(&["n1", "n2"]).await;
    let other = bench.job().await;
    let mut of_job = Reader::open(&bench, &format!("/v1/events?job={job}"), None).await;
    let mut of_node = Reader::open(&bench, "/v1/events?node=n2", None).await;
    assert_eq!(of_job.event().await.kind, "job.queued");
    assert_eq!(of_node.event().await.node.as_ref(), Some(&nodes[1]));
    bench.fake.note_many("noise", 2000);
    bench.fake.advance(other, JobState::Done);
    bench.fake.advance(job, JobState::Done);
    assert_eq!(of_job.event().await.kind, "job.done");
    let id = bench.fake.add_node("n2");
    assert_eq!(of_node.event().await.node, Some(id));
}

#[tokio::test]
async fn a_stream_of_so_many_ends() {
    let bench = Bench::new();
    bench.fake.note_many("a", 2);
    let mut reader = Reader::open(&bench, "/v1/events?limit=3", None).await;
    assert_eq!(reader.numbers(2).await, [1, 2]);
    bench.fake.note_many("a", 5);
    assert_eq!(reader.numbers(1).await, [3]);
    assert_eq!(soon(reader.next()).await, Said::End(true));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_says_that_it_lives() {
    let bench = Bench::new();
    let mut reader = Reader::open(&bench, "/v1/events", None).await;
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(reader.next().await, Said::Comment);
        assert_eq!(begun.elapsed().as_secs(), KEEP_ALIVE.as_secs());
    }
    bench.fake.note("a");
    assert_eq!(reader.event().await.seq, 1);
}

#[tokio::test]
async fn streams_end_cleanly_when_the_controller_goes_down() {
    let bench = Bench::new();
    let mut reader = Reader::open(&bench, "/v1/events", None).await;
    bench.stop.cancel();
    assert_eq!(soon(reader.next()).await, Said::End(true));
    let ask = bench.ask(alice(), "GET", "/v1/events");
    let got = ask.header("accept", "text/event-stream").send().await;
    got.problem(503, "stopping");
    bench
        .ask(nobody(), "GET", "/healthz")
        .send()
        .await
        .problem(503, "stopping");
    bench.tracker.close();
    soon(bench.tracker.wait()).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_is_cut_off() {
    let bench = Bench::new();
    let mut slow = Reader::open(&bench, "/v1/events", None).await;
    let mut quick = Reader::open(&bench, "/v1/events", None).await;
    bench.fake.note_many("flood", 20_000);
    // the quick one is not kept waiting by the slow one
    for seq in 1..=20_000 {
        assert_eq!(quick.event().await.seq, seq);
    }
    let open = r"stillmetal_http_event_streams 2";
    assert!(bench.metrics.render().unwrap().contains(open));
    tokio::time::sleep(PATIENCE + Duration::from_secs(1)).await;
    let open = r"stillmetal_http_event_streams 1";
    assert!(bench.metrics.render().unwrap().contains(open));
    // what it finds when it wakes up is little, and ends in an error: it has to come back
    let mut events = 0_u64;
    let end = loop {
        match soon(slow.next()).await {
            Said::Event(event) => {
                events += 1;
                assert_eq!(event.seq, events);
            }
            Said::End(clean) => break clean,
            other => panic!("{other:?}"),
        }
    };
    assert!(!end, "a cut is not an end");
    assert!(events < 5000, "{events} events were kept for it");
    let mut back = Reader::open(&bench, "/v1/events", Some(events)).await;
    assert_eq!(back.event().await.seq, events + 1);
}

#[tokio::test]
async fn a_reader_that_goes_away_leaves_nothing_behind() {
    let bench = Bench::new();
    let reader = Reader::open(&bench, "/v1/events", None).await;
    drop(reader);
    bench.stop.cancel();
    bench.tracker.close();
    soon(bench.tracker.wait()).await;
    let none = "stillmetal_http_event_streams 0";
    assert!(bench.metrics.render().unwrap().contains(none));
}

#[tokio::test]
async fn only_who_asks_for_a_stream_gets_one() {
    let bench = Bench::new();
    for accept in [
        "*/*",
        "application/json",
        "text/event-stream;q=0",
        "text/*",
        "",
    ] {
        let got = bench
            .ask(alice(), "GET", "/v1/events")
            .header("accept", accept);
        soon(got.send()).await.json(200);
    }
    for accept in [
        "text/event-stream",
        "application/json, TEXT/event-stream;q=0.5",
    ] {
        let got = bench
            .ask(alice(), "GET", "/v1/events")
            .header("accept", accept);
        let head = got.begin().await;
        assert_eq!(
            head.headers()["content-type"],
            "text/event-stream",
            "{accept}"
        );
    }
    for last in ["", "x", "-1", "1.5", "18446744073709551616", "\u{e4}"] {
        let ask = bench.ask(alice(), "GET", "/v1/events");
        let ask = ask
            .header("accept", "text/event-stream")
            .header("last-event-id", last);
        let got = ask.send().await;
        assert_eq!(got.at(400, "invalid"), "header Last-Event-ID", "{last}");
    }
}

#[tokio::test]
async fn a_stream_of_a_store_that_fails_ends_in_an_error() {
    use crate::http::fakes::Trouble;
    use crate::refusal::{Kind, Refusal};
    let bench = Bench::new();
    bench.fake.note("a");
    let refusal = Refusal::new(Kind::StoreUnavailable, "no disk");
    let mut reader = Reader::open(&bench, "/v1/events", None).await;
    assert_eq!(reader.numbers(1).await, [1]);
    bench.fake.set_trouble(Some(Trouble::Refuse(refusal)));
    // far behind what is in memory
    bench.fake.note("b");
    bench.fake.set_trouble(None);
    assert_eq!(reader.numbers(1).await, [2]);
}
