//! The disturbances, and what each must make visible.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Drift, Value, Window};

use super::Finding;

/// Intrusions of the first probe, 1 ms each.
pub const INTRUSIONS: u64 = 20;
/// Function calls made on the CPU from another one.
pub const SHOOTDOWNS: u64 = 20;
/// The tick comes back for a second of company; a loaded emulator may lose most of 250.
const TICKS: u64 = 10;
/// Half of the time there is nothing to tick for; more than a quiet CPU may have.
const THROTTLED_TICKS: u64 = 3;

/// A known disturbance of a CPU on which one thread spins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A foreign thread bound to the CPU wakes, runs for 1 ms and sleeps, [`INTRUSIONS`] times.
    Intrusions,
    /// A foreign thread runs for a second.
    SecondTask,
    /// `cpu.max` of the spinning thread's cgroup.
    Quota,
    /// Another CPU has this one forget its translations, [`SHOOTDOWNS`] times.
    Shootdowns,
    /// The kernel's fair server on that CPU is switched on.
    FairServer,
    /// The CPU's partition is dissolved and made again.
    Partition,
}

impl Probe {
    /// In the order in which they are tried. Those that bring another thread come after the quota: a
    /// CPU asks whether it may stop its tick when a thread comes or goes, and without one the tick
    /// stays after the quota is gone (*measured*; kernel/sched/core.c, `sched_can_stop_tick`).
    pub const ALL: [Self; 6] = [
        Self::Quota,
        Self::Intrusions,
        Self::SecondTask,
        Self::Shootdowns,
        Self::FairServer,
        Self::Partition,
    ];

    /// What is done, for people.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Intrusions => "20 intrusions of 1 ms by a foreign thread",
            Self::SecondTask => "a foreign thread ran beside it for 1 s",
            Self::Quota => "a quota of half the CPU (cpu.max)",
            Self::Shootdowns => "20 TLB shootdowns from another CPU",
            Self::FairServer => "the fair server switched on for 3 s",
            Self::Partition => "the cpuset partition dissolved and made again",
        }
    }

    /// What must be seen: all of it. Figures after quiet.md §9, A5 and A6.
    #[must_use]
    pub fn expectations(self) -> Vec<Expectation> {
        use Figure as F;
        match self {
            Self::Intrusions => vec![
                // in and out again, each time
                at_least(F::Timeslices, 2 * INTRUSIONS),
                at_least(F::ForeignTimeslices, INTRUSIONS),
                // over the wake list of a CPU set apart (CAL, *measured*), or directly where CPUs share
                // a cache (RES): kernel/sched/core.c, `ttwu_queue_cond`
                at_least(F::Woken, INTRUSIONS - 1),
            ],
            Self::SecondTask => vec![
                at_least(F::Interrupt("LOC"), TICKS),
                at_least(F::ForeignTimeslices, 1),
                at_least(F::InvoluntarySwitches, 1),
            ],
            Self::Quota => vec![
                at_least(F::Interrupt("LOC"), THROTTLED_TICKS),
                at_least(F::NrThrottled, 1),
                at_least(F::Drift("cpu.max"), 1),
            ],
            Self::Shootdowns => vec![
                about(F::Interrupt("TLB"), SHOOTDOWNS),
                about(F::Interrupt("CAL"), SHOOTDOWNS),
            ],
            // beside a single thread it strikes about once a second, or once in all (*measured*)
            Self::FairServer => vec![at_least(F::Struck, 1), at_least(F::Drift("fair server"), 1)],
            Self::Partition => vec![at_least(F::Drift("cpuset.cpus.partition"), 1)],
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Intrusions => "intrusions",
            Self::SecondTask => "second_task",
            Self::Quota => "quota",
            Self::Shootdowns => "shootdowns",
            Self::FairServer => "fair_server",
            Self::Partition => "partition",
        })
    }
}

/// A figure of a window, or of the knobs looked at beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// A named line of `/proc/interrupts`.
    Interrupt(&'static str),
    /// `LOC`, `RES` and `CAL` together.
    Struck,
    /// `RES` and `CAL` together.
    Woken,
    Timeslices,
    /// With those of which it is not known whose they were.
    ForeignTimeslices,
    InvoluntarySwitches,
    NrThrottled,
    /// Knobs found changed whose name begins so.
    Drift(&'static str),
}

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    pub figure: Figure,
    pub at_least: u64,
    pub at_most: Option<u64>,
}

fn at_least(figure: Figure, at_least: u64) -> Expectation {
    Expectation {
        figure,
        at_least,
        at_most: None,
    }
}

/// One more or less: the first or last may fall on a snapshot.
fn about(figure: Figure, count: u64) -> Expectation {
    Expectation {
        figure,
        at_least: count - 1,
        at_most: Some(count + 1),
    }
}

impl Expectation {
    /// Looks the figure up.
    #[must_use]
    pub fn find(&self, window: Option<&Window>, drift: &[Drift]) -> Finding {
        Finding {
            figure: self.figure.to_string(),
            at_least: self.at_least,
            at_most: self.at_most,
            found: self.figure.look_up(window, drift),
        }
    }
}

impl Figure {
    fn look_up(self, window: Option<&Window>, drift: &[Drift]) -> Value {
        if let Self::Drift(knob) = self {
            let found = drift.iter().filter(|drift| drift.knob.starts_with(knob));
            return Value::Measured(u64::try_from(found.count()).unwrap_or(u64::MAX));
        }
        let Some(window) = window else {
            return Value::Absent;
        };
        let line = |name: &str| {
            let cpus = window.cpus.values();
            sum(cpus.map(|cpu| cpu.interrupts.get(name).unwrap_or(&Value::Absent)))
        };
        match self {
            Self::Interrupt(name) => line(name),
            Self::Struck => sum([line("LOC"), line("RES"), line("CAL")].iter()),
            Self::Woken => sum([line("RES"), line("CAL")].iter()),
            Self::Timeslices => sum(window.cpus.values().map(|cpu| &cpu.timeslices)),
            Self::ForeignTimeslices => {
                sum([&window.foreign_timeslices, &window.unattributed_timeslices].into_iter())
            }
            Self::InvoluntarySwitches => window.involuntary_switches.clone(),
            Self::NrThrottled => window.nr_throttled.clone(),
            Self::Drift(_) => Value::Absent,
        }
    }
}

/// Known only if each is.
fn sum<'a>(values: impl Iterator<Item = &'a Value>) -> Value {
    let mut total = 0_u64;
    for value in values {
        match value {
            Value::Measured(count) => total = total.saturating_add(*count),
            unknown => return unknown.clone(),
        }
    }
    Value::Measured(total)
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupt(name) => write!(f, "interrupts.{name}"),
            Self::Struck => f.write_str("interrupts.LOC+RES+CAL"),
            Self::Woken => f.write_str("interrupts.RES+CAL"),
            Self::Timeslices => f.write_str("timeslices"),
            Self::ForeignTimeslices => f.write_str("foreign_timeslices"),
            Self::InvoluntarySwitches => f.write_str("involuntary_switches"),
            Self::NrThrottled => f.write_str("nr_throttled"),
            Self::Drift(knob) => write!(f, "drift.{knob}"),
        }
    }
}
