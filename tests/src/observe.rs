//! What happened on CPUs while a container ran, from the node's own counters.
//!
//! The counters are read five times a second from a housekeeping CPU, which costs the observed CPUs
//! nothing (quiet.md §4). Interrupts are differences between the first and the last reading in which
//! the container ran. A timeslice is *foreign* when the CPU was given to a task that is none of the
//! container's; it is only counted between two readings with the same set of threads, because the
//! timeslices of a thread that ended meanwhile are not known any more.

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
    /// `None`: never two readings with the same threads.
    pub foreign_timeslices: Option<u64>,
    pub involuntary_switches: Option<u64>,
    /// From the first to the last reading in which the container ran.
    pub window: Duration,
}

/// Readings of one container in the order of time, only those in which it ran.
#[must_use]
pub fn disturbance(readings: &[CountersSnapshot]) -> Option<Disturbance> {
    let (first, last) = (readings.first()?, readings.last()?);
    if first.taken_ns >= last.taken_ns {
        return None;
    }
    let mut sum = Disturbance {
        window: Duration::from_nanos(last.taken_ns - first.taken_ns),
        ..Disturbance::default()
    };
    for (cpu, counters) in &last.cpus {
        let Some(earlier) = first.cpus.get(cpu) else {
            continue;
        };
        let delta = counters.since(earlier);
        sum.timer += delta.timer;
        sum.other_interrupts += delta.other_interrupts();
        sum.softirqs += delta.softirqs_total();
    }
    for pair in readings.windows(2) {
        let (Some(before), Some(after)) = (&pair[0].threads, &pair[1].threads) else {
            continue;
        };
        let tids = |map: &std::collections::BTreeMap<u32, _>| -> BTreeSet<u32> {
            map.keys().copied().collect()
        };
        if tids(before) != tids(after) {
            continue;
        }
        let given: u64 = pair[1]
            .cpus
            .iter()
            .filter_map(|(cpu, c)| Some(c.since(pair[0].cpus.get(cpu)?).timeslices))
            .sum();
        let deltas = after.iter().map(|(tid, task)| task.since(&before[tid]));
        let (own, involuntary) = deltas.fold((0, 0), |(own, involuntary), task| {
            (
                own + task.timeslices,
                involuntary + task.involuntary_switches,
            )
        });
        *sum.foreign_timeslices.get_or_insert(0) += given.saturating_sub(own);
        *sum.involuntary_switches.get_or_insert(0) += involuntary;
    }
    Some(sum)
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

    /// Ends the reading. `None`: the container was never seen running twice.
    #[must_use]
    pub fn finish(self) -> Option<Disturbance> {
        self.stop.store(true, Ordering::Relaxed);
        disturbance(&self.thread.join().ok()?)
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
            timeslices,
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
            reading(2, (10, 105), &[(7, 53)]),
            // a thread came and its count is not comparable
            reading(3, (11, 200), &[(7, 54), (8, 9)]),
            reading(4, (12, 210), &[(7, 58), (8, 15)]),
        ];
        let found = disturbance(&readings).unwrap();
        assert_eq!((found.timer, found.window.as_secs()), (2, 3));
        assert_eq!(found.foreign_timeslices, Some(2));
    }

    #[test]
    fn one_reading_proves_nothing() {
        assert_eq!(disturbance(&[reading(1, (1, 1), &[(7, 1)])]), None);
        assert_eq!(disturbance(&[]), None);
    }
}
