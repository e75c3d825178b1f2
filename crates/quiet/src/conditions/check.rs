//! Conditions against what is required, and before against after.

use std::fmt::Debug;

use cpulist::CpuSet;

use crate::judge::Findings;
use crate::{Conditions, Switch, Value};

/// Finds what does not hold, before or after, and what changed in between.
pub(crate) fn check(
    job_cpus: &CpuSet,
    before: &Conditions,
    after: &Conditions,
    findings: &mut Findings,
) {
    for (when, conditions) in [("before", before), ("after", after)] {
        let mut check = Check {
            when,
            job_cpus,
            conditions,
            findings,
        };
        check.clock();
        check.cgroup();
        check.scheduler();
        check.company();
    }
    changes(before, after, findings);
}

struct Check<'a> {
    when: &'static str,
    job_cpus: &'a CpuSet,
    conditions: &'a Conditions,
    findings: &'a mut Findings,
}

impl Check<'_> {
    fn expect<T: Debug>(
        &mut self,
        code: &str,
        what: &str,
        found: Option<&T>,
        holds: impl FnOnce(&T) -> bool,
        needed: &str,
    ) {
        let when = self.when;
        match found {
            None => self.findings.unproven(
                code,
                format!("{what} could not be read {when} the run; needed: {needed}"),
            ),
            Some(found) if !holds(found) => self.findings.noise(
                code,
                format!("{what} was {found:?} {when} the run; needed: {needed}"),
            ),
            Some(_) => {}
        }
    }

    fn clock(&mut self) {
        let conditions = self.conditions;
        self.expect(
            "clocksource",
            "the clock source",
            conditions.clocksource.as_ref(),
            |found| found == "tsc",
            "tsc, as the tick never stops on any other",
        );
        self.expect(
            "tsc_watchdog",
            "the watchdog of the TSC",
            conditions.tsc_watchdog.as_ref(),
            |found| *found == Switch::Off,
            "off (tsc=reliable), as it visits every CPU twice a second",
        );
        let job_cpus = self.job_cpus;
        self.expect(
            "nohz_full",
            "the set of tickless CPUs",
            conditions
                .nohz_full
                .as_ref()
                .map(CpuSet::to_string)
                .as_ref(),
            |_| {
                conditions
                    .nohz_full
                    .as_ref()
                    .is_some_and(|tickless| job_cpus.is_subset(tickless))
            },
            "the job's CPUs in it (nohz_full=)",
        );
    }

    fn cgroup(&mut self) {
        let conditions = self.conditions;
        let wanted = if self.job_cpus.len() == 1 {
            "isolated"
        } else {
            "root"
        };
        let boot_isolated = conditions
            .boot_isolated
            .as_ref()
            .is_some_and(|isolated| self.job_cpus.is_subset(isolated));
        self.expect(
            "partition",
            "the cpuset partition",
            conditions.partition.as_ref(),
            |found| found == wanted || (found == "member" && boot_isolated),
            &format!("{wanted}, or member on CPUs isolated at boot"),
        );
        self.expect(
            "cpu_max",
            "cpu.max",
            conditions.cpu_max.as_ref(),
            |found| found.split_ascii_whitespace().next() == Some("max"),
            "max, as any quota keeps the tick on the CPU",
        );
    }

    fn scheduler(&mut self) {
        let conditions = self.conditions;
        self.expect(
            "rt_runtime",
            "sched_rt_runtime_us",
            conditions.rt_runtime_us.as_ref(),
            |found| *found == -1,
            "-1, as the fair server cannot be turned off otherwise",
        );
        for cpu in self.job_cpus.iter() {
            let found = match conditions.fair_server_runtime_ns.get(&cpu) {
                Some(Value::Absent) => continue,
                Some(Value::Measured(runtime)) => Some(runtime),
                Some(Value::Unobservable { .. }) | None => None,
            };
            self.expect(
                "fair_server",
                &format!("the fair server's runtime on CPU {cpu}, ns,"),
                found,
                |found| *found == 0,
                "0, as it brings the tick back once a second",
            );
        }
    }

    /// What else is on the job's CPUs.
    fn company(&mut self) {
        let conditions = self.conditions;
        self.expect(
            "siblings_online",
            "the set of online CPUs that share a core with the job",
            conditions
                .siblings_online
                .as_ref()
                .map(CpuSet::to_string)
                .as_ref(),
            String::is_empty,
            "none",
        );
        let irqs = conditions.irqs_on_job_cpus.as_ref().map(|irqs| {
            let movable = irqs.iter().filter(|irq| irq.movable);
            movable
                .map(|irq| format!("{} ({})", irq.irq, irq.text))
                .collect::<Vec<_>>()
        });
        self.expect(
            "irqs_on_job_cpus",
            "the list of movable interrupts on the job's CPUs",
            irqs.as_ref(),
            Vec::is_empty,
            "none",
        );
        let threads = conditions.movable_threads.as_ref().map(|threads| {
            let names = threads.iter();
            names
                .map(|thread| format!("{} ({})", thread.name, thread.tid))
                .collect::<Vec<_>>()
        });
        self.expect(
            "movable_threads",
            "the list of other threads that may run on the job's CPUs and could be moved",
            threads.as_ref(),
            Vec::is_empty,
            "none",
        );
        for drift in &conditions.drift {
            self.findings.noise(
                "drift",
                format!(
                    "{} was found changed from {:?} to {:?} at {} ns; needed: no change",
                    drift.knob, drift.was, drift.found, drift.at_ns
                ),
            );
        }
    }
}

/// What need not have a certain value, but the same one before and after.
fn changes(before: &Conditions, after: &Conditions, findings: &mut Findings) {
    findings.same("swap", "swap", before.swap.as_ref(), after.swap.as_ref());
    findings.same(
        "frequency",
        "the choice of frequency",
        Some(&before.frequency),
        Some(&after.frequency),
    );
    findings.same(
        "boot_isolated",
        "the set of CPUs isolated at boot",
        before.boot_isolated.as_ref(),
        after.boot_isolated.as_ref(),
    );
    findings.same(
        "partition",
        "the cpuset partition",
        before.partition.as_ref(),
        after.partition.as_ref(),
    );
    findings.same(
        "nohz_full",
        "the set of tickless CPUs",
        before.nohz_full.as_ref(),
        after.nohz_full.as_ref(),
    );
    findings.same(
        "irqs_on_job_cpus",
        "the list of interrupts on the job's CPUs",
        before.irqs_on_job_cpus.as_ref(),
        after.irqs_on_job_cpus.as_ref(),
    );
}

impl Findings {
    fn same<T: PartialEq + Debug>(
        &mut self,
        code: &str,
        what: &str,
        before: Option<&T>,
        after: Option<&T>,
    ) {
        match before.zip(after) {
            Some((before, after)) if before != after => self.noise(
                code,
                format!(
                    "{what} changed from {before:?} to {after:?} during the run; needed: no change"
                ),
            ),
            Some(_) => {}
            None => self.unproven(
                code,
                format!("{what} could not be read before and after the run; needed: no change"),
            ),
        }
    }
}
