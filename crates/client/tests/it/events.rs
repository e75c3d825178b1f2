//! The stream of events: each once, in order, over broken connections.

use api::job::{JobId, JobState};
use client::fake::Fault;
use client::{Error, EventFilter, Strange};

use crate::{PATIENCE, request, start};

const PATH: &str = "/v1/events";

fn cut(after: u64) -> Fault {
    let path = PATH.into();
    Fault::Cut { path, after }
}

#[tokio::test]
async fn pages() {
    let (_fake, client) = start().await;
    for _ in 0..3 {
        client.submit(&request("a")).await.unwrap();
    }
    let filter = EventFilter {
        after: Some(1),
        ..EventFilter::default()
    };
    let page = client.events(&filter, Some(1)).await.unwrap();
    assert_eq!((page.items[0].seq, page.next.as_deref()), (2, Some("2")));
}

#[tokio::test]
async fn nothing_is_lost_or_told_twice_over_broken_connections() {
    let (fake, client) = start().await;
    let id = client.submit(&request("a")).await.unwrap().id;
    let mut stream = client.follow_events(EventFilter::default());
    assert_eq!(stream.next().await.unwrap().kind, "job.queued");
    drop(stream);

    // broken in the middle of a message, before its first byte, refused, and answered by nobody
    let mut stream = client.follow_events(EventFilter::default());
    for fault in [
        cut(0),
        cut(30),
        cut(200),
        cut(250),
        Fault::LoseAnswer { path: PATH.into() },
    ] {
        fake.break_once(fault);
    }
    let writer = async {
        for state in [
            JobState::Assigned,
            JobState::Preparing,
            JobState::Measuring,
            JobState::Collecting,
            JobState::Done,
        ] {
            for _ in 0..20 {
                fake.change(|all| all.advance(id, state));
                tokio::task::yield_now().await;
            }
        }
    };
    let reader = async {
        let mut seqs = Vec::new();
        while seqs.len() < 101 {
            seqs.push(stream.next().await.unwrap().seq);
        }
        seqs
    };
    let both = async { tokio::join!(writer, reader) };
    let ((), seqs) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(seqs, (1..=101).collect::<Vec<_>>());
    assert_eq!(fake.faults_left(), 0);
}

#[tokio::test]
async fn filters_reach_the_controller_and_outlive_a_connection() {
    let (fake, client) = start().await;
    for _ in 0..3 {
        client.submit(&request("a")).await.unwrap();
    }
    let mut stream = client.follow_events(EventFilter {
        after: Some(0),
        job: Some(JobId(2)),
        node: None,
    });
    fake.break_once(cut(100));
    assert_eq!(stream.next().await.unwrap().job, Some(JobId(2)));
    fake.change(|state| {
        state.advance(JobId(1), JobState::Done);
        state.advance(JobId(2), JobState::Done);
    });
    let next = tokio::time::timeout(PATIENCE, stream.next()).await;
    let next = next.unwrap().unwrap();
    assert_eq!((next.job, &*next.kind), (Some(JobId(2)), "job.done"));
}

#[tokio::test]
async fn waiting_for_an_event_can_be_given_up_and_taken_up() {
    let (fake, client) = start().await;
    let mut stream = client.follow_events(EventFilter::default());
    let give_up = std::time::Duration::from_millis(1);
    for _ in 0..50 {
        let nothing = tokio::time::timeout(give_up, stream.next()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    }
    fake.change(|state| state.tell("node.connected", None, None));
    let next = tokio::time::timeout(PATIENCE, stream.next()).await;
    assert_eq!(next.unwrap().unwrap().kind, "node.connected");
    let connections = fake.calls();
    assert_eq!(connections.len(), 1, "{connections:?}");
}

#[tokio::test]
async fn what_is_no_stream_of_events_ends_it_at_once() {
    let (fake, client) = start().await;
    fake.break_once(Fault::Answer {
        path: PATH.into(),
        status: 200,
        body: "hello".into(),
    });
    let error = client.follow_events(EventFilter::default()).next().await;
    let Err(Error::Protocol { source, .. }) = error else {
        panic!("{error:?}");
    };
    assert!(matches!(source, Strange::ContentType(_)), "{source:?}");
    assert_eq!(fake.calls().len(), 1);
}
