//! How patient the controller is.

use std::time::Duration;

/// Deadlines of the lifecycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub scheduler: sched::Settings,
    /// Nodes have so long to take what they are assigned.
    pub accept: Duration,
    /// A node that is away for so long, with work that was not being measured, has lost it. What is
    /// being measured is lost only this long after its lease.
    pub lost_after: Duration,
    /// Nodes have so long to end what they are told to end.
    pub end: Duration,
    /// A node that could not take work is not asked again for so long.
    pub hold_off: Duration,
    /// A node that so many different jobs failed on one after the other, by its own fault, gets no more.
    pub strikes: usize,
    /// Documents that their node has kept for so long without their being fetched are given up.
    pub collect: Duration,
    /// What a run takes beside its program and its canaries.
    pub overhead: Duration,
    /// Between heartbeats of nodes that measure nothing: shorter than the tunnel waits before it asks whether
    /// a silent peer is there ([`tunnel::Limits`]), so that of thousands of nodes none has to be asked.
    pub heartbeat: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scheduler: sched::Settings::default(),
            accept: Duration::from_secs(30),
            lost_after: Duration::from_secs(60),
            end: Duration::from_secs(60),
            hold_off: Duration::from_secs(30),
            strikes: 3,
            collect: Duration::from_secs(7 * 86_400),
            overhead: Duration::from_secs(60),
            heartbeat: Duration::from_secs(24),
        }
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
