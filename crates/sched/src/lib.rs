//! Which job gets which CPUs of which nodes, and when: pure, deterministic, without a clock.
//!
//! The caller tells a [`Scheduler`] what happens (a job is submitted, a node comes or goes, a run
//! ends) and asks it at any time to [`Scheduler::schedule`]. It answers with offers of places; a gang
//! gets all of its places or none, in two phases: each node accepts its part of the offer, and only
//! then it is [`Scheduler::accept`]ed as a whole. Nothing is held for a job that cannot be placed as
//! a whole, so gangs never wait for each other's halves.
//!
//! Order: jobs that have waited longer than the patience come first and in the order of their
//! submission; then queues by priority, users by what they used lately, and submission. The first
//! jobs in that order that cannot start get a reservation, the earliest time at which their places
//! are free by the limits of what runs there. Whoever comes later in the order starts only where that
//! delays no reservation, nor the begin of a booking of others; and who has a reservation starts
//! earlier only where that delays none of all others (conservative backfill; Mu'alem and Feitelson,
//! 2001, 10.1109/71.932708). So only a job that has none can displace those of jobs after it.

mod booking;
mod catalogue;
mod fair;
mod holds;
mod matching;
mod neighbours;
mod node;
mod pass;
mod queue;
mod request;
mod scheduler;
mod settings;
mod waits;
mod why;

pub use booking::{Booking, BookingId, Unbookable};
pub use node::{Domain, Health, Node, NodeId};
pub use queue::{Queue, Refused};
pub use request::{Part, Request, Selector};
pub use scheduler::{Attempt, JobId, Offer, Phase, Scheduler, Unknown};
pub use settings::Settings;
pub use why::{Reason, Why};

/// Milliseconds since any instant of the caller's.
pub type Time = u64;

/// What one node gives to one part of a job.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Slot {
    pub node: NodeId,
    /// Index into the request's parts.
    pub part: usize,
    pub cpus: cpulist::CpuSet,
    /// Bytes.
    pub memory: u64,
    /// One for each glob of the part, in its order.
    pub devices: Vec<String>,
}
