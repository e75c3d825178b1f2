//! Whose the timeslices were: the job's, another's, or nobody can tell.
//!
//! The kernel counts a timeslice of the CPU and one of the thread at the same place
//! (`sched_info_arrive()` in `kernel/sched/stats.h`), the idle thread not included. What the CPUs
//! gained and the job's threads did not is therefore another's.

use std::collections::BTreeMap;

use crate::snapshot::TaskCounts;
use crate::{ResidentRan, Snapshot, Value, Window};

/// Residents that are kept by name; what more run are added up under one name.
const MAX_RESIDENTS: usize = 1024;

#[derive(Debug)]
pub(super) struct Share {
    threads: u64,
    /// Sum of `CPUs' - job's` over the attributable steps. Files are read one after another, so that
    /// one step may come out below zero and the next above; only the sum counts.
    residual: i128,
    unattributable_steps: u64,
    unattributed: u64,
    /// Why the sums above are worth nothing.
    broken: Option<Value>,
    run_ns: Value,
    voluntary: Value,
    involuntary: Value,
    /// By tid and start.
    residents: BTreeMap<(u32, u64), (String, u64)>,
    residents_more: u64,
}

impl Share {
    pub(super) fn new(first: &Snapshot) -> Self {
        Self {
            threads: count(first.tasks.len()),
            residual: 0,
            unattributable_steps: 0,
            unattributed: 0,
            broken: None,
            run_ns: Value::Measured(0),
            voluntary: Value::Measured(0),
            involuntary: Value::Measured(0),
            residents: BTreeMap::new(),
            residents_more: 0,
        }
    }

    pub(super) fn advance(&mut self, then: &Snapshot, now: &Snapshot) {
        let mut births = 0_u64;
        let mut job = 0_u64;
        for (tid, task) in &now.tasks {
            let before = then
                .tasks
                .get(tid)
                .filter(|before| before.start_ticks == task.start_ticks);
            births = births.saturating_add(u64::from(before.is_none()));
            let before = before.copied().unwrap_or_default();
            job = job.saturating_add(self.advance_task(&before, task));
        }
        self.threads = self.threads.saturating_add(births);
        self.advance_residents(then, now);
        let cpus = match cpu_timeslices(then, now) {
            Ok(cpus) => cpus,
            Err(why) => {
                self.broken.get_or_insert(why);
                return;
            }
        };
        let residual = i128::from(cpus) - i128::from(job);
        let vanished = then.tasks.iter().any(|(tid, task)| {
            now.tasks
                .get(tid)
                .is_none_or(|later| later.start_ticks != task.start_ticks)
        });
        // A thread that began and ended within the step was never seen. If any was made that is not
        // among the births, the surplus may be the job's own.
        let forks = then.system.forks.zip(now.system.forks);
        let unseen = forks.is_some_and(|(then, now)| now.saturating_sub(then) > births);
        if vanished || (unseen && residual > 0) {
            self.unattributable_steps = self.unattributable_steps.saturating_add(1);
            self.unattributed = self.unattributed.saturating_add(cpus);
        } else {
            self.residual = self.residual.saturating_add(residual);
        }
    }

    /// The timeslices that a thread got.
    fn advance_task(&mut self, then: &TaskCounts, now: &TaskCounts) -> u64 {
        self.run_ns.advance(Some(then.run_ns), Some(now.run_ns));
        self.voluntary
            .advance(Some(then.voluntary_switches), Some(now.voluntary_switches));
        self.involuntary.advance(
            Some(then.involuntary_switches),
            Some(now.involuntary_switches),
        );
        now.timeslices
            .checked_sub(then.timeslices)
            .unwrap_or_else(|| {
                self.broken.get_or_insert_with(|| {
                    Value::unobservable("the timeslices of a job thread went backwards")
                });
                0
            })
    }

    fn advance_residents(&mut self, then: &Snapshot, now: &Snapshot) {
        for (tid, resident) in &now.residents {
            let before = then
                .residents
                .get(tid)
                .filter(|before| before.start_ticks == resident.start_ticks)
                .map_or(0, |before| before.timeslices);
            let ran = resident.timeslices.saturating_sub(before);
            if ran == 0 {
                continue;
            }
            let key = (*tid, resident.start_ticks);
            let known = self.residents.contains_key(&key);
            let sum = if known || self.residents.len() < MAX_RESIDENTS {
                let entry = self.residents.entry(key).or_default();
                entry.0.clone_from(&resident.name);
                &mut entry.1
            } else {
                &mut self.residents_more
            };
            *sum = sum.saturating_add(ran);
        }
    }

    pub(super) fn finish(self, window: &mut Window) {
        window.threads = self.threads;
        window.run_ns = self.run_ns;
        window.voluntary_switches = self.voluntary;
        window.involuntary_switches = self.involuntary;
        window.unattributable_steps = self.unattributable_steps;
        window.foreign_timeslices = self.broken.clone().unwrap_or_else(|| {
            u64::try_from(self.residual).map_or_else(
                |_| {
                    Value::unobservable(
                        "the job's threads were given more timeslices than its CPUs gave",
                    )
                },
                Value::Measured,
            )
        });
        window.unattributed_timeslices = self.broken.unwrap_or(Value::Measured(self.unattributed));
        window.residents = self
            .residents
            .into_iter()
            .map(|((tid, _), (name, timeslices))| ResidentRan {
                tid,
                name,
                timeslices,
            })
            .collect();
        if self.residents_more > 0 {
            window.residents.push(ResidentRan {
                tid: 0,
                name: "others".to_owned(),
                timeslices: self.residents_more,
            });
        }
    }
}

/// What all job CPUs gave in one step, or why that is not known.
fn cpu_timeslices(then: &Snapshot, now: &Snapshot) -> Result<u64, Value> {
    if then.cpus.keys().ne(now.cpus.keys()) || now.cpus.is_empty() {
        return Err(Value::unobservable("a CPU is missing in a snapshot"));
    }
    let all = || then.cpus.values().zip(now.cpus.values());
    if all().all(|(then, now)| then.timeslices.is_none() && now.timeslices.is_none()) {
        return Err(Value::Absent);
    }
    all().try_fold(0_u64, |sum, (then, now)| {
        let (then, now) = then
            .timeslices
            .zip(now.timeslices)
            .ok_or_else(|| Value::unobservable("a CPU has no timeslices in a snapshot"))?;
        let gained = now
            .checked_sub(then)
            .ok_or_else(|| Value::unobservable("the timeslices of a CPU went backwards"))?;
        Ok(sum.saturating_add(gained))
    })
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
