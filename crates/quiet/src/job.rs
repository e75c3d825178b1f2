//! How a job was run and how it ended.

use serde::{Deserialize, Serialize};

use crate::Switch;

/// How the job went; a failed one may still have been quiet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutcome {
    /// Of a program that ended by itself, and of one that `signal` ended as shells write it: 128
    /// and the signal.
    pub exit_code: Option<i32>,
    /// `None`: no signal ended it, or (with an exit code above 128) that is not known.
    pub signal: Option<i32>,
    pub oom_killed: Option<bool>,
    pub timed_out: bool,
    pub gate: Release,
    /// When the last of its processes was gone.
    pub ended_ns: Option<u64>,
    pub settings: Settings,
    pub output: Output,
}

/// When the job, held back so that the windows could be set up, was let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub released_ns: Option<u64>,
    pub exec_ns: Option<u64>,
}

/// What the kernel said of the job's first process right before it was let go. `None` is what could
/// not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Randomised addresses.
    pub aslr: Option<Switch>,
    /// `SCHED_OTHER`, `SCHED_FIFO`, ...
    pub policy: Option<String>,
    /// 0 of a policy that is not real-time.
    pub rt_priority: Option<u32>,
    pub nice: Option<i32>,
}

/// What the job wrote: the result, as far as the node knows of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub stdout: Digest,
    pub stderr: Digest,
}

/// Of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Digest {
    /// Hexadecimal SHA-256 of that many bytes.
    Measured {
        sha256: String,
        bytes: u64,
    },
    Unobservable {
        why: String,
    },
}

impl Default for Digest {
    fn default() -> Self {
        Self::Unobservable {
            why: "nobody read it".into(),
        }
    }
}

impl JobOutcome {
    /// From the program's first instruction to the end of its last process, ns.
    #[must_use]
    pub fn duration_ns(&self) -> Option<u64> {
        self.ended_ns?.checked_sub(self.gate.exec_ns?)
    }

    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (self.signal, self.exit_code) {
            _ if self.timed_out => Outcome::TimedOut,
            _ if self.oom_killed == Some(true) => Outcome::OomKilled,
            (Some(_), _) => Outcome::Signalled,
            (None, Some(0)) => Outcome::Succeeded,
            (None, Some(_)) => Outcome::Failed,
            (None, None) => Outcome::Unknown,
        }
    }

    /// Why the job failed, `None` if nothing says that it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        match self.outcome() {
            Outcome::Succeeded | Outcome::Unknown => None,
            Outcome::TimedOut => Some("the job ran out of time and was killed".to_owned()),
            Outcome::OomKilled => Some("the job ran out of memory and was killed".to_owned()),
            Outcome::Signalled => self
                .signal
                .map(|signal| format!("signal {signal} ended the job")),
            Outcome::Failed => self
                .exit_code
                .map(|code| format!("the job exited with {code}")),
        }
    }
}

/// How a job ended; each way of failing is one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It exited with 0.
    Succeeded,
    /// It exited with another code.
    Failed,
    /// A signal ended it.
    Signalled,
    /// The kernel killed a task of it for want of memory.
    OomKilled,
    /// It was killed at its time limit.
    TimedOut,
    /// Neither an exit code nor a signal is known.
    Unknown,
}
