//! One test a machine.

use super::*;

#[test]
fn intel_with_hwp_and_smt() {
    let tree = machine(INTEL);
    let applied = tune(&tree);
    let report = &applied.report;
    assert_eq!(report.unfit(), None);
    assert_eq!(report.cpus.isolated.to_string(), "1-3");
    assert_eq!(report.cpus.housekeeping.to_string(), "0");
    assert_eq!(report.cpus.offlined_siblings.to_string(), "4-7");
    assert_eq!(warnings(report), [] as [&str; 0]);
    assert_eq!(tree.get(&format!("{CPU}/smt/control")).unwrap(), "off");
    assert_eq!(tree.get(&format!("{CPU}/online")).unwrap(), "0-3");
    assert_eq!(status(report, "smt.control"), Status::Verified);

    for cpu in 0..4 {
        let policy = format!("{CPU}/cpufreq/policy{cpu}");
        for (file, value) in [
            ("scaling_governor", "performance"),
            ("energy_performance_preference", "performance"),
            ("scaling_min_freq", "2600000"),
            ("scaling_max_freq", "2600000"),
        ] {
            assert_eq!(
                tree.get(&format!("{policy}/{file}")).unwrap(),
                value,
                "{policy}/{file}"
            );
        }
        assert_eq!(
            tree.get(&format!("{CPU}/cpu{cpu}/power/energy_perf_bias"))
                .unwrap(),
            "0"
        );
    }
    assert_eq!(status(report, "intel_pstate.no_turbo"), Status::Verified);
    assert_eq!(status(report, "cpufreq.boost"), Status::NotApplicable);
    assert_eq!(
        knob(report, "intel_pstate.status").after.as_deref(),
        Some("active")
    );
    for cpu in 0..8 {
        let runtime = format!("/sys/kernel/debug/sched/fair_server/cpu{cpu}/runtime");
        assert_eq!(tree.get(&runtime).unwrap(), "0");
    }
    assert_eq!(
        status(report, "kernel.sched_rt_runtime_us"),
        Status::Verified
    );

    let state = |cpu: u32, index: u32| {
        tree.get(&format!("{CPU}/cpu{cpu}/cpuidle/state{index}/disable"))
            .unwrap()
    };
    assert_eq!(
        [0, 1, 2, 3].map(|index| state(1, index)),
        ["0", "0", "1", "1"]
    );
    assert_eq!(state(0, 3), "0", "housekeeping CPUs may sleep");
    assert_eq!(status(report, "cpu_dma_latency"), Status::Verified);
    assert_eq!(tree.held().len(), 1);

    assert_eq!(tree.get("/proc/irq/24/smp_affinity_list").unwrap(), "0");
    assert_eq!(status(report, "irq.25"), Status::Unchanged);
    assert_eq!(status(report, "irq.3"), Status::Refused);
    let irq = &report.irqs_unmovable[0];
    assert_eq!(
        (irq.irq, irq.name.as_str(), irq.effective.as_str()),
        (3, "PCI-MSI nvme0q1", "5")
    );
    assert!(irq.reason.contains("os error 5"), "{}", irq.reason);
    assert_eq!(tree.get("/proc/irq/default_smp_affinity").unwrap(), "1");
    assert_eq!(
        tree.get("/sys/class/net/eth0/queues/tx-0/xps_cpus")
            .unwrap(),
        "1"
    );
    assert_eq!(status(report, "net.eth0/rx-0"), Status::Unchanged);
    assert_eq!(
        status(report, "transparent_hugepage.enabled"),
        Status::Recorded
    );
    assert_eq!(
        status(report, "transparent_hugepage.defrag"),
        Status::NotApplicable
    );
    assert_eq!(status(report, "kernel.watchdog"), Status::Verified);

    assert_eq!(status(report, "kthread.kswapd0"), Status::Verified);
    let threads: Vec<&str> = report
        .kthreads_unmovable
        .iter()
        .map(|thread| thread.name.as_str())
        .collect();
    assert_eq!(threads, ["kworker/R-xfs)"]);
    assert!(
        tree.get("/proc/1/status").unwrap().contains("0-7"),
        "user tasks are left alone"
    );
    drop(applied);
    assert!(tree.held().is_empty());
}

#[test]
fn amd_with_boost_and_two_sockets() {
    let tree = machine(AMD);
    let report = tune(&tree).report;
    assert_eq!(report.unfit(), None);
    assert_eq!(tree.get(&format!("{CPU}/cpufreq/boost")).unwrap(), "0");
    assert_eq!(status(&report, "cpufreq.boost"), Status::Verified);
    assert_eq!(status(&report, "policy0.boost"), Status::Verified);
    assert_eq!(status(&report, "policy3.boost"), Status::Unchanged);
    assert_eq!(
        tree.get(&format!("{CPU}/cpufreq/policy1/scaling_min_freq"))
            .unwrap(),
        "3800000"
    );
    assert_eq!(
        tree.get(&format!("{CPU}/cpufreq/policy1/scaling_max_freq"))
            .unwrap(),
        "3800000"
    );
    assert!(
        knob(&report, "policy1.scaling_min_freq")
            .why
            .contains("nominal")
    );
    assert_eq!(
        knob(&report, "amd_pstate.status").after.as_deref(),
        Some("active")
    );
    assert_eq!(status(&report, "smt.control"), Status::NotApplicable);
    assert_eq!(report.cpus.numa_nodes[&1].to_string(), "2-3");
    assert_eq!(report.cpufreq_drivers["policy0"], "amd-pstate-epp");
    assert_eq!(status(&report, "kernel.numa_balancing"), Status::Verified);
}

#[test]
fn acpi_cpufreq_with_isolcpus_and_smt_that_refuses() {
    let tree = machine(ACPI);
    let report = tune(&tree).report;
    assert_eq!(report.unfit(), None);
    assert_eq!(report.cpus.isolated.to_string(), "2");
    assert_eq!(
        warnings(&report),
        ["nohz-full-partial", "isolcpus-domain", "tsc-watchdog"]
    );
    assert!(
        report.warnings[0]
            .text
            .contains("isolated CPUs 2 are not in nohz_full (3)")
    );
    assert_eq!(status(&report, "smt.control"), Status::Refused);
    assert_eq!(
        knob(&report, "smt.control").reason.as_deref(),
        Some("the kernel kept on")
    );
    assert_eq!(
        tree.get(&format!("{CPU}/online")).unwrap(),
        "0,2",
        "siblings went one by one"
    );
    assert_eq!(status(&report, "cpufreq.boost"), Status::Verified);
    assert_eq!(
        tree.get(&format!("{CPU}/cpufreq/policy0/scaling_max_freq"))
            .unwrap(),
        "2400000"
    );
    // This one was capped below: the maximum has to go up before the minimum.
    assert_eq!(
        tree.get(&format!("{CPU}/cpufreq/policy2/scaling_min_freq"))
            .unwrap(),
        "2400000"
    );
    // Without a polling state, C1 is state 0.
    assert_eq!(status(&report, "cpuidle.cpu2.C2"), Status::Verified);
    assert!(
        report
            .knobs
            .iter()
            .all(|knob| knob.knob != "cpuidle.cpu2.C1")
    );
}

#[test]
fn siblings_that_stay_are_warned_about() {
    let tree = machine(INTEL);
    for path in [
        "smt/control",
        "cpu4/online",
        "cpu5/online",
        "cpu6/online",
        "cpu7/online",
    ] {
        tree.on_write(&format!("{CPU}/{path}"), host::fakes::OnWrite::Sticky);
    }
    let report = tune(&tree).report;
    assert_eq!(warnings(&report), ["smt-sibling-online"]);
    assert_eq!(report.cpus.isolated.to_string(), "1-7");
    assert_eq!(report.unfit(), None);
    assert_eq!(status(&report, "cpu5.online"), Status::Refused);
}

#[test]
fn smt_can_be_kept() {
    let tree = machine(INTEL);
    let options = Options {
        smt: Smt::Keep,
        latency: Latency::Skip,
    };
    let report = apply(&plan(&topology::read(&tree), &options), &tree).report;
    assert_eq!(status(&report, "smt.control"), Status::Recorded);
    assert_eq!(report.cpus.isolated.to_string(), "1-7");
    assert_eq!(warnings(&report), ["smt-sibling-online"]);
    let latency = knob(&report, "cpu_dma_latency");
    assert_eq!(latency.status, Status::NotApplicable);
    assert!(tree.held().is_empty());
}

#[test]
fn a_guest_without_cpufreq_and_with_a_bad_clock() {
    let tree = machine(QEMU);
    let report = tune(&tree).report;
    assert_eq!(report.unfit(), None);
    assert!(report.hypervisor);
    assert_eq!(report.clocksource.as_deref(), Some("hpet"));
    assert_eq!(warnings(&report), ["tsc-watchdog", "clocksource"]);
    assert_eq!(status(&report, "clocksource"), Status::Refused);
    assert_eq!(status(&report, "cpufreq"), Status::NotApplicable);
    assert_eq!(status(&report, "irq.0"), Status::Refused);
    assert_eq!(
        status(&report, "irq.24"),
        Status::Verified,
        "later interrupts still move"
    );
    assert_eq!(report.irqs_unmovable.len(), 1);
    assert_eq!(
        status(&report, "kernel.numa_balancing"),
        Status::NotApplicable
    );
}

#[test]
fn null_lists_and_missing_files_are_unfit_and_harmless() {
    let tree = machine(NULL);
    let read = topology::read(&tree);
    assert!(read.isolated.is_empty() && read.boot_isolated.is_empty());
    assert_eq!(read.housekeeping.to_string(), "0-3");
    assert!(
        read.gaps.iter().any(|gap| gap.path == "/proc/cpuinfo"),
        "{:?}",
        read.gaps
    );
    let report = tune(&tree).report;
    assert_eq!(
        report.unfit(),
        Some("no isolated CPU: boot with nohz_full=1-N on the kernel command line")
    );
    assert_eq!(status(&report, "vm.swappiness"), Status::Verified);
    assert_eq!(status(&report, "irq.1"), Status::Unchanged);
    assert_eq!(status(&report, "fair_server"), Status::NotApplicable);
}

#[test]
fn an_empty_machine_is_unfit() {
    let report = tune(&FakeTree::new()).report;
    assert!(report.unfit().is_some());
    assert!(
        report
            .knobs
            .iter()
            .all(|knob| knob.status == Status::NotApplicable)
    );
    assert!(report.knobs.iter().all(|knob| knob.reason.is_some()));
}

#[test]
fn isolating_only_siblings_of_housekeeping_leaves_nothing() {
    let tree = machine(INTEL);
    tree.set(&format!("{CPU}/nohz_full"), "4");
    let report = tune(&tree).report;
    let reason = report.unfit().unwrap();
    assert!(reason.contains("stillmetal.smt=keep"), "{reason}");
}

#[test]
fn all_cpus_are_never_isolated() {
    let tree = machine(QEMU);
    tree.set(&format!("{CPU}/nohz_full"), "0-1");
    let report = tune(&tree).report;
    assert_eq!(report.cpus.housekeeping.to_string(), "0");
    assert_eq!(report.cpus.isolated.to_string(), "1");
}

#[test]
fn the_report_is_stable_json() {
    let report = tune(&machine(QEMU)).report;
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["state"], "fit");
    assert_eq!(json["cpus"]["isolated"], "1");
    let swappiness = json["knobs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|knob| knob["knob"] == "vm.swappiness")
        .unwrap();
    assert_eq!(
        *swappiness,
        serde_json::json!({
            "knob": "vm.swappiness", "path": "/proc/sys/vm/swappiness", "before": "60",
            "after": "0", "wanted": "0", "need": "best-effort", "status": "verified",
            "why": "paging",
        })
    );
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
}

#[test]
fn the_text_is_aligned_and_cannot_steer_a_terminal() {
    let tree = machine(INTEL);
    tree.set("/proc/sys/vm/swappiness", "60");
    tree.set(
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "al\u{1b}[31mways\nx",
    );
    let text = stillmetal_tune::text::report(&tune(&tree).report);
    assert!(
        text.starts_with("state        fit\nisolated     1-3\n"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'));
    let header = text
        .lines()
        .find(|line| line.starts_with("STATUS"))
        .unwrap();
    let row = text
        .lines()
        .find(|line| line.contains("vm.swappiness"))
        .unwrap();
    assert_eq!(row.find("vm.swappiness"), header.find("KNOB"));
    assert!(
        row[header.find("BEFORE").unwrap()..].starts_with("60 "),
        "{row}"
    );
    assert!(text.contains("unmovable interrupt 3 (PCI-MSI nvme0q1)"));
}

/// Reads only: the machine that runs the tests is not ours to change.
#[test]
fn the_running_machine_is_understood() {
    let tree = host::RealTree::live();
    let machine = topology::read(&tree);
    assert!(!machine.online.is_empty(), "{:?}", machine.gaps);
    let plan = plan(&machine, &Options::default());
    assert!(!plan.housekeeping.is_empty());
    let text = stillmetal_tune::text::plan(&plan);
    assert!(text.contains("kernel.sched_rt_runtime_us"), "{text}");
}
