//! How far the node is, for its own API and its log.

use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;

use crate::lifetime::millis;

/// How far the node is. Times are milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JoinStatus {
    /// `HOST:PORT`.
    pub controller: String,
    /// As the controller calls this node; None until it has let it in.
    pub id: Option<String>,
    /// When the node's certificate ends.
    pub certificate_ends_ms: Option<u64>,
    #[serde(flatten)]
    pub phase: Phase,
}

/// What it is at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Phase {
    /// Looks for the controller and dials.
    Resolving,
    /// Asks to be let in.
    Enrolling,
    /// Somebody has to approve: `still node approve`, after comparing this.
    Pending {
        /// Of the node's key.
        fingerprint: String,
    },
    Connected {
        since_ms: u64,
        /// The controller's, of this connection.
        address: String,
    },
    /// Could not reach the controller, or lost it.
    Waiting {
        /// Tries again then; None: when the measurement is over that holds it quiet.
        until_ms: Option<u64>,
        why: String,
    },
    /// The controller was there and said no: another machine has this identity, say.
    Refused {
        /// Tries again then.
        until_ms: u64,
        why: String,
    },
    /// The agent goes down.
    Stopped,
}

impl JoinStatus {
    /// Before anything was tried.
    pub fn new(controller: &crate::Controller) -> Self {
        Self {
            controller: controller.to_string(),
            id: None,
            certificate_ends_ms: None,
            phase: Phase::Resolving,
        }
    }
}

/// Tells changes to whoever watches, and to the log what is news: a node that cannot reach its
/// controller, or loses it again and again, says why when the reason changes and not each time.
#[derive(Debug)]
pub(crate) struct Chronicle {
    status: watch::Sender<JoinStatus>,
    told: Mutex<Told>,
}

/// What the log has been told since the last connection that held.
#[derive(Debug, Default)]
struct Told {
    connections: u32,
    trouble: String,
    fingerprint: String,
}

impl Chronicle {
    pub(crate) fn new(status: watch::Sender<JoinStatus>) -> Self {
        Self {
            status,
            told: Mutex::default(),
        }
    }

    pub(crate) fn identity(&self, known: Option<(&str, SystemTime)>) {
        self.status.send_modify(|status| {
            status.id = known.map(|(id, _)| id.to_owned());
            status.certificate_ends_ms = known.map(|(_, end)| millis(end));
        });
    }

    pub(crate) fn now(&self) -> Phase {
        self.status.borrow().phase.clone()
    }

    pub(crate) fn phase(&self, phase: Phase) {
        if self.told().is_news(&phase) {
            self.log(&phase);
        }
        self.status.send_if_modified(|status| {
            let other = status.phase != phase;
            status.phase = phase;
            other
        });
    }

    /// The connection has held for a while.
    pub(crate) fn settled(&self) {
        let told = std::mem::take(&mut *self.told());
        if told.connections > 1 {
            self.log(&self.now());
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nothing panics while it holds it")
    }

    fn log(&self, phase: &Phase) {
        let controller = self.status.borrow().controller.clone();
        match phase {
            Phase::Pending { fingerprint } => tracing::info!(
                controller,
                fingerprint,
                "waits for approval; compare the fingerprint"
            ),
            Phase::Connected { address, .. } => {
                tracing::info!(controller, address, "joined the controller");
            }
            Phase::Waiting { why, .. } => tracing::warn!(controller, why, "not joined"),
            Phase::Refused { why, .. } => tracing::warn!(controller, why, "refused"),
            Phase::Resolving | Phase::Enrolling | Phase::Stopped => {}
        }
    }
}

impl Told {
    fn is_news(&mut self, phase: &Phase) -> bool {
        match phase {
            // On the way from one of the others to one of the others.
            Phase::Resolving | Phase::Enrolling | Phase::Stopped => false,
            Phase::Pending { fingerprint } => replace(&mut self.fingerprint, fingerprint),
            Phase::Connected { .. } => {
                self.connections = self.connections.saturating_add(1);
                self.connections == 1
            }
            Phase::Waiting { why, .. } | Phase::Refused { why, .. } => {
                replace(&mut self.trouble, why)
            }
        }
    }
}

/// Whether it was another one.
fn replace(old: &mut String, new: &str) -> bool {
    let other = old != new;
    if other {
        new.clone_into(old);
    }
    other
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> Phase {
        Phase::Connected {
            since_ms: 0,
            address: "a".into(),
        }
    }

    fn waiting(why: &str, until: u64) -> Phase {
        Phase::Waiting {
            until_ms: Some(until),
            why: why.into(),
        }
    }

    #[test]
    fn the_log_hears_of_changes_only() {
        let mut told = Told::default();
        assert!(told.is_news(&waiting("refused", 1)));
        for until in 2..100 {
            assert!(!told.is_news(&Phase::Resolving));
            assert!(!told.is_news(&waiting("refused", until)));
        }
        assert!(told.is_news(&waiting("timed out", 1)));
        assert!(told.is_news(&connected()));
        // From here on it comes and goes.
        assert!(told.is_news(&waiting("closed", 1)));
        for until in 2..100 {
            assert!(!told.is_news(&connected()));
            assert!(!told.is_news(&waiting("closed", until)));
        }
        let pending = Phase::Pending {
            fingerprint: "f".into(),
        };
        assert!(told.is_news(&pending));
        assert!(!told.is_news(&pending));
    }

    #[test]
    fn a_status_reads_well_as_json() {
        let controller = crate::Controller {
            host: "::1".into(),
            port: 7443,
        };
        let mut status = JoinStatus::new(&controller);
        status.phase = waiting("closed", 5);
        let json = serde_json::to_value(&status).unwrap();
        let wanted = serde_json::json!({
            "controller": "[::1]:7443", "id": null, "certificate_ends_ms": null,
            "state": "waiting", "until_ms": 5, "why": "closed",
        });
        assert_eq!(json, wanted);
    }
}
