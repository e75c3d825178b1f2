//! Everything that is known about one run, before anybody judges it.

use cpulist::CpuSet;
use serde::{Deserialize, Serialize};

use crate::{Conditions, Interruptions, JobClass, JobOutcome, TickMode, Value, Window};

/// A certificate without its verdict. Units and sources: [`legend`](crate::legend).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub run_id: String,
    pub container_id: String,
    pub image: String,
    pub argv: Vec<String>,
    pub class: JobClass,
    pub tick_mode: TickMode,
    pub platform: Platform,
    pub job_cpus: CpuSet,
    pub housekeeping_cpus: CpuSet,
    pub before: Conditions,
    pub after: Conditions,
    pub windows: Vec<Window>,
    /// One by one, if that was asked for. Explains what the windows counted, and is not judged.
    pub interruptions: Option<Interruptions>,
    pub hardware: Hardware,
    /// What the node itself did that disturbs other CPUs.
    pub actions_in_window: Vec<Action>,
    /// What went wrong while the run was measured, in words: then not all of it is proven.
    pub troubles: Vec<String>,
    pub job: JobOutcome,
}

/// What the run ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub kernel: String,
    pub cmdline: String,
    pub cpu_model: String,
    /// The CPUID flag; `None` (not known) is taken for a virtual machine.
    pub hypervisor: Option<bool>,
    pub agent_version: String,
}

/// What only bare metal can tell, over the whole run. In a virtual machine these registers read
/// zero without an error, so that a figure from there is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// System management interrupts, of the CPU that had most.
    pub smi: Value,
    /// Deviation of the actual from the fixed frequency, ppm, of the CPU and window that had most.
    pub aperf_mperf: Value,
    /// Thermal and power throttling events, of the CPU that had most.
    pub throttle: Value,
    /// Drift from the end of one canary to the end of the other, m°C, of the sensor that had most.
    pub temperature: Value,
    /// Time of the job's CPUs in idle states, around the job, µs.
    pub cstate_residency: Value,
    /// Energy of the packages of the job's CPUs, around the job, µJ.
    pub energy: Value,
    /// Time a hypervisor took from the job's CPUs, ticks of 10 ms.
    pub host_steal: Value,
}

impl Hardware {
    /// None of it can be known, for one reason.
    #[must_use]
    pub fn unobservable(why: &str) -> Self {
        let value = || Value::unobservable(why);
        Self {
            smi: value(),
            aperf_mperf: value(),
            throttle: value(),
            temperature: value(),
            cstate_residency: value(),
            energy: value(),
            host_steal: value(),
        }
    }
}

/// One act of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    pub at_ns: u64,
    pub what: String,
}
