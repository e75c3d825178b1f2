//! What the kernel's texts say, as readings of a series. What is not in a text has no reading.

use std::collections::BTreeMap;

use quiet::parse::{CpuTicks, parse_keyed, parse_stat, parse_table, parse_vmstat};

use crate::series::{Birth, Kind, Reading};

/// `/proc/stat`, in ticks of `USER_HZ`, which is 100 on every architecture of ours.
const TICK_MS: u64 = 10;
/// `/proc/diskstats` counts sectors of this size, whatever the device's are
/// (Documentation/admin-guide/iostats.rst).
const SECTOR_BYTES: u64 = 512;

const STAT: &str = "/proc/stat";
const INTERRUPTS: &str = "/proc/interrupts";
const SOFTIRQS: &str = "/proc/softirqs";
const MEMINFO: &str = "/proc/meminfo";
const VMSTAT: &str = "/proc/vmstat";
const DISKSTATS: &str = "/proc/diskstats";
const NET_DEV: &str = "/proc/net/dev";

/// Lines of `/proc/meminfo` that say something of a run.
const MEMORY: [&str; 16] = [
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "Active",
    "Inactive",
    "Dirty",
    "Writeback",
    "AnonPages",
    "Mapped",
    "Shmem",
    "Slab",
    "PageTables",
    "SwapFree",
    "AnonHugePages",
    "HugePages_Free",
];
/// Lines of a cgroup's `memory.stat`: sizes, then counts.
const MEMORY_SIZES: [&str; 4] = ["anon", "file", "kernel", "shmem"];
const MEMORY_COUNTS: [&str; 2] = ["pgfault", "pgmajfault"];

/// `/proc/stat`.
#[must_use]
pub fn cpu(stat: &str) -> Vec<Reading<'static>> {
    let mut all = Vec::new();
    let known = parse_stat(stat);
    for (cpu, ticks) in &known.cpus {
        let CpuTicks {
            user,
            nice,
            system,
            idle,
            iowait,
            irq,
            softirq,
            steal,
        } = *ticks;
        for (name, ticks) in [
            ("user", user),
            ("nice", nice),
            ("system", system),
            ("idle", idle),
            ("iowait", iowait),
            ("irq", irq),
            ("softirq", softirq),
            ("steal", steal),
        ] {
            let ms = ticks.saturating_mul(TICK_MS);
            all.push(Reading::counter(format!("cpu{cpu}/{name}"), "ms", STAT, ms));
        }
    }
    for (name, key) in [("context_switches", "ctxt"), ("forks", "processes")] {
        let count = parse_keyed(stat, key);
        all.extend(count.map(|count| Reading::counter(name, "count", STAT, count)));
    }
    for (name, key) in [("runnable", "procs_running"), ("blocked", "procs_blocked")] {
        let count = parse_keyed(stat, key);
        all.extend(count.map(|count| Reading::gauge(name, "threads", STAT, signed(count))));
    }
    all
}

/// `cpu.stat` of the job's cgroup, at `path`.
#[must_use]
pub fn cpu_of_job<'a>(path: &'a str, cpu_stat: &str) -> Vec<Reading<'a>> {
    let keys = [
        ("job/usage", "usage_usec"),
        ("job/user", "user_usec"),
        ("job/system", "system_usec"),
    ];
    let found = keys.into_iter().filter_map(|(name, key)| {
        let count = parse_keyed(cpu_stat, key)?;
        Some(Reading::counter(name, "µs", path, count).born(Birth::New))
    });
    found.collect()
}

/// `/proc/interrupts` and `/proc/softirqs`: what has happened at least once since boot.
#[must_use]
pub fn interrupts(interrupts: &str, softirqs: &str) -> Vec<Reading<'static>> {
    let mut all = Vec::new();
    for (text, source, before) in [
        (interrupts, INTERRUPTS, ""),
        (softirqs, SOFTIRQS, "softirq "),
    ] {
        for line in parse_table(text) {
            let numbered = line.name.bytes().all(|byte| byte.is_ascii_digit());
            let device = match numbered || line.name.starts_with("IPI") {
                true => format!(" {}", line.text),
                false => String::new(),
            };
            for (cpu, count) in line.counts.iter().filter(|(_, count)| **count > 0) {
                let name = format!("cpu{cpu}/{before}{}{device}", line.name);
                all.push(Reading::counter(name, "count", source, *count).born(Birth::Zero));
            }
        }
    }
    all
}

/// `/proc/meminfo` as name → bytes, or → pages where the line has no unit.
#[must_use]
pub fn meminfo(text: &str) -> BTreeMap<&str, u64> {
    let one = |line| {
        let (name, rest): (&str, &str) = str::split_once(line, ':')?;
        let rest = rest.trim();
        match rest.strip_suffix(" kB") {
            Some(kib) => Some((name, kib.trim().parse::<u64>().ok()?.checked_mul(1024)?)),
            None => Some((name, rest.parse().ok()?)),
        }
    };
    text.lines().filter_map(one).collect()
}

/// `/proc/meminfo` and `/proc/vmstat`.
#[must_use]
pub fn memory(text: &str, vmstat: &str) -> Vec<Reading<'static>> {
    let known = meminfo(text);
    let sizes = MEMORY.into_iter().filter_map(|name| {
        let unit = match name.starts_with("HugePages") {
            true => "pages",
            false => "bytes",
        };
        Some(Reading::gauge(
            name,
            unit,
            MEMINFO,
            signed(*known.get(name)?),
        ))
    });
    let counts = parse_vmstat(vmstat);
    let counts = [
        ("swapped_in", "pages", counts.pswpin),
        ("swapped_out", "pages", counts.pswpout),
        ("major_faults", "count", counts.pgmajfault),
    ];
    let counts = counts
        .into_iter()
        .filter_map(|(name, unit, count)| Some(Reading::counter(name, unit, VMSTAT, count?)));
    sizes.chain(counts).collect()
}

/// `memory.current` of the job's cgroup, at `path`.
#[must_use]
pub fn memory_of_job<'a>(path: &'a str, current: &str) -> Vec<Reading<'a>> {
    let bytes = number(current);
    let reading = bytes.map(|bytes| Reading::gauge("job/memory", "bytes", path, bytes));
    reading.into_iter().collect()
}

/// `memory.stat` of the job's cgroup, at `path`.
#[must_use]
pub fn memory_stat_of_job<'a>(path: &'a str, memory_stat: &str) -> Vec<Reading<'a>> {
    let sizes = MEMORY_SIZES.into_iter().filter_map(|name| {
        let bytes = signed(parse_keyed(memory_stat, name)?);
        Some(Reading::gauge(format!("job/{name}"), "bytes", path, bytes))
    });
    let counts = MEMORY_COUNTS.into_iter().filter_map(|name| {
        let count = parse_keyed(memory_stat, name)?;
        let name = format!("job/{name}");
        Some(Reading::counter(name, "count", path, count).born(Birth::New))
    });
    sizes.chain(counts).collect()
}

/// `/proc/diskstats`: the devices that have been used since boot.
#[must_use]
pub fn disk(text: &str) -> Vec<Reading<'static>> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let Some(device) = fields.next() else {
            continue;
        };
        let numbers: Option<Vec<u64>> = fields.take(11).map(|field| field.parse().ok()).collect();
        let Some(
            &[
                reads,
                _,
                read,
                reading,
                writes,
                _,
                written,
                writing,
                now,
                busy,
                _,
            ],
        ) = numbers.as_deref()
        else {
            continue;
        };
        if reads == 0 && writes == 0 {
            continue;
        }
        for (name, unit, count) in [
            ("reads", "count", reads),
            ("read", "bytes", read.saturating_mul(SECTOR_BYTES)),
            ("reading", "ms", reading),
            ("writes", "count", writes),
            ("written", "bytes", written.saturating_mul(SECTOR_BYTES)),
            ("writing", "ms", writing),
            ("busy", "ms", busy),
        ] {
            let name = format!("{device}/{name}");
            all.push(Reading::counter(name, unit, DISKSTATS, count).born(Birth::Zero));
        }
        let name = format!("{device}/in_flight");
        all.push(Reading::gauge(name, "requests", DISKSTATS, signed(now)));
    }
    all
}

/// `/proc/net/dev`: each interface.
#[must_use]
pub fn network(text: &str) -> Vec<Reading<'static>> {
    let mut all = Vec::new();
    for line in text.lines() {
        // an alias has a colon in its name
        let Some((device, rest)) = line.rsplit_once(':') else {
            continue;
        };
        let fields = rest.split_ascii_whitespace();
        let numbers: Option<Vec<u64>> = fields.map(|field| field.parse().ok()).collect();
        let Some(numbers) = numbers.filter(|numbers| numbers.len() >= 16) else {
            continue;
        };
        let device = device.trim();
        for (name, unit, index) in [
            ("received", "bytes", 0),
            ("received_packets", "count", 1),
            ("receive_errors", "count", 2),
            ("receive_dropped", "count", 3),
            ("sent", "bytes", 8),
            ("sent_packets", "count", 9),
            ("send_errors", "count", 10),
            ("send_dropped", "count", 11),
        ] {
            let name = format!("{device}/{name}");
            let count = numbers[index];
            all.push(Reading::counter(name, unit, NET_DEV, count).born(Birth::New));
        }
    }
    all
}

/// A file that holds one number.
#[must_use]
pub fn number(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

/// One such file as a reading; `None`: it holds no number, or one that its kind cannot have.
#[must_use]
pub fn single<'a>(
    name: &str,
    unit: &'static str,
    kind: Kind,
    path: &'a str,
    text: &str,
) -> Option<Reading<'a>> {
    let value = number(text)?;
    match kind {
        Kind::Gauge => Some(Reading::gauge(name, unit, path, value)),
        Kind::Counter | Kind::Energy { .. } => Some(Reading {
            kind,
            ..Reading::counter(name, unit, path, u64::try_from(value).ok()?)
        }),
    }
}

/// No size or number of threads is beyond it.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
