//! Bookings: `/v1/bookings`. Whole nodes, kept for users for a time.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::fleet::NodeId;

/// A wish for nodes: `POST /v1/bookings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BookingRequest {
    /// By id or name.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::booked_nodes))]
    pub nodes: BTreeSet<String>,
    /// Whose jobs may run there meanwhile; empty: the caller's.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::booking_users))]
    pub users: BTreeSet<String>,
    /// From when on, seconds from now.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 31_536_000, default = 0))]
    pub in_seconds: u64,
    /// For how long, seconds. A `user` may book 6 hours at most.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 31_536_000))]
    pub for_seconds: u64,
}

/// A booking that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BookingView {
    pub id: u64,
    pub nodes: BTreeSet<NodeId>,
    /// The nodes' names, in the order of `nodes`.
    pub node_names: Vec<String>,
    /// Whose jobs may run there meanwhile.
    pub users: BTreeSet<String>,
    /// Milliseconds since the epoch.
    pub from_ms: u64,
    /// Milliseconds since the epoch.
    pub until_ms: u64,
    pub made_by: String,
}
