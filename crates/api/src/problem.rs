//! Errors of the controller's API: RFC 9457 `application/problem+json`.

use serde::{Deserialize, Serialize};

/// What went wrong, where, why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Stable and to be matched on: `stillmetal:no-such-job`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for all problems of a kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Why, of this one.
    pub detail: String,
    /// The field (JSON pointer) or resource it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
