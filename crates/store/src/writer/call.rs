//! What the writer is asked, and what it counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::lead::Wish;
use crate::prepare::Prepared;
use crate::{CommitError, LeadError, Lease, Term};

/// One [`crate::Store::commit`].
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) term: Term,
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) reply: oneshot::Sender<Result<u64, CommitError>>,
    pub(crate) claim: Claim,
}

/// One of [`crate::Store::lead`], [`crate::Store::renew`], [`crate::Store::resign`].
#[derive(Debug)]
pub(crate) struct LeaseCall {
    pub(crate) wish: Wish,
    pub(crate) reply: oneshot::Sender<Result<Lease, LeadError>>,
}

/// Who has a call: the writer, who will answer it, or its caller, who has withdrawn it. The first to
/// take it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Whether it was free.
    pub(crate) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// What the writer has done.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) transactions: AtomicU64,
    pub(crate) calls: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) changes: AtomicU64,
    pub(crate) busy_micros: AtomicU64,
}

impl Counters {
    pub(crate) fn transaction(&self) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn done(&self, changes: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.changes.fetch_add(changes as u64, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn busy(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.busy_micros.fetch_add(micros, Ordering::Relaxed);
    }
}
