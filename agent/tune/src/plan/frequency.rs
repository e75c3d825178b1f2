//! One frequency, and no deep sleep.

use cpulist::CpuSet;

use super::{Latency, Steps, Want};
use crate::cell::Cell;
use crate::topology::{CPU, IdleState, Policy, Topology};

/// `leaving`: CPUs that go offline; policies that only they have are left alone.
pub(super) fn plan(steps: &mut Steps, topology: &Topology, leaving: &CpuSet) {
    let staying = topology.online.difference(leaving);
    let policies: Vec<&Policy> = topology
        .policies
        .iter()
        .filter(|policy| !policy.cpus.is_disjoint(&staying))
        .collect();
    if policies.is_empty() {
        let reason =
            "no cpufreq driver: the frequency is the firmware's or the hypervisor's matter";
        let directory = Cell::file(format!("{CPU}/cpufreq"));
        steps.add(
            "cpufreq",
            directory,
            Want::Absent(reason.into()),
            "frequency drift",
        );
    }
    turbo(steps, topology, &policies);
    for policy in &policies {
        limits(steps, policy);
    }
    for cpu in topology.energy_biases.intersection(&staying).iter() {
        steps.add(
            format!("energy_perf_bias.cpu{cpu}"),
            Cell::file(format!("{CPU}/cpu{cpu}/power/energy_perf_bias")),
            Want::Number(0),
            "hardware trading speed for energy",
        );
    }
}

fn turbo(steps: &mut Steps, topology: &Topology, policies: &[&Policy]) {
    let why = "turbo follows temperature and the neighbours' load";
    let driven_by = |prefix: &str| {
        policies
            .iter()
            .any(|policy| policy.driver.starts_with(prefix))
    };
    let note = "which driver mode the result was taken under";
    if driven_by("intel") {
        let status = Cell::file(format!("{CPU}/intel_pstate/status"));
        steps.add("intel_pstate.status", status, Want::Record, note);
        let no_turbo = Cell::file(format!("{CPU}/intel_pstate/no_turbo"));
        steps.add("intel_pstate.no_turbo", no_turbo, Want::Number(1), why);
    }
    if driven_by("amd") {
        let status = Cell::file(format!("{CPU}/amd_pstate/status"));
        steps.add("amd_pstate.status", status, Want::Record, note);
    }
    if !policies.is_empty() {
        // intel_pstate has no such file: then it is n/a.
        let boost = Cell::file(format!("{CPU}/cpufreq/boost"));
        steps.add("cpufreq.boost", boost, Want::Number(0), why);
    }
    // The switch for all overwrites those of the policies, so each is a step (and comes back in
    // `restore`), also where the CPUs are offline or about to be.
    for policy in topology.policies.iter().filter(|policy| policy.has_boost) {
        let cell = Cell::file(policy.file("boost"));
        steps.add(format!("{}.boost", policy.name), cell, Want::Number(0), why);
    }
}

fn limits(steps: &mut Steps, policy: &Policy) {
    let knob = |name: &str| format!("{}.{name}", policy.name);
    if policy.has_preference {
        steps.add(
            knob("energy_performance_preference"),
            Cell::file(policy.file("energy_performance_preference")),
            Want::Text("performance".into()),
            "hardware trading speed for energy",
        );
    }
    steps.add(
        knob("scaling_governor"),
        Cell::file(policy.file("scaling_governor")),
        Want::Text("performance".into()),
        "frequency following the load",
    );
    let (khz, why) = fixed_frequency(policy);
    for name in ["scaling_max_freq", "scaling_min_freq"] {
        let want = match khz.and_then(|khz| i64::try_from(khz).ok()) {
            Some(khz) => Want::Number(khz),
            None => Want::Absent("the driver tells no frequency to fix".into()),
        };
        steps.add(knob(name), Cell::file(policy.file(name)), want, why);
    }
}

/// The frequency at which a policy is held, and why that one: the highest that the machine can
/// keep for as long as it likes.
fn fixed_frequency(policy: &Policy) -> (Option<u64>, &'static str) {
    let found = &policy.frequencies;
    let possible = |khz: &u64| found.hardware_max_khz.is_none_or(|max| *khz <= max);
    if let Some(base) = found.base_khz.filter(possible) {
        (
            Some(base),
            "frequency drift: min = max = base frequency, which needs no turbo",
        )
    } else if let Some(nominal) = found
        .nominal_khz
        .filter(|_| policy.driver.starts_with("amd"))
        .filter(possible)
    {
        (
            Some(nominal),
            "frequency drift: min = max = nominal frequency (ACPI CPPC), which needs no boost",
        )
    } else if let Some(highest) = found.table_max_khz.filter(possible) {
        (
            Some(highest),
            "frequency drift: min = max = highest non-turbo entry of the driver's table",
        )
    } else {
        (
            found.hardware_max_khz,
            "frequency drift: min = max = hardware maximum (no base frequency is told; turbo is off)",
        )
    }
}

/// Idle states deeper than C1 on isolated CPUs, and the request that holds for all CPUs.
pub(super) fn idle(steps: &mut Steps, topology: &Topology, isolated: &CpuSet, latency: Latency) {
    let why = "waking from deep idle states";
    for state in &topology.idle_states {
        if isolated.contains(state.cpu) && is_deep(state, &topology.idle_states) {
            steps.add(
                format!("cpuidle.cpu{}.{}", state.cpu, state.name),
                Cell::file(format!(
                    "{CPU}/cpu{}/cpuidle/state{}/disable",
                    state.cpu, state.index
                )),
                Want::Number(1),
                why,
            );
        }
    }
    let held = Cell::Held {
        path: "/dev/cpu_dma_latency".into(),
    };
    let want = match latency {
        Latency::Hold => Want::Number(0),
        Latency::Skip => Want::Absent(
            "a request lasts as long as its process; the running agent makes it".into(),
        ),
    };
    steps.add("cpu_dma_latency", held, want, why);
}

/// Deeper than C1: state 0 is either polling, with C1 next to it, or already C1.
fn is_deep(state: &IdleState, all: &[IdleState]) -> bool {
    let polls = all
        .iter()
        .any(|first| first.cpu == state.cpu && first.index == 0 && first.name == "POLL");
    state.index > u32::from(polls)
}
