//! Everything that is known about one run, before anybody judges it.

use cpulist::CpuSet;
use serde::{Deserialize, Serialize};

use crate::{Conditions, Interruptions, JobClass, Value, Window};

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

/// Whether the job's CPUs ran without a tick. Results of one mode do not compare with the other's:
/// a system call costs 1.7 times the instructions on a tickless CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TickMode {
    NohzFull,
    Tick,
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
    /// System management interrupts.
    pub smi: Value,
    /// Deviation of the actual from the nominal frequency, ppm.
    pub aperf_mperf: Value,
    /// Thermal and power throttling events.
    pub throttle: Value,
    /// Drift of the temperature, m°C.
    pub temperature: Value,
    /// Time in idle states, µs.
    pub cstate_residency: Value,
    /// Energy, µJ.
    pub energy: Value,
    /// Time a hypervisor took, ticks of 10 ms.
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

/// How the job went; a failed one may still have been quiet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutcome {
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub oom_killed: Option<bool>,
    pub timed_out: bool,
    pub gate: Release,
}

/// When the job, held back so that the windows could be set up, was let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub released_ns: Option<u64>,
    pub exec_ns: Option<u64>,
}

impl JobOutcome {
    /// Why the job failed, `None` if nothing says that it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        if self.timed_out {
            Some("the job ran out of time".to_owned())
        } else if self.oom_killed == Some(true) {
            Some("the job ran out of memory and was killed".to_owned())
        } else if let Some(signal) = self.signal {
            Some(format!("signal {signal} ended the job"))
        } else {
            self.exit_code
                .filter(|code| *code != 0)
                .map(|code| format!("the job exited with {code}"))
        }
    }
}
