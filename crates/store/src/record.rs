//! What the store keeps, record by record.
//!
//! Bodies are stored as JSON of these types: a field that is added later needs a default, or what an
//! older controller wrote cannot be read any more. Of a JSON number with a fraction the last bit may
//! change on the way.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use api::fleet::{MachineHints, NodeFacts, NodeId};
use api::job::{JobId, JobState, JobStatus};
use api::queue::QueueSettings;
use api::work::{Document, Ending, Key};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A job with all that its life needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    pub status: JobStatus,
    /// `admin` or `user`, of the submitter.
    pub role: String,
    /// When its present stage is over at the latest, milliseconds since the epoch.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// Where the scheduler put it; the store does not look into it.
    #[serde(default)]
    pub placement: Value,
    /// Whatever else the lifecycle wants back after a restart; the store does not look into it.
    #[serde(default)]
    pub extra: Value,
}

/// A node with all that its next connection needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub id: NodeId,
    /// For people; no two nodes have the same.
    pub name: String,
    pub enrolled_ms: u64,
    #[serde(default)]
    pub draining: bool,
    /// Why nothing runs there until an operator says otherwise.
    #[serde(default)]
    pub quarantine: Option<String>,
    /// Labels that an operator gave it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// By which it was told apart when it enrolled.
    #[serde(default)]
    pub machine: MachineHints,
    /// Of its present certificate; no two nodes have the same.
    #[serde(default)]
    pub serial: Option<String>,
    /// Its certificates are worth nothing any more.
    #[serde(default)]
    pub revoked: bool,
    /// As last told.
    #[serde(default)]
    pub facts: Option<NodeFacts>,
    /// Of all that was ever assigned to it.
    #[serde(default)]
    pub highest_fence: u64,
    /// Whatever else the controller wants back after a restart; the store does not look into it.
    #[serde(default)]
    pub extra: Value,
}

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadDigest;

impl fmt::Display for BadDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a SHA-256 has 64 hexadecimal digits")
    }
}

impl std::error::Error for BadDigest {}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|digit| digit.to_digit(16).and_then(|value| value.try_into().ok()))
            .collect();
        let digits = digits.ok_or(BadDigest)?;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect();
        match <[u8; 32]>::try_from(bytes) {
            Ok(bytes) if digits.len() == 64 => Ok(Self(bytes)),
            _ => Err(BadDigest),
        }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// What was made of a submission that carried an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    pub user: String,
    pub key: String,
    /// Of the request: another one under the same key is an error of the client's.
    pub fingerprint: Digest,
    /// In the order of the request.
    pub jobs: Vec<JobId>,
    /// Milliseconds since the epoch.
    pub at_ms: u64,
}

/// Lets one machine join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Public part.
    pub id: String,
    /// What its secret part is compared with, such as a hash in hexadecimal. The secret itself does
    /// not belong here.
    pub verifier: String,
    /// Only for the machine with this SMBIOS UUID or MAC.
    #[serde(default)]
    pub machine: Option<String>,
    pub made_by: String,
    pub made_ms: u64,
    pub expires_ms: u64,
    /// Who joined with it. Once set it cannot be set to another one, nor taken back.
    #[serde(default)]
    pub used_by: Option<NodeId>,
}

/// A certificate that is worth nothing any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub serial: String,
    /// Whose it was; `None`: a person's.
    pub node: Option<NodeId>,
    pub at_ms: u64,
    /// When it expires by itself: afterwards this need not be kept.
    pub expires_ms: u64,
    pub why: Option<String>,
}

/// An event before it has its number.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// Such as `job.queued`.
    pub kind: String,
    pub job: Option<JobId>,
    pub node: Option<NodeId>,
    /// Who did it; `None`: the controller itself, or the node.
    pub user: Option<String>,
    pub data: Value,
}

/// The result of an attempt that had been given up when it came: evidence, never a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanRecord {
    pub key: Key,
    pub node: NodeId,
    /// When it came, milliseconds since the epoch.
    pub at_ms: u64,
    /// Why it does not count.
    pub why: String,
    pub ending: Ending,
    /// Stored at the controller.
    #[serde(default)]
    pub documents: Vec<Document>,
}

/// What one [`crate::Store::commit`] consists of.
///
/// Those of one call are done all or none: jobs first, then the rest in its order, then submissions,
/// then events. Of a job that is there twice the last version counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// New, or in place of what was there. Shared, since whoever may have to try again keeps one.
    Job(Arc<JobRecord>),
    /// New. [`crate::CommitError::Conflict`] if that user has that key already.
    Submission(Submission),
    /// Takes away submissions made before that time. Keep them for 24 hours at least.
    ForgetSubmissions {
        before_ms: u64,
    },
    /// New, or in place of what was there.
    Node(Box<NodeRecord>),
    NodeRemoved(NodeId),
    /// New, or in place of what was there.
    Queue {
        name: String,
        settings: QueueSettings,
    },
    /// Its jobs stay.
    QueueRemoved {
        name: String,
    },
    /// New, or in place of what was there. [`crate::CommitError::Conflict`] if it is used already and
    /// not by the same node.
    Token(TokenRecord),
    TokenRemoved {
        id: String,
    },
    /// Takes away tokens that expired before that time.
    ForgetTokens {
        before_ms: u64,
    },
    /// What is there already under this serial stays.
    Revoked(Revocation),
    /// Takes away revocations of certificates that expired before that time.
    ForgetRevocations {
        before_ms: u64,
    },
    /// New, or in place of what was there; null takes it away.
    Setting {
        name: String,
        value: Value,
    },
    Event(NewEvent),
    /// New, or in place of what was there of the same attempt and node. Its job must be there.
    Orphan(Box<OrphanRecord>),
}

/// What a controller starts from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// Those that are not over, by id.
    pub jobs: Vec<JobRecord>,
    /// All, by id.
    pub nodes: Vec<NodeRecord>,
    pub queues: BTreeMap<String, QueueSettings>,
    /// Those that have not expired, used or not, by id.
    pub tokens: Vec<TokenRecord>,
    /// By serial.
    pub revoked: Vec<Revocation>,
    pub settings: BTreeMap<String, Value>,
    /// Ever used; 0: none.
    pub highest_job: u64,
    /// Ever used; 0: none.
    pub highest_fence: u64,
    /// Of the last event; 0: none.
    pub last_event: u64,
}

/// Which jobs to list; each field that is set must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// In one of these; empty: in any.
    pub states: Vec<JobState>,
    pub user: Option<String>,
    pub queue: Option<String>,
    /// Has or had a part of it, in any attempt.
    pub node: Option<NodeId>,
}

/// By job id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    OldestFirst,
    NewestFirst,
}

/// Which events to list; each field that is set must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub job: Option<JobId>,
    pub node: Option<NodeId>,
}

/// How many jobs of a queue are in a state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobCount {
    pub queue: String,
    pub state: JobState,
    pub jobs: u64,
}
