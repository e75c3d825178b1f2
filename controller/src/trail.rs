//! The audit trail of calls to nodes: each goes to the log, and those that may change something, or were
//! refused, become events as well, which are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::Method;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dispatch::Dispatch;
use crate::lifecycle::Core;
use crate::relay::{Audit, AuditLog, Entry};

/// Calls that are over and not written down yet.
const WAITING: usize = 4_096;
/// Written down at once.
const AT_ONCE: usize = 256;

/// Where calls are told. Those that there is no room for are counted, and that is told.
#[derive(Debug)]
pub struct Trail {
    log: AuditLog,
    entries: mpsc::Sender<Entry>,
    lost: Arc<AtomicU64>,
}

impl Trail {
    /// Writes in the background until `stop`.
    #[must_use]
    pub fn new(dispatch: Dispatch, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let (entries, waiting) = mpsc::channel(WAITING);
        let lost = Arc::default();
        tasks.spawn(write(dispatch, waiting, Arc::clone(&lost), stop));
        Self {
            log: AuditLog,
            entries,
            lost,
        }
    }
}

impl Audit for Trail {
    fn record(&self, entry: &Entry) {
        self.log.record(entry);
        if is_kept(entry) && self.entries.try_send(entry.clone()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether it may have changed something, or was not allowed to.
fn is_kept(entry: &Entry) -> bool {
    let reads = matches!(entry.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let refused = entry
        .status
        .is_some_and(|status| matches!(status.as_u16(), 401 | 403));
    !reads || refused
}

async fn write(
    dispatch: Dispatch,
    mut waiting: mpsc::Receiver<Entry>,
    lost: Arc<AtomicU64>,
    stop: CancellationToken,
) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            count = waiting.recv_many(&mut batch, AT_ONCE) => if count == 0 {
                return;
            },
        }
        let entries = std::mem::take(&mut batch);
        let missed = lost.swap(0, Ordering::Relaxed);
        let note = move |core: &mut Core, now| {
            for entry in entries {
                let data = json!({
                    "node": entry.node,
                    "method": entry.method.as_str(),
                    "target": entry.target,
                    "role": entry.caller.role.to_string(),
                    "status": entry.status_code(),
                    "duration_ms": entry.duration_ms(),
                    "input": entry.input,
                    "output": entry.output,
                });
                core.called(now, &entry.node, &entry.caller.user, data);
            }
            if missed > 0 {
                core.calls_lost(now, missed);
            }
        };
        dispatch.tell(note).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::StatusCode;

    use super::*;
    use crate::desk::Caller;

    fn entry(method: Method, status: u16) -> Entry {
        Entry {
            caller: Caller {
                user: "alice".into(),
                role: policy::Role::User,
            },
            node: "bench1".into(),
            method,
            target: "/v1.45/containers/json".into(),
            status: StatusCode::from_u16(status).ok(),
            took: Duration::ZERO,
            input: 0,
            output: 0,
        }
    }

    #[test]
    fn what_changes_or_is_refused_is_kept() {
        for (method, status, kept) in [
            (Method::GET, 200, false),
            (Method::GET, 404, false),
            (Method::GET, 403, true),
            (Method::HEAD, 200, false),
            (Method::POST, 201, true),
            (Method::POST, 500, true),
            (Method::DELETE, 204, true),
        ] {
            assert_eq!(
                is_kept(&entry(method.clone(), status)),
                kept,
                "{method} {status}"
            );
        }
    }
}
