//! Notices what changes while a run goes on.

use std::collections::{BTreeMap, BTreeSet};

use host::cgroup::ROOT;
use quiet::{Drift, Frequency};
use stillmetal_tune::Plan;
use stillmetal_tune::apply::{Reach, drift};

use super::conditions::{CLOCKSOURCE, CPU, Place, RT_RUNTIME};

/// A server has a thousand interrupts, so where they go is looked at in each fifth look only; what
/// strikes in between is counted anyway.
const ROUTES_EVERY: u32 = 5;
/// Of the container's own cgroup, which goes when it ends: a paused job, and limits that make it wait
/// for memory.
const OWN: [&str; 3] = ["cgroup.freeze", "memory.high", "memory.max"];
const ROUTES: &str = "interrupts routed to the job's CPUs";

/// Compares, now and then within a run, what can be read cheaply.
pub(crate) struct Guard<'a> {
    place: &'a Place<'a>,
    plan: Option<&'a Plan>,
    first: BTreeMap<String, String>,
    looks: u32,
    /// Knobs of the plan that were not as planned at the beginning already.
    known: BTreeSet<String>,
    found: Vec<Drift>,
}

impl<'a> Guard<'a> {
    pub(crate) fn new(place: &'a Place<'a>, plan: Option<&'a Plan>) -> Self {
        let mut guard = Self {
            place,
            plan,
            first: watched(place),
            looks: 0,
            known: BTreeSet::new(),
            found: Vec::new(),
        };
        if let Some(routes) = routes(place) {
            guard.first.insert(ROUTES.to_owned(), routes);
        }
        guard.known = guard
            .off_plan(0)
            .into_iter()
            .map(|drift| drift.knob)
            .collect();
        guard
    }

    /// Notes what is not as it was at the beginning, each knob once.
    pub(crate) fn look(&mut self) {
        self.looks = self.looks.wrapping_add(1);
        self.compare(self.looks.is_multiple_of(ROUTES_EVERY));
    }

    pub(crate) fn finish(mut self) -> Vec<Drift> {
        self.compare(true);
        self.found
    }

    fn compare(&mut self, routes_too: bool) {
        let at_ns = super::raw_ns();
        let mut now = watched(self.place);
        let known = self.first.get(ROUTES).cloned();
        if let Some(routes) = if routes_too {
            routes(self.place)
        } else {
            known
        } {
            now.insert(ROUTES.to_owned(), routes);
        }
        let mut all = self.off_plan(at_ns);
        for (knob, was) in &self.first {
            let found = match now.get(knob) {
                Some(found) => found,
                // the job has ended
                None if OWN.contains(&knob.as_str()) => continue,
                None => "gone",
            };
            if found != was {
                all.push(Drift {
                    at_ns,
                    knob: knob.clone(),
                    was: was.clone(),
                    found: found.to_owned(),
                });
            }
        }
        for drift in all {
            if !self.known.contains(&drift.knob) {
                self.known.insert(drift.knob.clone());
                self.found.push(drift);
            }
        }
    }

    fn off_plan(&self, at_ns: u64) -> Vec<Drift> {
        let Some(plan) = self.plan else {
            return Vec::new();
        };
        drift(plan, self.place.tree, Reach::Undisturbing, at_ns)
            .into_iter()
            .map(|drift| Drift {
                at_ns,
                knob: drift.path,
                was: drift.wanted,
                found: drift.found,
            })
            .collect()
    }
}

/// Knob → value, of what no plan of tuning holds.
fn watched(place: &Place<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |knob: &str, value: Option<String>| {
        if let Some(value) = value {
            all.insert(knob.to_owned(), value);
        }
    };
    put("clocksource", place.text(CLOCKSOURCE));
    put("cpuset.cpus.partition", place.partition_state());
    put(
        "cpuset.cpus.effective",
        place.text(&format!("{ROOT}/{}/cpuset.cpus.effective", place.partition)),
    );
    put("cpu.max", place.cpu_max());
    for file in OWN {
        put(file, place.text(&format!("{ROOT}/{}/{file}", place.cgroup)));
    }
    put("sched_rt_runtime_us", place.text(RT_RUNTIME));
    put("smt/control", place.text(&format!("{CPU}/smt/control")));
    put(
        "siblings online",
        place.siblings().map(|siblings| siblings.to_string()),
    );
    for (cpu, frequency) in place.frequencies() {
        let Frequency {
            governor,
            min_khz,
            max_khz,
        } = frequency;
        put(
            &format!("cpufreq of CPU {cpu}"),
            Some(format!("{governor}, {min_khz} to {max_khz} kHz")),
        );
    }
    for (cpu, runtime) in place.fair_servers() {
        put(
            &format!("fair server of CPU {cpu}"),
            runtime.measured().map(|ns| ns.to_string()),
        );
    }
    all
}

/// Which interrupts may strike the job's CPUs.
fn routes(place: &Place<'_>) -> Option<String> {
    let routes = place.interrupts(None)?;
    let all: Vec<String> = routes
        .iter()
        .map(|route| format!("{} {}", route.irq, route.text.trim()))
        .collect();
    Some(if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpulist::CpuSet;
    use host::fakes::FakeTree;

    const NODE: &str = "\
/sys/devices/system/clocksource/clocksource0/current_clocksource = tsc
/sys/devices/system/cpu/online = 0-1
/sys/devices/system/cpu/smt/control = off
/sys/devices/system/cpu/cpu1/topology/thread_siblings_list = 1
/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor = performance
/sys/devices/system/cpu/cpu1/cpufreq/scaling_min_freq = 2000000
/sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq = 2000000
/sys/fs/cgroup/job/cpuset.cpus.partition = isolated
/sys/fs/cgroup/job/cpuset.cpus.effective = 1
/sys/fs/cgroup/job/c/cpu.max = max 100000
/sys/fs/cgroup/job/c/cgroup.freeze = 0
/sys/fs/cgroup/job/c/memory.high = max
/sys/kernel/debug/sched/fair_server/cpu1/runtime = 0
/proc/sys/kernel/sched_rt_runtime_us = -1
/proc/interrupts =            CPU0       CPU1\\n 24:   7   0   PCI-MSI eth0\\n
/proc/irq/24/effective_affinity_list = 0
/proc/irq/24/smp_affinity_list = 0
";

    #[test]
    fn the_end_of_the_job_is_no_drift() {
        let tree = FakeTree::from_fixture(NODE);
        let cpus = CpuSet::from_iter([1]);
        let place = Place {
            tree: &tree,
            cpus: &cpus,
            partition: "job",
            cgroup: "job/c",
        };
        tree.set("/sys/fs/cgroup/job/cpu.max", "max 100000");
        let guard = Guard::new(&place, None);
        tree.remove("/sys/fs/cgroup/job/c");
        assert_eq!(guard.finish(), []);
    }

    #[test]
    fn each_knob_that_changes_is_named_with_both_values_and_once() {
        for (path, value, knob, was, found) in [
            (
                "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
                "powersave",
                "cpufreq of CPU 1",
                "performance, 2000000 to 2000000 kHz",
                "powersave, 2000000 to 2000000 kHz",
            ),
            (
                "/sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq",
                "3000000",
                "cpufreq of CPU 1",
                "performance, 2000000 to 2000000 kHz",
                "performance, 2000000 to 3000000 kHz",
            ),
            (
                "/sys/devices/system/clocksource/clocksource0/current_clocksource",
                "hpet",
                "clocksource",
                "tsc",
                "hpet",
            ),
            (
                "/sys/devices/system/cpu/smt/control",
                "on",
                "smt/control",
                "off",
                "on",
            ),
            (
                "/sys/fs/cgroup/job/cpuset.cpus.partition",
                "member",
                "cpuset.cpus.partition",
                "isolated",
                "member",
            ),
            (
                "/sys/fs/cgroup/job/c/cpu.max",
                "50000 100000",
                "cpu.max",
                "max 100000",
                "50000 100000",
            ),
            (
                "/sys/fs/cgroup/job/c/cgroup.freeze",
                "1",
                "cgroup.freeze",
                "0",
                "1",
            ),
            (
                "/sys/fs/cgroup/job/c/memory.high",
                "4096",
                "memory.high",
                "max",
                "4096",
            ),
            (
                "/sys/kernel/debug/sched/fair_server/cpu1/runtime",
                "50000000",
                "fair server of CPU 1",
                "0",
                "50000000",
            ),
            (
                "/proc/sys/kernel/sched_rt_runtime_us",
                "950000",
                "sched_rt_runtime_us",
                "-1",
                "950000",
            ),
            (
                "/proc/irq/24/effective_affinity_list",
                "1",
                ROUTES,
                "none",
                "24 PCI-MSI eth0",
            ),
        ] {
            let tree = FakeTree::from_fixture(NODE);
            let cpus = CpuSet::from_iter([1]);
            let place = Place {
                tree: &tree,
                cpus: &cpus,
                partition: "job",
                cgroup: "job/c",
            };
            assert_eq!(Guard::new(&place, None).finish(), []);
            let mut guard = Guard::new(&place, None);
            tree.set(path, value);
            for _ in 0..2 * ROUTES_EVERY {
                guard.look();
            }
            let drifts = guard.finish();
            assert_eq!(drifts.len(), 1, "{path}: {drifts:?}");
            let drift = &drifts[0];
            assert_eq!(
                (
                    drift.knob.as_str(),
                    drift.was.as_str(),
                    drift.found.as_str()
                ),
                (knob, was, found)
            );
            assert!(drift.at_ns > 0);
        }
    }
}
