//! The kernel's counters: parsers that take any text without panicking, and the reads for them.
//!
//! Reading these files, even ten times a second, puts no event on other CPUs (*measured*,
//! quiet.md §4).

use std::collections::BTreeMap;
use std::io;

use api::counters::{CpuCounters, TaskCounters};
use cpulist::CpuSet;

use crate::tree::Tree;

/// `/proc/interrupts` has a column per CPU and a line per interrupt: 512 CPUs with a few thousand
/// vectors stay below this.
const MAX_INTERRUPTS_BYTES: u64 = 32 * 1024 * 1024;

/// Threads of one process that are looked at.
const MAX_TASKS: usize = 16_384;

/// One line of `/proc/interrupts` or `/proc/softirqs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `24`, `LOC`, `NET_RX` ...
    pub name: String,
    /// CPU → count. Offline CPUs have no column.
    pub counts: BTreeMap<u32, u64>,
    /// What follows the counts: controller, type, devices; or an explanation.
    pub text: String,
}

/// The common format of `/proc/interrupts` and `/proc/softirqs`: a header `CPU0 CPU2 ...`, then
/// `name: count count ... text`. Lines that have fewer counts than columns (`ERR`, `MIS`: one
/// count for the whole system) and lines of another form are left out.
#[must_use]
pub fn parse_table(text: &str) -> Vec<Line> {
    let mut lines = text.lines();
    let Some(header) = lines.next() else {
        return Vec::new();
    };
    let cpus: Vec<u32> = header
        .split_ascii_whitespace()
        .map_while(|column| column.strip_prefix("CPU")?.parse().ok())
        .collect();
    lines.filter_map(|line| parse_line(&cpus, line)).collect()
}

fn parse_line(cpus: &[u32], line: &str) -> Option<Line> {
    let (name, mut rest) = line.split_once(':')?;
    let mut counts = BTreeMap::new();
    for cpu in cpus {
        rest = rest.trim_ascii_start();
        let end = rest
            .find(|c: char| c.is_ascii_whitespace())
            .unwrap_or(rest.len());
        let (count, tail) = rest.split_at_checked(end)?;
        counts.insert(*cpu, count.parse().ok()?);
        rest = tail;
    }
    let text = rest.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    Some(Line {
        name: name.trim().to_owned(),
        counts,
        text,
    })
}

/// CPU → timeslices (ninth number of its line in `/proc/schedstat`, versions 15 to 17).
#[must_use]
pub fn parse_schedstat(text: &str) -> BTreeMap<u32, u64> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let cpu = fields.next()?.strip_prefix("cpu")?.parse().ok()?;
            Some((cpu, fields.nth(8)?.parse().ok()?))
        })
        .collect()
}

/// `run wait timeslices` of `/proc/PID/task/TID/schedstat`.
#[must_use]
pub fn parse_task_schedstat(text: &str) -> Option<TaskCounters> {
    let mut fields = text
        .split_ascii_whitespace()
        .map(|field| field.parse::<u64>().ok());
    Some(TaskCounters {
        run_ns: fields.next()??,
        wait_ns: fields.next()??,
        timeslices: fields.next()??,
        ..TaskCounters::default()
    })
}

/// `(voluntary, involuntary)` switches of a `status` file.
#[must_use]
pub fn parse_switches(status: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    Some((
        field("voluntary_ctxt_switches:")?,
        field("nonvoluntary_ctxt_switches:")?,
    ))
}

/// Puts the three files' texts together; every CPU named in any of them gets an entry.
#[must_use]
pub fn combine(interrupts: &str, softirqs: &str, schedstat: &str) -> BTreeMap<u32, CpuCounters> {
    let mut cpus: BTreeMap<u32, CpuCounters> = BTreeMap::new();
    for line in parse_table(interrupts) {
        for (cpu, count) in line.counts {
            add_interrupts(cpus.entry(cpu).or_default(), &line.name, count);
        }
    }
    for line in parse_table(softirqs) {
        for (cpu, count) in line.counts {
            cpus.entry(cpu)
                .or_default()
                .softirqs
                .insert(line.name.clone(), count);
        }
    }
    for (cpu, timeslices) in parse_schedstat(schedstat) {
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
    Ok(parse_table(
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
            let (voluntary_switches, involuntary_switches) = parse_switches(&status)?;
            let counters = parse_task_schedstat(&schedstat)?;
            Some((
                tid,
                TaskCounters {
                    voluntary_switches,
                    involuntary_switches,
                    ..counters
                },
            ))
        })
        .collect())
}

#[cfg(test)]
mod tests;
