//! One try of a job: its places and how far each node has come.

use std::collections::BTreeMap;

use api::fleet::NodeId;
use api::job::{JobId, JobState};
use api::work::{Key, Stage};
use cpulist::CpuSet;
use serde::{Deserialize, Serialize};

use super::Millis;
use super::fate::Fate;

/// Its places, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub key: Key,
    pub assigned_ms: Millis,
    /// From its assignment on, seconds.
    pub lease_seconds: u32,
    pub parts: BTreeMap<NodeId, Part>,
    /// It is being ended, since when, and what follows.
    pub fate: Option<(Millis, Fate)>,
}

/// A node's share of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub cpus: CpuSet,
    /// Bytes set aside.
    pub memory: u64,
    pub devices: Vec<String>,
    pub progress: Progress,
    /// Since when it is there.
    pub since_ms: Millis,
}

/// How far a node has come with its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Told, and not heard of yet.
    Sent,
    Accepted,
    Preparing,
    Measuring,
    Packing,
    /// It has ended; its documents are not all here.
    Ended,
    /// Nothing more is wanted of the node.
    Settled,
}

impl From<Stage> for Progress {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Accepted => Self::Accepted,
            Stage::Preparing => Self::Preparing,
            Stage::Measuring => Self::Measuring,
            Stage::Packing => Self::Packing,
            Stage::Ended => Self::Ended,
        }
    }
}

impl Attempt {
    /// As the scheduler names it.
    pub(super) fn number(&self, job: JobId) -> sched::Attempt {
        sched::Attempt {
            job: sched::JobId(job.0),
            number: self.key.attempt,
            fence: self.key.fence,
        }
    }

    /// As the scheduler knows them.
    pub(super) fn slots(
        &self,
        seat: impl Fn(&NodeId) -> Option<sched::NodeId>,
    ) -> Vec<sched::Slot> {
        let parts = self.parts.iter();
        let slot = |(node, part): (&NodeId, &Part)| {
            Some(sched::Slot {
                node: seat(node)?,
                part: 0,
                cpus: part.cpus.clone(),
                memory: part.memory,
                devices: part.devices.clone(),
            })
        };
        parts.filter_map(slot).collect()
    }

    /// Whether all parts have come so far.
    pub(super) fn all(&self, progress: Progress) -> bool {
        self.parts.values().all(|part| part.progress >= progress)
    }

    /// The job's state while this is its attempt.
    pub(super) fn state(&self) -> JobState {
        let any = |from, to| {
            let within = |part: &Part| (from..=to).contains(&part.progress);
            self.parts.values().any(within)
        };
        if self.all(Progress::Packing) {
            JobState::Collecting
        } else if any(Progress::Measuring, Progress::Measuring) {
            JobState::Measuring
        } else if self.all(Progress::Accepted) {
            JobState::Preparing
        } else {
            JobState::Assigned
        }
    }

    /// When its lease is over.
    pub(super) fn lease_ends(&self) -> Millis {
        let lease = u64::from(self.lease_seconds) * 1000;
        self.assigned_ms.saturating_add(lease)
    }
}
