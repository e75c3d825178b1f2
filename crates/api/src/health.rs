//! The health check: `/v1/health-check`. A job that every node has to pass from time to time.

use serde::{Deserialize, Serialize};

use crate::fleet::{NodeId, NodeState};
use crate::job::{JobId, JobRequest};

/// What nodes have to pass: `PUT /v1/health-check`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// A node is due so long after its last check, and when it joins, boots or leaves quarantine.
    #[cfg_attr(feature = "openapi", schema(minimum = 60, maximum = 31_536_000))]
    pub every_seconds: u64,
    /// Run on each node by itself: `place.node` and `place.nodes` are set for it. A node on which it does not
    /// end as `done` is put in quarantine.
    pub job: JobRequest,
}

/// The health check and what came of it: `GET /v1/health-check`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthCheckView {
    /// `None`: nothing is checked.
    pub check: Option<HealthCheck>,
    /// All nodes, by id.
    pub nodes: Vec<NodeHealth>,
}

/// When a node was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeHealth {
    pub node: NodeId,
    pub name: String,
    #[serde(flatten)]
    pub state: NodeState,
    /// When it last passed, milliseconds since the epoch; `None`: it is due.
    pub passed_ms: Option<u64>,
    /// Its check that waits or runs.
    pub job: Option<JobId>,
}
