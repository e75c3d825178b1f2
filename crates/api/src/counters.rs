//! What happened on a CPU, and what a task got of it: the kernel's own counts.
//!
//! All figures are counts since boot (or since the task began) unless a value came from `since`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts for one CPU, from `/proc/interrupts`, `/proc/softirqs` and `/proc/schedstat`.
///
/// A line that the kernel does not print (no local APIC, say) counts as zero here and has no
/// entry in [`CpuCounters::other`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuCounters {
    /// `LOC`, local timer interrupts.
    pub timer: u64,
    /// `RES`, rescheduling interrupts.
    pub resched: u64,
    /// `CAL`, function call interrupts (remote TLB flushes are counted here too).
    pub call_function: u64,
    /// `IWI`, IRQ work interrupts.
    pub irq_work: u64,
    /// `TLB`, TLB shootdowns.
    pub tlb_shootdown: u64,
    /// `NMI`.
    pub nmi: u64,
    /// `PMI`, performance monitoring interrupts.
    pub pmi: u64,
    /// Sum over all numbered interrupts, that is, those of devices.
    pub device: u64,
    /// Every other per-CPU line by its name: `MCP`, `TRM`, `SPU` ...
    pub other: BTreeMap<String, u64>,
    /// By the kernel's name: `TIMER`, `NET_RX` ...
    pub softirqs: BTreeMap<String, u64>,
    /// How many times a task was given this CPU (`/proc/schedstat`, ninth field); `None` where the
    /// kernel does not say (no `CONFIG_SCHEDSTATS`).
    pub timeslices: Option<u64>,
}

impl CpuCounters {
    /// What was added since `earlier`. A count that went backwards (the CPU was offline in
    /// between) gives zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            timer: self.timer.saturating_sub(earlier.timer),
            resched: self.resched.saturating_sub(earlier.resched),
            call_function: self.call_function.saturating_sub(earlier.call_function),
            irq_work: self.irq_work.saturating_sub(earlier.irq_work),
            tlb_shootdown: self.tlb_shootdown.saturating_sub(earlier.tlb_shootdown),
            nmi: self.nmi.saturating_sub(earlier.nmi),
            pmi: self.pmi.saturating_sub(earlier.pmi),
            device: self.device.saturating_sub(earlier.device),
            other: map_since(&self.other, &earlier.other),
            softirqs: map_since(&self.softirqs, &earlier.softirqs),
            timeslices: self
                .timeslices
                .zip(earlier.timeslices)
                .map(|(now, then)| now.saturating_sub(then)),
        }
    }

    /// Every interrupt except the local timer's.
    #[must_use]
    pub fn other_interrupts(&self) -> u64 {
        [
            self.resched,
            self.call_function,
            self.irq_work,
            self.tlb_shootdown,
            self.nmi,
            self.pmi,
            self.device,
        ]
        .into_iter()
        .chain(self.other.values().copied())
        .fold(0, u64::saturating_add)
    }

    /// All softirqs together.
    #[must_use]
    pub fn softirqs_total(&self) -> u64 {
        self.softirqs.values().copied().fold(0, u64::saturating_add)
    }
}

fn map_since(
    now: &BTreeMap<String, u64>,
    earlier: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    now.iter()
        .map(|(name, count)| {
            (
                name.clone(),
                count.saturating_sub(earlier.get(name).copied().unwrap_or(0)),
            )
        })
        .collect()
}

/// What one thread got, from its `schedstat` and `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounters {
    pub run_ns: u64,
    /// Time it was runnable but not running.
    pub wait_ns: u64,
    pub timeslices: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

impl TaskCounters {
    /// What was added since `earlier`; never below zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            run_ns: self.run_ns.saturating_sub(earlier.run_ns),
            wait_ns: self.wait_ns.saturating_sub(earlier.wait_ns),
            timeslices: self.timeslices.saturating_sub(earlier.timeslices),
            voluntary_switches: self
                .voluntary_switches
                .saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self
                .involuntary_switches
                .saturating_sub(earlier.involuntary_switches),
        }
    }

    /// Both together, for summing a process' threads.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            run_ns: self.run_ns.saturating_add(other.run_ns),
            wait_ns: self.wait_ns.saturating_add(other.wait_ns),
            timeslices: self.timeslices.saturating_add(other.timeslices),
            voluntary_switches: self
                .voluntary_switches
                .saturating_add(other.voluntary_switches),
            involuntary_switches: self
                .involuntary_switches
                .saturating_add(other.involuntary_switches),
        }
    }
}
