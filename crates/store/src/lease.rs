//! Who may write, and until when he may believe it.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// The number of a leadership; grows with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub(crate) u64);

impl Term {
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    pub(crate) fn as_stored(self) -> i64 {
        i64::try_from(self.0).expect("a term comes out of such a number")
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The leadership as its holder sees it.
#[derive(Debug, Clone)]
pub struct Lease {
    pub term: Term,
    pub holder: String,
    pub ttl: Duration,
    /// Nobody else can lead before that: counted from before the store was asked, less a margin for
    /// clocks that run differently. Past it, say nothing to nodes until it is renewed.
    pub trusted_until: Instant,
}
