//! `GET /stillmetal/v1/node` and `GET /stillmetal/v1/counters`.

use std::collections::BTreeMap;

use cpulist::CpuSet;
use serde::{Deserialize, Serialize};

use crate::counters::{CpuCounters, TaskCounters};
use crate::report::{NodeState, Report};

/// Everything a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Version of this structure; grows only by new fields within one version.
    pub schema: String,
    pub agent_version: String,
    pub hostname: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<String>,
    /// Seconds since boot.
    pub uptime_seconds: u64,
    pub kernel: Option<String>,
    pub cmdline: Option<String>,
    /// A virtual machine: counts are evidence there, timings are not.
    pub virtual_machine: bool,
    #[serde(flatten)]
    pub state: NodeState,
    pub memory: Memory,
    pub engine: EngineStatus,
    /// On an ordinary host; `None`: this is the appliance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostStatus>,
    /// `None` until tuning has run.
    pub tuning: Option<Report>,
    pub claims: Vec<ClaimStatus>,
}

/// An agent that is one of many processes of an ordinary host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Why no run here can be proven quiet; `None`: it can.
    pub unproven: Option<String>,
    /// The CPUs that jobs are given although nothing can be proven of them.
    pub cpus: CpuSet,
    /// What the agent cannot do here, each with the reason.
    pub lacks: Vec<String>,
}

/// Memory of the node, bytes; `None`: `/proc/meminfo` does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub total_bytes: Option<u64>,
    pub available_bytes: Option<u64>,
    /// Set when there is too little to run the engine: what there is and what is needed.
    pub too_little: Option<String>,
}

/// The container engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    pub ready: bool,
    /// What it is doing when it is not ready.
    pub detail: String,
}

/// CPUs that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimStatus {
    pub holder: String,
    /// `reserved`, `running` or `stopped` (then it holds nothing).
    pub state: String,
    pub cpus: CpuSet,
    pub mems: CpuSet,
    /// The cgroup whose partition it is. Only admins are told: nobody else can use it, or should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

/// Counts since boot, of chosen CPUs and of one container's threads, read at one moment from a
/// housekeeping CPU. Reading costs the observed CPUs nothing (quiet.md §4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersSnapshot {
    /// Nanoseconds since boot, when the reading began.
    pub taken_ns: u64,
    pub cpus: BTreeMap<u32, CpuCounters>,
    /// Threads of the asked container by thread id; `None` when none was asked for or it does not
    /// run.
    pub threads: Option<BTreeMap<u32, TaskCounters>>,
}
