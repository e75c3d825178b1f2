//! Answers of the controller that nobody but its clients has a type for.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `GET /v1/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Of the controller.
    pub version: String,
    /// Whatever else it says of itself.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// `GET /v1/jobs/ID/why`: what a job waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    pub reasons: Vec<WhyReason>,
    /// Milliseconds since the epoch; `None`: not as the nodes are, or not known.
    #[serde(default)]
    pub could_start_ms: Option<u64>,
    /// The same in words, a line for each reason.
    #[serde(default)]
    pub text: Vec<String>,
}

/// One thing that a job waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyReason {
    /// Such as `held`, `behind`, `no-such-nodes`.
    pub code: String,
    /// By code.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}
