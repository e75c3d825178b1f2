//! The controller's own process, from `/proc/self`.

use std::fmt;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::unit;

/// Of the times in `/proc/PID/stat`, a second; the kernel's ABI (USER_HZ), whatever its own tick is.
const TICKS: f64 = 100.0;

#[derive(Debug)]
pub(super) struct Process {
    begun: SystemTime,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            begun: SystemTime::now(),
        }
    }
}

/// The resident memory of a `/proc/PID/status`, bytes.
pub(super) fn resident(status: &str) -> Option<u64> {
    field(status, "VmRSS:")?.checked_mul(1024)
}

/// The threads of a `/proc/PID/status`.
pub(super) fn threads(status: &str) -> Option<u64> {
    field(status, "Threads:")
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time of a `/proc/PID/stat`. The name of the program may have spaces and
/// parentheses: fields are counted from behind the last one.
pub(super) fn cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Duration::try_from_secs_f64((f64::from(user) + f64::from(system)) / TICKS).ok()
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // what cannot be read is left out: 0 would be a lie
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let files = std::fs::read_dir("/proc/self/fd").ok();
        // one of them is the directory itself
        let files = files.and_then(|files| u64::try_from(files.count()).ok()?.checked_sub(1));
        let gauges = [
            (
                "process_resident",
                "Memory of the controller",
                Unit::Bytes,
                resident(&status),
            ),
            (
                "process_open",
                "Open files and connections of the controller",
                unit("files"),
                files,
            ),
            (
                "process",
                "Threads of the controller",
                unit("threads"),
                threads(&status),
            ),
        ];
        for (name, help, unit, value) in gauges {
            let Some(value) = value.and_then(|value| i64::try_from(value).ok()) else {
                continue;
            };
            let help = format!("{help}.");
            let encoder = encoder.encode_descriptor(name, &help, Some(&unit), MetricType::Gauge)?;
            ConstGauge::new(value).encode(encoder)?;
        }
        if let Some(cpu) = cpu(&stat) {
            let encoder = encoder.encode_descriptor(
                "process_cpu",
                "CPU time of the controller.",
                Some(&Unit::Seconds),
                MetricType::Counter,
            )?;
            ConstCounter::new(cpu.as_secs_f64()).encode(encoder)?;
        }
        let begun = self.begun.duration_since(SystemTime::UNIX_EPOCH);
        let encoder = encoder.encode_descriptor(
            "process_start",
            "When the controller started, since the epoch.",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        ConstGauge::new(begun.unwrap_or_default().as_secs_f64()).encode(encoder)
    }
}
