//! What is left of a node beside others.

use std::borrow::Cow;

use cpulist::CpuSet;
use wildmatch::WildMatch;

use crate::Time;
use crate::holds::Hold;
use crate::matching::matching;
use crate::node::{Domain, Node};
use crate::request::Part;

/// What else is on a node, and bears neighbours, from a start on until a limit is over.
#[derive(Debug, Default)]
pub(crate) struct Neighbours<'a> {
    pub(crate) holds: Vec<&'a Hold<'a>>,
    pub(crate) start: Time,
}

impl Neighbours<'_> {
    /// Those that nobody has at any time.
    pub(crate) fn cpus<'d>(&self, domain: &'d Domain) -> Cow<'d, CpuSet> {
        let all = Cow::Borrowed(&domain.cpus);
        self.holds.iter().fold(all, |free, hold| {
            if free.is_disjoint(&hold.slot.cpus) {
                return free;
            }
            Cow::Owned(free.difference(&hold.slot.cpus))
        })
    }

    /// Bytes that are free at every time.
    pub(crate) fn memory(&self, domain: &Domain) -> u64 {
        // each is compared with each other one: most take none
        let takes = |hold: &&&Hold<'_>| hold.slot.memory > 0 && lies_in(hold, domain);
        let here = || self.holds.iter().filter(takes);
        // it is least at the start, or when something else starts
        let times = here().map(|hold| hold.from.max(self.start));
        let taken = |time: Time| {
            let then = here().filter(|hold| hold.from <= time && time < hold.until);
            then.map(|hold| hold.slot.memory)
                .fold(0, u64::saturating_add)
        };
        let most = times.map(taken).max().unwrap_or_default();
        domain.memory.saturating_sub(most)
    }

    pub(crate) fn devices<'n>(&self, node: &'n Node) -> Vec<&'n String> {
        let taken = |device| {
            self.holds
                .iter()
                .any(|hold| hold.slot.devices.contains(device))
        };
        node.devices
            .iter()
            .filter(|device| !taken(device))
            .collect()
    }

    /// How many CPUs stay free, and the NUMA node, if one of a part has room here.
    pub(crate) fn room(&self, part: &Part, node: &Node) -> Option<(usize, usize)> {
        let wanted = usize::try_from(part.cpus).ok()?;
        let domains = node.domains.iter().enumerate();
        let best = domains
            .filter_map(|(index, domain)| {
                let left = self.cpus(domain).len().checked_sub(wanted)?;
                let enough = part.memory == 0 || self.memory(domain) >= part.memory;
                enough.then_some((left, index))
            })
            .min()?;
        self.devices_for(part, node)?;
        Some(best)
    }

    /// One device for each glob.
    pub(crate) fn devices_for(&self, part: &Part, node: &Node) -> Option<Vec<String>> {
        if part.devices.is_empty() {
            return Some(Vec::new());
        }
        let free = self.devices(node);
        let matching_ones = |glob: &String| -> Vec<usize> {
            let glob = WildMatch::new(glob);
            let all = 0..free.len();
            all.filter(|it| glob.matches(free[*it])).collect()
        };
        let choices: Vec<Vec<usize>> = part.devices.iter().map(matching_ones).collect();
        let choices: Vec<&[usize]> = choices.iter().map(Vec::as_slice).collect();
        let given = matching(&choices, free.len())?;
        Some(given.into_iter().map(|it| free[it].clone()).collect())
    }
}

fn lies_in(hold: &Hold<'_>, domain: &Domain) -> bool {
    let first = hold.slot.cpus.first();
    first.is_some_and(|cpu| domain.cpus.contains(cpu))
}
