//! The certificate: the evidence, the verdict on it, and what each figure means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::legend::{Meaning, legend};
use crate::{Evidence, Judgement, Outcome, QuietClass, Reason, Verdict, judge};

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
        let outcome = evidence.job.outcome();
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
