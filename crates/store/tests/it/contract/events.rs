//! The history: numbered without gaps, and never changed behind a reader's back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::job::JobId;
use serde_json::json;
use store::{Change, EventFilter};

use crate::place::{Place, on_both};
use crate::records::{event, node_id, orphan, orphan_change, queued};
use crate::server::LONG;

on_both!(
    events_come_back_as_they_were,
    events_are_filtered_and_paged,
    a_reader_misses_nothing,
    who_waits_is_told,
);

async fn events_come_back_as_they_were(place: Place) {
    let (store, lease) = place.led().await;
    let mut full = event("node.connected");
    full.job = Some(JobId(5));
    full.node = Some(node_id("n1"));
    full.user = Some("ann".into());
    full.data = json!({"z": [1, "\u{0}"], "a": null});
    let changes = vec![Change::Event(full.clone()), Change::Event(event("bare"))];
    store.commit(lease.term, changes).await.expect("commits");
    let found = store
        .events(0, 10, &EventFilter::default())
        .await
        .expect("reads");
    let [first, second] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        (first.seq, first.at_ms, first.kind.as_str()),
        (1, 77, "node.connected")
    );
    assert_eq!((first.job, &first.node), (full.job, &full.node));
    assert_eq!((&first.user, &first.data), (&full.user, &full.data));
    assert_eq!((second.seq, second.kind.as_str()), (2, "bare"));
    assert!(second.job.is_none() && second.node.is_none() && second.user.is_none());
    assert!(second.data.is_null());
}

async fn events_are_filtered_and_paged(place: Place) {
    let (store, lease) = place.led().await;
    let changes = (1..=30).map(|n| {
        let mut told = event("x");
        told.job = (n % 2 == 0).then_some(JobId(n % 4));
        told.node = (n % 3 == 0).then(|| node_id(&format!("n{}", n % 2)));
        Change::Event(told)
    });
    store
        .commit(lease.term, changes.collect())
        .await
        .expect("commits");
    let numbers = async |after, limit, job: Option<u64>, node: Option<&str>| {
        let filter = EventFilter {
            job: job.map(JobId),
            node: node.map(node_id),
        };
        let found = store.events(after, limit, &filter).await.expect("reads");
        found.iter().map(|event| event.seq).collect::<Vec<_>>()
    };
    assert_eq!(numbers(0, 3, None, None).await, [1, 2, 3]);
    assert_eq!(numbers(28, 9, None, None).await, [29, 30]);
    assert_eq!(
        numbers(0, 9, Some(2), None).await,
        [2, 6, 10, 14, 18, 22, 26, 30]
    );
    assert_eq!(numbers(6, 2, Some(2), None).await, [10, 14]);
    assert_eq!(numbers(0, 9, None, Some("n1")).await, [3, 9, 15, 21, 27]);
    assert_eq!(numbers(0, 9, Some(2), Some("n0")).await, [6, 18, 30]);
    assert!(numbers(u64::MAX, 9, None, None).await.is_empty());
    assert!(numbers(0, 9, Some(u64::MAX), None).await.is_empty());
    assert!(numbers(0, 0, None, None).await.is_empty());
}

/// While many write, some of them in vain: each page begins where the last one ended.
async fn a_reader_misses_nothing(place: Place) {
    const WRITERS: u64 = 8;
    const CALLS: u64 = 20;
    let (store, lease) = place.led().await;
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, over) = (store.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut last = 0;
                loop {
                    let ended = over.load(Ordering::Acquire);
                    let page = store.events(last, 7, &EventFilter::default()).await;
                    let page = page.expect("reads");
                    let until = last + page.len() as u64;
                    assert!((last + 1..=until).eq(page.iter().map(|event| event.seq)));
                    last = until;
                    if ended && page.is_empty() {
                        return last;
                    }
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut last = 0;
                for call in 0..CALLS {
                    let mut changes = queued(writer * CALLS + call + 1);
                    if call % 5 == 4 {
                        changes.push(orphan_change(orphan(1 << 40, 1)));
                        store
                            .commit(lease.term, changes)
                            .await
                            .expect_err("no such job");
                    } else {
                        changes.push(Change::Event(event("second")));
                        let seq = store.commit(lease.term, changes).await.expect("commits");
                        assert!(seq >= last + 2, "{seq} after {last}");
                        last = seq;
                    }
                }
                last
            })
        })
        .collect();
    let mut highest = 0;
    for writer in writers {
        highest = highest.max(writer.await.expect("runs"));
    }
    over.store(true, Ordering::Release);
    assert_eq!(highest, WRITERS * CALLS / 5 * 4 * 2);
    for reader in readers {
        assert_eq!(reader.await.expect("runs"), highest);
    }
}

async fn who_waits_is_told(place: Place) {
    let (store, lease) = place.led().await;
    let mut seen = store.events_seen();
    assert_eq!(*seen.borrow_and_update(), 0);
    let waiting = tokio::spawn(async move {
        seen.changed().await.expect("the store is open");
        let number = *seen.borrow_and_update();
        (seen, number)
    });
    store.commit(lease.term, queued(1)).await.expect("commits");
    let told = tokio::time::timeout(LONG, waiting).await.expect("told");
    let (seen, number) = told.expect("runs");
    assert_eq!(number, 1);
    store.commit(lease.term, Vec::new()).await.expect("commits");
    assert!(!seen.has_changed().expect("the store is open"));
}
