//! The certificate: the evidence, the verdict on it, and what each figure means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::legend::{Meaning, legend};
use crate::{Evidence, Judgement, QuietClass, Reason, Verdict, judge};

/// Changes with every change of meaning.
pub const SCHEMA: &str = "quiet-cert/1";

/// One run's certificate; the verdict first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub schema: String,
    pub verdict: Verdict,
    pub quiet_class: Option<QuietClass>,
    /// Of the job; says nothing about noise.
    pub outcome: Outcome,
    pub reasons: Vec<Reason>,
    pub unproven: Vec<Reason>,
    pub evidence: Evidence,
    /// Field → unit and source.
    pub legend: BTreeMap<String, Meaning>,
}

/// How the job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Succeeded,
    Failed,
    /// Neither an exit code nor a signal is known.
    Unknown,
}

impl Certificate {
    /// Judges the evidence.
    #[must_use]
    pub fn new(evidence: Evidence) -> Self {
        let Judgement {
            verdict,
            quiet_class,
            reasons,
            unproven,
        } = judge(&evidence);
        let outcome = match (evidence.job.failure(), evidence.job.exit_code) {
            (Some(_), _) => Outcome::Failed,
            (None, Some(_)) => Outcome::Succeeded,
            (None, None) => Outcome::Unknown,
        };
        Self {
            schema: SCHEMA.to_owned(),
            verdict,
            quiet_class,
            outcome,
            reasons,
            unproven,
            evidence,
            legend: legend(),
        }
    }

    /// Whether the verdict is the one that the evidence gives: for readers of a stored certificate.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        Self::new(self.evidence.clone()) == *self
    }
}
