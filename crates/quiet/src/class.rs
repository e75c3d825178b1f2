//! What a job is expected to do, and with it which counters are gates and which only reports.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Interrupt, WindowName};

/// What a job says of itself. The canaries are the same for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobClass {
    /// Computes; next to no system calls. The strictest.
    #[default]
    Compute,
    /// Maps and unmaps memory.
    Memory,
    /// Calls the kernel often.
    Syscall,
    /// Makes processes or threads all the time.
    Forking,
    /// Waits for devices or timers.
    Io,
}

impl JobClass {
    pub const ALL: [Self; 5] = [
        Self::Compute,
        Self::Memory,
        Self::Syscall,
        Self::Forking,
        Self::Io,
    ];
}

impl fmt::Display for JobClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Compute => "compute",
            Self::Memory => "memory",
            Self::Syscall => "syscall",
            Self::Forking => "forking",
            Self::Io => "io",
        })
    }
}

/// A text that names no class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownClass(pub String);

impl fmt::Display for UnknownClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no job class: compute, memory, syscall, forking or io",
            self.0
        )
    }
}

impl std::error::Error for UnknownClass {}

impl FromStr for JobClass {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        Self::ALL
            .into_iter()
            .find(|class| class.to_string() == text)
            .ok_or_else(|| UnknownClass(text.to_owned()))
    }
}

/// What one counter means in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// More than this is noise, and no figure is no proof.
    AtMost(u64),
    /// In the certificate, without a say in the verdict.
    Reported,
}

const HARD: Gate = Gate::AtMost(0);

/// One second, ns.
const SECOND_NS: u64 = 1_000_000_000;

/// Which gates apply: the window, its length and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub window: WindowName,
    pub duration_ns: u64,
    pub class: JobClass,
    /// Whether the job was a single thread all the time: then nothing it does sends an interrupt to
    /// its own CPU or preempts it.
    pub one_thread: bool,
}

impl Rules {
    fn loose(&self) -> bool {
        self.window == WindowName::Job && matches!(self.class, JobClass::Forking | JobClass::Io)
    }

    #[must_use]
    pub fn interrupt(&self, kind: Interrupt) -> Gate {
        use Interrupt as I;
        let canary = self.window.is_canary();
        match kind {
            I::Device | I::Nmi | I::PerfMonitor | I::Thermal | I::Threshold | I::MachineCheck => {
                HARD
            }
            _ if self.window == WindowName::Exit => Gate::Reported,
            I::DeferredError | I::Other => HARD,
            I::MachineCheckPoll => Gate::AtMost(self.duration_ns.div_ceil(300 * SECOND_NS)),
            _ if self.loose() && kind != I::TlbShootdown => Gate::Reported,
            // one and one more in 50 s: QEMU's APIC fires by itself each 34.4 s
            I::Timer => Gate::AtMost(1 + self.duration_ns / (50 * SECOND_NS)),
            I::IrqWork => HARD,
            I::Reschedule | I::Call if canary || self.one_thread => HARD,
            I::Reschedule | I::Call => Gate::Reported,
            I::TlbShootdown if canary || (self.one_thread && self.class != JobClass::Forking) => {
                HARD
            }
            I::TlbShootdown => Gate::Reported,
        }
    }

    #[must_use]
    pub fn softirq(&self, name: &str) -> Gate {
        match self.window {
            WindowName::CanaryPre | WindowName::CanaryPost => HARD,
            WindowName::Exit => Gate::Reported,
            WindowName::Job => match (self.class, name) {
                (JobClass::Io, _) | (_, "RCU" | "TIMER") | (JobClass::Forking, "SCHED") => {
                    Gate::Reported
                }
                _ => HARD,
            },
        }
    }

    #[must_use]
    pub fn foreign_timeslices(&self) -> Gate {
        self.unless(self.window == WindowName::Exit)
    }

    /// Whether every step must be attributable.
    #[must_use]
    pub fn unattributable_steps(&self) -> Gate {
        let forking = self.window == WindowName::Job && self.class == JobClass::Forking;
        self.unless(forking || self.window == WindowName::Exit)
    }

    #[must_use]
    pub fn involuntary_switches(&self) -> Gate {
        match self.window {
            WindowName::CanaryPre | WindowName::CanaryPost => HARD,
            WindowName::Exit => Gate::Reported,
            WindowName::Job => self.unless(!self.one_thread || self.class == JobClass::Forking),
        }
    }

    #[must_use]
    pub fn nr_throttled(&self) -> Gate {
        self.unless(self.window != WindowName::Job)
    }

    /// Pages swapped in or out.
    #[must_use]
    pub fn swap(&self) -> Gate {
        self.unless(self.window != WindowName::Job)
    }

    #[must_use]
    pub fn major_faults(&self) -> Gate {
        self.unless(self.window != WindowName::Job || self.loose())
    }

    #[must_use]
    pub fn psi_cpu(&self) -> Gate {
        let strict = self.class == JobClass::Compute && self.one_thread;
        self.unless(self.window != WindowName::Job || !strict)
    }

    fn unless(&self, reported: bool) -> Gate {
        if reported { Gate::Reported } else { HARD }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(window: WindowName, class: JobClass, one_thread: bool, seconds: u64) -> Rules {
        Rules {
            window,
            duration_ns: seconds * SECOND_NS,
            class,
            one_thread,
        }
    }

    #[test]
    fn the_timer_is_allowed_one_and_one_more_in_fifty_seconds() {
        for (seconds, limit) in [(0, 1), (20, 1), (49, 1), (50, 2), (310, 7)] {
            let rules = rules(WindowName::CanaryPre, JobClass::Io, true, seconds);
            assert_eq!(rules.interrupt(Interrupt::Timer), Gate::AtMost(limit));
        }
        let rules = rules(WindowName::Job, JobClass::Compute, true, 301);
        assert_eq!(
            rules.interrupt(Interrupt::MachineCheckPoll),
            Gate::AtMost(2)
        );
    }

    #[test]
    fn the_class_decides_in_the_job_window_only() {
        use Interrupt::{Call, Device, IrqWork, Reschedule, Timer, TlbShootdown};
        for kind in [Timer, Reschedule, Call, IrqWork, TlbShootdown] {
            let gate = |window| rules(window, JobClass::Forking, true, 5).interrupt(kind);
            assert_eq!(gate(WindowName::Job), Gate::Reported);
            assert_ne!(gate(WindowName::CanaryPost), Gate::Reported);
            assert_eq!(gate(WindowName::Exit), Gate::Reported);
        }
        for class in JobClass::ALL {
            for window in WindowName::ALL {
                assert_eq!(rules(window, class, false, 5).interrupt(Device), HARD);
            }
        }
        let threads = rules(WindowName::Job, JobClass::Memory, false, 5);
        assert_eq!(threads.interrupt(TlbShootdown), Gate::Reported);
        assert_eq!(threads.interrupt(IrqWork), HARD);
        assert_eq!(threads.involuntary_switches(), Gate::Reported);
    }

    #[test]
    fn classes_are_written_as_they_are_read() {
        for class in JobClass::ALL {
            assert_eq!(class.to_string().parse(), Ok(class));
            assert_eq!(
                serde_json::to_string(&class).unwrap(),
                format!("\"{class}\"")
            );
        }
        assert!("Compute".parse::<JobClass>().is_err());
    }
}
