//! What happened on CPUs while a container ran, from the node's own counters.
//!
//! The counters are read five times a second from a housekeeping CPU, which costs the observed CPUs
//! nothing (quiet.md §4). Two windows are told apart: the container's whole life, in which it also
//! starts and ends (with ticks of its own making, as long as several of its tasks want the CPU), and
//! the time *at work*: the longest stretch in which its threads stay the same. Only there can
//! timeslices be attributed, because those of a thread that ended are not known any more; one is
//! *foreign* when the CPU was given to a task that is none of the container's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use api::node::CountersSnapshot;
use testkit::ApiClient;

const PERIOD: Duration = Duration::from_millis(200);

/// Disturbances on the observed CPUs, added up over them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// `LOC`.
    pub timer: u64,
    /// Every other interrupt.
    pub other_interrupts: u64,
    pub softirqs: u64,
    /// `None`: the kernel does not count them.
    pub foreign_timeslices: Option<u64>,
    pub involuntary_switches: u64,
    /// From the first to the last reading of the window.
    pub window: Duration,
}

/// What was seen of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Timer interrupts over its whole life.
    pub timer_in_life: u64,
    /// While its threads stayed the same.
    pub at_work: Disturbance,
}

/// From readings of one container in the order of time, only those in which it ran. `None`: it was
/// never read twice with the same threads.
#[must_use]
pub fn seen(readings: &[CountersSnapshot]) -> Option<Seen> {
    let life = disturbance(readings.first()?, readings.last()?);
    let tids = |reading: &CountersSnapshot| -> BTreeSet<u32> {
        reading
            .threads
            .iter()
            .flat_map(|threads| threads.keys().copied())
            .collect()
    };
    let longest = readings
        .chunk_by(|before, after| tids(before) == tids(after))
        .max_by_key(|stretch| match stretch {
            [first, .., last] => last.taken_ns - first.taken_ns,
            _ => 0,
        })?;
    let [first, .., last] = longest else {
        return None;
    };
    Some(Seen {
        timer_in_life: life.timer,
        at_work: disturbance(first, last),
    })
}

fn disturbance(first: &CountersSnapshot, last: &CountersSnapshot) -> Disturbance {
    let mut sum = Disturbance {
        window: Duration::from_nanos(last.taken_ns - first.taken_ns),
        ..Disturbance::default()
    };
    let mut given = Some(0);
    for (cpu, counters) in &last.cpus {
        let Some(earlier) = first.cpus.get(cpu) else {
            continue;
        };
        let delta = counters.since(earlier);
        sum.timer += delta.timer;
        sum.other_interrupts += delta.other_interrupts();
        sum.softirqs += delta.softirqs_total();
        given = given.zip(delta.timeslices).map(|(sum, more)| sum + more);
    }
    let mut own = 0;
    for (tid, task) in last.threads.iter().flatten() {
        let Some(earlier) = first
            .threads
            .iter()
            .flatten()
            .find(|(other, _)| *other == tid)
        else {
            continue;
        };
        let delta = task.since(earlier.1);
        own += delta.timeslices;
        sum.involuntary_switches += delta.involuntary_switches;
    }
    sum.foreign_timeslices = given.map(|given: u64| given.saturating_sub(own));
    sum
}

/// Reads in the background until it is asked for the result.
#[derive(Debug)]
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<CountersSnapshot>>,
}

impl Observer {
    /// Starts reading; the container need not exist yet.
    #[must_use]
    pub fn start(api: ApiClient, cpus: &str, container: &str) -> Self {
        let path = format!("/stillmetal/v1/counters?cpus={cpus}&container={container}");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut readings = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(reading) = read(&api, &path)
                    && reading
                        .threads
                        .as_ref()
                        .is_some_and(|threads| !threads.is_empty())
                {
                    readings.push(reading);
                }
                // the period of sampling, not a wait for anything
                std::thread::sleep(PERIOD);
            }
            readings
        });
        Self { stop, thread }
    }

    /// Ends the reading. `None`: too little was seen, see [`seen`].
    #[must_use]
    pub fn finish(self) -> Option<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        seen(&self.thread.join().ok()?)
    }
}

/// One reading.
///
/// # Errors
/// When the node does not answer, or answers something else.
pub fn read(api: &ApiClient, path: &str) -> anyhow::Result<CountersSnapshot> {
    let answer = api.get(path)?;
    serde_json::from_slice(&answer.body)
        .with_context(|| format!("GET {path} answered {}: {}", answer.status, answer.text()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::counters::{CpuCounters, TaskCounters};
    use std::collections::BTreeMap;

    fn reading(second: u64, cpu: (u64, u64), threads: &[(u32, u64)]) -> CountersSnapshot {
        let (timer, timeslices) = cpu;
        let counters = CpuCounters {
            timer,
            timeslices: Some(timeslices),
            ..CpuCounters::default()
        };
        let task = |timeslices| TaskCounters {
            timeslices,
            ..TaskCounters::default()
        };
        CountersSnapshot {
            taken_ns: second * 1_000_000_000,
            cpus: BTreeMap::from([(1, counters)]),
            threads: Some(
                threads
                    .iter()
                    .map(|(tid, slices)| (*tid, task(*slices)))
                    .collect(),
            ),
        }
    }

    #[test]
    fn timeslices_of_others_are_told_from_the_containers_own() {
        let readings = [
            reading(1, (10, 100), &[(7, 50)]),
            // a thread came: its count is not comparable with the one before
            reading(2, (60, 200), &[(7, 54), (8, 9)]),
            reading(4, (61, 210), &[(7, 58), (8, 15)]),
            reading(6, (61, 212), &[(7, 58), (8, 15)]),
            reading(7, (70, 300), &[(7, 70)]),
        ];
        let seen = seen(&readings).unwrap();
        assert_eq!(seen.timer_in_life, 60);
        let at_work = seen.at_work;
        assert_eq!((at_work.timer, at_work.window.as_secs()), (1, 4));
        assert_eq!(at_work.foreign_timeslices, Some(2));
    }

    #[test]
    fn one_reading_proves_nothing() {
        assert_eq!(seen(&[reading(1, (1, 1), &[(7, 1)])]), None);
        assert_eq!(seen(&[]), None);
    }
}
