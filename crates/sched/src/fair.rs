//! Who has used how much lately.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Time;

/// CPU milliseconds of each user, of which half is forgotten after each half-life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    used: BTreeMap<String, u64>,
    halved: Time,
}

impl Usage {
    pub(crate) fn of(&self, user: &str) -> u64 {
        self.used.get(user).copied().unwrap_or_default()
    }

    pub(crate) fn charge(&mut self, user: &str, cpu_ms: u64) {
        if cpu_ms > 0 {
            let used = self.used.entry(user.to_owned()).or_default();
            *used = used.saturating_add(cpu_ms);
        }
    }

    /// Forgets, in whole half-lives.
    pub(crate) fn decay(&mut self, now: Time, half_life: u64) {
        let passed = now.saturating_sub(self.halved) / half_life.max(1);
        if passed > 0 {
            let shift = u32::try_from(passed).unwrap_or(u32::MAX);
            for used in self.used.values_mut() {
                *used = used.checked_shr(shift).unwrap_or(0);
            }
            self.used.retain(|_, used| *used > 0);
            self.halved = self.halved.saturating_add(passed * half_life.max(1));
        }
    }
}
