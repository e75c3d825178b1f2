//! The verdict: whatever was measured and is too much makes a run noisy, whatever is needed and was
//! not measured makes it unproven, and only a run with neither is quiet.

mod hardware;
mod run;
mod windows;

use serde::{Deserialize, Serialize};

use crate::{Evidence, WindowName, conditions};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Quiet,
    Noisy,
    Unproven,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Quiet => "quiet",
            Self::Noisy => "noisy",
            Self::Unproven => "unproven",
        })
    }
}

/// How far a quiet run is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuietClass {
    /// As far as the operating system can tell.
    OsQuiet,
    /// The hardware too.
    HwQuiet,
}

/// One thing that speaks against a run, or that is not known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// For programs: `no_canary`, or a field of the window: `interrupts.LOC`.
    pub code: String,
    pub window: Option<WindowName>,
    pub cpu: Option<u32>,
    /// For people: what, where, how much, how much at most, and the likely cause.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    pub verdict: Verdict,
    /// Of a quiet run.
    pub quiet_class: Option<QuietClass>,
    /// What makes it noisy.
    pub reasons: Vec<Reason>,
    /// What is not known. Codes that begin with `hw_` only say why a run is not `hw-quiet`.
    pub unproven: Vec<Reason>,
}

/// The verdict on a run. Depends on nothing but the evidence.
#[must_use]
pub fn judge(evidence: &Evidence) -> Judgement {
    let mut findings = Findings::default();
    run::check(evidence, &mut findings);
    for window in &evidence.windows {
        windows::check(evidence, window, &mut findings);
    }
    conditions::check(
        &evidence.job_cpus,
        &evidence.before,
        &evidence.after,
        &mut findings,
    );
    let hardware = hardware::check(evidence, &mut findings);
    let Findings {
        reasons,
        mut unproven,
    } = findings;
    let verdict = match (reasons.is_empty(), unproven.is_empty()) {
        (false, _) => Verdict::Noisy,
        (true, false) => Verdict::Unproven,
        (true, true) => Verdict::Quiet,
    };
    let class = if hardware.is_empty() {
        QuietClass::HwQuiet
    } else {
        QuietClass::OsQuiet
    };
    unproven.extend(hardware);
    Judgement {
        verdict,
        quiet_class: (verdict == Verdict::Quiet).then_some(class),
        reasons,
        unproven,
    }
}

/// What the checks found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    reasons: Vec<Reason>,
    unproven: Vec<Reason>,
}

/// Where something was found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(crate) window: Option<WindowName>,
    pub(crate) cpu: Option<u32>,
}

impl Place {
    fn reason(self, code: &str, text: String) -> Reason {
        Reason {
            code: code.to_owned(),
            window: self.window,
            cpu: self.cpu,
            text,
        }
    }
}

impl Findings {
    pub(crate) fn noise(&mut self, code: &str, text: String) {
        self.noise_at(Place::default(), code, text);
    }

    pub(crate) fn unproven(&mut self, code: &str, text: String) {
        self.unproven_at(Place::default(), code, text);
    }

    fn noise_at(&mut self, place: Place, code: &str, text: String) {
        self.reasons.push(place.reason(code, text));
    }

    fn unproven_at(&mut self, place: Place, code: &str, text: String) {
        self.unproven.push(place.reason(code, text));
    }
}

/// Seconds with one decimal.
pub(crate) fn seconds(ns: u64) -> String {
    let tenths = ns / 100_000_000;
    format!("{}.{} s", tenths / 10, tenths % 10)
}
