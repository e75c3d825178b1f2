//! What is refused, and that a refusal changes nothing.

use api::job::{JobId, JobState};
use serde_json::{Value, json};
use store::{Change, CommitError, JobFilter, Order, Refusal};

use crate::place::{Place, on_both};
use crate::records::{
    FAR, event, job, job_change, node, node_change, node_id, orphan, orphan_change, queued,
    revocation, submission, token,
};

on_both!(
    all_or_nothing,
    an_idempotency_key_is_taken_once,
    a_token_is_used_once,
    names_and_serials_of_nodes_differ,
    an_orphan_needs_its_job_and_is_told_again,
    what_cannot_be_stored_is_refused,
    the_last_version_of_a_job_counts,
    what_is_removed_is_gone,
    nothing_is_a_commit_too,
    many_rows,
);

async fn all_or_nothing(place: Place) {
    let (store, lease) = place.led().await;
    let mut changes = queued(1);
    changes.push(Change::Setting {
        name: "x".into(),
        value: json!(1),
    });
    changes.push(orphan_change(orphan(99, 1)));
    let refused = store.commit(lease.term, changes).await;
    assert!(
        matches!(refused, Err(CommitError::Conflict { .. })),
        "{refused:?}"
    );
    assert_eq!(store.load().await.expect("loads"), store::Loaded::default());
    assert_eq!(*store.events_seen().borrow(), 0);
    // and it goes on, with the number that was not used
    assert_eq!(
        store.commit(lease.term, queued(1)).await.expect("commits"),
        1
    );
}

async fn an_idempotency_key_is_taken_once(place: Place) {
    let (store, lease) = place.led().await;
    let commit = async |submission, more: Vec<Change>| {
        let mut changes = vec![Change::Submission(submission)];
        changes.extend(more);
        store.commit(lease.term, changes).await
    };
    commit(submission("ann", "k", &[1]), queued(1))
        .await
        .expect("commits");
    match commit(submission("ann", "k", &[2]), queued(2)).await {
        Err(CommitError::Conflict {
            source: Refusal::KeyTaken { user, key },
        }) => assert_eq!((user.as_str(), key.as_str()), ("ann", "k")),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.job(JobId(2)).await.expect("reads"), None);
    commit(submission("bob", "k", &[3]), queued(3))
        .await
        .expect("another user's");

    // among several, the one that was taken is named
    let several = vec![Change::Submission(submission("ann", "k", &[4]))];
    match commit(submission("ann", "l", &[4]), several).await {
        Err(CommitError::Conflict {
            source: Refusal::KeyTaken { key, .. },
        }) => assert_eq!(key, "k"),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.submission("ann", "l").await.expect("reads"), None);

    let mut late = submission("ann", "late", &[5]);
    late.at_ms = 2_000;
    commit(late.clone(), Vec::new()).await.expect("commits");
    let forget = vec![Change::ForgetSubmissions { before_ms: 2_000 }];
    commit(submission("ann", "k", &[6]), forget)
        .await
        .expect("the old one is forgotten");
    let kept = store.submission("ann", "late").await.expect("reads");
    assert_eq!(kept, Some(late));
    let made = store.submission("ann", "k").await.expect("reads");
    assert_eq!(made, Some(submission("ann", "k", &[6])));
    assert_eq!(store.submission("bob", "k").await.expect("reads"), None);
}

async fn a_token_is_used_once(place: Place) {
    let (store, lease) = place.led().await;
    let used_by = |name: Option<&str>| {
        let mut record = token("t");
        record.used_by = name.map(node_id);
        vec![Change::Token(record)]
    };
    for allowed in [None, None, Some("n1"), Some("n1")] {
        let done = store.commit(lease.term, used_by(allowed)).await;
        done.expect("commits");
    }
    for refused in [None, Some("n2")] {
        match store.commit(lease.term, used_by(refused)).await {
            Err(CommitError::Conflict {
                source: Refusal::TokenUsed { id },
            }) => assert_eq!(id, "t"),
            other => panic!("{other:?}"),
        }
    }
    let tokens = store.load().await.expect("loads").tokens;
    assert_eq!(tokens[0].used_by, Some(node_id("n1")));

    let forget = Change::ForgetTokens { before_ms: FAR };
    store
        .commit(lease.term, vec![forget])
        .await
        .expect("commits");
    assert_eq!(store.load().await.expect("loads").tokens.len(), 1);
    let forget = Change::ForgetTokens { before_ms: FAR + 1 };
    store
        .commit(lease.term, vec![forget])
        .await
        .expect("commits");
    assert!(store.load().await.expect("loads").tokens.is_empty());
}

async fn names_and_serials_of_nodes_differ(place: Place) {
    let (store, lease) = place.led().await;
    let both = vec![node_change(node("n1")), node_change(node("n2"))];
    store.commit(lease.term, both).await.expect("commits");
    let mut same_name = node("n3");
    same_name.name = "n1.lab".into();
    let mut same_serial = node("n2");
    same_serial.serial = Some("serial of n1".into());
    for bad in [same_name, same_serial] {
        let refused = store.commit(lease.term, vec![node_change(bad)]).await;
        assert!(
            matches!(refused, Err(CommitError::Conflict { .. })),
            "{refused:?}"
        );
    }
    // many may have none
    let mut changed = [node("n1"), node("n2")];
    for record in &mut changed {
        record.serial = None;
        record.draining = true;
        let change = vec![node_change(record.clone())];
        store.commit(lease.term, change).await.expect("commits");
    }
    assert_eq!(store.load().await.expect("loads").nodes, changed);
}

async fn an_orphan_needs_its_job_and_is_told_again(place: Place) {
    let (store, lease) = place.led().await;
    let changes = vec![
        orphan_change(orphan(4, 1)),
        job_change(job(4, JobState::Done)),
    ];
    store
        .commit(lease.term, changes)
        .await
        .expect("with its job");
    let mut again = orphan(4, 1);
    again.why = "told again".into();
    let changes = vec![orphan_change(orphan(4, 2)), orphan_change(again.clone())];
    store.commit(lease.term, changes).await.expect("commits");
    let found = store.orphans(JobId(4)).await.expect("reads");
    assert_eq!(found, [again, orphan(4, 2)]);
    assert!(store.orphans(JobId(5)).await.expect("reads").is_empty());
    assert_eq!(store.load().await.expect("loads").highest_fence, 42);
}

/// The same on both, though SQLite alone would take some of it.
async fn what_cannot_be_stored_is_refused(place: Place) {
    let (store, lease) = place.led().await;
    let mut nul = job(1, JobState::Queued);
    nul.status.user = "a\0b".into();
    let mut long_ago = job(2, JobState::Queued);
    long_ago.status.submitted_ms = u64::MAX;
    let mut nul_event = event("x");
    nul_event.user = Some("\0".into());
    let mut far_fence = node("n1");
    far_fence.highest_fence = 1 << 63;
    let bad = [
        vec![job_change(nul)],
        vec![job_change(long_ago)],
        vec![Change::Event(nul_event)],
        vec![node_change(far_fence)],
        vec![Change::Submission(submission("ann", "\0", &[]))],
        vec![Change::Setting {
            name: "a\0".into(),
            value: Value::Bool(true),
        }],
        vec![Change::Event(event("x")); 65_537],
    ];
    for changes in bad {
        let refused = store.commit(lease.term, changes).await;
        assert!(
            matches!(refused, Err(CommitError::Invalid { .. })),
            "{refused:?}"
        );
    }
    // questions about such things find nothing
    assert_eq!(store.job(JobId(u64::MAX)).await.expect("reads"), None);
    assert_eq!(store.submission("a", "\0").await.expect("reads"), None);
    let filter = JobFilter {
        user: Some("\0".into()),
        ..JobFilter::default()
    };
    let found = store.jobs(&filter, None, 1, Order::OldestFirst).await;
    assert!(found.expect("reads").is_empty());
    assert_eq!(store.load().await.expect("loads"), store::Loaded::default());
}

async fn the_last_version_of_a_job_counts(place: Place) {
    let (store, lease) = place.led().await;
    let mut moved = job(1, JobState::Cancelled);
    moved.status.request.queue = "other".into();
    moved.status.user = "bob".into();
    let changes = vec![
        job_change(job(1, JobState::Queued)),
        job_change(job(2, JobState::Queued)),
        job_change(moved.clone()),
    ];
    store.commit(lease.term, changes).await.expect("commits");
    assert_eq!(store.job(JobId(1)).await.expect("reads"), Some(moved));
    let jobs = store.load().await.expect("loads").jobs;
    assert_eq!(jobs, [job(2, JobState::Queued)]);
}

async fn what_is_removed_is_gone(place: Place) {
    let (store, lease) = place.led().await;
    let setting = |value| Change::Setting {
        name: "x".into(),
        value,
    };
    let queue = || Change::Queue {
        name: "q".into(),
        settings: api::queue::QueueSettings::default(),
    };
    let changes = vec![
        node_change(node("n1")),
        queue(),
        Change::Token(token("t")),
        setting(json!({"a": 1})),
        Change::Revoked(revocation("s")),
    ];
    store.commit(lease.term, changes).await.expect("commits");
    let mut other = revocation("s");
    other.why = None;
    let keep = vec![
        Change::Revoked(other),
        Change::ForgetRevocations { before_ms: 50 },
    ];
    store.commit(lease.term, keep).await.expect("commits");
    let loaded = store.load().await.expect("loads");
    assert_eq!(loaded.revoked, [revocation("s")]);
    let changes = vec![
        Change::NodeRemoved(node_id("n1")),
        Change::QueueRemoved { name: "q".into() },
        Change::TokenRemoved { id: "t".into() },
        setting(Value::Null),
        Change::ForgetRevocations { before_ms: 51 },
    ];
    store.commit(lease.term, changes).await.expect("commits");
    let empty = store::Loaded {
        highest_fence: 3,
        ..store::Loaded::default()
    };
    assert_eq!(store.load().await.expect("loads"), empty);
    // in the order of the call
    let changes = vec![queue(), Change::QueueRemoved { name: "q".into() }, queue()];
    store.commit(lease.term, changes).await.expect("commits");
    assert_eq!(store.load().await.expect("loads").queues.len(), 1);
}

async fn nothing_is_a_commit_too(place: Place) {
    let (store, lease) = place.led().await;
    assert_eq!(
        store.commit(lease.term, Vec::new()).await.expect("commits"),
        0
    );
    store.commit(lease.term, queued(1)).await.expect("commits");
    assert_eq!(
        store.commit(lease.term, Vec::new()).await.expect("commits"),
        1
    );
}

/// More than one statement takes, and every size of statement.
async fn many_rows(place: Place) {
    let (store, lease) = place.led().await;
    let mut first = 1;
    for count in [1, 2, 3, 127, 128, 129, 383] {
        let changes = (first..first + count).flat_map(queued).collect();
        let seq = store.commit(lease.term, changes).await.expect("commits");
        first += count;
        assert_eq!(seq, first - 1);
    }
    let jobs = store.load().await.expect("loads").jobs;
    assert!((1..first).eq(jobs.iter().map(|job| job.status.id.0)));
    let filter = store::EventFilter::default();
    let events = store.events(0, 10_000, &filter).await.expect("reads");
    assert!((1..first).eq(events.iter().map(|event| event.seq)));
}
