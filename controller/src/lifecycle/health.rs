//! Health checks: jobs that the controller submits by itself, one for each node from time to time. A
//! node that fails its check is put in quarantine.

use api::fleet::{NodeId, NodeState};
use api::health::{HealthCheck, HealthCheckView, NodeHealth};
use api::job::{JobId, JobState};
use serde::{Deserialize, Serialize};

use super::{Core, Millis, Wanted};

/// Under which the store keeps it.
pub const HEALTH_CHECK: &str = "health-check";
/// Between two looks at which nodes are due, ms.
const LOOK: Millis = 1_000;
/// A check that its queue does not take is tried again after this, ms.
const REFUSED: Millis = 60_000;

/// The check, and who set it: the jobs are theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    #[serde(flatten)]
    pub check: HealthCheck,
    /// What its image's name stood for when it was set, by digest.
    pub image: Option<String>,
    pub user: String,
}

/// What is kept of a node's health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkup {
    /// When it last passed; `None`: it is due.
    pub passed_ms: Option<Millis>,
    /// Its check that waits or runs.
    pub job: Option<JobId>,
}

impl Core {
    /// Another check, or none. All nodes are due.
    pub fn set_health_check(&mut self, now: Millis, user: &str, check: Option<Check>) {
        let ids: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for id in ids {
            self.check_up(&id, |checkup| checkup.passed_ms = None);
        }
        let value = serde_json::to_value(&check).unwrap_or_default();
        self.event(now, "health-check.set", |event| {
            event.user = Some(user.to_owned());
            event.data = serde_json::json!(check.as_ref().map(|it| &it.check));
        });
        self.step.settings.insert(HEALTH_CHECK, value);
        self.health = check;
        self.health_look = now;
    }

    /// The check, and what came of it.
    #[must_use]
    pub fn health(&self) -> HealthCheckView {
        let nodes = self.nodes.iter().map(|(id, node)| NodeHealth {
            node: id.clone(),
            name: node.row.name.clone(),
            state: node.state(),
            passed_ms: node.row.checkup.passed_ms,
            job: node.row.checkup.job,
        });
        HealthCheckView {
            check: self.health.as_ref().map(|it| it.check.clone()),
            nodes: nodes.collect(),
        }
    }

    /// Submits the checks of nodes that are due and could run them.
    pub(super) fn check_health(&mut self, now: Millis) {
        let Some(check) = self.health.as_ref().filter(|_| self.health_look <= now) else {
            return;
        };
        let every = check.check.every_seconds.saturating_mul(1000);
        let is_due = |node: &super::node::Node| {
            let passed = node.row.checkup.passed_ms;
            node.row.checkup.job.is_none()
                && node.state() == NodeState::Ready
                && passed.is_none_or(|at| at.saturating_add(every) <= now)
        };
        let due = self.nodes.iter().filter(|(_, node)| is_due(node));
        let due: Vec<NodeId> = due.map(|(id, _)| id.clone()).collect();
        self.health_look = now.saturating_add(LOOK);
        for id in due {
            if !self.submit_check(now, &id) {
                self.health_look = now.saturating_add(REFUSED);
                return;
            }
        }
    }

    /// False: its queue does not take it.
    fn submit_check(&mut self, now: Millis, node: &NodeId) -> bool {
        let Some(check) = self.health.clone() else {
            return true;
        };
        let mut request = check.check.job;
        request.place.node = Some(node.to_string());
        request.place.nodes = 1;
        let wanted = Wanted {
            request,
            image: check.image,
        };
        // whoever sets a check is an admin
        match self.submit(now, &check.user, "admin", vec![wanted]) {
            Ok(jobs) => {
                let job = jobs.first().map(|status| status.id);
                self.check_up(node, |checkup| checkup.job = job);
                self.checking.extend(job.map(|job| (job, node.clone())));
                true
            }
            Err((_, refused)) => {
                let why = refused.to_string();
                self.node_event(
                    now,
                    node,
                    "health-check.refused",
                    serde_json::json!({ "why": why }),
                );
                false
            }
        }
    }

    /// A job is over: if it was a check, its node has passed, or is in quarantine.
    pub(super) fn judge_check(
        &mut self,
        now: Millis,
        job: JobId,
        state: JobState,
        why: Option<&str>,
    ) {
        let Some(node) = self.checking.remove(&job) else {
            return;
        };
        let never_began = self
            .step
            .jobs
            .get(&job)
            .is_some_and(|job| job.status.attempts == 0);
        let passed_ms = match state {
            JobState::Done => Some(now),
            // somebody did not want it: not again before it is due
            JobState::Cancelled => Some(now),
            _ => None,
        };
        self.check_up(&node, |checkup| {
            (checkup.job, checkup.passed_ms) = (None, passed_ms);
        });
        self.node_event(
            now,
            &node,
            "node.checked",
            serde_json::json!({ "job": job, "state": state }),
        );
        // a node that was lost, or that had no time, has not failed
        let failed = match state {
            JobState::Failed | JobState::Noisy => true,
            JobState::TimedOut => !never_began,
            _ => false,
        };
        if failed {
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            let cause = format!("its health check, job {job}, ended as {state}{why}");
            self.quarantine(now, &node, cause);
        }
    }

    fn check_up(&mut self, id: &NodeId, change: impl FnOnce(&mut Checkup)) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let before = node.row.checkup;
        change(&mut node.row.checkup);
        if node.row.checkup != before {
            let row = node.row.clone();
            self.step.nodes.insert(id.clone(), row);
        }
    }

    /// After a restart, when jobs and nodes are there.
    pub(super) fn restore_checks(&mut self) {
        let nodes = self.nodes.iter();
        let checking = nodes.filter_map(|(id, node)| Some((node.row.checkup.job?, id.clone())));
        let (open, over): (Vec<_>, Vec<_>) =
            checking.partition(|(job, _)| self.jobs.contains_key(job));
        self.checking = open.into_iter().collect();
        for (_, id) in over {
            self.check_up(&id, |checkup| checkup.job = None);
        }
    }
}
