//! The newest events of the node, and who waits for the next one.
//!
//! This is the only place that holds events: a client that reads slowly holds a position in here and
//! not a queue of its own. What it has not read in time is lost for it, and the log says so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::event::ContainerEvent;

/// As many as the engine remembers.
const EVENTS: usize = 256;
/// All their lines together; labels may be long. The newest event is always kept.
const BYTES: usize = 256 << 10;

/// What the node has told of its containers. A clone tells into the same log.
#[derive(Debug, Clone)]
pub struct EventLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kept: Mutex<Kept>,
    /// The number of the next event.
    told: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<(Arc<ContainerEvent>, usize)>,
    bytes: usize,
    /// The number of the next event.
    next: u64,
}

/// Whether events that were told before are wanted too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    Wanted,
    Unwanted,
}

impl Default for EventLog {
    fn default() -> Self {
        Self(Arc::new(Shared {
            kept: Mutex::default(),
            told: watch::channel(0).0,
        }))
    }
}

impl EventLog {
    /// Tells everybody who listens, and remembers it for those who ask later.
    pub fn tell(&self, event: ContainerEvent) {
        let bytes = event.line().len();
        let next = {
            let mut kept = self.kept();
            kept.events.push_back((Arc::new(event), bytes));
            kept.bytes += bytes;
            kept.next += 1;
            while kept.events.len() > EVENTS || (kept.bytes > BYTES && kept.events.len() > 1) {
                let dropped = kept.events.pop_front();
                kept.bytes -= dropped.map_or(0, |(_, bytes)| bytes);
            }
            kept.next
        };
        // never backwards, should two tell at once
        self.0.told.send_if_modified(|told| {
            let newer = next > *told;
            *told = next.max(*told);
            newer
        });
    }

    pub(super) fn follow(&self, past: Past) -> Follower {
        let kept = self.kept();
        let begun = kept.next;
        let oldest = begun.saturating_sub(kept.events.len() as u64);
        Follower {
            log: self.clone(),
            told: self.0.told.subscribe(),
            begun,
            next: if past == Past::Wanted { oldest } else { begun },
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // nothing in here panics half way
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One client's position.
#[derive(Debug)]
pub(super) struct Follower {
    log: EventLog,
    told: watch::Receiver<u64>,
    /// The number of the first event that is not of the past.
    begun: u64,
    next: u64,
}

impl Follower {
    /// The events told before [`EventLog::follow`] was called, in the order of their times.
    pub(super) fn past(&mut self) -> Vec<Arc<ContainerEvent>> {
        let mut past = self.take(self.begun);
        past.sort_by_key(|event| event.time_ns);
        past
    }

    /// The events told since, after there is one. Cancel-safe: nothing is lost when it is dropped.
    pub(super) async fn more(&mut self) -> Vec<Arc<ContainerEvent>> {
        let next = self.next;
        // the sender lives as long as `log`
        let told = self.told.wait_for(|told| *told > next).await;
        let end = told.map_or(next, |told| *told);
        self.take(end)
    }

    fn take(&mut self, end: u64) -> Vec<Arc<ContainerEvent>> {
        let kept = self.log.kept();
        let oldest = kept.next.saturating_sub(kept.events.len() as u64);
        let missed = oldest.min(end).saturating_sub(self.next);
        if missed > 0 {
            tracing::warn!(missed, "a client of /events reads too slowly: events lost");
        }
        let numbered = (oldest..).zip(&kept.events);
        let wanted = numbered.filter(|(number, _)| (self.next..end).contains(number));
        let taken = wanted.map(|(_, (event, _))| Arc::clone(event)).collect();
        self.next = end.max(self.next);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::verdict;
    use super::*;

    fn times(events: &[Arc<ContainerEvent>]) -> Vec<i64> {
        events.iter().map(|event| event.time_ns).collect()
    }

    #[tokio::test]
    async fn the_past_is_told_once_and_in_order_and_then_what_follows() {
        let log = EventLog::default();
        for time in [1, 3, 2] {
            log.tell(verdict(time));
        }
        let (mut all, mut new) = (log.follow(Past::Wanted), log.follow(Past::Unwanted));
        log.tell(verdict(4));
        assert_eq!(times(&all.past()), [1, 2, 3]);
        assert_eq!(times(&new.past()), [0; 0]);
        for follower in [&mut all, &mut new] {
            assert_eq!(times(&follower.more().await), [4]);
        }
        let waiting = tokio::spawn(async move { times(&all.more().await) });
        tokio::task::yield_now().await;
        log.tell(verdict(5));
        assert_eq!(waiting.await.unwrap(), [5]);
    }

    #[tokio::test]
    async fn memory_is_bounded_by_count_and_by_bytes_and_the_newest_is_always_there() {
        let log = EventLog::default();
        let mut slow = log.follow(Past::Unwanted);
        for time in 0..1000 {
            log.tell(verdict(time));
        }
        let left: Vec<i64> = (744..1000).collect();
        assert_eq!(times(&log.follow(Past::Wanted).past()), left);
        assert_eq!(times(&slow.more().await), left, "and no more than that");

        for time in 0..5 {
            let mut large = verdict(time);
            large
                .attributes
                .insert("label".into(), "x".repeat(BYTES / 2));
            log.tell(large);
        }
        assert_eq!(times(&log.follow(Past::Wanted).past()), [4]);
        assert!(log.kept().bytes < BYTES);
    }
}
