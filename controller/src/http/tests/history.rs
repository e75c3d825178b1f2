//! The fake remembers as the store does.

use std::sync::Arc;

use api::job::JobState;
use store::{Change, EventFilter, JobFilter, JobRecord, NewEvent, Order, Store};

use super::*;
use crate::http::History;

async fn filled() -> Bench {
    let bench = Bench::new();
    let put = bench.ask(root(), "PUT", "/v1/queues/fast").json(&json!({}));
    put.send().await.json(200);
    let (job, nodes) = bench.placed(&["n1", "n2"]).await;
    for user in ["alice", "bob", "alice"] {
        for queue in ["default", "fast"] {
            let body = json!({ "image": "a", "queue": queue });
            let ask = bench.ask(client(user, Role::User), "POST", "/v1/jobs");
            ask.json(&body).send().await.job(201);
        }
    }
    bench.fake.place(JobId(3), &nodes[1..]);
    bench.fake.advance(JobId(3), JobState::Measuring);
    bench.fake.advance(job, JobState::Done);
    bench.fake.advance(JobId(4), JobState::TimedOut);
    bench
}

/// The same jobs and events in a store.
async fn copy(fake: &FakeController, store: &Store) {
    let lease = store.lead("test", Duration::from_secs(60)).await.unwrap();
    let all = JobFilter::default();
    let jobs = fake.jobs(&all, None, 1000, Order::OldestFirst).await;
    let mut changes = Vec::new();
    for status in jobs.unwrap() {
        changes.push(Change::Job(Arc::new(JobRecord {
            status,
            role: "user".into(),
            deadline_ms: None,
            placement: Value::Null,
            extra: Value::Null,
        })));
    }
    let events = History::events(fake, 0, 1000, &EventFilter::default()).await;
    for event in events.unwrap() {
        changes.push(Change::Event(NewEvent {
            at_ms: event.at_ms,
            kind: event.kind,
            job: event.job,
            node: event.node,
            user: event.user,
            data: event.data,
        }));
    }
    store.commit(lease.term, changes).await.unwrap();
}

#[tokio::test]
async fn the_store_answers_as_the_fake_does() {
    let fake = filled().await.fake;
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("store").display());
    let store = Store::open(&url).await.unwrap();
    copy(&fake, &store).await;
    assert_eq!(*History::seen(&store).borrow(), *fake.seen().borrow());
    let node = |name: &str| NodeId::try_from(name.to_owned()).ok();
    let text = |text: &str| Some(text.to_owned());
    let any = JobFilter::default;
    let filters = [
        any(),
        JobFilter {
            states: vec![JobState::Queued, JobState::Done],
            ..any()
        },
        JobFilter {
            states: vec![JobState::Lost],
            ..any()
        },
        JobFilter {
            user: text("bob"),
            ..any()
        },
        JobFilter {
            queue: text("fast"),
            user: text("alice"),
            ..any()
        },
        JobFilter {
            node: node("n2"),
            ..any()
        },
        JobFilter {
            node: node("n1"),
            states: vec![JobState::Queued],
            ..any()
        },
    ];
    let mut found = 0;
    for filter in &filters {
        for order in [Order::OldestFirst, Order::NewestFirst] {
            for after in [None, Some(0), Some(3), Some(7), Some(1 << 40)] {
                for limit in [1, 3, 1000] {
                    let after = after.map(JobId);
                    let expected = fake.jobs(filter, after, limit, order).await.unwrap();
                    let got = History::jobs(&store, filter, after, limit, order)
                        .await
                        .unwrap();
                    assert_eq!(got, expected, "{filter:?} {after:?} {limit} {order:?}");
                    found += got.len();
                }
            }
        }
    }
    assert!(found > 100, "{found}");
    let mut found = 0;
    for filter in [
        EventFilter::default(),
        EventFilter {
            job: Some(JobId(1)),
            ..EventFilter::default()
        },
        EventFilter {
            node: node("n2"),
            ..EventFilter::default()
        },
        EventFilter {
            node: node("n2"),
            job: Some(JobId(1)),
        },
    ] {
        for after in [0, 2, 5, 1 << 40] {
            for limit in [1, 4, 1000] {
                let expected = History::events(&fake, after, limit, &filter).await.unwrap();
                let got = History::events(&store, after, limit, &filter)
                    .await
                    .unwrap();
                assert_eq!(got, expected, "{filter:?} {after} {limit}");
                found += got.len();
            }
        }
    }
    assert!(found > 30, "{found}");
    store.close().await;
    let refusal = History::jobs(&store, &any(), None, 1, Order::OldestFirst)
        .await
        .unwrap_err();
    assert_eq!(refusal.kind.facts().0, 503);
}
