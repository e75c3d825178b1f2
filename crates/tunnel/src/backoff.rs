//! When to dial again.

use std::time::Duration;

/// Exponential backoff with full jitter: after *n* failures in a row the wait is drawn evenly from 0
/// to `base × 2ⁿ`, but at most `cap`.
///
/// The even draw spreads the agents of a controller that has restarted over the whole span instead
/// of letting them come back in waves. Nothing here reads a clock or draws a number: the caller
/// passes both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The span of the wait when a settled connection has ended.
    pub base: Duration,
    /// The longest span.
    pub cap: Duration,
    /// A connection that lived this long was a success; one that broke sooner is one more failure.
    pub settled: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(30),
            settled: Duration::from_secs(60),
        }
    }
}

impl Backoff {
    /// How many failures in a row there are now, after an attempt whose connection lived for
    /// `lived`; zero for one that never came about.
    #[must_use]
    pub fn failures(&self, before: u32, lived: Duration) -> u32 {
        if lived >= self.settled && !lived.is_zero() {
            0
        } else {
            before.saturating_add(1)
        }
    }

    /// The longest wait after so many failures.
    #[must_use]
    pub fn span(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// The wait. The same seed and count give the same one; each agent needs a seed of its own.
    #[must_use]
    pub fn wait(&self, failures: u32, seed: u64) -> Duration {
        let drawn = mix(seed ^ mix(u64::from(failures)));
        let span = self.span(failures).as_nanos();
        // Multiply and shift: even over the span up to one part in 2⁶⁴.
        let nanos = (span.saturating_mul(u128::from(drawn))) >> 64;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policies() -> impl Strategy<Value = Backoff> {
        (0..100_000_u64, 0..1_000_000_u64, 0..1_000_000_u64).prop_map(|(base, cap, settled)| {
            Backoff {
                base: Duration::from_millis(base),
                cap: Duration::from_millis(cap),
                settled: Duration::from_millis(settled),
            }
        })
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_its_span_and_no_span_than_the_cap(
            policy in policies(), failures: u32, seed: u64,
        ) {
            prop_assert!(policy.wait(failures, seed) <= policy.span(failures));
            prop_assert!(policy.span(failures) <= policy.cap);
        }

        #[test]
        fn spans_double_until_the_cap(policy in policies(), failures in 0..u32::MAX) {
            let (this, next) = (policy.span(failures), policy.span(failures + 1));
            prop_assert!(this <= next);
            prop_assert!(next == policy.cap || next == this * 2);
        }

        #[test]
        fn the_same_seed_gives_the_same_wait(policy in policies(), failures: u32, seed: u64) {
            prop_assert_eq!(policy.wait(failures, seed), policy.wait(failures, seed));
        }

        #[test]
        fn waits_spread_evenly(failures in 0..12_u32, seed: u64) {
            let policy = Backoff::default();
            let span = policy.span(failures);
            let mut tenths = [0_u32; 10];
            for agent in 0..2_000 {
                let wait = policy.wait(failures, seed.wrapping_add(agent));
                let tenth = (wait.as_nanos() * 10 / span.as_nanos()).min(9);
                tenths[usize::try_from(tenth).unwrap()] += 1;
            }
            // 200 expected in each; fewer than 100 or more than 300 is seven standard deviations off.
            prop_assert!(tenths.iter().all(|count| (100..=300).contains(count)), "{tenths:?}");
        }

        #[test]
        fn only_a_settled_connection_forgets_failures(
            policy in policies(), before: u32, lived in 0..2_000_000_u64,
        ) {
            let lived = Duration::from_millis(lived);
            let after = policy.failures(before, lived);
            if after == 0 {
                prop_assert!(lived >= policy.settled && !lived.is_zero());
            } else {
                prop_assert_eq!(after, before.saturating_add(1));
            }
        }
    }

    #[test]
    fn an_attempt_that_never_connected_is_always_a_failure() {
        let policy = Backoff {
            settled: Duration::ZERO,
            ..Backoff::default()
        };
        assert_eq!(policy.failures(3, Duration::ZERO), 4);
        assert_eq!(policy.failures(3, Duration::from_nanos(1)), 0);
        assert_eq!(policy.failures(u32::MAX, Duration::ZERO), u32::MAX);
    }
}
