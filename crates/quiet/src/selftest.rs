//! Whether a node can prove that a CPU was quiet: known disturbances are made on a CPU of its own,
//! and each must be seen by the very rules that judge a run.
//!
//! Pure, as the rest: what was done and counted comes in as [`Trial`]s.

mod probe;
mod text;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Drift, Evidence, QuietClass, Reason, Value, Window, WindowName, judge};

pub use probe::{Expectation, Figure, INTRUSIONS, Probe, SHOOTDOWNS};
pub use text::render;

/// Changes with every change of meaning.
pub const SCHEMA: &str = "stillmetal-selftest/1";

/// What came of one probe, before it is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It was done. A knob that was turned while no canary spun has no window.
    Made {
        window: Option<Box<Window>>,
        drift: Vec<Drift>,
    },
    /// There is nothing to disturb: this kernel or machine has no such thing.
    Inapplicable(String),
    /// It could not be done, and why.
    Failed(String),
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Yes,
    No,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Yes => "yes",
            Self::No => "no",
        })
    }
}

/// Whether a probe's disturbance was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    Seen,
    NotSeen,
    /// There is nothing of the kind on this node.
    Inapplicable,
    Failed,
}

/// One figure of a probe, beside what it had to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// As in a window of a certificate: `interrupts.LOC`, `foreign_timeslices`, `drift.cpu.max`.
    pub figure: String,
    pub at_least: u64,
    /// `None`: however many.
    pub at_most: Option<u64>,
    pub found: Value,
}

impl Finding {
    #[must_use]
    pub fn holds(&self) -> bool {
        self.found.measured().is_some_and(|count| {
            count >= self.at_least && self.at_most.is_none_or(|most| count <= most)
        })
    }
}

/// One probe: what was done, and what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    pub probe: Probe,
    pub what: String,
    pub sight: Sight,
    /// Why it was not seen, or not tried.
    pub why: Option<String>,
    pub findings: Vec<Finding>,
    /// Codes of the reasons that a certificate with this window would have: it would be `noisy`.
    pub noticed_by: Vec<String>,
    pub window: Option<Window>,
    pub drift: Vec<Drift>,
}

/// The result of one self-test; the answer first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTest {
    pub schema: String,
    pub can_prove_quiet: Answer,
    /// How far, if it can.
    pub quiet_class: Option<QuietClass>,
    /// Why it cannot.
    pub reasons: Vec<Reason>,
    /// What no certificate of this node can say, from the same rules.
    pub cannot_see: Vec<Reason>,
    /// The CPU that was disturbed; `None`: none was to be had.
    pub cpu: Option<u32>,
    pub kernel: String,
    pub agent_version: String,
    /// `CLOCK_MONOTONIC_RAW`, ns.
    pub started_ns: u64,
    pub ended_ns: u64,
    /// A thread that spun alone.
    pub silence: Option<Window>,
    pub probes: Vec<ProbeReport>,
}

/// All that a self-test found, to be judged.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The node, its conditions before and after, the CPU; without windows.
    pub ground: Evidence,
    pub started_ns: u64,
    pub ended_ns: u64,
    /// The window of a thread that spun alone, or why there is none.
    pub silence: Result<Window, String>,
    pub trials: Vec<(Probe, Trial)>,
    /// What could not be put back.
    pub left_behind: Vec<String>,
}

impl SelfTest {
    /// Judges what was found.
    #[must_use]
    pub fn judge(found: Findings) -> Self {
        let Findings {
            ground,
            started_ns,
            ended_ns,
            silence,
            trials,
            left_behind,
        } = found;
        let mut reasons = Vec::new();
        let silent = match &silence {
            Ok(window) => {
                reasons.extend(against(&ground, window));
                reasons.is_empty()
            }
            Err(why) => {
                reasons.push(reason("no_canary", why.clone()));
                false
            }
        };
        let probes: Vec<ProbeReport> = trials
            .into_iter()
            .map(|(probe, trial)| probe_report(&ground, probe, trial))
            .collect();
        for report in &probes {
            if matches!(report.sight, Sight::NotSeen | Sight::Failed) {
                reasons.push(reason(
                    &format!("probe_{}", report.probe),
                    format!(
                        "{}: {}",
                        report.what,
                        report.why.as_deref().unwrap_or("not seen")
                    ),
                ));
            }
        }
        if silent {
            // one that was left out is one that was not shown
            for probe in Probe::ALL {
                if probes.iter().all(|report| report.probe != probe) {
                    reasons.push(reason(
                        &format!("probe_{probe}"),
                        format!("{}: not tried", probe.what()),
                    ));
                }
            }
        }
        for text in left_behind {
            reasons.push(reason("left_behind", text));
        }
        let can_prove_quiet = if reasons.is_empty() {
            Answer::Yes
        } else {
            Answer::No
        };
        let cannot_see = hardware(&ground);
        let class = if cannot_see.is_empty() {
            QuietClass::HwQuiet
        } else {
            QuietClass::OsQuiet
        };
        Self {
            schema: SCHEMA.to_owned(),
            can_prove_quiet,
            quiet_class: (can_prove_quiet == Answer::Yes).then_some(class),
            reasons,
            cannot_see,
            cpu: ground.job_cpus.first(),
            kernel: ground.platform.kernel,
            agent_version: ground.platform.agent_version,
            started_ns,
            ended_ns,
            silence: silence.ok(),
            probes,
        }
    }

    /// Whether nothing speaks against it but that the sampler was late: then another attempt may tell.
    #[must_use]
    pub fn is_late(ground: &Evidence, window: &Window) -> bool {
        let against = against(ground, window);
        !against.is_empty() && against.iter().all(|reason| reason.code == "sampler_late")
    }

    /// Whether nothing speaks against a canary that spun alone: only then do probes show anything.
    #[must_use]
    pub fn is_silent(ground: &Evidence, window: &Window) -> bool {
        against(ground, window).is_empty()
    }
}

/// What speaks against a canary's window and the node's conditions, as in a certificate. The parts
/// of a run that a self-test does not have (the job, the canary after it) are left out, and what
/// only the hardware could tell is [`hardware`]'s.
fn against(ground: &Evidence, window: &Window) -> Vec<Reason> {
    let judged = judge(&Evidence {
        windows: vec![window.clone()],
        ..ground.clone()
    });
    let ours = |reason: &Reason| {
        reason.window == Some(WindowName::CanaryPre)
            || (reason.window.is_none() && !reason.code.starts_with("hw_"))
    };
    let all = judged.reasons.into_iter().chain(judged.unproven);
    all.filter(ours).collect()
}

/// What the certificate of any run here would say that it does not know of the hardware, and what
/// it would hold against it.
fn hardware(ground: &Evidence) -> Vec<Reason> {
    let unproven = judge(ground).unproven.into_iter();
    unproven
        .filter(|reason| reason.code.starts_with("hw_"))
        .collect()
}

fn reason(code: &str, text: String) -> Reason {
    Reason {
        code: code.to_owned(),
        window: None,
        cpu: None,
        text,
    }
}

fn probe_report(ground: &Evidence, probe: Probe, trial: Trial) -> ProbeReport {
    let mut report = ProbeReport {
        probe,
        what: probe.what().to_owned(),
        sight: Sight::NotSeen,
        why: None,
        findings: Vec::new(),
        noticed_by: Vec::new(),
        window: None,
        drift: Vec::new(),
    };
    match trial {
        Trial::Inapplicable(why) => {
            report.sight = Sight::Inapplicable;
            report.why = Some(why);
        }
        Trial::Failed(why) => {
            report.sight = Sight::Failed;
            report.why = Some(format!("it could not be tried: {why}"));
        }
        Trial::Made { window, drift } => {
            let window = window.map(|window| window.named(WindowName::CanaryPre));
            report.noticed_by = noticed_by(ground, window.as_ref(), &drift);
            report.findings = probe
                .expectations()
                .iter()
                .map(|expectation| expectation.find(window.as_ref(), &drift))
                .collect();
            (report.window, report.drift) = (window, drift);
            report.why = unseen(&report);
            if report.why.is_none() {
                report.sight = Sight::Seen;
            }
        }
    }
    report
}

/// Codes of what speaks against this window, or of knobs found changed. What speaks against the node
/// in any case (its conditions) is no sign of the disturbance.
fn noticed_by(ground: &Evidence, window: Option<&Window>, drift: &[Drift]) -> Vec<String> {
    let mut disturbed = ground.clone();
    disturbed.after = disturbed.before.clone();
    disturbed.after.drift = drift.to_vec();
    disturbed.windows = window.cloned().into_iter().collect();
    let noisy = judge(&disturbed).reasons.into_iter();
    let mut codes: Vec<String> = noisy
        .filter(|reason| reason.window.is_some() || reason.code == "drift")
        .map(|reason| reason.code)
        .collect();
    codes.sort();
    codes.dedup();
    codes
}

fn unseen(report: &ProbeReport) -> Option<String> {
    let missed: Vec<String> = report
        .findings
        .iter()
        .filter(|finding| !finding.holds())
        .map(text::finding)
        .collect();
    if !missed.is_empty() {
        Some(format!("not as expected: {}", missed.join(", ")))
    } else if report.noticed_by.is_empty() {
        Some("a certificate would not have called it noisy".to_owned())
    } else {
        None
    }
}
