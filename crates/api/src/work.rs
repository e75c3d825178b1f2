//! What controller and node say to each other of work, on the tunnel's `control` stream.
//!
//! Each message is one frame: its length as four bytes, big-endian, then that many bytes of JSON.
//! Nothing in them is code: what a node does is named by these types and nothing else.

use std::collections::BTreeMap;

use cpulist::CpuSet;
use quiet::Verdict;
use serde::{Deserialize, Serialize};

use crate::fleet::NodeFacts;
use crate::job::{JobId, JobRequest};

/// The service name of the stream that carries [`Order`]s and [`Report`]s.
pub const CONTROL: &str = "control";
/// The service name of streams that carry HTTP/1.1 to the node's router: the container API and
/// `/stillmetal/v1`. Their heads say `role` and `user`.
pub const ROUTER: &str = "router";
/// The service name of a stream that carries nothing: its head's field `reason` says to the node why
/// the controller is about to end the connection, such as that another machine has its identity. The
/// node refuses the stream once it has taken note.
pub const NOTICE: &str = "notice";
/// Longest frame, bytes.
pub const FRAME: usize = 1024 * 1024;

/// One try of a job on a node. Work of an older fence is refused, whatever it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    pub job: JobId,
    /// From 1.
    pub attempt: u32,
    /// Grows with every attempt of any job.
    pub fence: u64,
}

/// From the controller to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    /// The answer to [`Report::Hello`]. What the node holds and is not in `keep` belongs to nobody any
    /// more: it is ended before anything new is taken.
    Welcome {
        keep: Vec<Key>,
        /// Between heartbeats; none is sent while something is measured.
        heartbeat_seconds: u32,
    },
    /// Written down by the node before it answers with [`Report::Accepted`]. What it has already
    /// under that key is accepted again and not begun again.
    Assign(Box<Assignment>),
    /// All nodes of the job have accepted: begin.
    Begin { key: Key },
    /// End it, wherever it stands. What it produced is kept.
    Cancel { key: Key, why: String },
    /// The controller has its result: the node may forget it.
    Acknowledge { key: Key },
}

/// What a node is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    pub key: Key,
    pub user: String,
    /// `admin` or `user`, of the submitter: the node's policy holds for jobs too.
    pub role: String,
    pub request: JobRequest,
    /// The CPUs the scheduler gave it.
    pub cpus: CpuSet,
    pub devices: Vec<String>,
    /// Seconds from the assignment after which the node ends it by itself.
    pub lease_seconds: u32,
    /// Wait for [`Order::Begin`] before the first run.
    pub wait_for_begin: bool,
}

/// From a node to the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Report {
    /// The first message on the stream.
    Hello {
        facts: Box<NodeFacts>,
        held: Vec<Held>,
    },
    /// What the node is has changed.
    Facts {
        facts: Box<NodeFacts>,
    },
    Accepted {
        key: Key,
    },
    /// It is not here, and will not be.
    Refused {
        key: Key,
        why: String,
        /// Another node, or this one later, may take it; false: what it asks for is at fault.
        elsewhere: bool,
    },
    /// Sent on each change, never repeated.
    Stage {
        key: Key,
        stage: Stage,
        detail: Option<String>,
    },
    /// It is over; told again after each reconnection until acknowledged.
    Ended {
        key: Key,
        ending: Box<Ending>,
    },
    Heartbeat {},
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    pub key: Key,
    pub stage: Stage,
}

/// Where a node's part stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Taken, nothing begun.
    Accepted,
    Preparing,
    Measuring,
    /// Its documents are being written.
    Packing,
    /// Kept until acknowledged.
    Ended,
}

/// How a node's part ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ending {
    pub outcome: PartOutcome,
    /// Why, in words, when it is not `done`.
    pub reason: Option<String>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// The worst of the runs that count; `None`: none was measured.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::verdict))]
    pub verdict: Option<Verdict>,
    /// Milliseconds since the epoch by the node's clock.
    pub started_ms: Option<u64>,
    pub ended_ms: Option<u64>,
    /// What the node keeps for it, by name.
    pub documents: Vec<Document>,
    /// Figures for people, such as the median duration: name → value with its unit.
    #[serde(default)]
    pub figures: BTreeMap<String, String>,
}

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PartOutcome {
    Done,
    /// The benchmark failed.
    Failed,
    Noisy,
    /// Ended at one of its limits.
    TimedOut,
    Cancelled,
    /// The node could not run or measure it.
    Error,
}

/// A file that belongs to a result: `result.json`, `stdout`, `stderr`, `certificate-1.json`,
/// `provenance.json`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Letters, digits, `.`, `-`, `_` and `/`; no part of it is `.` or `..`.
    pub name: String,
    pub bytes: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

/// What a node does for its controller: `GET /stillmetal/v1/work`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkView {
    /// A control stream is open, and the controller has answered on it.
    pub connected: bool,
    /// Control streams since the agent started.
    pub streams: u64,
    /// Messages on all of them.
    pub sent: u64,
    pub received: u64,
    /// Messages from the controller that were none.
    pub rejected: u64,
    /// Something is measured: nothing is sent unasked.
    pub silent: bool,
    /// All that is held, in the order of their keys; role `user` sees its own.
    pub parts: Vec<PartView>,
}

/// One assignment that a node holds: `GET /stillmetal/v1/work/JOB/ATTEMPT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartView {
    pub key: Key,
    pub stage: Stage,
    pub user: String,
    pub cpus: CpuSet,
    /// Why it is being ended before its time.
    pub ending_because: Option<String>,
    /// The controller does not want it any more: it is forgotten as soon as it has ended.
    pub disowned: bool,
    /// How it ended; its documents are below `documents/`.
    pub ending: Option<Ending>,
}
