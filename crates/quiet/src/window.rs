//! What happened between two moments of a run.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Interruption, Value};

/// Which part of a run a window covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowName {
    /// A spinning thread on each job CPU, before the job.
    CanaryPre,
    /// From before the job was let go to the last snapshot in which it lived.
    Job,
    /// From that snapshot to the first after the job's end.
    Exit,
    /// As [`WindowName::CanaryPre`], after the job.
    CanaryPost,
}

impl WindowName {
    pub const ALL: [Self; 4] = [Self::CanaryPre, Self::Job, Self::Exit, Self::CanaryPost];

    #[must_use]
    pub fn is_canary(self) -> bool {
        matches!(self, Self::CanaryPre | Self::CanaryPost)
    }
}

impl fmt::Display for WindowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CanaryPre => "canary_pre",
            Self::Job => "job",
            Self::Exit => "exit",
            Self::CanaryPost => "canary_post",
        })
    }
}

/// The differences over one window. Units and sources: [`legend`](crate::legend).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub name: WindowName,
    pub start_ns: u64,
    pub end_ns: u64,
    pub steps: u64,
    pub longest_step_ns: u64,
    pub cpus: BTreeMap<u32, CpuWindow>,
    /// Job threads that were seen in any snapshot.
    pub threads: u64,
    /// Timeslices on the job CPUs that were not the job's, in the steps that can be attributed.
    pub foreign_timeslices: Value,
    /// Steps in which a thread of the job vanished, or may have lived unseen: what it ran last is
    /// not known, and so not whose the timeslices were.
    pub unattributable_steps: u64,
    /// All timeslices of those steps.
    pub unattributed_timeslices: Value,
    /// Threads other than the job's that ran on the job CPUs, those only.
    pub residents: Vec<ResidentRan>,
    pub run_ns: Value,
    pub voluntary_switches: Value,
    pub involuntary_switches: Value,
    pub pgmajfault: Value,
    pub swapped_in_pages: Value,
    pub swapped_out_pages: Value,
    pub nr_throttled: Value,
    pub psi_cpu_us: Value,
    pub psi_memory_us: Value,
    pub psi_io_us: Value,
    /// What makes the window itself doubtful: a clock that ran backwards, a single snapshot.
    pub flaws: Vec<String>,
}

impl Window {
    /// The same window, as another part of the run.
    #[must_use]
    pub fn named(self, name: WindowName) -> Self {
        Self { name, ..self }
    }

    /// Whether an interruption falls into it, at least in part.
    #[must_use]
    pub fn meets(&self, event: &Interruption) -> bool {
        event.at_ns <= self.end_ns && event.end_ns() >= self.start_ns
    }

    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// The differences on one CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuWindow {
    /// The named lines of `/proc/interrupts`, as in
    /// [`CpuCounts::interrupts`](crate::CpuCounts::interrupts).
    pub interrupts: BTreeMap<String, Value>,
    /// The numbered ones.
    pub device: BTreeMap<u32, DeviceWindow>,
    pub softirqs: BTreeMap<String, Value>,
    pub timeslices: Value,
    pub irq_ticks: Value,
    pub softirq_ticks: Value,
    pub steal_ticks: Value,
}

/// One device interrupt on one CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceWindow {
    pub count: Value,
    /// Controller, trigger and devices.
    pub text: String,
}

/// A thread other than the job's that ran on a job CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResidentRan {
    pub tid: u32,
    pub name: String,
    pub timeslices: u64,
}
