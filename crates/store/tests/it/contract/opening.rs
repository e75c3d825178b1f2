//! Opening, closing, opening again.

use std::time::Duration;

use api::job::{JobId, JobState};
use api::queue::QueueSettings;
use serde_json::json;
use store::{Change, CommitError, LeadError, Loaded, OpenError, ReadError, Store, Unavailable};

use crate::place::{Backend, Place, TERM, on_both};
use crate::records::{
    event, job, job_change, node, node_change, orphan, orphan_change, placed, queued, revocation,
    submission, token,
};

on_both!(
    everything_is_there_after_reopening,
    a_newer_schema_is_refused,
    a_changed_migration_is_refused,
    two_may_open_at_once,
    a_closed_store_says_so,
    a_store_may_be_dropped,
    an_empty_one_loads,
);

async fn everything_is_there_after_reopening(place: Place) {
    let (store, lease) = place.led().await;
    let settings = QueueSettings {
        priority: 7,
        ..QueueSettings::default()
    };
    let mut used = token("used");
    used.used_by = Some(node("n1").id);
    let mut expired = token("expired");
    expired.expires_ms = 1;
    let changes = vec![
        job_change(job(1, JobState::Queued)),
        job_change(job(2, JobState::Done)),
        job_change(placed(9, 41, &["n1", "n2"])),
        Change::Submission(submission("ann", "k", &[1, 2])),
        node_change(node("n1")),
        node_change(node("n2")),
        Change::Queue {
            name: "quiet".into(),
            settings: settings.clone(),
        },
        Change::Token(token("fresh")),
        Change::Token(used.clone()),
        Change::Token(expired),
        Change::Revoked(revocation("s1")),
        Change::Setting {
            name: "x".into(),
            value: json!({"b": 1, "a": [2, null]}),
        },
        orphan_change(orphan(9, 1)),
        Change::Event(event("one")),
        Change::Event(event("two")),
    ];
    let seq = store.commit(lease.term, changes).await.expect("commits");
    assert_eq!(seq, 2);
    store.close().await;

    let store = place.open().await;
    assert_eq!(*store.events_seen().borrow(), 2);
    let want = Loaded {
        jobs: vec![job(1, JobState::Queued), placed(9, 41, &["n1", "n2"])],
        nodes: vec![node("n1"), node("n2")],
        queues: [("quiet".into(), settings)].into(),
        tokens: vec![token("fresh"), used],
        revoked: vec![revocation("s1")],
        settings: [("x".into(), json!({"b": 1, "a": [2, null]}))].into(),
        highest_job: 9,
        highest_fence: 41,
        last_event: 2,
    };
    assert_eq!(store.load().await.expect("loads"), want);
    let over = store.job(JobId(2)).await.expect("reads");
    assert_eq!(over, Some(job(2, JobState::Done)));
    let orphans = store.orphans(JobId(9)).await.expect("reads");
    assert_eq!(orphans, [orphan(9, 1)]);
    let made = store.submission("ann", "k").await.expect("reads");
    assert_eq!(made, Some(submission("ann", "k", &[1, 2])));
}

async fn a_newer_schema_is_refused(place: Place) {
    place.open().await.close().await;
    let mut raw = place.raw().await;
    let checksum = match place.backend() {
        Backend::Sqlite => "x'00'",
        Backend::Postgres => "'\\x00'",
    };
    raw.run(&format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (7000, 'of tomorrow', true, {checksum}, 0), (7001, 'later', true, {checksum}, 0)"
    ))
    .await;
    match Store::open(&place.url).await {
        Err(OpenError::Newer { found, known }) => assert!(found == 7001 && known < 7000),
        other => panic!("{other:?}"),
    }
}

async fn a_changed_migration_is_refused(place: Place) {
    place.open().await.close().await;
    let mut raw = place.raw().await;
    let checksum = match place.backend() {
        Backend::Sqlite => "x'00'",
        Backend::Postgres => "'\\x00'",
    };
    raw.run(&format!(
        "UPDATE _sqlx_migrations SET checksum = {checksum}"
    ))
    .await;
    let refused = Store::open(&place.url).await;
    assert!(
        matches!(refused, Err(OpenError::Migrate { .. })),
        "{refused:?}"
    );
}

async fn two_may_open_at_once(place: Place) {
    let backend = place.backend();
    let made = tokio::task::spawn_blocking(move || Place::bare(backend));
    let place = made.await.expect("made");
    let opens: Vec<_> = (0..4)
        .map(|_| {
            let url = place.url.clone();
            tokio::spawn(async move { Store::open(&url).await })
        })
        .collect();
    for open in opens {
        open.await.expect("runs").expect("opens");
    }
}

async fn a_closed_store_says_so(place: Place) {
    let (store, lease) = place.led().await;
    store.commit(lease.term, queued(1)).await.expect("commits");
    let other = store.clone();
    store.close().await;
    store.close().await;
    let refused = other.commit(lease.term, queued(2)).await;
    let closed = Unavailable::Closed;
    assert!(
        matches!(&refused, Err(CommitError::Unavailable { source }) if source.to_string() == closed.to_string()),
        "{refused:?}"
    );
    let refused = other.lead("b", TERM).await;
    assert!(
        matches!(refused, Err(LeadError::Unavailable { .. })),
        "{refused:?}"
    );
    let refused = other.job(JobId(1)).await;
    assert!(
        matches!(refused, Err(ReadError::Unavailable { .. })),
        "{refused:?}"
    );
}

/// With its runtime, and without having been closed.
async fn a_store_may_be_dropped(place: Place) {
    let place = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let store = runtime.block_on(async {
            let (store, lease) = place.led().await;
            store.commit(lease.term, queued(1)).await.expect("commits");
            store.job(JobId(1)).await.expect("reads");
            store
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
        drop(store);
        place
    });
    let place = place.await.expect("nothing panicked");
    let store = place.open().await;
    assert!(store.job(JobId(1)).await.expect("reads").is_some());
}

async fn an_empty_one_loads(place: Place) {
    let store = place.open().await;
    assert_eq!(store.load().await.expect("loads"), Loaded::default());
    assert!(store.counts().await.expect("reads").is_empty());
}
