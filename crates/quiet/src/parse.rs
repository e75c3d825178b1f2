//! What the kernel's counter files say, as plain numbers.
//!
//! Every function takes any text without panicking. What is not there is `None` or has no entry:
//! no function makes a zero of something that it did not read.

use std::collections::BTreeMap;

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

/// What the scheduler counted for one thread since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskSched {
    /// Time on a CPU, ns. On a CPU without a tick it is only brought up to date at a switch.
    pub run_ns: u64,
    /// Time runnable but not running, ns.
    pub wait_ns: u64,
    /// How many times it was given a CPU.
    pub timeslices: u64,
}

/// `run wait timeslices` of `/proc/PID/task/TID/schedstat`.
#[must_use]
pub fn parse_task_schedstat(text: &str) -> Option<TaskSched> {
    let mut fields = text
        .split_ascii_whitespace()
        .map(|field| field.parse::<u64>().ok());
    Some(TaskSched {
        run_ns: fields.next()??,
        wait_ns: fields.next()??,
        timeslices: fields.next()??,
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

/// Where one CPU's time went, in ticks of `USER_HZ` (10 ms), since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTicks {
    pub user: u64,
    pub nice: u64,
    pub system: u64,
    pub idle: u64,
    /// Idle, with a thread that waits for a device.
    pub iowait: u64,
    pub irq: u64,
    pub softirq: u64,
    /// What a hypervisor says it took. Some (QEMU's emulation among them) always say zero.
    pub steal: u64,
}

/// What `/proc/stat` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub cpus: BTreeMap<u32, CpuTicks>,
    /// Processes and threads made since boot, on the whole system (`processes`).
    pub forks: Option<u64>,
}

/// `/proc/stat`; a `cpu` line that is too short has no entry.
#[must_use]
pub fn parse_stat(text: &str) -> Stat {
    let cpus = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let cpu = fields.next()?.strip_prefix("cpu")?.parse().ok()?;
            let mut ticks = fields.map(|field| field.parse::<u64>().ok());
            Some((
                cpu,
                CpuTicks {
                    user: ticks.next()??,
                    nice: ticks.next()??,
                    system: ticks.next()??,
                    idle: ticks.next()??,
                    iowait: ticks.next()??,
                    irq: ticks.next()??,
                    softirq: ticks.next()??,
                    steal: ticks.next()??,
                },
            ))
        })
        .collect();
    Stat {
        cpus,
        forks: parse_keyed(text, "processes"),
    }
}

/// The number of `name` in a file of `name number` lines: `/proc/vmstat`, `cpu.stat`,
/// `memory.events`.
#[must_use]
pub fn parse_keyed(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, number) = line.split_once(' ')?;
        (key == name).then(|| number.trim().parse().ok())?
    })
}

/// Pages and faults of the whole system since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vmstat {
    /// Pages swapped in.
    pub pswpin: Option<u64>,
    /// Pages swapped out.
    pub pswpout: Option<u64>,
    /// Page faults that waited for a device.
    pub pgmajfault: Option<u64>,
}

/// `/proc/vmstat`.
#[must_use]
pub fn parse_vmstat(text: &str) -> Vmstat {
    Vmstat {
        pswpin: parse_keyed(text, "pswpin"),
        pswpout: parse_keyed(text, "pswpout"),
        pgmajfault: parse_keyed(text, "pgmajfault"),
    }
}

/// `total=` of the `some` line of a pressure file, µs since the cgroup began.
#[must_use]
pub fn parse_psi_some_us(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("some "))?
        .split_ascii_whitespace()
        .find_map(|field| field.strip_prefix("total="))?
        .parse()
        .ok()
}

/// How many times the quota of a cgroup took the CPU from it (`cpu.stat`).
#[must_use]
pub fn parse_nr_throttled(cpu_stat: &str) -> Option<u64> {
    parse_keyed(cpu_stat, "nr_throttled")
}

/// How many processes of a cgroup were killed for want of memory (`memory.events`).
#[must_use]
pub fn parse_oom_kill(memory_events: &str) -> Option<u64> {
    parse_keyed(memory_events, "oom_kill")
}

#[cfg(test)]
mod tests;
