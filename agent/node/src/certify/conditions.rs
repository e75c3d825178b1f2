//! Reads what must hold around a run. Only files whose reading interrupts nobody (quiet.md §4).

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use api::report::Report;
use cpulist::CpuSet;
use host::cgroup::ROOT;
use host::threads::{self, Binding};
use host::{Tree, counters};
use quiet::{Conditions, Frequency, IrqRoute, Switch, Thread, TickMode, Value};

use super::sampler::all_threads;

pub(super) const CPU: &str = "/sys/devices/system/cpu";
pub(super) const CLOCKSOURCE: &str =
    "/sys/devices/system/clocksource/clocksource0/current_clocksource";
pub(super) const RT_RUNTIME: &str = "/proc/sys/kernel/sched_rt_runtime_us";

/// How CPUs tick; `None`: some do and some do not.
pub(crate) fn tick_mode(tree: &dyn Tree, cpus: &CpuSet) -> Option<TickMode> {
    let tickless = tree.read(&format!("{CPU}/nohz_full")).unwrap_or_default();
    // without a list the file says `(null)`
    let tickless: CpuSet = tickless.trim().parse().unwrap_or_default();
    match cpus.intersection(&tickless) {
        none if none.is_empty() => Some(TickMode::Tick),
        all if all == *cpus => Some(TickMode::NohzFull),
        _ => None,
    }
}

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

    pub(super) fn text(&self, path: &str) -> Option<String> {
        Some(self.tree.read(path).ok()?.trim().to_owned())
    }

    pub(super) fn parsed<T: FromStr>(&self, path: &str) -> Option<T> {
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

    pub(super) fn partition_state(&self) -> Option<String> {
        self.text(&format!("{ROOT}/{}/cpuset.cpus.partition", self.partition))
    }

    /// The first that is a quota, of the container's cgroup and the claim's; a cgroup without the
    /// controller cannot have one.
    pub(super) fn cpu_max(&self) -> Option<String> {
        let all = [self.cgroup, self.partition]
            .map(|cgroup| self.text(&format!("{ROOT}/{cgroup}/cpu.max")));
        let quota = all.iter().flatten().find(|text| !text.starts_with("max"));
        quota.cloned().or_else(|| all.into_iter().flatten().next())
    }

    pub(super) fn fair_servers(&self) -> BTreeMap<u32, Value> {
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

    pub(super) fn siblings(&self) -> Option<CpuSet> {
        let online: CpuSet = self.parsed(&format!("{CPU}/online"))?;
        let mut all = CpuSet::new();
        for cpu in self.cpus.iter() {
            let path = format!("{CPU}/cpu{cpu}/topology/thread_siblings_list");
            all = all.union(&self.parsed(&path)?);
        }
        Some(all.intersection(&online).difference(self.cpus))
    }

    pub(super) fn frequencies(&self) -> BTreeMap<u32, Frequency> {
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

    pub(super) fn interrupts(&self, report: Option<&Report>) -> Option<Vec<IrqRoute>> {
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
            // the job's first process, before anybody has asked how it ended, is in no cgroup any more
            .filter(|tid| threads::runs(self.tree, *tid))
            .filter_map(|tid| {
                let kernel = threads::kernel_thread(self.tree, tid);
                let movable = kernel.is_none_or(|thread| thread.binding == Binding::Movable);
                let name = self.text(&format!("/proc/{tid}/comm"))?;
                movable.then_some(Thread { tid, name })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::fakes::FakeTree;

    #[test]
    fn who_has_ended_disturbs_nobody_and_who_has_not_is_named() {
        let tree = FakeTree::from_fixture(
            "\
/proc/7/task/7/stat = -
/proc/7/stat = 7 (sh) Z 1 7 7 0 -1 4227084 0
/proc/7/status = Cpus_allowed_list:\\t1\\n
/proc/7/comm = sh
/proc/8/task/8/stat = -
/proc/8/stat = 8 (stranger) S 1 8 8 0 -1 4194304 0
/proc/8/status = Cpus_allowed_list:\\t0-1\\n
/proc/8/comm = stranger
/proc/9/task/9/stat = -
/proc/9/stat = 9 (elsewhere) R 1 9 9 0 -1 4194304 0
/proc/9/status = Cpus_allowed_list:\\t0\\n
/proc/9/comm = elsewhere
",
        );
        let cpus = CpuSet::from_iter([1]);
        let place = Place {
            tree: &tree,
            cpus: &cpus,
            partition: "job",
            cgroup: "job/c",
        };
        let stranger = Thread {
            tid: 8,
            name: "stranger".into(),
        };
        assert_eq!(place.movable_threads(None), [stranger]);
    }
}
