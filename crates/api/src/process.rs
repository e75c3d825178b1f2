//! Host-process runs: `POST /stillmetal/v1/processes` and what it answers.

use std::collections::BTreeMap;

use cpulist::CpuSet;
use serde::{Deserialize, Serialize};

use crate::metric::Readings;
use crate::tool::ToolResults;

/// Where a process shall run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CpuRequest {
    /// `2`: that many isolated CPUs, the node chooses.
    Count(u32),
    /// `"1,3"`: exactly these isolated CPUs.
    Exact(CpuSet),
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessRequest {
    /// Program (absolute path on the node) and arguments.
    pub argv: Vec<String>,
    /// Isolated CPUs; absent: the housekeeping CPUs.
    #[serde(default)]
    pub cpus: Option<CpuRequest>,
    /// The whole environment; nothing is inherited.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; absent: `/`.
    #[serde(default)]
    pub directory: Option<String>,
    /// Seconds until the whole cgroup is killed; absent: one hour.
    #[serde(default)]
    pub timeout_seconds: Option<u32>,
    /// `memory.max` of its cgroup, bytes.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessState {
    Running,
    /// It ended; see exit code, signal, `timed_out`, `oom_killed`.
    Exited,
    /// It could not be run or watched; see `error`.
    Failed,
}

/// A run and, once it ended, its accounting. `None` is "not known", never zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    pub id: u64,
    pub argv: Vec<String>,
    pub state: ProcessState,
    /// Exit status if it exited by itself.
    pub exit_code: Option<i32>,
    /// Number of the signal that ended it.
    pub signal: Option<i32>,
    /// It was killed at its time limit.
    pub timed_out: bool,
    /// It was killed by a request or because the node went down.
    pub killed: bool,
    /// Whether the kernel's OOM killer took a task of its cgroup.
    pub oom_killed: Option<bool>,
    /// CPU time of the whole cgroup, microseconds.
    pub cpu_usec: Option<u64>,
    /// Highest memory use of the cgroup, bytes.
    pub memory_peak_bytes: Option<u64>,
    /// The CPUs its cgroup had, from the kernel (`cpuset.cpus.effective`).
    pub cpus_allowed: Option<CpuSet>,
    /// What it came to in each metric that its job declared.
    #[serde(default, skip_serializing_if = "Readings::is_empty")]
    pub metrics: Readings,
    /// What each tool that its job asked for came to.
    #[serde(default, skip_serializing_if = "ToolResults::is_empty")]
    pub tools: ToolResults,
    /// First MiB of each stream, invalid UTF-8 replaced.
    pub stdout: String,
    pub stderr: String,
    /// There was more output than is kept.
    pub truncated: bool,
    /// Why it failed.
    pub error: Option<String>,
}

impl ProcessStatus {
    /// The status of a run that is being started.
    #[must_use]
    pub fn starting(id: u64, request: &ProcessRequest) -> Self {
        Self {
            id,
            argv: request.argv.clone(),
            state: ProcessState::Running,
            exit_code: None,
            signal: None,
            timed_out: false,
            killed: false,
            oom_killed: None,
            cpu_usec: None,
            memory_peak_bytes: None,
            cpus_allowed: None,
            metrics: Readings::new(),
            tools: ToolResults::new(),
            stdout: String::new(),
            stderr: String::new(),
            truncated: false,
            error: None,
        }
    }
}
