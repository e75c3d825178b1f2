//! What happened: `GET /v1/events`, as a page or as server-sent events.

use serde::{Deserialize, Serialize};

use crate::fleet::NodeId;
use crate::job::JobId;

/// One line of the controller's history. Nothing of it is ever changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Grows by one or more; `?after=` and `Last-Event-ID` take it.
    pub seq: u64,
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// Such as `job.queued`, `node.connected`, `token.used`.
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Who did it; absent: the controller itself, or the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// In words or fields, by kind.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    #[cfg_attr(feature = "openapi", schema(value_type = Value))]
    pub data: serde_json::Value,
}
