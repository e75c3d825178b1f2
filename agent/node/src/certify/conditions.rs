//! Reads what must hold around a run, and notices what changes within it. Only files whose reading
//! interrupts nobody (quiet.md §4).

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use api::report::Report;
use cpulist::CpuSet;
use host::cgroup::ROOT;
use host::threads::{self, Binding};
use host::{Tree, counters};
use quiet::{Conditions, Drift, Frequency, IrqRoute, Switch, Thread, Value};
use stillmetal_tune::Plan;
use stillmetal_tune::apply::{Reach, drift};

use super::sampler::all_threads;

const CPU: &str = "/sys/devices/system/cpu";
const CLOCKSOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
const RT_RUNTIME: &str = "/proc/sys/kernel/sched_rt_runtime_us";

/// One run's place, as far as its conditions are concerned.
pub(crate) struct Place<'a> {
    pub(crate) tree: &'a dyn Tree,
    pub(crate) cpus: &'a CpuSet,
    /// The claim's cgroup, such as `stillmetal-TOKEN`.
    pub(crate) partition: &'a str,
    /// The container's, below it.
    pub(crate) cgroup: &'a str,
}

impl Place<'_> {
    /// All of it; dear, so not within a window. `report` is tuning's: what it could not move is
    /// known to be unmovable.
    pub(crate) fn conditions(&self, report: Option<&Report>) -> Conditions {
        Conditions {
            clocksource: self.text(CLOCKSOURCE),
            nohz_full: self.parsed(&format!("{CPU}/nohz_full")),
            boot_isolated: self.parsed(&format!("{CPU}/isolated")),
            partition: self.partition_state(),
            cpu_max: self.cpu_max(),
            fair_server_runtime_ns: self.fair_servers(),
            rt_runtime_us: self.parsed(RT_RUNTIME),
            siblings_online: self.siblings(),
            frequency: self.frequencies(),
            swap: self.swap(),
            irqs_on_job_cpus: self.interrupts(report),
            tsc_watchdog: self.tsc_watchdog(),
            movable_threads: Some(self.movable_threads(report)),
            drift: Vec::new(),
        }
    }

    fn text(&self, path: &str) -> Option<String> {
        Some(self.tree.read(path).ok()?.trim().to_owned())
    }

    fn parsed<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// A kernel without the file cannot swap.
    fn swap(&self) -> Option<Switch> {
        match self.tree.read("/proc/swaps") {
            Ok(table) if table.lines().nth(1).is_some() => Some(Switch::On),
            Ok(_) => Some(Switch::Off),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(Switch::Off),
            Err(_) => None,
        }
    }

    fn partition_state(&self) -> Option<String> {
        self.text(&format!("{ROOT}/{}/cpuset.cpus.partition", self.partition))
    }

    /// The first that is a quota, of the container's cgroup and the claim's; a cgroup without the
    /// controller cannot have one.
    fn cpu_max(&self) -> Option<String> {
        let all = [self.cgroup, self.partition]
            .map(|cgroup| self.text(&format!("{ROOT}/{cgroup}/cpu.max")));
        let quota = all.iter().flatten().find(|text| !text.starts_with("max"));
        quota.cloned().or_else(|| all.into_iter().flatten().next())
    }

    fn fair_servers(&self) -> BTreeMap<u32, Value> {
        let read = |cpu: u32| {
            let path = format!("/sys/kernel/debug/sched/fair_server/cpu{cpu}/runtime");
            match self.tree.read(&path) {
                Ok(text) => text.trim().parse().map_or_else(
                    |_| Value::unobservable("its file holds no number"),
                    Value::Measured,
                ),
                Err(error) if self.tree.exists("/sys/kernel/debug/sched") => match error.kind() {
                    std::io::ErrorKind::NotFound => Value::Absent,
                    _ => Value::unobservable(error.to_string()),
                },
                Err(_) => Value::unobservable("debugfs is not there to tell"),
            }
        };
        self.cpus.iter().map(|cpu| (cpu, read(cpu))).collect()
    }

    fn siblings(&self) -> Option<CpuSet> {
        let online: CpuSet = self.parsed(&format!("{CPU}/online"))?;
        let mut all = CpuSet::new();
        for cpu in self.cpus.iter() {
            let path = format!("{CPU}/cpu{cpu}/topology/thread_siblings_list");
            all = all.union(&self.parsed(&path)?);
        }
        Some(all.intersection(&online).difference(self.cpus))
    }

    fn frequencies(&self) -> BTreeMap<u32, Frequency> {
        let read = |cpu: u32| {
            let file = |name: &str| format!("{CPU}/cpu{cpu}/cpufreq/{name}");
            Some(Frequency {
                governor: self.text(&file("scaling_governor"))?,
                min_khz: self.parsed(&file("scaling_min_freq"))?,
                max_khz: self.parsed(&file("scaling_max_freq"))?,
            })
        };
        let all = self.cpus.iter();
        all.filter_map(|cpu| Some((cpu, read(cpu)?))).collect()
    }

    fn interrupts(&self, report: Option<&Report>) -> Option<Vec<IrqRoute>> {
        let table = counters::interrupts(self.tree).ok()?;
        let unmovable: BTreeSet<u32> = report
            .iter()
            .flat_map(|report| report.irqs_unmovable.iter().map(|irq| irq.irq))
            .collect();
        let strikes = |irq: u32| {
            let read = |file: &str| self.parsed::<CpuSet>(&format!("/proc/irq/{irq}/{file}"));
            // empty for an interrupt that is not started: then its affinity says where it would
            let effective = read("effective_affinity_list").filter(|cpus| !cpus.is_empty());
            effective
                .or_else(|| read("smp_affinity_list"))
                .is_some_and(|cpus| !cpus.is_disjoint(self.cpus))
        };
        let numbered = table
            .into_iter()
            .filter_map(|line| Some((line.name.parse::<u32>().ok()?, line.text)));
        Some(
            numbered
                .filter(|(irq, _)| strikes(*irq))
                .map(|(irq, text)| IrqRoute {
                    irq,
                    text,
                    movable: !unmovable.contains(&irq),
                })
                .collect(),
        )
    }

    fn tsc_watchdog(&self) -> Option<Switch> {
        let asked = self
            .text("/proc/cmdline")?
            .split_ascii_whitespace()
            .any(|word| matches!(word, "tsc=reliable" | "tsc=nowatchdog"));
        let flags = self
            .tree
            .read_up_to("/proc/cpuinfo", 16 << 20)
            .ok()?
            .lines()
            .find(|line| line.starts_with("flags"))?
            .to_owned();
        let stable = ["constant_tsc", "nonstop_tsc", "tsc_adjust"]
            .iter()
            .all(|flag| flags.split_ascii_whitespace().any(|word| word == *flag));
        Some(if asked || stable {
            Switch::Off
        } else {
            Switch::On
        })
    }

    fn movable_threads(&self, report: Option<&Report>) -> Vec<Thread> {
        let stuck: BTreeSet<u32> = report
            .iter()
            .flat_map(|report| report.kthreads_unmovable.iter().map(|thread| thread.tid))
            .collect();
        let own = super::sampler::tids_below(self.tree, self.partition);
        all_threads(self.tree)
            .into_iter()
            .filter(|tid| !own.contains(tid) && !stuck.contains(tid))
            .filter(|tid| {
                threads::allowed_cpus(self.tree, *tid)
                    .is_some_and(|allowed| !allowed.is_disjoint(self.cpus))
            })
            .filter_map(|tid| {
                let kernel = threads::kernel_thread(self.tree, tid);
                let movable = kernel.is_none_or(|thread| thread.binding == Binding::Movable);
                let name = self.text(&format!("/proc/{tid}/comm"))?;
                movable.then_some(Thread { tid, name })
            })
            .collect()
    }
}

/// Compares, now and then within a run, what can be read cheaply.
pub(crate) struct Guard<'a> {
    place: &'a Place<'a>,
    plan: Option<&'a Plan>,
    first: BTreeMap<String, String>,
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
            known: BTreeSet::new(),
            found: Vec::new(),
        };
        guard.known = guard
            .off_plan(0)
            .into_iter()
            .map(|drift| drift.knob)
            .collect();
        guard
    }

    /// Notes what is not as it was at the beginning, each knob once.
    pub(crate) fn look(&mut self) {
        let at_ns = super::raw_ns();
        let now = watched(self.place);
        let mut all = self.off_plan(at_ns);
        for (knob, was) in &self.first {
            let found = now.get(knob).map_or("gone", String::as_str);
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

    pub(crate) fn finish(mut self) -> Vec<Drift> {
        self.look();
        self.found
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
    put("sched_rt_runtime_us", place.text(RT_RUNTIME));
    for (cpu, frequency) in place.frequencies() {
        put(
            &format!("cpufreq of CPU {cpu}"),
            Some(format!("{frequency:?}")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use host::fakes::FakeTree;

    const GOVERNOR: &str = "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor";

    #[test]
    fn a_governor_that_is_flipped_while_the_job_runs_is_named_with_both_values() {
        let tree = FakeTree::from_fixture(
            "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor = performance\n\
             /sys/devices/system/cpu/cpu1/cpufreq/scaling_min_freq = 3000000\n\
             /sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq = 3000000\n",
        );
        let cpus = "1".parse().unwrap();
        let place = Place {
            tree: &tree,
            cpus: &cpus,
            partition: "stillmetal-t",
            cgroup: "stillmetal-t/c",
        };
        let before = place.conditions(None);
        let mut guard = Guard::new(&place, None);
        guard.look();
        assert_eq!(guard.found, [], "nothing has changed yet");
        tree.set(GOVERNOR, "powersave\n");
        guard.look();
        // put back before the end: the conditions after the run would not show it
        tree.set(GOVERNOR, "performance\n");
        let drift = guard.finish();
        assert_eq!(before.frequency, place.conditions(None).frequency);
        assert_eq!(drift.len(), 1, "{drift:?}");
        assert_eq!(drift[0].knob, "cpufreq of CPU 1");
        assert!(drift[0].was.contains("performance"), "{drift:?}");
        assert!(drift[0].found.contains("powersave"), "{drift:?}");
    }
}
