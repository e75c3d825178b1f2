//! The hardware's own witnesses: readings at the edges of the windows in, figures out.
//!
//! Each reading of a register interrupts the CPU that has it (one function call interrupt), so that
//! there are none within a window. A [`HardwareSpan`] lies around a window: its first reading is
//! before whatever the window needs was started, its last one after the window's last snapshot.
//! What only grows (SMIs, throttling, steal) is counted from the first edge of a run to its last;
//! frequency is looked at span by span, since a short job would drown between two long canaries;
//! sleep and energy are the job's.

mod delta;
mod frequency;
mod processor;

use std::collections::{BTreeMap, BTreeSet};

use crate::{Hardware, Value, WindowName};

use delta::{gained, grown, grown_32_bits, sum, worst, wrapped};
pub use frequency::{MAX_SKEW_NS, Pace};
pub use processor::Processor;

/// System management interrupts, thermal events and stolen ticks that a quiet run may have.
pub(crate) const MAX_EVENTS: u64 = 0;
/// 0.5 % of the frequency (quiet.md §8, after Krun's bounds of 0.995 and 1.005).
pub(crate) const MAX_DEVIATION_PPM: u64 = 5_000;
/// 3 °C from canary to canary (quiet.md §8, after Krun).
pub(crate) const MAX_DRIFT_MILLIDEGREES: u64 = 3_000;
/// No package draws more on average: 500 W is the most that one is sold for. Decides whether an
/// energy counter may have gone round more than once.
const MAX_WATTS: u64 = 600;

/// What the hardware said at one edge. A [`Value`] is one reading, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardwareSnapshot {
    /// `CLOCK_MONOTONIC_RAW`.
    pub taken_ns: u64,
    /// Of the job's CPUs.
    pub cpus: BTreeMap<u32, CpuReadings>,
    /// Package → its energy counter; packages without one are left out.
    pub energy: BTreeMap<String, Energy>,
    /// Sensor → m°C, above whatever: only differences are looked at.
    pub temperatures: BTreeMap<String, Value>,
}

/// One CPU at one edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuReadings {
    /// `MSR_SMI_COUNT`, 32 bits.
    pub smi: Value,
    /// `IA32_APERF` and `IA32_MPERF`, 64 bits.
    pub aperf: Value,
    pub mperf: Value,
    /// What the frequency should be, or why that is not fixed.
    pub pace: Result<Pace, String>,
    /// `thermal_throttle/*_count`, added up.
    pub throttle: Value,
    /// `cpuidle/state*/time` but for polling, µs, added up.
    pub idle_us: Value,
    /// `/proc/stat`.
    pub steal_ticks: Value,
}

/// A package's energy counter at one edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Energy {
    /// µJ.
    pub energy_uj: Value,
    /// Where it goes round; `None` is not known.
    pub range_uj: Option<u64>,
}

/// The readings before and after one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HardwareSpan {
    pub window: WindowName,
    pub begin: HardwareSnapshot,
    pub end: HardwareSnapshot,
}

/// What a run's readings, in the order of time, say.
#[must_use]
pub fn witnesses(spans: &[HardwareSpan]) -> Hardware {
    let of = |name: WindowName| spans.iter().find(|span| span.window == name);
    let Some(job) = of(WindowName::Job) else {
        return Hardware::unobservable("it was not read around the job");
    };
    let edges: Vec<&HardwareSnapshot> = spans
        .iter()
        .flat_map(|span| [&span.begin, &span.end])
        .collect();
    let cpus: BTreeSet<u32> = edges
        .iter()
        .flat_map(|edge| edge.cpus.keys().copied())
        .collect();
    let whole = |cpu: u32, reading: fn(&CpuReadings) -> &Value, step: delta::Step| {
        gained(readings(&edges, cpu, reading), step, MAX_EVENTS)
    };
    let of_job = [&job.begin, &job.end];
    Hardware {
        smi: worst(cpus.iter().map(|cpu| smi(&edges, *cpu)), MAX_EVENTS),
        aperf_mperf: worst(
            spans
                .iter()
                .flat_map(|span| cpus.iter().map(|cpu| frequency::deviation(span, *cpu))),
            MAX_DEVIATION_PPM,
        ),
        throttle: worst(
            cpus.iter().map(|cpu| whole(*cpu, |it| &it.throttle, grown)),
            MAX_EVENTS,
        ),
        temperature: match (of(WindowName::CanaryPre), of(WindowName::CanaryPost)) {
            (Some(pre), Some(post)) => drift(&pre.end, &post.end),
            _ => Value::unobservable("without canaries no two readings are under the same load"),
        },
        cstate_residency: sum(cpus.iter().map(|cpu| {
            let readings = readings(&of_job, *cpu, |it| &it.idle_us);
            gained(readings, grown, u64::MAX)
        })),
        energy: energy(job),
        host_steal: sum(cpus
            .iter()
            .map(|cpu| whole(*cpu, |it| &it.steal_ticks, grown))),
    }
}

/// One CPU's reading at each edge; a CPU that was not read at one of them is not known there.
fn readings(
    edges: &[&HardwareSnapshot],
    cpu: u32,
    reading: fn(&CpuReadings) -> &Value,
) -> Vec<Value> {
    edges
        .iter()
        .map(|edge| match edge.cpus.get(&cpu) {
            Some(one) => reading(one).clone(),
            None => Value::unobservable(format!("CPU {cpu} was not read each time")),
        })
        .collect()
}

/// An SMI halts every CPU, and each counts it. Believed only where the neighbouring counter of
/// cycles moves: a hypervisor that hides its flag answers zero to both.
fn smi(edges: &[&HardwareSnapshot], cpu: u32) -> Value {
    let counted = gained(
        readings(edges, cpu, |it| &it.smi),
        grown_32_bits,
        MAX_EVENTS,
    );
    let cycles = gained(readings(edges, cpu, |it| &it.mperf), grown, 0);
    match (counted, cycles.measured()) {
        (Value::Measured(MAX_EVENTS), None | Some(0)) => Value::unobservable(format!(
            "no cycles are counted on CPU {cpu} beside it: its registers may all say zero"
        )),
        (counted, _) => counted,
    }
}

/// The farthest that a sensor is from where it was, both times at the end of a canary.
fn drift(pre: &HardwareSnapshot, post: &HardwareSnapshot) -> Value {
    let sensors: BTreeSet<&String> = pre
        .temperatures
        .keys()
        .chain(post.temperatures.keys())
        .collect();
    let of_one = |sensor: &String| {
        let at = |edge: &HardwareSnapshot| edge.temperatures.get(sensor).cloned();
        match (at(pre), at(post)) {
            (Some(Value::Measured(then)), Some(Value::Measured(now))) => {
                Value::Measured(then.abs_diff(now))
            }
            (Some(Value::Measured(_)), Some(lost)) | (Some(lost), _) => lost,
            (None, _) => Value::unobservable(format!("{sensor} was not read each time")),
        }
    };
    worst(sensors.into_iter().map(of_one), MAX_DRIFT_MILLIDEGREES)
}

/// What a package's energy counter gained within so many µs: it goes round at `range_uj`
/// (`max_energy_range_uj`).
///
/// # Errors
/// Why that is not known: such as that it may have gone round more than once.
pub fn energy_gained_uj(
    then: u64,
    now: u64,
    range_uj: Option<u64>,
    elapsed_us: u64,
) -> Result<u64, String> {
    wrapped(then, now, range_uj, elapsed_us.saturating_mul(MAX_WATTS))
}

fn energy(job: &HardwareSpan) -> Value {
    let elapsed_us = job.end.taken_ns.saturating_sub(job.begin.taken_ns) / 1000;
    let packages: BTreeSet<&String> = job
        .begin
        .energy
        .keys()
        .chain(job.end.energy.keys())
        .collect();
    let of_one = |package: &String| {
        let (Some(begin), Some(end)) = (job.begin.energy.get(package), job.end.energy.get(package))
        else {
            return Value::unobservable(format!("{package} was not read each time"));
        };
        let (then, now) = match (&begin.energy_uj, &end.energy_uj) {
            (Value::Measured(then), Value::Measured(now)) => (*then, *now),
            (Value::Measured(_), lost) | (lost, _) => return lost.clone(),
        };
        match energy_gained_uj(then, now, end.range_uj, elapsed_us) {
            Ok(gained) => Value::Measured(gained),
            Err(why) => Value::Unobservable { why },
        }
    };
    sum(packages.into_iter().map(of_one))
}
