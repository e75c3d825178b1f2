//! Whether the windows are there, in order, and cover the run.

use crate::{Evidence, Window, WindowName};

use super::{Findings, Place};

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    if evidence.job_cpus.is_empty() {
        findings.unproven("no_cpus", "the run had no CPUs to itself".to_owned());
    }
    for name in WindowName::ALL {
        let count = evidence.windows.iter().filter(|w| w.name == name).count();
        let place = Place {
            window: Some(name),
            cpu: None,
        };
        match (count, name.is_canary()) {
            (1, _) => {}
            (0, true) => findings.unproven_at(
                place,
                "no_canary",
                format!("there is no {name} window: the CPUs were not tried without the job"),
            ),
            (0, false) => findings.unproven_at(
                place,
                "no_window",
                format!("there is no {name} window: a part of the run was not watched"),
            ),
            _ => findings.unproven_at(
                place,
                "window_twice",
                format!("there is more than one {name} window"),
            ),
        }
    }
    for trouble in &evidence.troubles {
        findings.unproven("trouble", trouble.clone());
    }
    order(evidence, findings);
    release(evidence, findings);
    actions(evidence, findings);
}

fn find(evidence: &Evidence, name: WindowName) -> Option<&Window> {
    evidence.windows.iter().find(|window| window.name == name)
}

fn order(evidence: &Evidence, findings: &mut Findings) {
    let pairs = WindowName::ALL
        .into_iter()
        .zip(WindowName::ALL.into_iter().skip(1));
    for (first, second) in pairs {
        let (Some(earlier), Some(later)) = (find(evidence, first), find(evidence, second)) else {
            continue;
        };
        let place = Place {
            window: Some(second),
            cpu: None,
        };
        if later.start_ns < earlier.end_ns {
            findings.unproven_at(
                place,
                "window_order",
                format!("the {second} window began before the {first} window ended"),
            );
        }
        if second == WindowName::Exit && later.start_ns > earlier.end_ns {
            findings.unproven_at(
                place,
                "window_gap",
                "the exit window began after the job window ended: what lies between was not \
                 watched"
                    .to_owned(),
            );
        }
    }
}

/// The job window must begin before the job does.
fn release(evidence: &Evidence, findings: &mut Findings) {
    let Some(job) = find(evidence, WindowName::Job) else {
        return;
    };
    let place = Place {
        window: Some(WindowName::Job),
        cpu: None,
    };
    match evidence.job.gate.released_ns {
        None => findings.unproven_at(
            place,
            "no_gate",
            "it is not known when the job was let go, and so not whether it was watched from then \
             on"
            .to_owned(),
        ),
        Some(released) if released < job.start_ns || released > job.end_ns => findings.unproven_at(
            place,
            "late_start",
            "the job was let go outside of the job window: not all of it was watched".to_owned(),
        ),
        Some(_) => {}
    }
}

fn actions(evidence: &Evidence, findings: &mut Findings) {
    for action in &evidence.actions_in_window {
        let window = evidence.windows.iter().find(|window| {
            window.name != WindowName::Exit
                && (window.start_ns..=window.end_ns).contains(&action.at_ns)
        });
        if let Some(window) = window {
            let place = Place {
                window: Some(window.name),
                cpu: None,
            };
            findings.noise_at(
                place,
                "action",
                format!(
                    "the node itself disturbed the CPUs at {} ns: {}",
                    action.at_ns, action.what
                ),
            );
        }
    }
}
