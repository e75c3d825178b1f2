//! The end of jobs: asked for, doomed, concluded.

use api::fleet::NodeId;
use api::job::{JobId, JobState, JobStatus};
use api::work::{Key, Order};

use super::attempt::Progress;
use super::fate::{self, Fate};
use super::step::{Conclusion, Mark};
use super::{Core, Millis};

impl Core {
    /// Ends a job wherever it stands. `None`: it is over, or never was.
    pub fn cancel(
        &mut self,
        now: Millis,
        user: &str,
        id: JobId,
        reason: Option<&str>,
    ) -> Option<JobStatus> {
        let job = self.jobs.get_mut(&id)?;
        let why = match reason {
            Some(reason) => format!("cancelled by {user}: {reason}"),
            None => format!("cancelled by {user}"),
        };
        job.status.cancelling = true;
        let placed = job.attempt.is_some();
        let mut status = job.status.clone();
        self.event(now, "job.cancelling", |event| {
            event.job = Some(id);
            event.user = Some(user.to_owned());
            event.data = serde_json::json!({ "reason": reason });
        });
        if placed {
            let state = JobState::Cancelled;
            self.doom(now, id, Fate::Over { state, reason: why });
        } else {
            self.over(now, id, JobState::Cancelled, Some(why));
        }
        if let Some(job) = self.jobs.get(&id) {
            status = job.status.clone();
        } else if let Some(job) = self.step.jobs.get(&id) {
            status = job.status.clone();
        }
        Some(status)
    }

    /// The attempt is not to go on. Nodes that are there are told so; those that are not will be when
    /// they come back.
    pub(super) fn doom(&mut self, now: Millis, id: JobId, fate: Fate) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(attempt) = &mut job.attempt else {
            return;
        };
        match &attempt.fate {
            Some((_, decided)) if !decided.yields_to(&fate) => return,
            _ => {}
        }
        let (Fate::Again { reason, .. } | Fate::Over { reason, .. }) = &fate;
        let why = reason.clone();
        let over = matches!(fate, Fate::Over { .. });
        attempt.fate = Some((now, fate));
        let key = attempt.key;
        let parts = attempt.parts.iter_mut();
        let mut running = Vec::new();
        for (node, part) in parts {
            let there = self.nodes.get(node).is_some_and(super::node::Node::is_up);
            match part.progress {
                Progress::Settled => {}
                // its documents are on their way; what is not wanted is not waited for
                Progress::Ended if there && over => {}
                Progress::Ended => part.progress = Progress::Settled,
                _ if there => running.push(node.clone()),
                _ => part.progress = Progress::Settled,
            }
        }
        job.status.reason = Some(why.clone());
        for node in running {
            let why = why.clone();
            self.order(&node, Order::Cancel { key, why });
        }
        self.changed(now, id);
        self.conclude_if_settled(now, id);
    }

    /// Nothing more is wanted of a node for this attempt.
    pub(super) fn settle(&mut self, now: Millis, key: Key, node: &NodeId) {
        let attempt = self
            .jobs
            .get_mut(&key.job)
            .and_then(|job| job.attempt.as_mut());
        if let Some(attempt) = attempt.filter(|attempt| attempt.key == key) {
            if let Some(part) = attempt.parts.get_mut(node) {
                part.progress = Progress::Settled;
                part.since_ms = now;
            }
            self.conclude_if_settled(now, key.job);
        }
    }

    /// What follows when all parts are settled.
    pub(super) fn conclude_if_settled(&mut self, now: Millis, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let Some(attempt) = job.attempt.as_ref().filter(|it| it.all(Progress::Settled)) else {
            return;
        };
        match attempt.fate.clone().map(|(_, fate)| fate) {
            None => {
                let (state, reason) = fate::verdict(&job.status);
                self.over(now, id, state, reason);
            }
            Some(Fate::Over { state, reason }) => self.over(now, id, state, Some(reason)),
            Some(Fate::Again { reason, .. }) if job.may_try_again() => {
                self.requeue(now, id, reason)
            }
            Some(Fate::Again { otherwise, reason }) => {
                let times = job.status.attempts;
                let reason = format!("{reason}; it was tried {times} times");
                self.over(now, id, otherwise, Some(reason));
            }
        }
    }

    fn requeue(&mut self, now: Millis, id: JobId, reason: String) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if let Some(attempt) = job.attempt.take() {
            // it is the present one
            self.sched.give_up(attempt.number(id)).unwrap_or_default();
        }
        job.status.reason = Some(reason);
        job.status.started_ms = None;
        self.stirred = true;
        self.enter(now, id, JobState::Queued);
        self.mark(id, Mark::Requeued);
    }

    /// A job's end. Its row is the store's from now on.
    pub(super) fn over(&mut self, now: Millis, id: JobId, state: JobState, reason: Option<String>) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let assigned = match job.attempt.take() {
            Some(attempt) => {
                // it is the present one
                self.sched
                    .ended(now, attempt.number(id))
                    .unwrap_or_default();
                Some(attempt.assigned_ms)
            }
            None => {
                self.sched.cancel(sched::JobId(id.0)).unwrap_or_default();
                None
            }
        };
        if let Some(until) = job.queued_until() {
            self.impatient.remove(&(until, id));
        }
        let status = &mut job.status;
        status.ended_ms = Some(now);
        if reason.is_some() {
            status.reason.clone_from(&reason);
        }
        let (submitted, queue) = (status.submitted_ms, status.request.queue.clone());
        self.stirred = true;
        self.enter(now, id, state);
        self.placed.remove(&id);
        self.touched.remove(&id);
        if let Some(job) = self.jobs.remove(&id) {
            self.step.jobs.insert(id, job);
        }
        self.step.conclusions.push(Conclusion {
            queue,
            state,
            waited_ms: assigned.map(|at| at.saturating_sub(submitted)),
            ran_ms: assigned.map(|at| now.saturating_sub(at)),
            total_ms: now.saturating_sub(submitted),
        });
        self.judge_check(now, id, state, reason.as_deref());
    }
}
