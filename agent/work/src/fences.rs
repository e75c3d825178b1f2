//! Which attempts of which jobs this node has seen: an older one is refused, and so is one that is
//! over here.

use std::collections::BTreeMap;

use api::job::JobId;
use api::work::Key;
use serde::{Deserialize, Serialize};

/// Jobs remembered one by one. Of those before them only the highest fence is known, and nothing up
/// to that is taken.
const REMEMBERED: usize = 256;

/// All that was seen. Its size is bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fences {
    /// The highest fence of the jobs that are not remembered one by one.
    floor: u64,
    seen: BTreeMap<JobId, Seen>,
}

/// The newest attempt of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    fence: u64,
    /// It is over here: it was refused, or forgotten.
    closed: bool,
}

/// How an attempt stands to what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The newest, and not over here.
    Open,
    /// There was a newer one of its job, with this fence.
    Older(u64),
    /// It may have been here: it is not newer than this fence, up to which nothing is remembered.
    Forgotten(u64),
    /// It was here, and is over.
    Closed,
}

impl Fences {
    pub(crate) fn standing(&self, key: Key) -> Standing {
        match self.seen.get(&key.job) {
            Some(seen) if key.fence < seen.fence => Standing::Older(seen.fence),
            Some(seen) if key.fence == seen.fence && seen.closed => Standing::Closed,
            Some(_) => Standing::Open,
            None if key.fence <= self.floor => Standing::Forgotten(self.floor),
            None => Standing::Open,
        }
    }

    /// It was seen; false: nothing new.
    pub(crate) fn see(&mut self, key: Key) -> bool {
        self.raise(key, false)
    }

    /// It is over here, and is not to come back; false: nothing new.
    pub(crate) fn close(&mut self, key: Key) -> bool {
        self.raise(key, true)
    }

    fn raise(&mut self, key: Key, closed: bool) -> bool {
        let before = self.seen.get(&key.job).copied();
        let fence = key.fence;
        let after = match before {
            None if fence <= self.floor => return false,
            Some(seen) if fence < seen.fence => return false,
            Some(seen) if fence == seen.fence => Seen {
                fence,
                closed: closed || seen.closed,
            },
            Some(_) | None => Seen { fence, closed },
        };
        if before == Some(after) {
            return false;
        }
        self.seen.insert(key.job, after);
        self.shrink();
        true
    }

    fn shrink(&mut self) {
        while self.seen.len() > REMEMBERED {
            let Some((&job, seen)) = self.seen.iter().min_by_key(|(_, seen)| seen.fence) else {
                return;
            };
            self.floor = self.floor.max(seen.fence);
            self.seen.remove(&job);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(job: u64, fence: u64) -> Key {
        Key {
            job: JobId(job),
            attempt: 1,
            fence,
        }
    }

    #[test]
    fn an_older_attempt_is_refused_and_a_closed_one_too() {
        let mut fences = Fences::default();
        assert!(fences.see(key(1, 5)));
        assert!(!fences.see(key(1, 5)));
        assert_eq!(fences.standing(key(1, 5)), Standing::Open);
        assert_eq!(fences.standing(key(1, 4)), Standing::Older(5));
        assert_eq!(fences.standing(key(2, 4)), Standing::Open);
        assert!(fences.close(key(1, 5)));
        assert_eq!(fences.standing(key(1, 5)), Standing::Closed);
        assert_eq!(fences.standing(key(1, 6)), Standing::Open);
        // what was over stays so
        assert!(!fences.see(key(1, 5)));
        assert_eq!(fences.standing(key(1, 5)), Standing::Closed);
    }

    proptest! {
        #[test]
        fn whatever_was_closed_or_overtaken_is_never_open_again(
            history in prop::collection::vec((0..700_u64, 1..2000_u64, any::<bool>()), 1..1500),
        ) {
            let mut fences = Fences::default();
            let mut highest: BTreeMap<u64, u64> = BTreeMap::new();
            let mut closed = Vec::new();
            for (job, fence, over) in history {
                let key = key(job, fence);
                if over {
                    if fences.standing(key) == Standing::Open {
                        fences.close(key);
                        closed.push(key);
                    }
                } else {
                    fences.see(key);
                }
                let known = highest.entry(job).or_default();
                *known = fence.max(*known);
                prop_assert!(fences.seen.len() <= REMEMBERED);
            }
            for key in closed {
                prop_assert_ne!(fences.standing(key), Standing::Open);
            }
            for (job, fence) in highest {
                if fence > 1 {
                    prop_assert_ne!(fences.standing(key(job, fence - 1)), Standing::Open);
                }
            }
            let text = serde_json::to_string(&fences).unwrap();
            prop_assert_eq!(serde_json::from_str::<Fences>(&text).unwrap(), fences);
        }
    }
}
