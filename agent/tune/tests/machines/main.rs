//! Whole machines in memory: what tuning does to each, and that restoring undoes it.
#![allow(
    clippy::unwrap_used,
    reason = "clippy sees helpers of tests as no tests"
)]

use std::collections::BTreeMap;

use api::report::{Knob, Report, Status};
use host::fakes::{FakeTree, KernelRules};
use stillmetal_tune::{Applied, Latency, Options, Smt, apply, plan, topology};

mod command;
mod errors;
mod fixtures;
mod irqs;
mod random;

const CPU: &str = "/sys/devices/system/cpu";
const INTEL: &str = include_str!("../fixtures/intel-hwp-smt.txt");
const AMD: &str = include_str!("../fixtures/amd-epp.txt");
const ACPI: &str = include_str!("../fixtures/acpi-cpufreq.txt");
const QEMU: &str = include_str!("../fixtures/qemu.txt");
const NULL: &str = include_str!("../fixtures/null-lists.txt");

fn machine(fixture: &str) -> FakeTree {
    FakeTree::from_fixture(fixture).with_rule(KernelRules::new())
}

fn tune(tree: &FakeTree) -> Applied {
    let options = Options {
        smt: Smt::Off,
        latency: Latency::Hold,
    };
    apply(&plan(&topology::read(tree), &options), tree)
}

fn knob<'a>(report: &'a Report, name: &str) -> &'a Knob {
    report
        .knobs
        .iter()
        .find(|knob| knob.knob == name)
        .unwrap_or_else(|| panic!("no knob {name}"))
}

fn status(report: &Report, name: &str) -> Status {
    knob(report, name).status
}

fn warnings(report: &Report) -> Vec<&str> {
    report
        .warnings
        .iter()
        .map(|warning| warning.name.as_str())
        .collect()
}

/// Every file but those that the kernel fills as it likes.
fn settings(tree: &FakeTree) -> BTreeMap<String, String> {
    let mut files = tree.snapshot();
    files.retain(|path, _| !path.ends_with("/effective_affinity_list"));
    files
}

/// `path: now, was before`, for failures that can be read.
fn difference(now: &BTreeMap<String, String>, before: &BTreeMap<String, String>) -> Vec<String> {
    let paths: std::collections::BTreeSet<&String> = now.keys().chain(before.keys()).collect();
    paths
        .into_iter()
        .filter(|path| now.get(*path) != before.get(*path))
        .map(|path| format!("{path}: {:?}, was {:?}", now.get(path), before.get(path)))
        .collect()
}
