//! What tuning did to a node: every knob before and after, and whether the kernel agreed.
//!
//! Made by `stillmetal-tune`, embedded in the answer to `GET /stillmetal/v1/node`.

use std::collections::BTreeMap;

use cpulist::CpuSet;
use serde::{Deserialize, Serialize};

/// May benchmarks run here?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum NodeState {
    Fit,
    /// Pinned work is refused with this reason; everything else goes on.
    Unfit {
        reason: String,
    },
}

/// The CPU sets as the kernel reports them *after* tuning, and what follows from them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuSets {
    pub online: CpuSet,
    pub present: CpuSet,
    /// `nohz_full=` of the kernel command line, as the kernel took it.
    pub nohz_full: CpuSet,
    /// `isolcpus=domain`, as the kernel took it.
    pub boot_isolated: CpuSet,
    /// Where benchmarks may run.
    pub isolated: CpuSet,
    /// Everything else that is online.
    pub housekeeping: CpuSet,
    /// SMT siblings that tuning took offline.
    pub offlined_siblings: CpuSet,
    /// NUMA node number → its CPUs.
    pub numa_nodes: BTreeMap<u32, CpuSet>,
}

/// Something an operator should change; `name` is stable and can be matched on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    pub name: String,
    pub text: String,
}

/// How a knob ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// Written, and read back as wanted.
    #[serde(rename = "verified")]
    Verified,
    /// It already was as wanted; nothing was written.
    #[serde(rename = "unchanged")]
    Unchanged,
    /// Policy of the job, not of the node: noted, never written.
    #[serde(rename = "recorded")]
    Recorded,
    /// This machine has no such knob; `reason` says how that showed.
    #[serde(rename = "n/a")]
    NotApplicable,
    /// The kernel did not take the value; `reason` holds the errno or the value it kept.
    #[serde(rename = "refused")]
    Refused,
}

impl Status {
    /// As in the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unchanged => "unchanged",
            Self::Recorded => "recorded",
            Self::NotApplicable => "n/a",
            Self::Refused => "refused",
        }
    }
}

/// Does a refusal matter for the proof of quiet, or only for comfort?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    Required,
    BestEffort,
}

/// One knob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knob {
    pub knob: String,
    /// The file, or `thread TID (NAME)`.
    pub path: String,
    /// `None`: it could not be read.
    pub before: Option<String>,
    pub after: Option<String>,
    pub wanted: String,
    pub need: Need,
    pub status: Status,
    /// Why the status is `n/a` or `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which noise it removes.
    pub why: String,
}

/// An interrupt that the kernel would not move off the isolated CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmovableIrq {
    pub irq: u32,
    /// Controller, type and devices as `/proc/interrupts` prints them.
    pub name: String,
    pub affinity: String,
    /// Where it is really delivered; empty when the kernel does not say.
    pub effective: String,
    /// Isolated CPU → how often it struck there since boot (only where not zero).
    pub counts: BTreeMap<u32, u64>,
    pub reason: String,
}

/// A kernel thread that may run on isolated CPUs and that the kernel would not move.
///
/// Threads bound to one CPU by design (`migration/3`) are not listed: they have no work there
/// unless somebody gives it to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmovableThread {
    pub tid: u32,
    pub name: String,
    pub allowed: CpuSet,
    pub reason: String,
}

/// A knob that did not stay as tuning left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    pub knob: String,
    pub path: String,
    pub wanted: String,
    pub found: String,
    /// When it was found, nanoseconds since boot. Runs that ended before are not certain to have
    /// had the wanted value.
    pub found_ns: u64,
}

/// The whole account of one tuning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    #[serde(flatten)]
    pub state: NodeState,
    pub cpus: CpuSets,
    /// `intel_pstate`, `amd-pstate-epp`, `acpi-cpufreq` ... by cpufreq policy; empty without cpufreq.
    pub cpufreq_drivers: BTreeMap<String, String>,
    /// Timings taken in a virtual machine mean nothing.
    pub hypervisor: bool,
    pub clocksource: Option<String>,
    pub warnings: Vec<Warning>,
    pub knobs: Vec<Knob>,
    pub irqs_unmovable: Vec<UnmovableIrq>,
    pub kthreads_unmovable: Vec<UnmovableThread>,
    /// Found later. The knobs whose reading interrupts their CPU are looked at only while no pinned
    /// work runs.
    #[serde(default)]
    pub drift: Vec<Drift>,
}

impl Report {
    /// The reason why pinned work is refused, if it is.
    #[must_use]
    pub fn unfit(&self) -> Option<&str> {
        match &self.state {
            NodeState::Fit => None,
            NodeState::Unfit { reason } => Some(reason),
        }
    }
}
