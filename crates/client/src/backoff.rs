//! How often and how soon a call is made again.

use std::time::Duration;

/// Before the second try; doubles with each.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3);
/// No new try begins so long after the first one.
pub(crate) const BUDGET: Duration = Duration::from_secs(30);
/// Tries in all.
const TRIES: u32 = 8;

/// Counts the tries of one call.
#[derive(Debug)]
pub(crate) struct Backoff {
    tried: u32,
    tries: u32,
    budget: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            tried: 0,
            tries: TRIES,
            budget: BUDGET,
        }
    }

    /// After a try that failed `elapsed` after the first one began: how long to wait before the next,
    /// or `None` to give up. `wish` is the server's own; `dice` is any random number.
    pub(crate) fn next(
        &mut self,
        elapsed: Duration,
        wish: Option<Duration>,
        dice: u32,
    ) -> Option<Duration> {
        self.tried += 1;
        let whole = FIRST
            .saturating_mul(1 << (self.tried - 1).min(16))
            .min(LONGEST);
        // between half and all of it, so that many clients do not come back at once
        let pause = whole / 2 + (whole / 2).mul_f64(f64::from(dice) / f64::from(u32::MAX));
        let pause = pause.max(wish.unwrap_or_default());
        (self.tried < self.tries && elapsed + pause < self.budget).then_some(pause)
    }

    /// No try has failed since the last success.
    pub(crate) fn is_fresh(&self) -> bool {
        self.tried == 0
    }
}

/// A random number for [`Backoff::next`].
pub(crate) fn dice() -> u32 {
    // without entropy all clients wait the longest, which is no harm
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..10)
            .map_while(|_| backoff.next(Duration::ZERO, None, u32::MAX))
            .map(|pause| pause.as_millis())
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3000, 3000]);
        let mut backoff = Backoff::new();
        assert_eq!(backoff.next(Duration::ZERO, None, 0), Some(FIRST / 2));
    }

    #[test]
    fn the_budget_ends_it_and_the_server_may_ask_for_more() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.next(BUDGET, None, 0), None);
        let mut backoff = Backoff::new();
        let wish = Some(Duration::from_secs(7));
        assert_eq!(backoff.next(Duration::ZERO, wish, 0), wish);
        let wish = Some(BUDGET);
        assert_eq!(backoff.next(Duration::ZERO, wish, 0), None);
    }
}
