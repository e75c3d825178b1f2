//! One event per request: who, what, how it ended. Never bodies, never values of a query.

use std::sync::Arc;

use hyper::{Method, StatusCode, Uri};
use policy::Role;
use tokio::time::Instant;

use crate::peer::Peer;

/// Reported when dropped, so that a client that leaves before its answer is recorded too.
#[derive(Debug)]
pub(crate) struct Audit {
    method: Method,
    target: String,
    role: Role,
    subject: Arc<str>,
    began: Instant,
    status: Option<StatusCode>,
}

impl Audit {
    pub(crate) fn begin(method: &Method, uri: &Uri, peer: &Peer) -> Self {
        Self {
            method: method.clone(),
            target: uri.path().chars().take(256).collect(),
            role: peer.role,
            subject: Arc::clone(&peer.subject),
            began: Instant::now(),
            status: None,
        }
    }

    /// What is forwarded instead of what was received.
    pub(crate) fn routed(&mut self, target: &str) {
        self.target = hop::without_values(target);
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        tracing::info!(
            target: "stillmetal::audit",
            method = %self.method,
            request_target = %self.target,
            role = ?self.role,
            subject = %self.subject,
            // 499 as elsewhere in the field: the client left before the answer.
            status = self.status.map_or(499, |status| status.as_u16()),
            duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "request"
        );
    }
}
