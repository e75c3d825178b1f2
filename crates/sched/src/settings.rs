//! What a lab may choose.

use serde::{Deserialize, Serialize};

/// How a [`crate::Scheduler`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// A job that has waited this long goes before all that have not, ms.
    pub patience: u64,
    /// Jobs that get a reservation when they cannot start. At least one.
    pub reservations: usize,
    /// Jobs that are looked at in one pass, first those that come first. (Slurm's `bf_max_job_test` is
    /// 500 by default.)
    pub depth: usize,
    /// After this time half of what a user used is forgotten, ms.
    pub half_life: u64,
    /// How long nodes have to accept an offer, ms.
    pub offer: u64,
}

impl Default for Settings {
    /// An hour's patience, 32 reservations, 500 jobs, a day's half-life, 30 s for an offer.
    fn default() -> Self {
        Self {
            patience: 3_600_000,
            reservations: 32,
            depth: 500,
            half_life: 86_400_000,
            offer: 30_000,
        }
    }
}
