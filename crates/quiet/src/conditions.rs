//! What must hold for a run and must not change during it. `None` is what could not be read.

mod check;

use std::collections::BTreeMap;

use cpulist::CpuSet;
use serde::{Deserialize, Serialize};

use crate::Value;

pub(crate) use check::check;

/// The state of the node for one run, read before and after it. Units and sources:
/// [`legend`](crate::legend).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    pub clocksource: Option<String>,
    pub nohz_full: Option<CpuSet>,
    /// `/sys/devices/system/cpu/isolated`: what `isolcpus=` set apart.
    pub boot_isolated: Option<CpuSet>,
    /// `cpuset.cpus.partition` as read back.
    pub partition: Option<String>,
    /// `cpu.max` as read: `max 100000`.
    pub cpu_max: Option<String>,
    /// Job CPU → ns; absent where the kernel has no fair server.
    pub fair_server_runtime_ns: BTreeMap<u32, Value>,
    pub rt_runtime_us: Option<i64>,
    /// Online hardware threads that share a core with a job CPU.
    pub siblings_online: Option<CpuSet>,
    /// Job CPUs that have cpufreq.
    pub frequency: BTreeMap<u32, Frequency>,
    pub swap: Option<Switch>,
    /// Interrupts whose effective affinity includes a job CPU.
    pub irqs_on_job_cpus: Option<Vec<IrqRoute>>,
    pub tsc_watchdog: Option<Switch>,
    /// Threads other than the job's that may run on a job CPU and could be moved away.
    pub movable_threads: Option<Vec<Thread>>,
    /// Knobs that were found changed while the run went on.
    pub drift: Vec<Drift>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    On,
    Off,
}

/// How a CPU's frequency is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frequency {
    pub governor: String,
    pub min_khz: u64,
    pub max_khz: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IrqRoute {
    pub irq: u32,
    pub text: String,
    /// Whether its affinity could be set to other CPUs.
    pub movable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    pub tid: u32,
    pub name: String,
}

/// A knob that was found with another value than it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    pub at_ns: u64,
    pub knob: String,
    pub was: String,
    pub found: String,
}
