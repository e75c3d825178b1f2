//! When a certificate is renewed and when its connection makes way. Pure.

use std::time::{Duration, SystemTime};

/// From the moment in which a certificate was received to its end, by this node's clock.
///
/// When the controller signed it is not in it: certificates begin early, for clocks that lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) from: SystemTime,
    pub(crate) to: SystemTime,
}

impl Lifetime {
    fn length(self) -> Duration {
        self.to.duration_since(self.from).unwrap_or_default()
    }

    /// At two thirds of its life, or up to a tenth of that earlier: nodes that were let in together do
    /// not come back together.
    pub(crate) fn renew_at(self, seed: u64) -> SystemTime {
        let due = self.length() * 2 / 3;
        // 32 bits are fine enough, and cannot overflow.
        let share = u32::try_from(seed >> 32).unwrap_or(u32::MAX);
        let early = (due / 10).as_secs_f64() * (f64::from(share) / f64::from(u32::MAX));
        self.from + due - Duration::from_secs_f64(early)
    }

    /// In its last tenth the connection that it was shown on is given up, if there is a newer one.
    pub(crate) fn redial_from(self) -> SystemTime {
        self.from + self.length() * 9 / 10
    }

    /// Whether it counts no more.
    pub(crate) fn is_over(self, now: SystemTime) -> bool {
        now >= self.to
    }
}

/// The clock is looked at so often at least, since it may be set.
const LOOK: Duration = Duration::from_secs(600);

/// Waits until the system's clock shows `moment`.
pub(crate) async fn until(moment: SystemTime) {
    while let Ok(left) = moment.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

/// Milliseconds since the epoch.
pub(crate) fn millis(moment: SystemTime) -> u64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn renewal_is_at_two_thirds_and_well_before_the_connection_makes_way(
            from in 0..4_000_000_000_u64, seconds in 1..400_000_000_u64, seed: u64,
        ) {
            let from = SystemTime::UNIX_EPOCH + Duration::from_secs(from);
            let length = Duration::from_secs(seconds);
            let life = Lifetime { from, to: from + length };
            let renew = life.renew_at(seed);
            prop_assert!(renew >= from + length * 599 / 1000);
            prop_assert!(renew <= from + length * 2 / 3);
            prop_assert!(renew < life.redial_from());
            prop_assert!(life.redial_from() < life.to);
            prop_assert!(!life.is_over(renew) && life.is_over(life.to));
        }

        #[test]
        fn clocks_that_disagree_upset_nothing(from: u32, to: u32, seed: u64) {
            let at = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
            let life = Lifetime { from: at(from), to: at(to) };
            prop_assert!(life.renew_at(seed) >= life.from);
            prop_assert_eq!(life.is_over(life.from), to <= from);
        }
    }

    #[test]
    fn nodes_spread() {
        let from = SystemTime::UNIX_EPOCH;
        let to = from + Duration::from_secs(3000);
        let at = |seed: u64| Lifetime { from, to }.renew_at(seed);
        assert_eq!(at(0), from + Duration::from_secs(2000));
        assert_eq!(at(u64::MAX), from + Duration::from_secs(1800));
        let middle = at(u64::MAX / 2).duration_since(from).unwrap();
        assert_eq!(middle.as_secs_f64().round(), 1900.0);
    }
}
