//! When the next snapshot is due.

use std::time::{Duration, Instant};

/// Between two snapshots.
pub(crate) const PERIOD: Duration = Duration::from_millis(100);

/// Ten times a second by the clock, whatever a snapshot takes.
pub(crate) struct Rhythm {
    due: Instant,
}

impl Rhythm {
    /// The first snapshot was taken just now.
    pub(crate) fn begin() -> Self {
        Self {
            due: Instant::now(),
        }
    }

    /// How long to sleep until the next.
    pub(crate) fn rest(&mut self) -> Duration {
        let rest = rest_after(self.due.elapsed());
        self.due = Instant::now() + rest;
        rest
    }
}

/// The rest of the period; and at least as long as was spent, since whoever measures goes before all
/// others of a housekeeping CPU, which may be the only one.
fn rest_after(spent: Duration) -> Duration {
    PERIOD.saturating_sub(spent).max(spent)
}

#[cfg(test)]
mod tests {
    use super::rest_after;
    use std::time::Duration;

    #[test]
    fn half_of_the_time_is_left_to_others() {
        for (spent, rest) in [(0, 100), (20, 80), (50, 50), (90, 90), (700, 700)] {
            let [spent, rest] = [spent, rest].map(Duration::from_millis);
            assert_eq!(rest_after(spent), rest);
        }
    }
}
