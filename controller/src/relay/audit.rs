//! Who did what to which node. Never bodies, never values of a query.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hop::Traffic;
use hyper::{Method, StatusCode};
use tokio::time::Instant;

use crate::desk::Caller;

/// One request that is over.
#[derive(Debug, Clone)]
pub struct Entry {
    pub caller: Caller,
    /// As it was asked for: an id or a name, of a node or of none.
    pub node: String,
    pub method: Method,
    /// Path at the node, and the keys of the query without their values.
    pub target: String,
    /// `None`: the client left before there was an answer.
    pub status: Option<StatusCode>,
    pub took: Duration,
    /// From the client, bytes.
    pub input: u64,
    /// To the client, bytes.
    pub output: u64,
}

impl Entry {
    /// Its HTTP status; 499 as elsewhere in the field: the client left before the answer.
    #[must_use]
    pub fn status_code(&self) -> u16 {
        self.status.map_or(499, |status| status.as_u16())
    }

    /// How long it took, milliseconds.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Is told of every request when it is over, including those that were refused.
pub trait Audit: Send + Sync + 'static {
    /// Must not block.
    fn record(&self, entry: &Entry);
}

/// Writes a log event for each, with the target `stillmetal::audit`.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditLog;

impl Audit for AuditLog {
    fn record(&self, entry: &Entry) {
        tracing::info!(
            target: "stillmetal::audit",
            node = %entry.node,
            method = %entry.method,
            request_target = %entry.target,
            role = %entry.caller.role,
            user = %entry.caller.user,
            status = entry.status_code(),
            duration_ms = entry.duration_ms(),
            input = entry.input,
            output = entry.output,
            "request"
        );
    }
}

/// Longest target that is told.
const TARGET: usize = 512;

/// A request that is not over yet. It is recorded when this is dropped.
pub(super) struct Record {
    audit: Arc<dyn Audit>,
    caller: Caller,
    node: String,
    method: Method,
    target: String,
    status: Option<StatusCode>,
    began: Instant,
    pub(super) traffic: Arc<Traffic>,
}

impl Record {
    pub(super) fn begin(
        audit: Arc<dyn Audit>,
        caller: Caller,
        node: &str,
        method: &Method,
        target: &str,
    ) -> Self {
        Self {
            audit,
            caller,
            node: node.to_owned(),
            method: method.clone(),
            target: hop::without_values(target).chars().take(TARGET).collect(),
            status: None,
            began: Instant::now(),
            traffic: Arc::default(),
        }
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.audit.record(&Entry {
            caller: self.caller.clone(),
            node: std::mem::take(&mut self.node),
            method: self.method.clone(),
            target: std::mem::take(&mut self.target),
            status: self.status,
            took: self.began.elapsed(),
            input: self.traffic.input(),
            output: self.traffic.output(),
        });
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("node", &self.node)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}
