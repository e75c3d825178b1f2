//! All counters at one moment.

use std::collections::BTreeMap;

use cpulist::CpuSet;

use crate::parse;

/// The texts one snapshot is made of. `None` is a file that this kernel does not have; one that
/// could not be read is an error of the caller's and no snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Texts<'a> {
    /// `/proc/interrupts`
    pub interrupts: &'a str,
    /// `/proc/softirqs`
    pub softirqs: &'a str,
    /// `/proc/schedstat`; `None` without `CONFIG_SCHEDSTATS`.
    pub schedstat: Option<&'a str>,
    /// `/proc/stat`
    pub stat: Option<&'a str>,
    /// `/proc/vmstat`
    pub vmstat: Option<&'a str>,
    /// `cpu.stat` of the job's cgroup
    pub cpu_stat: Option<&'a str>,
    /// `memory.stat` of the job's cgroup
    pub memory_stat: Option<&'a str>,
    /// `cpu.pressure` of the job's cgroup
    pub pressure_cpu: Option<&'a str>,
    /// `memory.pressure` of the job's cgroup
    pub pressure_memory: Option<&'a str>,
    /// `io.pressure` of the job's cgroup
    pub pressure_io: Option<&'a str>,
}

/// What was counted up to one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// `CLOCK_MONOTONIC_RAW`, ns, before the first file was read.
    pub taken_ns: u64,
    /// The job CPUs that `/proc/interrupts` has a column for.
    pub cpus: BTreeMap<u32, CpuCounts>,
    /// The job's threads by tid; the caller fills them in.
    pub tasks: BTreeMap<u32, TaskCounts>,
    /// Every other thread that is bound to job CPUs (the kernel's per-CPU threads), by tid; the
    /// caller fills them in. Threads that may also run elsewhere do not belong here but into
    /// [`Conditions::movable_threads`](crate::Conditions::movable_threads).
    pub residents: BTreeMap<u32, Resident>,
    pub system: SystemCounts,
}

/// What one CPU counted since boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuCounts {
    /// The lines of `/proc/interrupts` that have a name: `LOC`, `RES` ... Inter-processor interrupts
    /// that are only numbered (`IPI0` on ARM) carry their text: `IPI0 Rescheduling interrupts`.
    pub interrupts: BTreeMap<String, u64>,
    /// The numbered lines.
    pub devices: BTreeMap<u32, DeviceCount>,
    /// By the kernel's name: `TIMER`, `NET_RX` ...
    pub softirqs: BTreeMap<String, u64>,
    /// How many times a thread was given this CPU.
    pub timeslices: Option<u64>,
    /// Ticks of 10 ms.
    pub irq_ticks: Option<u64>,
    /// Ticks of 10 ms.
    pub softirq_ticks: Option<u64>,
    /// Ticks of 10 ms.
    pub steal_ticks: Option<u64>,
}

/// One numbered line of `/proc/interrupts` on one CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCount {
    pub count: u64,
    /// Controller, trigger and devices.
    pub text: String,
}

/// What one thread of the job counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// When it began (`/proc/TID/stat`, field 22): tells a tid that is used again.
    pub start_ticks: u64,
    pub run_ns: u64,
    pub timeslices: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

/// A thread that is not the job's and lives on the job's CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    pub name: String,
    /// As [`TaskCounts::start_ticks`].
    pub start_ticks: u64,
    pub timeslices: u64,
}

/// Counts that belong to no single CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemCounts {
    /// Processes and threads made since boot.
    pub forks: Option<u64>,
    pub pgmajfault: Option<u64>,
    pub pswpin: Option<u64>,
    pub pswpout: Option<u64>,
    pub nr_throttled: Option<u64>,
    /// µs
    pub psi_cpu_us: Option<u64>,
    /// µs
    pub psi_memory_us: Option<u64>,
    /// µs
    pub psi_io_us: Option<u64>,
}

impl Snapshot {
    /// Reads the texts for the job's CPUs. A CPU without a column in `/proc/interrupts` is not in
    /// the snapshot; what a text does not say is not in it either.
    #[must_use]
    pub fn parse(taken_ns: u64, job_cpus: &CpuSet, texts: &Texts<'_>) -> Self {
        let mut cpus = interrupts(job_cpus, texts.interrupts);
        for line in parse::parse_table(texts.softirqs) {
            for (cpu, count) in line.counts {
                if let Some(cpu) = cpus.get_mut(&cpu) {
                    cpu.softirqs.insert(line.name.clone(), count);
                }
            }
        }
        for (cpu, timeslices) in texts
            .schedstat
            .map(parse::parse_schedstat)
            .unwrap_or_default()
        {
            if let Some(cpu) = cpus.get_mut(&cpu) {
                cpu.timeslices = Some(timeslices);
            }
        }
        let stat = texts.stat.map(parse::parse_stat).unwrap_or_default();
        for (cpu, ticks) in &stat.cpus {
            if let Some(cpu) = cpus.get_mut(cpu) {
                cpu.irq_ticks = Some(ticks.irq);
                cpu.softirq_ticks = Some(ticks.softirq);
                cpu.steal_ticks = Some(ticks.steal);
            }
        }
        let vmstat = texts.vmstat.map(parse::parse_vmstat).unwrap_or_default();
        Self {
            taken_ns,
            cpus,
            tasks: BTreeMap::new(),
            residents: BTreeMap::new(),
            system: SystemCounts {
                forks: stat.forks,
                // the job's own; without a memory controller, anybody's
                pgmajfault: texts.memory_stat.map_or(vmstat.pgmajfault, |text| {
                    parse::parse_keyed(text, "pgmajfault")
                }),
                pswpin: vmstat.pswpin,
                pswpout: vmstat.pswpout,
                nr_throttled: texts.cpu_stat.and_then(parse::parse_nr_throttled),
                psi_cpu_us: texts.pressure_cpu.and_then(parse::parse_psi_some_us),
                psi_memory_us: texts.pressure_memory.and_then(parse::parse_psi_some_us),
                psi_io_us: texts.pressure_io.and_then(parse::parse_psi_some_us),
            },
        }
    }
}

fn interrupts(job_cpus: &CpuSet, text: &str) -> BTreeMap<u32, CpuCounts> {
    let mut cpus: BTreeMap<u32, CpuCounts> = BTreeMap::new();
    for line in parse::parse_table(text) {
        let number = line.name.parse::<u32>().ok();
        let name = if line.name.starts_with("IPI") {
            format!("{} {}", line.name, line.text)
        } else {
            line.name
        };
        for (cpu, count) in line.counts {
            if !job_cpus.contains(cpu) {
                continue;
            }
            let cpu = cpus.entry(cpu).or_default();
            if let Some(number) = number {
                let text = line.text.clone();
                cpu.devices.insert(number, DeviceCount { count, text });
            } else {
                cpu.interrupts.insert(name.clone(), count);
            }
        }
    }
    cpus
}
