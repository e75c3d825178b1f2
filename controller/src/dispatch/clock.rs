//! Milliseconds since the epoch that never go backwards while the controller runs, even if somebody
//! sets the machine's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::lifecycle::Millis;

/// Read once from the machine's clock, then counted on.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    offset: Duration,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        let offset = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            started: Instant::now(),
            // a clock before 1970 is no clock; counting from there is as good as anything
            offset: offset.unwrap_or_default(),
        }
    }

    #[must_use]
    pub fn now(&self) -> Millis {
        let now = self.offset + self.started.elapsed();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }
}
