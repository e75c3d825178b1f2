//! Random machines.

use cpulist::CpuSet;
use proptest::prelude::*;
use stillmetal_tune::cell::Cell;
use stillmetal_tune::plan::Want;
use stillmetal_tune::restore::restore;
use stillmetal_tune::state::State;

use super::*;

/// What a machine is made from.
#[derive(Clone, Debug)]
struct Recipe {
    cores: u32,
    smt: bool,
    offline: Vec<u32>,
    nohz_full: Vec<u32>,
    boot_isolated: Vec<u32>,
    min_step: u64,
    max_step: u64,
    base_step: Option<u64>,
    governor: String,
    boost: Option<Vec<bool>>,
    irqs: Vec<(Vec<u32>, bool)>,
    threads: Vec<(Vec<u32>, bool)>,
    sysctls: Vec<(&'static str, i64)>,
    missing: Vec<prop::sample::Index>,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let cpus = || prop::collection::vec(0_u32..16, 0..8);
    let sysctls = [
        "kernel/sched_rt_runtime_us",
        "vm/stat_interval",
        "vm/swappiness",
        "kernel/nmi_watchdog",
        "kernel/soft_watchdog",
        "kernel/perf_cpu_time_max_percent",
        "kernel/perf_event_max_sample_rate",
    ];
    (
        (
            1_u32..8,
            any::<bool>(),
            prop::collection::vec(1_u32..16, 0..3),
            cpus(),
            cpus(),
        ),
        (0_u64..10, 0_u64..10, prop::option::of(0_u64..12)),
        prop::sample::select(vec!["powersave", "performance"]),
        prop::option::of(prop::collection::vec(any::<bool>(), 17)),
        prop::collection::vec((cpus(), any::<bool>()), 0..6),
        prop::collection::vec((cpus(), any::<bool>()), 0..4),
        prop::collection::vec((prop::sample::select(sysctls.to_vec()), 0_i64..3), 0..8),
        prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    )
        .prop_map(
            |(sets, steps, governor, boost, irqs, threads, sysctls, missing)| Recipe {
                cores: sets.0,
                smt: sets.1,
                offline: sets.2,
                nohz_full: sets.3,
                boot_isolated: sets.4,
                min_step: steps.0.min(steps.1),
                max_step: steps.0.max(steps.1),
                base_step: steps.2,
                governor: governor.to_owned(),
                boost,
                irqs,
                threads,
                sysctls,
                missing,
            },
        )
}

impl Recipe {
    fn cpus(&self) -> u32 {
        if self.smt { self.cores * 2 } else { self.cores }
    }

    /// Those of `cpus` that exist, CPU 0 if none does.
    fn list(&self, cpus: &[u32]) -> CpuSet {
        let set: CpuSet = cpus
            .iter()
            .copied()
            .filter(|cpu| *cpu < self.cpus())
            .collect();
        if set.is_empty() {
            [0].into_iter().collect()
        } else {
            set
        }
    }

    fn build(&self) -> FakeTree {
        let tree = FakeTree::new();
        let all: CpuSet = (0..self.cpus()).collect();
        let cpu = |path: &str, text: &str| tree.set(&format!("{CPU}/{path}"), text);
        cpu("online", &all.to_string());
        cpu("present", &all.to_string());
        cpu("nohz_full", &self.list(&self.nohz_full).to_string());
        cpu("isolated", &self.list(&self.boot_isolated).to_string());
        cpu("smt/control", if self.smt { "on" } else { "notsupported" });
        for number in all.iter() {
            let core: CpuSet = if self.smt {
                [number % self.cores, number % self.cores + self.cores]
                    .into_iter()
                    .collect()
            } else {
                [number].into_iter().collect()
            };
            cpu(
                &format!("cpu{number}/topology/thread_siblings_list"),
                &core.to_string(),
            );
            cpu(&format!("cpu{number}/cpuidle/state0/name"), "POLL");
            cpu(&format!("cpu{number}/cpuidle/state2/name"), "C6");
            cpu(&format!("cpu{number}/cpuidle/state2/disable"), "0");
            if number > 0 {
                cpu(&format!("cpu{number}/online"), "1");
            }
            let server = format!("/sys/kernel/debug/sched/fair_server/cpu{number}/runtime");
            tree.set(&server, "50000000");
            self.build_policy(&tree, number);
        }
        if let Some(boost) = &self.boost {
            cpu("cpufreq/boost", if boost[16] { "1" } else { "0" });
        }
        for (index, (cpus, fails)) in self.irqs.iter().enumerate() {
            let path = format!("/proc/irq/{index}/smp_affinity_list");
            tree.set(&path, &self.list(cpus).to_string());
            if *fails {
                tree.on_write(&path, host::fakes::OnWrite::Fail(nix::errno::Errno::EIO));
            }
        }
        for (index, (cpus, fixed)) in self.threads.iter().enumerate() {
            let tid = 100 + index;
            let flags = if *fixed { 0x0420_0000 } else { 0x0020_0000 };
            tree.set(
                &format!("/proc/{tid}/stat"),
                &format!("{tid} (k/{tid}) S 2 0 0 0 -1 {flags} 0"),
            );
            let list = self.list(cpus);
            tree.set(
                &format!("/proc/{tid}/status"),
                &format!("Cpus_allowed_list:\t{list}"),
            );
        }
        for (name, value) in &self.sysctls {
            tree.set(&format!("/proc/sys/{name}"), &value.to_string());
        }
        tree.set("/proc/irq/default_smp_affinity", &all.to_mask());
        tree.set("/sys/devices/virtual/workqueue/cpumask", &all.to_mask());
        let paths: Vec<String> = tree.snapshot().into_keys().collect();
        for index in &self.missing {
            tree.remove(index.get(&paths).as_str());
        }
        let tree = tree.with_rule(KernelRules::new());
        for number in &self.offline {
            // CPUs that do not exist are not there to go offline.
            drop(host::Tree::write(
                &tree,
                &format!("{CPU}/cpu{number}/online"),
                "0",
            ));
        }
        tree
    }

    fn build_policy(&self, tree: &FakeTree, number: u32) {
        let khz = |step: u64| (800_000 + step * 100_000).to_string();
        let mut files = vec![
            ("related_cpus", number.to_string()),
            ("scaling_driver", "intel_pstate".into()),
            ("scaling_governor", self.governor.clone()),
            (
                "scaling_available_governors",
                "performance powersave".into(),
            ),
            ("cpuinfo_min_freq", khz(0)),
            ("cpuinfo_max_freq", khz(9)),
            ("scaling_min_freq", khz(self.min_step)),
            ("scaling_max_freq", khz(self.max_step)),
        ];
        let preference = if self.governor == "performance" {
            "performance"
        } else {
            "balance_power"
        };
        files.push(("energy_performance_preference", preference.into()));
        if let Some(step) = self.base_step {
            files.push(("base_frequency", khz(step)));
        }
        if let Some(boost) = &self.boost {
            files.push((
                "boost",
                if boost[number as usize] { "1" } else { "0" }.into(),
            ));
        }
        for (file, text) in files {
            tree.set(&format!("{CPU}/cpufreq/policy{number}/{file}"), &text);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn plans_stay_within_the_online_cpus(recipe in recipe()) {
        let tree = recipe.build();
        let machine = topology::read(&tree);
        let plan = plan(&machine, &Options::default());
        prop_assert!(plan.isolated.is_subset(&machine.online));
        prop_assert!(plan.housekeeping.is_subset(&machine.online));
        prop_assert!(plan.isolated.is_disjoint(&plan.housekeeping));
        prop_assert!(machine.online.is_empty() || !plan.housekeeping.is_empty());
        for step in &plan.steps {
            match &step.want {
                Want::ListWithin { cpus, .. } | Want::MaskWithin(cpus) => {
                    prop_assert!(cpus.is_subset(&machine.online), "{step:?}");
                }
                _ => {}
            }
            if let Cell::File { path } = &step.cell
                && let Some(number) = path
                    .strip_prefix(&format!("{CPU}/cpu"))
                    .and_then(|rest| rest.split('/').next()?.parse().ok())
            {
                // A CPU that is offline is at most told to stay so.
                prop_assert!(
                    machine.online.contains(number) || path.ends_with("/online"),
                    "{step:?}"
                );
            }
        }
    }

    #[test]
    fn tuning_and_restoring_leaves_no_trace(recipe in recipe()) {
        let tree = recipe.build();
        let before = settings(&tree);
        let plan = plan(&topology::read(&tree), &Options::default());
        let state = State::of(&plan, &tree);
        let again = {
            let first = apply(&plan, &tree);
            let after = settings(&tree);
            let second = apply(&plan, &tree);
            prop_assert_eq!(difference(&settings(&tree), &after), Vec::<String>::new());
            drop(first);
            second
        };
        prop_assert!(again.report.knobs.iter().all(|knob| knob.status != Status::Verified));
        let result = restore(&state, &tree);
        prop_assert_eq!(&result.failed, &[]);
        prop_assert_eq!(difference(&settings(&tree), &before), Vec::<String>::new());
    }
}
