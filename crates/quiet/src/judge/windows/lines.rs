//! The lines of the kernel's tables: which must be there, and what is behind them.

use crate::class::{Gate, Rules};
use crate::{CpuWindow, Interrupt};

/// Lines that every x86 kernel with more than one CPU prints (`arch/x86/kernel/irq.c`).
const X86: [&str; 7] = ["LOC", "NMI", "PMI", "IWI", "RES", "CAL", "TLB"];
/// All that there are (`kernel/softirq.c`).
const SOFTIRQS: [&str; 10] = [
    "HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU",
];

/// File and name of lines that must be there, as without them a gate would be open.
pub(super) fn missing(
    rules: &Rules,
    counts: &CpuWindow,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let interrupts = &counts.interrupts;
    let x86 = X86.iter().any(|name| interrupts.contains_key(*name));
    let named_otherwise = move |kind| {
        let devices = counts.device.values();
        interrupts
            .keys()
            .any(|name| Interrupt::of_name(name) == kind)
            || devices
                .into_iter()
                .any(|line| Interrupt::of_device(&line.text) == kind)
    };
    let missing_interrupt = move |name: &&str| {
        let kind = Interrupt::of_name(name);
        let there = if x86 {
            interrupts.contains_key(*name)
        } else {
            use Interrupt::{Call, Reschedule, Timer};
            !matches!(kind, Timer | Reschedule | Call) || named_otherwise(kind)
        };
        !there && rules.interrupt(kind) != Gate::Reported
    };
    let missing_softirq =
        |name: &&str| rules.softirq(name) != Gate::Reported && !counts.softirqs.contains_key(*name);
    X86.into_iter()
        .filter(missing_interrupt)
        .map(|name| ("interrupts", name))
        .chain(
            SOFTIRQS
                .into_iter()
                .filter(missing_softirq)
                .map(|name| ("softirqs", name)),
        )
}

pub(super) fn softirq_cause(name: &str) -> &'static str {
    match name {
        "TIMER" | "HRTIMER" => "a kernel timer expired on this CPU",
        "NET_TX" | "NET_RX" => "the network's work reached this CPU",
        "BLOCK" => "a disk request was completed on this CPU",
        "SCHED" => "the scheduler balanced load; did the tick run?",
        "RCU" => "RCU callbacks ran here; is the CPU in rcu_nocbs=?",
        "HI" | "TASKLET" | "IRQ_POLL" => "a driver's work reached this CPU",
        _ => "nothing that a job does explains it",
    }
}
