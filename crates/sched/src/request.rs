//! What a job asks for.

use std::collections::BTreeMap;

use quiet::TickMode;
use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use crate::node::Node;

/// A job: one part or, as a gang, several that start at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Request {
    pub queue: String,
    pub user: String,
    pub parts: Vec<Part>,
    /// Others may run on its nodes at the same time, if they and the nodes allow it too.
    pub share: bool,
    /// How long it may take from start to end, ms. Reservations of others rely on it.
    pub limit: u64,
    /// Attempts in all, when nodes refuse it or are lost.
    pub attempts: u32,
}

/// So many places alike, each on a node of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    pub count: u32,
    /// Exclusive, all of one NUMA node.
    pub cpus: u32,
    /// Bytes, of the same NUMA node.
    pub memory: u64,
    /// Globs; each is given one device.
    pub devices: Vec<String>,
    pub selector: Selector,
}

/// Which nodes will do. Names, classes and values of labels are globs.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selector {
    pub node: Option<String>,
    pub class: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Nodes with one of these labels will not do.
    pub without: BTreeMap<String, String>,
    /// Only nodes whose CPUs are isolated.
    pub isolated: bool,
    pub tick: Option<TickMode>,
}

impl Request {
    pub(crate) fn places(&self) -> usize {
        let counts = self.parts.iter().map(|part| part.count);
        counts.fold(0, |sum: usize, count| {
            sum.saturating_add(usize::try_from(count).unwrap_or(usize::MAX))
        })
    }

    /// CPU milliseconds if it takes all of its time.
    pub(crate) fn price(&self) -> u64 {
        let cpus = |part: &Part| u64::from(part.cpus).saturating_mul(part.count.into());
        let cpus = self.parts.iter().map(cpus).fold(0, u64::saturating_add);
        cpus.saturating_mul(self.limit)
    }
}

impl Selector {
    /// Whether `node` will do, whatever it is doing now.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let glob = |pattern: &str, text: &str| WildMatch::new(pattern).matches(text);
        let has = |(key, pattern): (&String, &String)| {
            let value = node.labels.get(key);
            value.is_some_and(|value| glob(pattern, value))
        };
        self.node.as_ref().is_none_or(|it| glob(it, &node.name))
            && self.class.as_ref().is_none_or(|it| glob(it, &node.class))
            && self.labels.iter().all(has)
            && !self.without.iter().any(has)
            && (!self.isolated || node.isolated)
            && (self.tick.is_none() || self.tick == node.tick)
    }
}
