//! Certified runs in series: `POST /stillmetal/v1/runs` and what it answers.

use std::collections::BTreeMap;

use cpulist::CpuSet;
use quiet::{JobClass, Outcome, TickMode, Verdict};
use serde::{Deserialize, Serialize};
use stats::Dispersion;

use crate::metric::{Metric, MetricFigures, Readings};
use crate::process::CpuRequest;
use crate::tool::ToolResults;

/// What to run, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// An image on the node, by name or digest. A name is resolved once, for all runs.
    pub image: String,
    /// Arguments, or program and arguments of an image without entrypoint; absent: the image's own.
    #[serde(default)]
    pub argv: Vec<String>,
    /// Isolated CPUs; held from the first run to the last.
    pub cpus: CpuRequest,
    /// Beside the image's own variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Limit of the container's memory, bytes; there is no swap.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Runs before the first that counts, without canaries.
    #[serde(default)]
    pub warmups: u32,
    /// Runs that are to be quiet.
    #[serde(default = "one")]
    pub repetitions: u32,
    /// How often each repetition is tried until its run is quiet.
    #[serde(default = "three")]
    pub attempts: u32,
    /// Seconds, of each run, from the program's first instruction on.
    #[serde(default = "one_hour")]
    pub timeout_seconds: u32,
    #[serde(default)]
    pub class: JobClass,
    /// Length of the canary before and after each run; 0: none, and nothing is proven.
    #[serde(default = "five")]
    pub canary_seconds: u32,
    /// Runs are refused on CPUs of the other mode; absent: whichever they have.
    #[serde(default)]
    pub tick_mode: Option<TickMode>,
    /// The same addresses in each run.
    #[serde(default)]
    pub fixed_addresses: bool,
    /// -20 to 19.
    #[serde(default)]
    pub nice: Option<i8>,
    /// Priority of `SCHED_FIFO`, 1 to 99; role admin only.
    #[serde(default)]
    pub fifo: Option<u8>,
    /// Record each interruption of the runs that count, not only how many there were.
    #[serde(default)]
    pub trace: bool,
    /// Numbers that each run is to write; one that is missing makes the run a failed one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Files and folders of the container, by absolute path, that are kept of each run. Only of jobs: a
    /// series of the node's own API has nowhere to keep them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// What looks at each run that counts while it is measured, such as `cpu` or `light`. Only of jobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
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

/// Where a series stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    Running,
    /// Each repetition has a quiet run.
    Done,
    /// Some repetition was noisy as often as it was tried.
    Noisy,
    /// None was noisy to the end, and of some it is not known.
    Unproven,
    /// The benchmark failed: see the last attempt.
    Failed,
    /// Ended by a request, or because the node went down.
    Cancelled,
    /// It could not be run or measured: see `error`.
    Error,
}

/// A series and all its runs, also those that were repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    pub id: String,
    pub state: RunState,
    pub error: Option<String>,
    pub request: RunRequest,
    /// Digest that the image's name stood for when the series began.
    pub image: String,
    /// The CPUs held; `None`: not known any more.
    pub cpus: Option<CpuSet>,
    pub attempts: Vec<Attempt>,
    /// Durations of the quiet runs, ns.
    pub duration_ns: Option<Dispersion>,
    /// The metrics of the same runs, by name.
    #[serde(default)]
    pub metrics: BTreeMap<String, MetricFigures>,
    /// Numbers of the attempts that were measured and are not in those figures.
    pub left_out: Vec<u32>,
}

/// One run of a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1, in the order of time.
    pub number: u32,
    /// From 1; `None`: a warm-up.
    pub repetition: Option<u32>,
    /// Its certificate is at `/stillmetal/v1/certificates/CONTAINER`.
    pub container: String,
    /// `None`: a warm-up.
    pub verdict: Option<Verdict>,
    /// Why not quiet.
    pub reasons: Vec<String>,
    pub outcome: Outcome,
    /// Why it failed.
    pub failure: Option<String>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// From the program's first instruction to the end of its first process, ns.
    pub duration_ns: Option<u64>,
    /// What it came to in each metric that was declared.
    #[serde(default)]
    pub metrics: Readings,
    /// Documents of the job that were made of its artifacts: path in the container → name.
    #[serde(default)]
    pub artifacts: BTreeMap<String, String>,
    /// What each tool that was asked for came to; of warm-ups none.
    #[serde(default, skip_serializing_if = "ToolResults::is_empty")]
    pub tools: ToolResults,
    /// The beginning of each stream, invalid UTF-8 replaced.
    pub stdout: String,
    pub stderr: String,
    /// There was more output than is kept.
    pub truncated: bool,
}
