//! Queues: `/v1/queues`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A queue's settings: `PUT /v1/queues/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    /// Higher ones come first.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = -1_000_000, maximum = 1_000_000, default = 0))]
    pub priority: i32,
    /// Waiting jobs that it takes.
    #[serde(default = "capacity")]
    #[cfg_attr(feature = "openapi", schema(maximum = 10_000_000, default = 100_000))]
    pub capacity: usize,
    /// Who may submit; absent: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::users))]
    pub users: Option<BTreeSet<String>>,
    /// The longest attempt, seconds; a job's longer limit is cut to it.
    #[serde(default = "one_day")]
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 1, maximum = 31_536_000, default = 86_400)
    )]
    pub limit_seconds: u64,
    /// Takes nothing new and starts nothing.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(default = false))]
    pub draining: bool,
}

fn capacity() -> usize {
    100_000
}

fn one_day() -> u64 {
    86_400
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            priority: 0,
            capacity: capacity(),
            users: None,
            limit_seconds: one_day(),
            draining: false,
        }
    }
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueueView {
    pub name: String,
    pub settings: QueueSettings,
    pub waiting: usize,
    pub running: usize,
}
