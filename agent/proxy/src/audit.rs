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
        self.target = without_values(target);
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

fn without_values(target: &str) -> String {
    match target.split_once('?') {
        None => target.to_owned(),
        Some((path, query)) => {
            let keys: Vec<&str> = query
                .split('&')
                .map(|pair| pair.split_once('=').map_or(pair, |(key, _)| key))
                .collect();
            format!("{path}?{}", keys.join("&"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_query_are_left_out() {
        assert_eq!(without_values("/a?t=secret&b&c=1"), "/a?t&b&c");
        assert_eq!(without_values("/a"), "/a");
    }
}
