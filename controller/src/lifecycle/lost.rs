//! Nodes that went away and came back.

use api::fleet::NodeId;
use api::job::{JobId, JobState, OnLoss};
use api::work::{Held, Key, Order};

use super::attempt::Progress;
use super::fate::Fate;
use super::step::Mark;
use super::{Core, Millis};

impl Core {
    fn parts_on(&self, node: &NodeId) -> Vec<(Key, Progress, Ending)> {
        let placed = self
            .placed
            .iter()
            .filter_map(|id| self.jobs.get(id)?.attempt.as_ref());
        placed
            .filter_map(|attempt| {
                let part = attempt.parts.get(node)?;
                let ending = match &attempt.fate {
                    Some(_) => Ending::Decided,
                    None if attempt.all(Progress::Accepted) => Ending::Begun,
                    None => Ending::Open,
                };
                Some((attempt.key, part.progress, ending))
            })
            .collect()
    }

    /// A node that is back: what it was told and does not know is told again, and what it should have
    /// and has not is lost.
    pub(super) fn resume(&mut self, now: Millis, node: &NodeId, held: &[Held], rebooted: bool) {
        for (key, progress, ending) in self.parts_on(node) {
            let has = held.iter().find(|it| it.key == key);
            match (has, progress, ending) {
                (_, Progress::Settled, _) => {}
                (Some(_), _, Ending::Decided) => {
                    let why = "its attempt was given up".to_owned();
                    self.order(node, Order::Cancel { key, why });
                }
                (Some(has), _, _) => {
                    self.advanced(now, node, key, has.stage.into());
                    if matches!(ending, Ending::Begun) {
                        self.order(node, Order::Begin { key });
                    }
                }
                // it may have taken and begun it before it was rebooted: the same key never runs twice
                (None, Progress::Sent, Ending::Open) if !rebooted => {
                    self.send_assignment(key.job, node);
                }
                (None, _, Ending::Decided) => self.settle(now, key, node),
                (None, ..) => {
                    let name = self.name(node);
                    self.lose(now, key.job, node, format!("{name} came back without it"));
                }
            }
        }
    }

    /// A node that is away: what was to be ended there is, by its absence.
    pub(super) fn left(&mut self, now: Millis, node: &NodeId) {
        for (key, progress, ending) in self.parts_on(node) {
            if matches!(ending, Ending::Decided) && progress < Progress::Settled {
                self.settle(now, key, node);
            }
        }
    }

    /// A node's part is gone for good.
    pub(super) fn lose(&mut self, now: Millis, id: JobId, node: &NodeId, reason: String) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let part = job
            .attempt
            .as_mut()
            .and_then(|attempt| attempt.parts.get_mut(node));
        if let Some(part) = part {
            part.progress = Progress::Settled;
        }
        let fate = match job.status.request.on_loss {
            OnLoss::Requeue { .. } => Fate::Again {
                otherwise: JobState::Lost,
                reason: reason.clone(),
            },
            OnLoss::Fail => Fate::Over {
                state: JobState::Lost,
                reason: reason.clone(),
            },
        };
        self.mark(id, Mark::Disconnected);
        self.event(now, "job.node-lost", |event| {
            (event.job, event.node) = (Some(id), Some(node.clone()));
            event.data = serde_json::json!({ "reason": reason });
        });
        self.doom(now, id, fate);
        self.conclude_if_settled(now, id);
    }
}

/// What is known of an attempt as a whole.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// Not all nodes have accepted.
    Open,
    Begun,
    /// It is being ended.
    Decided,
}
