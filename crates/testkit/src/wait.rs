//! Deadlines. Nothing in the harness waits without one, and nothing sleeps a fixed time in place
//! of an observation.

use std::time::{Duration, Instant};

/// Shortest pause between two looks at something that cannot be blocked on.
pub const POLL: Duration = Duration::from_millis(20);

/// A point in time after which a wait gives up.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    within: Duration,
    end: Instant,
}

impl Deadline {
    /// The deadline `within` from now.
    #[must_use]
    pub fn after(within: Duration) -> Self {
        Self {
            within,
            end: Instant::now() + within,
        }
    }

    /// The whole time that was allowed.
    #[must_use]
    pub fn within(&self) -> Duration {
        self.within
    }

    /// What is left of it.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.remaining().is_zero()
    }
}

/// Looks every `pause` (at least [`POLL`]) until `look` finds something or the deadline is over.
pub fn poll<T>(
    deadline: Deadline,
    pause: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        let left = deadline.remaining();
        if left.is_zero() {
            return None;
        }
        std::thread::sleep(pause.max(POLL).min(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_ends_at_the_deadline() {
        let start = Instant::now();
        let deadline = Deadline::after(Duration::from_millis(60));
        assert_eq!(poll(deadline, POLL, || None::<()>), None);
        assert!(start.elapsed() >= Duration::from_millis(60));
        assert!(deadline.expired());
    }

    #[test]
    fn poll_looks_at_least_once() {
        assert_eq!(
            poll(Deadline::after(Duration::ZERO), POLL, || Some(1)),
            Some(1)
        );
    }
}
