//! What follows from the mere passing of time. Every wait has its end here.

use api::fleet::NodeId;
use api::job::{JobId, JobState};

use super::attempt::{Attempt, Part, Progress};
use super::fate::Fate;
use super::node::Link;
use super::settings::millis;
use super::{Core, Millis};

/// A part that has had its time.
enum Late {
    /// It was told to end and did not.
    Unended(NodeId),
    /// Not accepted.
    Silent(NodeId),
    /// Its node is away.
    Gone(NodeId),
    /// Past its lease, on a node that is there.
    Overdue,
    /// Its documents were never fetched.
    Uncollected(NodeId),
}

impl Core {
    /// Deadlines first, then whoever can start does.
    pub fn passed(&mut self, now: Millis) {
        self.end_hold_offs(now);
        self.end_waits(now);
        self.end_bookings(now);
        self.check_health(now);
        let late: Vec<(JobId, Late)> = self
            .placed
            .iter()
            .filter_map(|id| {
                Some((
                    *id,
                    self.lateness(now, self.jobs.get(id)?.attempt.as_ref()?)?,
                ))
            })
            .collect();
        for (id, late) in late {
            self.act_on(now, id, late);
        }
        if self.stirred || self.sched.next_look(0).is_some_and(|at| at <= now) {
            self.schedule(now);
        }
    }

    /// When [`Core::passed`] has something to do at the latest, as far as the scheduler knows.
    #[must_use]
    pub fn next_look(&self, now: Millis) -> Option<Millis> {
        if self.stirred {
            return Some(now);
        }
        self.sched.next_look(now)
    }

    fn end_hold_offs(&mut self, now: Millis) {
        let over = |id: &NodeId| {
            let until = self.nodes.get(id)?.hold_off.as_ref().map(|it| it.0);
            until.is_none_or(|until| until <= now).then(|| id.clone())
        };
        let ended: Vec<NodeId> = self.held_off.iter().filter_map(over).collect();
        for id in ended {
            self.held_off.remove(&id);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.hold_off = None;
            }
            self.reseat(&id);
        }
    }

    fn end_waits(&mut self, now: Millis) {
        while let Some((until, id)) = self.impatient.first().copied() {
            if until > now {
                break;
            }
            self.impatient.pop_first();
            let waits = self
                .jobs
                .get(&id)
                .is_some_and(|job| job.queued_until() == Some(until));
            if waits {
                let reason = "it waited in its queue for as long as it was to".to_owned();
                self.over(now, id, JobState::TimedOut, Some(reason));
            }
        }
    }

    fn lateness(&self, now: Millis, attempt: &Attempt) -> Option<Late> {
        let settings = &self.settings;
        let after = |since: Millis, duration| now >= since.saturating_add(millis(duration));
        let parts = attempt.parts.iter();
        let mut open = parts.filter(|(_, part)| part.progress < Progress::Settled);
        if let Some((since, _)) = &attempt.fate {
            let (node, _) = open.next()?;
            return after(*since, settings.end).then(|| Late::Unended(node.clone()));
        }
        let look = |(node, part): (&NodeId, &Part)| {
            if part.progress == Progress::Ended {
                let late = after(part.since_ms, settings.collect);
                return late.then(|| Late::Uncollected(node.clone()));
            }
            match self.nodes.get(node).map(|node| node.link) {
                Some(Link::Up { .. }) if part.progress == Progress::Sent => {
                    after(part.since_ms, settings.accept).then(|| Late::Silent(node.clone()))
                }
                Some(Link::Up { .. }) => {
                    after(attempt.lease_ends(), settings.end).then_some(Late::Overdue)
                }
                Some(Link::Down { since }) => {
                    // silence is what a measurement is made of
                    let measured = part.progress >= Progress::Measuring;
                    let from = if measured {
                        since.max(attempt.lease_ends())
                    } else {
                        since
                    };
                    after(from, settings.lost_after).then(|| Late::Gone(node.clone()))
                }
                None => Some(Late::Gone(node.clone())),
            }
        };
        open.find_map(look)
    }

    fn act_on(&mut self, now: Millis, id: JobId, late: Late) {
        let settings = self.settings;
        match late {
            Late::Unended(node) => {
                let key = self
                    .jobs
                    .get(&id)
                    .and_then(|job| Some(job.attempt.as_ref()?.key));
                let collecting = self.progress(id, &node) == Some(Progress::Ended);
                if !collecting {
                    let cause = format!("it did not end job {id} within {:?}", settings.end);
                    self.quarantine(now, &node, cause);
                }
                if let Some(key) = key {
                    self.settle(now, key, &node);
                }
            }
            Late::Silent(node) => {
                let name = self.name(&node);
                let reason = format!("{name} did not take it within {:?}", settings.accept);
                self.hold_off(now, &node, id, format!("it did not answer for job {id}"));
                let otherwise = JobState::Failed;
                self.doom(now, id, Fate::Again { otherwise, reason });
            }
            Late::Gone(node) => {
                let name = self.name(&node);
                self.lose(now, id, &node, format!("{name} was lost"));
            }
            Late::Overdue => {
                let state = JobState::TimedOut;
                let reason = "its node did not end it at the end of its lease".to_owned();
                self.doom(now, id, Fate::Over { state, reason });
            }
            Late::Uncollected(node) => {
                let name = self.name(&node);
                let state = JobState::Lost;
                let reason = format!("its result could not be fetched from {name}");
                self.doom(now, id, Fate::Over { state, reason });
            }
        }
    }

    fn progress(&self, id: JobId, node: &NodeId) -> Option<Progress> {
        let attempt = self.jobs.get(&id)?.attempt.as_ref()?;
        Some(attempt.parts.get(node)?.progress)
    }
}
