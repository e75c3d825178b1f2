//! `kill -9` at any time loses nothing that was acknowledged, and leaves nothing half done.

use std::collections::BTreeMap;
use std::time::Duration;

use api::job::JobId;
use store::{CommitError, EventFilter, JobFilter, LeadError, Order};

use crate::place::{Backend, Place, TERM, block_on_two};
use crate::records::queued;
use crate::server::LONG;
use crate::victim::{Victim, Word};

const ROUNDS: u64 = 25;

#[test]
fn sqlite() {
    nothing_is_lost(&Place::new(Backend::Sqlite));
}

#[test]
fn postgres() {
    nothing_is_lost(&Place::new(Backend::Postgres));
}

fn nothing_is_lost(place: &Place) {
    let mut acknowledged = BTreeMap::new();
    let mut first = 1;
    for round in 0..ROUNDS {
        let mut victim = Victim::start(&place.url, first, TERM);
        assert_eq!(victim.word(), Some(Word::Led));
        // ended at another point each time: after so many answers and so much time
        let mut words = round * 5 % 23;
        let mut extra = Some(Duration::from_micros(round * 617 % 3_000));
        loop {
            if words == 0
                && let Some(extra) = extra.take()
            {
                std::thread::sleep(extra);
                victim.kill();
            }
            words = words.saturating_sub(1);
            // what it had said before it was ended counts
            match victim.word() {
                Some(Word::Did { id, seq }) => assert!(acknowledged.insert(id, seq).is_none()),
                None => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(extra.is_none(), "it ended by itself");
        // behind all that may have been done without an answer
        first = acknowledged
            .keys()
            .max()
            .map_or(first, |last| first.max(last + 1))
            + 100;
    }
    assert!(acknowledged.len() as u64 > ROUNDS, "{}", acknowledged.len());
    block_on_two(verify(place, &acknowledged));
}

async fn verify(place: &Place, acknowledged: &BTreeMap<u64, u64>) {
    let store = place.open().await;
    let all = JobFilter::default();
    let all = store.jobs(&all, None, 100_000, Order::OldestFirst);
    let ids: Vec<u64> = all
        .await
        .expect("reads")
        .iter()
        .map(|job| job.status.id.0)
        .collect();
    let events = store
        .events(0, 100_000, &EventFilter::default())
        .await
        .expect("reads");
    assert!((1..).zip(&events).all(|(seq, event)| event.seq == seq));
    // each with its job, whether that was acknowledged or not
    let mut told: Vec<u64> = events
        .iter()
        .map(|event| event.job.expect("of a job").0)
        .collect();
    told.sort_unstable();
    assert_eq!(told, ids);
    for (id, seq) in acknowledged {
        let seq = usize::try_from(*seq).expect("small");
        assert_eq!(events[seq - 1].job, Some(JobId(*id)));
    }
    for id in ids {
        let made = store
            .submission("ann", &id.to_string())
            .await
            .expect("reads");
        assert_eq!(made.expect("with its job").jobs, [JobId(id)]);
    }
}

/// A leader that is stopped for longer than its lease, and goes on: PostgreSQL ends the transaction it
/// may have had open, and takes none from it any more. (With SQLite a stopped process keeps the file's
/// lock: nobody can lead, or write, until it goes on or is ended.)
#[test]
fn a_stopped_leader_is_replaced() {
    let place = Place::new(Backend::Postgres);
    for round in 0..3 {
        let mut victim = Victim::start(&place.url, 1_000 * (round + 1), Duration::from_millis(300));
        assert_eq!(victim.word(), Some(Word::Led));
        for _ in 0..5 + round * 3 {
            assert!(matches!(victim.word(), Some(Word::Did { .. })));
        }
        victim.signal("STOP");
        block_on_two(async {
            let store = place.open().await;
            let election = async {
                loop {
                    match store.lead("successor", TERM).await {
                        Ok(lease) => return lease,
                        Err(LeadError::Held { .. }) => {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
            };
            let elected = tokio::time::timeout(LONG, election).await;
            let lease = elected.expect("a stopped leader does not stay");
            let before = store.load().await.expect("loads");
            victim.signal("CONT");
            let mut refused = 0;
            while let Some(word) = victim.word() {
                match word {
                    // said late, done before
                    Word::Did { seq, .. } => assert!(seq <= before.last_event),
                    Word::Refused => refused += 1,
                    Word::Led => panic!("it does not lead again"),
                }
            }
            assert_eq!(refused, 4, "each of its tasks is told");
            assert_eq!(store.load().await.expect("loads"), before);
            store
                .commit(lease.term, queued(round + 1))
                .await
                .expect("commits");
            store.resign(&lease).await.expect("resigns");
            let late = store.commit(lease.term, queued(9)).await;
            assert!(matches!(late, Err(CommitError::NotLeader { .. })));
        });
    }
}
