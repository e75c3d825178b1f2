//! Calls that wait together become one transaction, and stand or fall by themselves all the same.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use api::job::JobId;
use futures_util::future::{JoinAll, join_all};
use store::{Change, CommitError, EventFilter, Store, Term, Unavailable};
use tokio::task::{JoinHandle, Unconstrained, unconstrained};

use crate::place::{Place, on_both};
use crate::records::{event, orphan, orphan_change, queued, submission, token};
use crate::server::LONG;

on_both!(
    waiting_calls_share_a_transaction,
    alone_each_is_its_own_transaction,
    neighbours_of_a_bad_call_survive,
    a_call_that_has_waited_too_long_is_withdrawn,
    readers_do_not_wait_for_the_writer,
);

fn spawn(store: &Store, term: Term, changes: Vec<Change>) -> JoinHandle<Result<u64, CommitError>> {
    let store = store.clone();
    tokio::spawn(async move { store.commit(term, changes).await })
}

/// All of them at once, before the writer has got any further than waiting for the lock.
async fn all_waiting<'a>(
    store: &'a Store,
    term: Term,
    calls: impl Iterator<Item = Vec<Change>>,
) -> Unconstrained<JoinAll<impl Future<Output = Result<u64, CommitError>> + 'a>> {
    let all = join_all(calls.map(|changes| store.commit(term, changes)));
    // or tokio would stop after some of them
    let mut all = unconstrained(all);
    let first = poll_fn(|context| Poll::Ready(Pin::new(&mut all).poll(context).is_pending()));
    assert!(first.await, "nothing is answered while the lock is held");
    all
}

/// While somebody else holds the lock.
async fn waiting_calls_share_a_transaction(place: Place) {
    let (store, lease) = place.led().await;
    let mut raw = place.raw().await;
    raw.hold_writers().await;
    let before = store.stats();
    let calls = all_waiting(&store, lease.term, (1..=600).map(queued)).await;
    raw.let_go().await;
    let outcomes = calls.await;
    let mut numbers: Vec<u64> = outcomes
        .into_iter()
        .map(|seq| seq.expect("commits"))
        .collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=600), "each has its own event");
    let after = store.stats();
    assert_eq!(after.calls - before.calls, 600);
    // 256 at a time, but for the first ones, which the writer may have taken before the others came
    let transactions = after.transactions - before.transactions;
    assert!((3..=4).contains(&transactions), "{transactions}");
    let counted = raw.number("SELECT transactions FROM leadership").await;
    assert_eq!(counted.unsigned_abs(), after.transactions);
}

async fn alone_each_is_its_own_transaction(place: Place) {
    let (store, lease) = place.led().await;
    for id in 1..=10 {
        store.commit(lease.term, queued(id)).await.expect("commits");
    }
    let stats = store.stats();
    assert_eq!(
        (stats.transactions, stats.calls, stats.changes),
        (10, 10, 20)
    );
    assert_eq!((stats.failures, stats.waiting), (0, 0));
    assert!(stats.busy > Duration::ZERO);
}

async fn neighbours_of_a_bad_call_survive(place: Place) {
    let (store, lease) = place.led().await;
    let taken = vec![Change::Submission(submission("ann", "taken", &[1]))];
    store.commit(lease.term, taken).await.expect("commits");
    let mut used = token("t");
    used.used_by = Some(crate::records::node_id("n1"));
    store
        .commit(lease.term, vec![Change::Token(used)])
        .await
        .expect("commits");

    let mut raw = place.raw().await;
    raw.hold_writers().await;
    let calls = (1..=100).map(|id| {
        let mut changes = queued(id);
        match id % 10 {
            3 => changes.push(orphan_change(orphan(4_000, 1))),
            5 => changes.push(Change::Submission(submission("ann", "taken", &[id]))),
            7 => changes.push(Change::Token(token("t"))),
            _ => changes.push(Change::Event(event("second"))),
        }
        changes
    });
    let calls = all_waiting(&store, lease.term, calls).await;
    raw.let_go().await;
    for (id, outcome) in (1..).zip(calls.await) {
        let bad = [3, 5, 7].contains(&(id % 10));
        match &outcome {
            Ok(_) => assert!(!bad, "{id}"),
            Err(CommitError::Conflict { .. }) => assert!(bad, "{id}: {outcome:?}"),
            Err(_) => panic!("{id}: {outcome:?}"),
        }
        let there = store.job(JobId(id)).await.expect("reads").is_some();
        assert_eq!(there, !bad, "{id}");
    }
    let events = store
        .events(0, 1_000, &EventFilter::default())
        .await
        .expect("reads");
    assert!((1..=140).eq(events.iter().map(|event| event.seq)));
    let stats = store.stats();
    assert_eq!((stats.calls, stats.failures), (72, 30));
    assert!(stats.transactions <= 5, "{stats:?}");
    // the highest number is one of those that were done
    let lone = queued(1_000)
        .into_iter()
        .chain([orphan_change(orphan(4_000, 1))]);
    store
        .commit(lease.term, lone.collect())
        .await
        .expect_err("no such job");
    assert_eq!(store.load().await.expect("loads").highest_job, 100);
}

async fn a_call_that_has_waited_too_long_is_withdrawn(place: Place) {
    let (store, lease) = place.led().await;
    store.close().await;
    let store = place.open_impatient(Duration::from_millis(300)).await;
    let mut raw = place.raw().await;
    raw.hold_writers().await;
    let first = spawn(&store, lease.term, queued(1));
    let second = spawn(&store, lease.term, queued(2));
    for call in [first, second] {
        let outcome = tokio::time::timeout(LONG, call).await.expect("in time");
        match outcome.expect("runs") {
            Err(CommitError::Unavailable {
                source: Unavailable::Late(_) | Unavailable::Database { .. },
            }) => {}
            other => panic!("{other:?}"),
        }
    }
    raw.let_go().await;
    // what was refused is not done afterwards
    store.commit(lease.term, queued(3)).await.expect("commits");
    let jobs = store.load().await.expect("loads").jobs;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
}

async fn readers_do_not_wait_for_the_writer(place: Place) {
    let (store, lease) = place.led().await;
    store.commit(lease.term, queued(1)).await.expect("commits");
    let mut raw = place.raw().await;
    raw.hold_writers().await;
    raw.run("UPDATE job SET queue = 'held'").await;
    let waiting = spawn(&store, lease.term, queued(2));
    let read = async {
        let found = store.job(JobId(1)).await.expect("reads").expect("is there");
        assert_eq!(found.status.request.queue, "quiet");
        assert_eq!(store.load().await.expect("loads").jobs.len(), 1);
        assert_eq!(store.counts().await.expect("reads").len(), 1);
    };
    tokio::time::timeout(LONG, read).await.expect("in time");
    assert!(!waiting.is_finished());
    raw.let_go().await;
    waiting.await.expect("runs").expect("commits");
}
