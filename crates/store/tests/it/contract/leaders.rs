//! One leader at a time, and nothing written by any other.
//!
//! The names of River's issues are kept where the same fault is looked for:
//! <https://github.com/riverqueue/river/blob/master/CHANGELOG.md>.

use std::time::Duration;

use store::{CommitError, LeadError};
use tokio::time::Instant;

use crate::place::{Place, TERM, on_both};
use crate::records::{event, queued};
use crate::server::LONG;

on_both!(
    a_second_one_is_refused_by_name,
    who_was_replaced_writes_nothing,
    a_lease_that_ran_out_is_renewed_if_nobody_came,
    river_199_a_stranger_renews_nothing,
    river_217_219_both_ways_give_the_whole_lease,
    river_1213_an_old_term_of_the_same_holder_is_over,
    river_1213_trust_is_counted_from_the_question,
    who_resigns_is_out_at_once,
    many_want_to_lead,
    bad_names,
);

/// As if the holder had been stopped for longer than its lease.
async fn expire(place: &Place) {
    place
        .raw()
        .await
        .run("UPDATE leadership SET until_ms = 1")
        .await;
}

async fn a_second_one_is_refused_by_name(place: Place) {
    let (store, _) = place.led().await;
    let other = place.open().await;
    match other.lead("b", TERM).await {
        Err(LeadError::Held { holder, until_ms }) => {
            assert_eq!(holder, "a");
            let mut raw = place.raw().await;
            let stored = raw.number("SELECT until_ms FROM leadership").await;
            assert_eq!(until_ms, stored.unsigned_abs());
        }
        other => panic!("{other:?}"),
    }
    drop(store);
}

async fn who_was_replaced_writes_nothing(place: Place) {
    let (old, first) = place.led().await;
    old.commit(first.term, queued(1)).await.expect("commits");
    // a write that waits while the other one is elected
    let mut raw = place.raw().await;
    raw.hold_writers().await;
    let waiting = {
        let (old, term) = (old.clone(), first.term);
        tokio::spawn(async move { old.commit(term, queued(2)).await })
    };
    raw.run("UPDATE leadership SET term = term + 1, holder = 'b'")
        .await;
    raw.run("COMMIT").await;
    let refused = waiting.await.expect("runs");
    assert!(
        matches!(refused, Err(CommitError::NotLeader { term }) if term == first.term),
        "{refused:?}"
    );

    expire(&place).await;
    let new = place.open().await;
    let second = new.lead("c", TERM).await.expect("leads");
    assert!(second.term > first.term);
    for _ in 0..2 {
        let refused = old
            .commit(first.term, vec![store::Change::Event(event("x"))])
            .await;
        assert!(
            matches!(refused, Err(CommitError::NotLeader { .. })),
            "{refused:?}"
        );
    }
    new.commit(second.term, queued(3)).await.expect("commits");
    let loaded = new.load().await.expect("loads");
    let ids: Vec<u64> = loaded.jobs.iter().map(|job| job.status.id.0).collect();
    assert_eq!((ids, loaded.last_event), (vec![1, 3], 2));
    assert_eq!(*old.events_seen().borrow(), 1);
    let refused = old.renew(&first).await;
    assert!(
        matches!(refused, Err(LeadError::Lost { .. })),
        "{refused:?}"
    );

    // both through one handle: the newer term is served, the older one is not
    let both = tokio::join!(
        new.commit(first.term, queued(4)),
        new.commit(second.term, queued(5))
    );
    assert!(
        matches!(both.0, Err(CommitError::NotLeader { .. })),
        "{both:?}"
    );
    both.1.expect("commits");
}

async fn a_lease_that_ran_out_is_renewed_if_nobody_came(place: Place) {
    let (store, lease) = place.led().await;
    expire(&place).await;
    store
        .commit(lease.term, queued(1))
        .await
        .expect("its term is not over");
    let renewed = store.renew(&lease).await.expect("renews");
    assert_eq!(renewed.term, lease.term);
    let refused = place.open().await.lead("b", TERM).await;
    assert!(
        matches!(refused, Err(LeadError::Held { .. })),
        "{refused:?}"
    );
}

async fn river_199_a_stranger_renews_nothing(place: Place) {
    let (store, first) = place.led().await;
    expire(&place).await;
    let second = store.lead("b", TERM).await.expect("leads");
    let mut raw = place.raw().await;
    let before = raw.number("SELECT until_ms FROM leadership").await;
    let refused = store.renew(&first).await;
    assert!(
        matches!(refused, Err(LeadError::Lost { term }) if term == first.term),
        "{refused:?}"
    );
    let after = raw.number("SELECT until_ms FROM leadership").await;
    assert_eq!(before, after);
    store.renew(&second).await.expect("renews");
}

async fn river_217_219_both_ways_give_the_whole_lease(place: Place) {
    let store = place.open().await;
    let mut raw = place.raw().await;
    let now = match place.backend() {
        crate::place::Backend::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        crate::place::Backend::Postgres => {
            "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
        }
    };
    let ttl = i64::try_from(TERM.as_millis()).expect("small");
    let mut lease = None;
    for _ in 0..2 {
        let before = raw.number(&format!("SELECT {now}")).await;
        lease = Some(match &lease {
            None => store.lead("a", TERM).await.expect("leads"),
            Some(lease) => store.renew(lease).await.expect("renews"),
        });
        let after = raw.number(&format!("SELECT {now}")).await;
        let until = raw.number("SELECT until_ms FROM leadership").await;
        assert!(
            (before + ttl..=after + ttl).contains(&until),
            "{before} {until} {after}"
        );
    }
}

async fn river_1213_an_old_term_of_the_same_holder_is_over(place: Place) {
    let (store, first) = place.led().await;
    // as a controller that starts again: it need not wait for its own lease
    let second = store.lead("a", TERM).await.expect("leads");
    assert!(second.term > first.term);
    let refused = store.commit(first.term, queued(1)).await;
    assert!(
        matches!(refused, Err(CommitError::NotLeader { .. })),
        "{refused:?}"
    );
    let refused = store.resign(&first).await;
    assert!(
        matches!(refused, Err(LeadError::Lost { .. })),
        "{refused:?}"
    );
    let refused = store.renew(&first).await;
    assert!(
        matches!(refused, Err(LeadError::Lost { .. })),
        "{refused:?}"
    );
    store
        .commit(second.term, queued(1))
        .await
        .expect("still leads");
}

async fn river_1213_trust_is_counted_from_the_question(place: Place) {
    let store = place.open().await;
    let mut raw = place.raw().await;
    let mut lease = None;
    for _ in 0..2 {
        raw.hold_writers().await;
        let asked = Instant::now();
        let asking = {
            let (store, lease) = (store.clone(), lease.clone());
            tokio::spawn(async move {
                match &lease {
                    None => store.lead("a", TERM).await,
                    Some(lease) => store.renew(lease).await,
                }
            })
        };
        tokio::time::sleep(Duration::from_millis(200)).await;
        let released = Instant::now();
        raw.let_go().await;
        let answer = tokio::time::timeout(LONG, asking).await.expect("in time");
        let got = answer.expect("runs").expect("leads");
        assert!(got.trusted_until < asked + TERM, "a margin remains");
        assert!(
            got.trusted_until < released + TERM - TERM / 10,
            "not from the answer"
        );
        lease = Some(got);
    }
}

async fn who_resigns_is_out_at_once(place: Place) {
    let (store, lease) = place.led().await;
    store.resign(&lease).await.expect("resigns");
    let refused = store.commit(lease.term, queued(1)).await;
    assert!(
        matches!(refused, Err(CommitError::NotLeader { .. })),
        "{refused:?}"
    );
    let refused = store.resign(&lease).await;
    assert!(
        matches!(refused, Err(LeadError::Lost { .. })),
        "{refused:?}"
    );
    let next = place
        .open()
        .await
        .lead("b", TERM)
        .await
        .expect("leads at once");
    assert!(next.term > lease.term);
}

async fn many_want_to_lead(place: Place) {
    let asking: Vec<_> = (0..8)
        .map(|n| {
            let url = place.url.clone();
            tokio::spawn(async move {
                let store = store::Store::open(&url).await.expect("opens");
                (store.lead(&format!("c{n}"), TERM).await, store)
            })
        })
        .collect();
    let mut leaders = 0;
    for ask in asking {
        match ask.await.expect("runs").0 {
            Ok(_) => leaders += 1,
            Err(LeadError::Held { holder, .. }) => assert!(holder.starts_with('c')),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(leaders, 1);
}

async fn bad_names(place: Place) {
    let store = place.open().await;
    for name in ["", "a\0", &"x".repeat(201)] {
        let refused = store.lead(name, TERM).await;
        assert!(matches!(refused, Err(LeadError::Holder(_))), "{refused:?}");
    }
    let forever = store.lead(&"ä".repeat(200), Duration::MAX).await;
    forever.expect("leads");
}
