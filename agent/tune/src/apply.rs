//! Carries a plan out: reads, writes, reads back, and goes on whatever happens.

use std::io;

use api::report::{
    CpuSets, Drift, Knob, Need, NodeState, Report, Status, UnmovableThread, Warning,
};
use cpulist::CpuSet;
use host::Tree;
use host::threads::Binding;

use crate::cell::Cell;
use crate::irqs;
use crate::plan::{Plan, Step, Want};
use crate::topology::{self, Topology};
use crate::warnings;

/// Keeps CPUs out of deep idle states until dropped.
#[derive(Debug)]
pub struct LatencyHold(#[expect(dead_code, reason = "kept for its Drop")] host::Hold);

/// What came of a plan.
#[derive(Debug)]
pub struct Applied {
    pub report: Report,
    /// Present if the plan asked for it and the kernel has it: keep it as long as CPUs must stay
    /// awake.
    pub hold: Option<LatencyHold>,
}

/// Applies the plan step by step and reports on each. Never stops early.
#[must_use]
pub fn apply(plan: &Plan, tree: &dyn Tree) -> Applied {
    // All of them first: a step may change what a later one would find.
    let befores: Vec<io::Result<String>> =
        plan.steps.iter().map(|step| step.cell.read(tree)).collect();
    let mut hold = None;
    let mut knobs: Vec<Knob> = plan
        .steps
        .iter()
        .zip(befores)
        .map(|(step, before)| turn(step, before, tree, &mut hold))
        .collect();
    for (step, knob) in plan.steps.iter().zip(&mut knobs) {
        verify_again(step, knob, tree);
    }
    let after = topology::read(tree);
    Applied {
        report: report(plan, &after, knobs, tree),
        hold,
    }
}

/// How far a look at the knobs may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every knob; some are registers of their CPU, which is interrupted to read them.
    All,
    /// While something runs that must not be disturbed.
    Undisturbing,
}

/// What of the plan no longer holds at `now_ns` since boot. Knobs that cannot be read, or that the
/// machine does not have, are left out.
#[must_use]
pub fn drift(plan: &Plan, tree: &dyn Tree, reach: Reach, now_ns: u64) -> Vec<Drift> {
    plan.steps
        .iter()
        .filter(|step| !matches!(step.cell, Cell::Held { .. }))
        .filter(|step| reach == Reach::All || !is_register(&step.cell.label()))
        .filter_map(|step| {
            let found = step.cell.read(tree).ok()?;
            (!step.want.is_met_by(&found)).then(|| Drift {
                knob: step.knob.clone(),
                path: step.cell.label(),
                wanted: step.want.to_string(),
                found,
                found_ns: now_ns,
            })
        })
        .collect()
}

/// Files whose reader asks the CPU itself, by `rdmsrl_on_cpu` (Linux 6.12:
/// arch/x86/kernel/cpu/intel_epb.c, drivers/cpufreq/intel_pstate.c, drivers/cpufreq/amd-pstate.c).
fn is_register(path: &str) -> bool {
    ["/energy_perf_bias", "/energy_performance_preference"]
        .iter()
        .any(|file| path.ends_with(file))
}

fn turn(
    step: &Step,
    before: io::Result<String>,
    tree: &dyn Tree,
    hold: &mut Option<LatencyHold>,
) -> Knob {
    let mut knob = Knob {
        knob: step.knob.clone(),
        path: step.cell.label(),
        before: None,
        after: None,
        wanted: step.want.to_string(),
        need: step.need,
        status: Status::NotApplicable,
        reason: None,
        why: step.why.to_owned(),
    };
    if let Want::Absent(reason) = &step.want {
        knob.reason = Some(reason.clone());
        return knob;
    }
    match before {
        Err(error) => {
            knob.status = status_of_unreadable(&error);
            knob.reason = Some(reason_of_unreadable(&error));
            return knob;
        }
        Ok(text) => knob.before = Some(text),
    }
    if let Cell::Held { path } = &step.cell {
        take_hold(path, tree, hold, &mut knob);
        return knob;
    }
    let Ok(current) = step.cell.read(tree) else {
        return gone(knob);
    };
    let was_met = knob
        .before
        .as_deref()
        .is_some_and(|before| step.want.is_met_by(before));
    let refusal = if step.want.is_met_by(&current) {
        None
    } else {
        match step.want.text() {
            Some(text) => step
                .cell
                .write(tree, &text)
                .err()
                .map(|error| error.to_string()),
            None => Some(format!("it is {current}, and there is nothing to write")),
        }
    };
    let Ok(after) = step.cell.read(tree) else {
        return gone(knob);
    };
    knob.status = match (&step.want, step.want.is_met_by(&after)) {
        (Want::Record, _) => Status::Recorded,
        (_, true) if was_met => Status::Unchanged,
        (_, true) => Status::Verified,
        (_, false) => Status::Refused,
    };
    if knob.status == Status::Refused {
        knob.reason = Some(refusal.unwrap_or_else(|| format!("the kernel kept {after}")));
    }
    knob.after = Some(after);
    knob
}

fn gone(knob: Knob) -> Knob {
    Knob {
        status: Status::NotApplicable,
        reason: Some("it went away meanwhile".into()),
        ..knob
    }
}

fn take_hold(path: &str, tree: &dyn Tree, hold: &mut Option<LatencyHold>, knob: &mut Knob) {
    knob.before = None;
    match tree.hold(path, &0_i32.to_ne_bytes()) {
        Ok(held) => {
            *hold = Some(LatencyHold(held));
            knob.status = Status::Verified;
            knob.after = Some("0 (held open)".into());
        }
        Err(error) => {
            knob.status = Status::Refused;
            knob.reason = Some(error.to_string());
        }
    }
}

fn status_of_unreadable(error: &io::Error) -> Status {
    match error.kind() {
        // EACCES: the knob is there, we are not allowed.
        io::ErrorKind::PermissionDenied => Status::Refused,
        _ => Status::NotApplicable,
    }
}

fn reason_of_unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// A later step may have undone an earlier one.
fn verify_again(step: &Step, knob: &mut Knob, tree: &dyn Tree) {
    if matches!(step.cell, Cell::Held { .. }) || knob.after.is_none() {
        return;
    }
    let Ok(now) = step.cell.read(tree) else {
        return;
    };
    if knob.after.as_ref() != Some(&now) {
        if step.want.is_met_by(&now) {
            if knob.status == Status::Refused {
                // A later step brought it about.
                knob.status = Status::Verified;
                knob.reason = None;
            }
        } else if matches!(knob.status, Status::Verified | Status::Unchanged) {
            knob.status = Status::Refused;
            knob.reason = Some("it changed back".into());
        }
        knob.after = Some(now);
    }
}

fn report(plan: &Plan, after: &Topology, knobs: Vec<Knob>, tree: &dyn Tree) -> Report {
    let before = &plan.topology;
    let mut warnings = plan.warnings.clone();
    warnings.extend(warnings::of_result(after));
    warnings.extend(
        knobs
            .iter()
            .filter(|knob| is_missing(knob))
            .map(|knob| Warning {
                name: "required-knob".into(),
                text: format!(
                    "{} is not {}: {}",
                    knob.knob,
                    knob.wanted,
                    knob.reason.as_deref().unwrap_or("the kernel refused")
                ),
            }),
    );
    Report {
        state: match warnings::unfit_reason(before, after) {
            None => NodeState::Fit,
            Some(reason) => NodeState::Unfit { reason },
        },
        cpus: CpuSets {
            online: after.online.clone(),
            present: after.present.clone(),
            nohz_full: after.nohz_full.clone(),
            boot_isolated: after.boot_isolated.clone(),
            isolated: after.isolated.clone(),
            housekeeping: after.housekeeping.clone(),
            offlined_siblings: before.online.difference(&after.online),
            numa_nodes: after.numa_nodes.clone(),
        },
        cpufreq_drivers: after
            .policies
            .iter()
            .map(|policy| (policy.name.clone(), policy.driver.clone()))
            .collect(),
        hypervisor: after.flags.hypervisor,
        clocksource: after.clocksource.clone(),
        warnings,
        irqs_unmovable: irqs::unmovable(tree, after, &knobs),
        kthreads_unmovable: kthreads_unmovable(after, &knobs),
        drift: Vec::new(),
        knobs,
    }
}

fn is_missing(knob: &Knob) -> bool {
    knob.need == Need::Required && knob.status == Status::Refused
}

fn kthreads_unmovable(after: &Topology, knobs: &[Knob]) -> Vec<UnmovableThread> {
    after
        .kernel_threads
        .iter()
        .filter(|thread| !thread.allowed.is_disjoint(&after.isolated))
        .filter(|thread| thread.binding == Binding::Movable || !is_per_cpu(&thread.allowed))
        .map(|thread| {
            let label = Cell::Thread {
                tid: thread.tid,
                name: thread.name.clone(),
            }
            .label();
            let refusal = knobs
                .iter()
                .find(|knob| knob.path == label)
                .and_then(|knob| knob.reason.clone());
            UnmovableThread {
                tid: thread.tid,
                name: thread.name.clone(),
                allowed: thread.allowed.clone(),
                reason: match thread.binding {
                    Binding::Fixed => "the kernel fixes its affinity (PF_NO_SETAFFINITY)".into(),
                    Binding::Movable => {
                        refusal.unwrap_or_else(|| "it began after the plan was made".into())
                    }
                },
            }
        })
        .collect()
}

fn is_per_cpu(allowed: &CpuSet) -> bool {
    allowed.len() == 1
}
