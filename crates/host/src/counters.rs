//! The kernel's counters: the reads for the parsers of `quiet`, and what the API says of them.
//!
//! Reading these files, even ten times a second, puts no event on other CPUs (*measured*,
//! quiet.md §4).

use std::collections::BTreeMap;
use std::io;

use api::counters::{CpuCounters, TaskCounters};
use cpulist::CpuSet;
use quiet::parse::{self, Line};

use crate::tree::Tree;

/// `/proc/interrupts` has a column per CPU and a line per interrupt: 512 CPUs with a few thousand
/// vectors stay below this.
const MAX_INTERRUPTS_BYTES: u64 = 32 * 1024 * 1024;

/// Threads of one process that are looked at.
const MAX_TASKS: usize = 16_384;

/// Puts the three files' texts together; every CPU named in any of them gets an entry.
#[must_use]
pub fn combine(interrupts: &str, softirqs: &str, schedstat: &str) -> BTreeMap<u32, CpuCounters> {
    let mut cpus: BTreeMap<u32, CpuCounters> = BTreeMap::new();
    for line in parse::parse_table(interrupts) {
        for (cpu, count) in line.counts {
            add_interrupts(cpus.entry(cpu).or_default(), &line.name, count);
        }
    }
    for line in parse::parse_table(softirqs) {
        for (cpu, count) in line.counts {
            cpus.entry(cpu)
                .or_default()
                .softirqs
                .insert(line.name.clone(), count);
        }
    }
    for (cpu, timeslices) in parse::parse_schedstat(schedstat) {
        cpus.entry(cpu).or_default().timeslices = Some(timeslices);
    }
    cpus
}

fn add_interrupts(cpu: &mut CpuCounters, name: &str, count: u64) {
    let field = match name {
        "LOC" => &mut cpu.timer,
        "RES" => &mut cpu.resched,
        "CAL" => &mut cpu.call_function,
        "IWI" => &mut cpu.irq_work,
        "TLB" => &mut cpu.tlb_shootdown,
        "NMI" => &mut cpu.nmi,
        "PMI" => &mut cpu.pmi,
        _ if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) => &mut cpu.device,
        _ => cpu.other.entry(name.to_owned()).or_default(),
    };
    *field = field.saturating_add(count);
}

/// Now, for the given CPUs; one that the kernel does not list (offline) is left out.
///
/// # Errors
/// When `/proc/interrupts` or `/proc/softirqs` cannot be read. A kernel without
/// `CONFIG_SCHEDSTATS` has no `/proc/schedstat`: timeslices are then `None`.
pub fn cpu_counters(tree: &dyn Tree, cpus: &CpuSet) -> io::Result<BTreeMap<u32, CpuCounters>> {
    let interrupts = tree.read_up_to("/proc/interrupts", MAX_INTERRUPTS_BYTES)?;
    let softirqs = tree.read("/proc/softirqs")?;
    let schedstat = match tree.read("/proc/schedstat") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let mut all = combine(&interrupts, &softirqs, &schedstat);
    all.retain(|cpu, _| cpus.contains(*cpu));
    Ok(all)
}

/// The lines of `/proc/interrupts`.
///
/// # Errors
/// When it cannot be read.
pub fn interrupts(tree: &dyn Tree) -> io::Result<Vec<Line>> {
    Ok(parse::parse_table(
        &tree.read_up_to("/proc/interrupts", MAX_INTERRUPTS_BYTES)?,
    ))
}

/// Thread id → counters, for the threads that process `pid` has now. Threads that end while we
/// look are left out; at most 16,384 are looked at.
///
/// # Errors
/// When the process is gone.
pub fn tasks(tree: &dyn Tree, pid: u32) -> io::Result<BTreeMap<u32, TaskCounters>> {
    let directory = format!("/proc/{pid}/task");
    Ok(tree
        .list(&directory)?
        .iter()
        .filter_map(|name| name.parse::<u32>().ok())
        .take(MAX_TASKS)
        .filter_map(|tid| {
            let schedstat = tree.read(&format!("{directory}/{tid}/schedstat")).ok()?;
            let status = tree.read(&format!("{directory}/{tid}/status")).ok()?;
            let (voluntary_switches, involuntary_switches) = parse::parse_switches(&status)?;
            let sched = parse::parse_task_schedstat(&schedstat)?;
            Some((
                tid,
                TaskCounters {
                    run_ns: sched.run_ns,
                    wait_ns: sched.wait_ns,
                    timeslices: sched.timeslices,
                    voluntary_switches,
                    involuntary_switches,
                },
            ))
        })
        .collect())
}

#[cfg(test)]
mod tests;
