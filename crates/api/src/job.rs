//! Jobs of the controller: `POST /v1/jobs` and what it answers.
//!
//! Times are milliseconds since the epoch by the controller's clock.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use quiet::{JobClass, TickMode, Verdict};
use serde::{Deserialize, Serialize};

use crate::metric::Metric;

/// A job's number, in the order of submission; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What to run, where, and for how long at most.
///
/// Either `image` (with `argv`) or `command`: a container, or a program of the node itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 200,
            pattern = r"^[^\u0000-\u001f\u007f]*$"
        )
    )]
    pub name: Option<String>,
    #[serde(default = "default_queue")]
    #[cfg_attr(
        feature = "openapi",
        schema(default = "default", pattern = r"^[a-z0-9][a-z0-9._-]{0,63}$")
    )]
    pub queue: String,
    /// An image by name, or by digest as the controller stores it. A name is resolved once, for all
    /// repetitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(pattern = r"^[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,511}$")
    )]
    pub image: Option<String>,
    /// Arguments of the image's entrypoint, or program and arguments without one.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::arguments))]
    pub argv: Vec<String>,
    /// A program of the node (absolute path) and its arguments, without a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::command))]
    pub command: Option<Vec<String>>,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::environment))]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub place: Place,
    #[serde(default)]
    pub measure: Measure,
    #[serde(default)]
    pub limits: JobLimits,
    /// Numbers that each run is to write; one that is missing makes the run a failed one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 64, default = json!([])))]
    pub metrics: Vec<Metric>,
    /// Files and folders of the container that are kept of each run, as documents `artifacts/RUN/…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::artifacts))]
    pub artifacts: Vec<String>,
    /// What looks at each run while it is measured; its series are documents `tools/RUN/…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::tools))]
    pub tools: Vec<String>,
    /// What happens when its node is lost.
    #[serde(default)]
    pub on_loss: OnLoss,
}

/// Where it may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Nodes that it needs at once; each runs the same.
    #[serde(default = "one")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 4096, default = 1))]
    pub nodes: u32,
    /// Exclusive CPUs of each node, all of one NUMA node.
    #[serde(default = "one")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 4096, default = 1))]
    pub cpus: u32,
    /// Limit of its memory, bytes; absent: none, and none is set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 6_291_456, maximum = 1_125_899_906_842_624_u64)
    )]
    pub memory_bytes: Option<u64>,
    /// Name or id of the node; a glob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 256,
            pattern = r"^[^\u0000-\u001f\u007f]*$"
        )
    )]
    pub node: Option<String>,
    /// Machines of one kind; a glob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 256,
            pattern = r"^[^\u0000-\u001f\u007f]*$"
        )
    )]
    pub class: Option<String>,
    /// Labels that the node must have; values are globs.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::labels))]
    pub labels: BTreeMap<String, String>,
    /// Globs; each is given one device of the node.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::devices))]
    pub devices: Vec<String>,
    /// Others may run on its nodes at the same time, if they and the nodes allow it too.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(default = false))]
    pub share: bool,
    /// Takes CPUs that are not isolated as well; then nothing can be proven.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(default = false))]
    pub unisolated: bool,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            nodes: 1,
            cpus: 1,
            memory_bytes: None,
            node: None,
            class: None,
            labels: BTreeMap::new(),
            devices: Vec::new(),
            share: false,
            unisolated: false,
        }
    }
}

/// How it is measured; as in a node's series of runs ([`crate::run::RunRequest`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Measure {
    #[serde(default = "one")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000, default = 1))]
    pub repetitions: u32,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 100, default = 0))]
    pub warmups: u32,
    /// How often each repetition is tried until its run is quiet.
    #[serde(default = "three")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 20, default = 3))]
    pub attempts: u32,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::job_class))]
    pub class: JobClass,
    /// Seconds of the canary before and after each run; 0: none, and nothing is proven.
    #[serde(default = "five")]
    #[cfg_attr(feature = "openapi", schema(maximum = 3600, default = 5))]
    pub canary_seconds: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::tick_mode))]
    pub tick_mode: Option<TickMode>,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(default = false))]
    pub fixed_addresses: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = -20, maximum = 19))]
    pub nice: Option<i8>,
    /// Role admin only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 99))]
    pub fifo: Option<u8>,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(default = false))]
    pub trace: bool,
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            repetitions: 1,
            warmups: 0,
            attempts: 3,
            class: JobClass::default(),
            canary_seconds: 5,
            tick_mode: None,
            fixed_addresses: false,
            nice: None,
            fifo: None,
            trace: false,
        }
    }
}

/// How long it may take. Of a job's limit and its queue's the shorter one holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JobLimits {
    /// Of each run, from its program's first instruction, seconds.
    #[serde(default = "one_hour")]
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 1, maximum = 31_536_000, default = 3600)
    )]
    pub run_seconds: u32,
    /// Of the whole attempt, from its assignment until its result is stored, seconds; absent: what its
    /// runs need if all of them take all of their time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 31_536_000))]
    pub total_seconds: Option<u32>,
    /// A run that writes nothing for so long is ended, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 31_536_000))]
    pub output_seconds: Option<u32>,
    /// It is not started any more after so long in the queue, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 31_536_000))]
    pub queued_seconds: Option<u32>,
}

impl Default for JobLimits {
    fn default() -> Self {
        Self {
            run_seconds: one_hour(),
            total_seconds: None,
            output_seconds: None,
            queued_seconds: None,
        }
    }
}

/// What becomes of a job whose node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "policy", rename_all = "kebab-case", from = "OnLossFields")]
pub enum OnLoss {
    /// Back to the queue, until it has been tried so often in all.
    Requeue {
        #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
        attempts: u32,
    },
    /// Its end, as `lost`.
    Fail,
}

/// The same as it is read: serde takes unknown fields beside the tag of a variant without fields, but
/// not of one with none.
#[derive(Deserialize)]
#[serde(tag = "policy", rename_all = "kebab-case", deny_unknown_fields)]
enum OnLossFields {
    Requeue { attempts: u32 },
    Fail {},
}

impl From<OnLossFields> for OnLoss {
    fn from(fields: OnLossFields) -> Self {
        match fields {
            OnLossFields::Requeue { attempts } => Self::Requeue { attempts },
            OnLossFields::Fail {} => Self::Fail,
        }
    }
}

impl Default for OnLoss {
    fn default() -> Self {
        Self::Requeue { attempts: 3 }
    }
}

fn default_queue() -> String {
    "default".into()
}

fn one() -> u32 {
    1
}

fn three() -> u32 {
    3
}

fn five() -> u32 {
    5
}

fn one_hour() -> u32 {
    3600
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    Queued,
    /// It has its place; its nodes have not all taken it yet.
    Assigned,
    /// Image and containers are being made ready.
    Preparing,
    Measuring,
    /// Its results are on their way here.
    Collecting,
    Done,
    /// The benchmark failed, or could not be run.
    Failed,
    /// Some repetition was noisy as often as it was tried.
    Noisy,
    TimedOut,
    Cancelled,
    /// Its node was lost, and it was not to be tried again.
    Lost,
}

impl JobState {
    /// All of them, in the order of a job's life.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Assigned,
        Self::Preparing,
        Self::Measuring,
        Self::Collecting,
        Self::Done,
        Self::Failed,
        Self::Noisy,
        Self::TimedOut,
        Self::Cancelled,
        Self::Lost,
    ];

    /// As in the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Preparing => "preparing",
            Self::Measuring => "measuring",
            Self::Collecting => "collecting",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Noisy => "noisy",
            Self::TimedOut => "timed-out",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Nothing more will happen to it.
    #[must_use]
    pub fn is_over(self) -> bool {
        self >= Self::Done
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A job as the controller knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobStatus {
    pub id: JobId,
    /// The submitter, by the certificate's name.
    pub user: String,
    pub request: JobRequest,
    pub state: JobState,
    pub submitted_ms: u64,
    pub started_ms: Option<u64>,
    pub ended_ms: Option<u64>,
    /// How often it was assigned.
    pub attempts: u32,
    /// The fence of its present or last attempt.
    pub fence: Option<u64>,
    /// What each of its nodes does or did in that attempt.
    pub parts: Vec<JobPart>,
    /// Why it is in this state, when that is not plain: a failure, a refusal, a loss.
    pub reason: Option<String>,
    /// Somebody asked for its end.
    pub cancelling: bool,
}

/// One node's part of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobPart {
    pub node: crate::fleet::NodeId,
    pub node_name: String,
    /// As the scheduler assigned them, in the kernel's list format.
    pub cpus: String,
    /// `None` until it has ended there.
    pub ending: Option<crate::work::Ending>,
    /// Stored here, by name.
    pub documents: Vec<crate::work::Document>,
}

impl JobPart {
    /// Whether it is that of the node with this name or id.
    #[must_use]
    pub fn is_on(&self, node: &str) -> bool {
        self.node.as_str() == node || self.node_name == node
    }
}

impl JobStatus {
    /// The worst verdict of its parts; `None`: none was given.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let verdicts = self
            .parts
            .iter()
            .filter_map(|part| part.ending.as_ref()?.verdict);
        verdicts.max_by_key(|verdict| match verdict {
            Verdict::Quiet => 0,
            Verdict::Unproven => 1,
            Verdict::Noisy => 2,
        })
    }
}

/// A page of a list, in the order of ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give it as `?after=` for the next page; `None`: this was the last.
    pub next: Option<String>,
}
