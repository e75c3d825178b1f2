//! What follows from what happened.

use std::collections::BTreeMap;

use api::event::Event;
use api::fleet::NodeId;
use api::job::{JobId, JobState};
use api::queue::QueueSettings;
use api::work::{Document, Ending, Key, Order};

use super::job::Job;
use super::node::Row;

/// First `jobs`, `nodes`, `queues`, `settings`, `orphans` and `events` are made durable, all together; then the
/// rest is done.
#[derive(Debug, Default, PartialEq)]
pub struct Step {
    pub jobs: BTreeMap<JobId, Job>,
    pub nodes: BTreeMap<NodeId, Row>,
    /// `None`: it is gone.
    pub queues: BTreeMap<String, Option<QueueSettings>>,
    /// By name: what is one for the whole controller.
    pub settings: BTreeMap<&'static str, serde_json::Value>,
    pub orphans: Vec<Orphan>,
    /// Their numbers are the store's to give.
    pub events: Vec<Event>,
    /// To be sent in this order.
    pub orders: Vec<Instruction>,
    pub collect: Vec<Collect>,
    /// Connections to be ended, and why.
    pub dismiss: Vec<(NodeId, String)>,
    /// Jobs that are over, for metrics.
    pub conclusions: Vec<Conclusion>,
    /// By queue, for metrics.
    pub marks: Vec<(String, Mark)>,
}

impl Step {
    /// Nothing to write and nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An order for a node, by the connection that it is meant for and no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    pub node: NodeId,
    pub session: u64,
    pub order: Order,
}

/// Documents to be fetched from a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collect {
    pub node: NodeId,
    pub key: Key,
    pub documents: Vec<Document>,
}

/// A result that came too late: its attempt was given up before. Kept, never counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    pub node: NodeId,
    pub key: Key,
    pub at_ms: u64,
    pub ending: Ending,
}

/// Something that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Submitted,
    /// A node that worked on a job was lost.
    Disconnected,
    Requeued,
}

/// A job's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conclusion {
    pub queue: String,
    pub state: JobState,
    /// From its submission to its last assignment; `None`: it never had a place.
    pub waited_ms: Option<u64>,
    /// From its last assignment to its end.
    pub ran_ms: Option<u64>,
    pub total_ms: u64,
}
