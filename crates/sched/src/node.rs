//! What there is to give away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cpulist::CpuSet;
use quiet::TickMode;
use serde::{Deserialize, Serialize};

/// A node's number, from 0 in the order in which they were added.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct NodeId(pub u32);

impl NodeId {
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether new work may go there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Health {
    Ready,
    /// What runs there may end; nothing new starts.
    Draining,
    /// Failed a health check.
    Quarantined {
        cause: String,
    },
    /// Not heard of. What ran there holds its place until it is given up.
    Lost,
}

/// A machine, as its agent reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub health: Health,
    /// Machines of one kind.
    pub class: String,
    pub labels: BTreeMap<String, String>,
    /// NUMA nodes.
    pub domains: Vec<Domain>,
    pub devices: BTreeSet<String>,
    /// Its CPUs are isolated, so that a run there can be proven quiet.
    pub isolated: bool,
    /// How it was booted; `None`: its CPUs differ, or it is not known.
    pub tick: Option<TickMode>,
    /// Allows several benchmarks at once, if they do too.
    pub share: bool,
}

/// CPUs and memory that are near each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// For jobs; housekeeping CPUs are not among them.
    pub cpus: CpuSet,
    /// For jobs, bytes.
    pub memory: u64,
}
