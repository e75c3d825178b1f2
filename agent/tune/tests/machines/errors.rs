//! The kernel says no, or says yes and does not mean it.

use host::fakes::{OnWrite, Rule, Verdict};
use nix::errno::Errno;
use stillmetal_tune::apply::{Reach, drift};

use super::*;

#[test]
fn a_refused_requirement_is_warned_about_and_nothing_stops() {
    let tree = machine(INTEL);
    tree.on_write(
        "/proc/sys/kernel/sched_rt_runtime_us",
        OnWrite::Fail(Errno::EPERM),
    );
    let report = tune(&tree).report;
    assert_eq!(
        status(&report, "kernel.sched_rt_runtime_us"),
        Status::Refused
    );
    let fair = knob(&report, "fair_server.cpu1");
    assert_eq!(fair.status, Status::Refused);
    assert!(
        fair.reason.as_deref().unwrap().contains("os error 16"),
        "{fair:?}"
    );
    // sched_rt_runtime_us and the fair servers of the isolated CPUs 1-3.
    assert_eq!(warnings(&report), ["required-knob"; 4]);
    assert_eq!(status(&report, "smt.control"), Status::Verified);
    assert_eq!(report.unfit(), None);
}

#[test]
fn a_value_that_is_taken_and_not_kept_is_refused() {
    let tree = machine(AMD);
    tree.on_write(
        &format!("{CPU}/cpufreq/policy2/scaling_governor"),
        OnWrite::Sticky,
    );
    let report = tune(&tree).report;
    let governor = knob(&report, "policy2.scaling_governor");
    assert_eq!(governor.status, Status::Refused);
    assert_eq!(
        governor.reason.as_deref(),
        Some("the kernel kept powersave")
    );
    assert_eq!(governor.after.as_deref(), Some("powersave"));
}

#[test]
fn unreadable_is_refused_and_impossible_is_not_applicable() {
    let tree = machine(QEMU);
    tree.on_read_fail("/proc/sys/vm/swappiness", Errno::EACCES);
    tree.on_read_fail("/proc/sys/vm/stat_interval", Errno::EOPNOTSUPP);
    let report = tune(&tree).report;
    assert_eq!(status(&report, "vm.swappiness"), Status::Refused);
    assert_eq!(status(&report, "vm.stat_interval"), Status::NotApplicable);
}

/// Switching the workqueues' mask puts the sysctl before it back.
struct Meddler;

impl Rule for Meddler {
    fn on_write(&mut self, files: &mut host::fakes::Files, path: &str, text: &str) -> Verdict {
        if path == "/proc/sys/vm/swappiness" {
            files.set("/proc/sys/vm/stat_interval", "1");
            files.set(path, text);
            return Verdict::Done;
        }
        Verdict::Pass
    }
}

#[test]
fn what_a_later_step_undoes_is_not_called_verified() {
    let tree = machine(QEMU).with_rule(Meddler);
    let report = tune(&tree).report;
    let interval = knob(&report, "vm.stat_interval");
    assert_eq!(interval.status, Status::Refused);
    assert_eq!(interval.reason.as_deref(), Some("it changed back"));
}

#[test]
fn drift_names_the_knob_that_moved() {
    let tree = machine(AMD);
    let options = Options::default();
    let plan = plan(&topology::read(&tree), &options);
    let before = apply(&plan, &tree);
    assert_eq!(drift(&plan, &tree, Reach::All, 5), []);
    let policy = format!("{CPU}/cpufreq/policy1");
    tree.set(&format!("{policy}/scaling_governor"), "powersave");
    tree.set(&format!("{policy}/energy_performance_preference"), "power");
    let knobs = |reach| {
        let found = drift(&plan, &tree, reach, 7);
        assert!(found.iter().all(|drift| drift.found_ns == 7));
        let named = found.into_iter().map(|drift| (drift.knob, drift.found));
        named.collect::<Vec<_>>()
    };
    let governor = (
        "policy1.scaling_governor".to_owned(),
        "powersave".to_owned(),
    );
    let preference = (
        "policy1.energy_performance_preference".to_owned(),
        "power".to_owned(),
    );
    assert_eq!(knobs(Reach::Undisturbing), std::slice::from_ref(&governor));
    let mut all = knobs(Reach::All);
    all.sort();
    assert_eq!(all, [preference, governor]);
    drop(before);
}
