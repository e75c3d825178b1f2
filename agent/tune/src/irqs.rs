//! Interrupts that appear later, and those that will not move.

use std::collections::BTreeMap;

use api::report::{Knob, Status, UnmovableIrq};
use cpulist::CpuSet;
use host::{Tree, counters};

use crate::topology::Topology;

/// An interrupt that was found on the wrong CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub irq: u32,
    pub before: CpuSet,
    /// What the kernel says now.
    pub after: CpuSet,
    /// Verified or refused.
    pub status: Status,
    pub reason: Option<String>,
}

/// Moves every interrupt that may strike other CPUs than `housekeeping`; writes nothing else. An
/// interrupt that refuses is tried again at each call: see [`Steering`] for calling periodically.
#[must_use]
pub fn steer(tree: &dyn Tree, housekeeping: &CpuSet) -> Vec<Entry> {
    Steering::new(housekeeping.clone()).run(tree)
}

/// Steering at intervals, which remembers the refusals: when nothing is new it only reads.
#[derive(Clone, Debug)]
pub struct Steering {
    housekeeping: CpuSet,
    /// Interrupt → where it was when it refused.
    refused: BTreeMap<u32, CpuSet>,
}

impl Steering {
    #[must_use]
    pub fn new(housekeeping: CpuSet) -> Self {
        Self {
            housekeeping,
            refused: BTreeMap::new(),
        }
    }

    /// One round: entries for what is new since the last.
    pub fn run(&mut self, tree: &dyn Tree) -> Vec<Entry> {
        let numbers: Vec<u32> = tree
            .list("/proc/irq")
            .unwrap_or_default()
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        self.refused.retain(|irq, _| numbers.contains(irq));
        numbers
            .into_iter()
            .filter_map(|irq| self.steer_one(tree, irq))
            .collect()
    }

    fn steer_one(&mut self, tree: &dyn Tree, irq: u32) -> Option<Entry> {
        let before = affinity(tree, irq, "smp_affinity_list")?;
        if before.is_subset(&self.housekeeping) || self.refused.get(&irq) == Some(&before) {
            return None;
        }
        let path = format!("/proc/irq/{irq}/smp_affinity_list");
        let error = tree.write(&path, &format!("{}\n", self.housekeeping)).err();
        // Gone meanwhile: nothing to tell.
        let after = affinity(tree, irq, "smp_affinity_list")?;
        if after.is_subset(&self.housekeeping) {
            self.refused.remove(&irq);
            return Some(Entry {
                irq,
                before,
                after,
                status: Status::Verified,
                reason: None,
            });
        }
        self.refused.insert(irq, after.clone());
        let reason = error.map_or_else(|| format!("the kernel kept {after}"), |e| e.to_string());
        Some(Entry {
            irq,
            before,
            after,
            status: Status::Refused,
            reason: Some(reason),
        })
    }
}

fn affinity(tree: &dyn Tree, irq: u32, file: &str) -> Option<CpuSet> {
    tree.read(&format!("/proc/irq/{irq}/{file}"))
        .ok()?
        .parse()
        .ok()
}

/// The interrupts that may still strike isolated CPUs, with how often they did. Numbers that no
/// device uses are not listed by `/proc/interrupts`, and strike nobody.
pub(crate) fn unmovable(tree: &dyn Tree, after: &Topology, knobs: &[Knob]) -> Vec<UnmovableIrq> {
    // Without the table there are no names and counts, which is no reason to hide an interrupt.
    let table = counters::interrupts(tree).unwrap_or_default();
    after
        .irqs
        .iter()
        .filter_map(|irq| Some((irq.number, irq.affinity.as_ref()?)))
        .filter(|(_, affinity)| !affinity.is_disjoint(&after.isolated))
        .map(|(number, now)| {
            let name = number.to_string();
            (number, now, table.iter().find(|line| line.name == name))
        })
        .filter(|(_, _, line)| line.is_some() || table.is_empty())
        .map(|(number, now, line)| {
            let knob = knobs
                .iter()
                .find(|knob| knob.knob == format!("irq.{number}"));
            UnmovableIrq {
                irq: number,
                name: line.map(|line| line.text.clone()).unwrap_or_default(),
                affinity: now.to_string(),
                effective: affinity(tree, number, "effective_affinity_list")
                    .unwrap_or_default()
                    .to_string(),
                counts: line
                    .map(|line| {
                        line.counts
                            .iter()
                            .filter(|(cpu, count)| after.isolated.contains(**cpu) && **count > 0)
                            .map(|(cpu, count)| (*cpu, *count))
                            .collect()
                    })
                    .unwrap_or_default(),
                reason: knob
                    .and_then(|knob| knob.reason.clone())
                    .unwrap_or_else(|| "it appeared after the plan was made".into()),
            }
        })
        .collect()
}
