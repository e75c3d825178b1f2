//! Whether a CPU ticks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whether the job's CPUs ran without a tick. Results of one mode do not compare with the other's:
/// a system call costs 1.7 times the instructions on a tickless CPU (quiet.md §0.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TickMode {
    NohzFull,
    Tick,
}

impl fmt::Display for TickMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NohzFull => "nohz_full",
            Self::Tick => "tick",
        })
    }
}

/// A text that names no tick mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTickMode(pub String);

impl fmt::Display for UnknownTickMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no tick mode: nohz_full or tick", self.0)
    }
}

impl std::error::Error for UnknownTickMode {}

impl FromStr for TickMode {
    type Err = UnknownTickMode;

    fn from_str(text: &str) -> Result<Self, UnknownTickMode> {
        [Self::NohzFull, Self::Tick]
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or_else(|| UnknownTickMode(text.to_owned()))
    }
}
