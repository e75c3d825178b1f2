//! What nodes report of their work.

use api::fleet::NodeId;
use api::job::JobId;
use api::work::{Document, Ending, Key, Order, PartOutcome, Report};

use super::attempt::{Attempt, Part, Progress};
use super::fate::Fate;
use super::step::{Collect, Orphan};
use super::{Core, Millis};

impl Core {
    /// What a node says on its present connection, after its hello. Reports of attempts that are not
    /// the present ones change nothing; a result among them is kept as evidence.
    pub fn reported(&mut self, now: Millis, node: &NodeId, session: u64, report: Report) {
        if self.session(node) != Some(session) {
            return;
        }
        match report {
            // said once, at the beginning
            Report::Hello { .. } => {}
            Report::Facts { facts } => self.facts(now, node, *facts),
            Report::Accepted { key } => self.accepted(now, node, key),
            Report::Refused {
                key,
                why,
                elsewhere,
            } => self.refused(now, node, key, &why, elsewhere),
            Report::Stage { key, stage, .. } => self.advanced(now, node, key, stage.into()),
            Report::Ended { key, ending } => self.part_ended(now, node, key, *ending),
            Report::Heartbeat {} => {}
        }
    }

    /// The present attempt of this key, if the node has a part in it.
    fn part(&mut self, node: &NodeId, key: Key) -> Option<(&mut Attempt, Progress)> {
        let attempt = self.jobs.get_mut(&key.job)?.attempt.as_mut()?;
        let progress = attempt.parts.get(node)?.progress;
        (attempt.key == key && progress < Progress::Settled).then_some((attempt, progress))
    }

    fn accepted(&mut self, now: Millis, node: &NodeId, key: Key) {
        if let Some((_, Progress::Sent)) = self.part(node, key) {
            self.advanced(now, node, key, Progress::Accepted);
        }
    }

    pub(super) fn advanced(&mut self, now: Millis, node: &NodeId, key: Key, to: Progress) {
        // an end is told with what came of it, never as a stage
        if to >= Progress::Ended {
            return;
        }
        let Some((attempt, from)) = self.part(node, key) else {
            return;
        };
        if from >= to {
            return;
        }
        let waits = !attempt.all(Progress::Accepted);
        if let Some(part) = attempt.parts.get_mut(node) {
            part.progress = to;
            part.since_ms = now;
        }
        let begin = waits && attempt.all(Progress::Accepted) && attempt.fate.is_none();
        let (number, gang) = (attempt.number(key.job), attempt.parts.len() > 1);
        let nodes: Vec<NodeId> = attempt.parts.keys().cloned().collect();
        if let Some(node) = self.nodes.get(node) {
            // False, or an error: the scheduler knew it already.
            self.sched
                .accept(now, number, node.seat)
                .unwrap_or_default();
        }
        if begin && gang {
            for node in nodes {
                self.order(&node, Order::Begin { key });
            }
        }
        self.show(now, key.job);
    }

    /// The job's state as its parts make it.
    fn show(&mut self, now: Millis, id: JobId) {
        let attempt = self.jobs.get(&id).and_then(|job| job.attempt.as_ref());
        let Some(state) = attempt.map(Attempt::state) else {
            return;
        };
        match self.jobs.get(&id) {
            // progress of a part alone is kept, too
            Some(job) if job.status.state == state => {
                self.touched.insert(id);
            }
            _ => self.enter(now, id, state),
        }
    }

    fn refused(&mut self, now: Millis, node: &NodeId, key: Key, why: &str, elsewhere: bool) {
        let Some((attempt, _)) = self.part(node, key) else {
            return;
        };
        // it was to be ended and is not there: nothing is wrong with the node
        let decided = attempt.fate.is_some();
        let name = self.name(node);
        self.node_event(
            now,
            node,
            "job.refused",
            serde_json::json!({ "key": key, "why": why }),
        );
        if elsewhere && !decided {
            let cause = format!("it refused job {}: {why}", key.job);
            self.hold_off(now, node, key.job, cause);
        }
        if let Some((attempt, _)) = self.part(node, key)
            && let Some(part) = attempt.parts.get_mut(node)
        {
            part.progress = Progress::Settled;
        }
        let otherwise = api::job::JobState::Failed;
        let reason = format!("{name} refused it: {why}");
        let fate = match elsewhere {
            true => Fate::Again { otherwise, reason },
            false => Fate::Over {
                state: otherwise,
                reason,
            },
        };
        self.doom(now, key.job, fate);
        self.conclude_if_settled(now, key.job);
    }

    pub(super) fn name(&self, node: &NodeId) -> String {
        let row = self.nodes.get(node).map(|node| node.row.name.clone());
        row.unwrap_or_else(|| node.to_string())
    }

    fn part_ended(&mut self, now: Millis, node: &NodeId, key: Key, ending: Ending) {
        let Some((attempt, progress)) = self.part(node, key) else {
            if self
                .jobs
                .get(&key.job)
                .is_some_and(|job| job.counts(node, key))
            {
                // it has not heard that this is stored
                self.order(node, Order::Acknowledge { key });
                return;
            }
            self.step.orphans.push(Orphan {
                node: node.clone(),
                key,
                at_ms: now,
                ending,
            });
            return;
        };
        let unwanted = matches!(attempt.fate, Some((_, Fate::Again { .. })));
        let outcome = ending.outcome;
        let documents = ending.documents.clone();
        if progress < Progress::Ended {
            if let Some(part) = attempt.parts.get_mut(node) {
                (part.progress, part.since_ms) = (Progress::Ended, now);
            }
            if let Some(job) = self.jobs.get_mut(&key.job) {
                let parts = job.status.parts.iter_mut();
                for part in parts.filter(|part| part.node == *node) {
                    part.ending = Some(ending.clone());
                }
            }
            let data =
                serde_json::json!({ "key": key, "outcome": outcome, "reason": ending.reason });
            self.event(now, "job.part-ended", |event| {
                (event.job, event.node) = (Some(key.job), Some(node.clone()));
                event.data = data;
            });
            match (outcome, &ending.reason) {
                (PartOutcome::Error, why) => {
                    let why = why.as_deref().unwrap_or("it does not say why");
                    let cause = format!("it could not run job {}: {why}", key.job);
                    self.strike(now, node, key.job, cause);
                }
                // it says nothing of the node
                (PartOutcome::Cancelled, _) => {}
                _ => self.served(node),
            }
            self.show(now, key.job);
            self.end_the_others(node, key, outcome);
        }
        if documents.is_empty() || unwanted {
            self.collected(now, node, key, Vec::new());
        } else {
            self.step.collect.push(Collect {
                node: node.clone(),
                key,
                documents,
            });
        }
    }

    /// A gang of which one part failed is of no use: the others do not run on to their limits.
    fn end_the_others(&mut self, node: &NodeId, key: Key, outcome: PartOutcome) {
        if matches!(outcome, PartOutcome::Done | PartOutcome::Noisy) {
            return;
        }
        let why = format!("{} ended as {outcome:?}", self.name(node)).to_lowercase();
        let attempt = self.jobs.get(&key.job).and_then(|job| job.attempt.as_ref());
        let running = |part: &Part| part.progress < Progress::Ended;
        let others = attempt.iter().flat_map(|attempt| &attempt.parts);
        let others: Vec<NodeId> = others
            .filter(|(other, part)| *other != node && running(part))
            .map(|(other, _)| other.clone())
            .collect();
        for other in others {
            let why = why.clone();
            self.order(&other, Order::Cancel { key, why });
        }
    }

    /// A part's documents are stored here, every one of them.
    pub fn collected(&mut self, now: Millis, node: &NodeId, key: Key, documents: Vec<Document>) {
        if self.part(node, key).is_none() {
            // too late for the job, but they are here, and its row says what they are
            self.order(node, Order::Acknowledge { key });
            return;
        }
        if let Some(job) = self.jobs.get_mut(&key.job) {
            let parts = job.status.parts.iter_mut();
            for part in parts.filter(|part| part.node == *node) {
                part.documents.clone_from(&documents);
            }
        }
        self.order(node, Order::Acknowledge { key });
        self.touched.insert(key.job);
        self.settle(now, key, node);
    }

    /// A late result was kept as evidence.
    pub fn late(&mut self, now: Millis, node: &NodeId, job: JobId) {
        self.event(now, "job.late-result", |event| {
            (event.job, event.node) = (Some(job), Some(node.clone()));
        });
    }

    /// A node was sent the image of a job.
    pub fn image_sent(&mut self, now: Millis, node: &NodeId, job: JobId, data: serde_json::Value) {
        self.event(now, "node.image", |event| {
            (event.job, event.node) = (Some(job), Some(node.clone()));
            event.data = data;
        });
    }

    /// An order that follows from nothing here.
    pub fn tell(&mut self, node: &NodeId, order: Order) {
        self.order(node, order);
    }
}
