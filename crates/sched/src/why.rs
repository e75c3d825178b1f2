//! What a job waits for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::booking::Booking;
use crate::catalogue::{Catalogue, ready};
use crate::holds::{Promises, Search};
use crate::node::Health;
use crate::request::Selector;
use crate::scheduler::{JobId, Phase, Scheduler, Unknown};

/// Why a job has not started, and when it could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    pub reasons: Vec<Reason>,
    /// By the limits of what runs and is reserved. `None`: not as the nodes are, or not known.
    pub could_start: Option<Time>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum Reason {
    /// It does not wait: it has its place.
    Placed,
    /// It can start at the next look.
    CanStart,
    QueueDraining {
        queue: String,
    },
    /// No more than `matching` nodes match what a part asks for, and `wanted` are needed.
    NoSuchNodes {
        part: usize,
        wanted: u32,
        matching: usize,
    },
    /// Enough nodes would match if their CPUs were isolated.
    NotIsolated {
        part: usize,
        wanted: u32,
        matching: usize,
        others: Vec<String>,
    },
    /// Enough nodes match, but only `ready` of them take work.
    NotReady {
        part: usize,
        wanted: u32,
        ready: usize,
        others: Vec<(String, Health)>,
    },
    /// Nodes match, but none is large enough even when idle.
    TooLarge {
        part: usize,
    },
    /// Those run where it could.
    Held {
        by: Vec<JobId>,
    },
    /// Those before it in the order have these places reserved.
    Reserved {
        by: Vec<JobId>,
    },
    /// Nodes that would do are booked for others.
    Booked {
        nodes: Vec<String>,
    },
    Behind {
        jobs: usize,
    },
}

impl Scheduler {
    /// Explains a job that is not over.
    ///
    /// # Errors
    /// [`Unknown::Job`].
    pub fn why(&self, now: Time, id: JobId) -> Result<Why, Unknown> {
        let job = self.jobs.get(&id).ok_or(Unknown::Job(id))?;
        let only = |reason| Why {
            reasons: vec![reason],
            could_start: None,
        };
        if job.phase != Phase::Waiting {
            return Ok(only(Reason::Placed));
        }
        let queue = &job.request.queue;
        if self.queues.get(queue).is_none_or(|queue| queue.draining) {
            return Ok(only(Reason::QueueDraining {
                queue: queue.clone(),
            }));
        }
        let lacking = self.lacking(id);
        if !lacking.is_empty() {
            return Ok(Why {
                reasons: lacking,
                could_start: None,
            });
        }
        let decided = self.decide(now, self.reserved.clone(), true);
        if decided.starts.iter().any(|(start, _)| *start == id) {
            return Ok(Why {
                reasons: vec![Reason::CanStart],
                could_start: Some(now),
            });
        }
        let suitable = Catalogue::of(ready(&self.nodes)).suitable(&job.request);
        let reserved = decided.reservations.get(&id).map(|(start, _)| *start);
        let could_start = reserved.or_else(|| {
            let search = Search {
                request: &job.request,
                suitable: suitable.clone(),
                held: &decided.holds,
                promises: Promises::Keep,
            };
            search.earliest(now).map(|(time, _)| time)
        });
        if could_start.is_none() {
            let parts = 0..job.request.parts.len();
            return Ok(Why {
                reasons: parts.map(|part| Reason::TooLarge { part }).collect(),
                could_start,
            });
        }
        let nodes: BTreeSet<_> = suitable
            .iter()
            .flat_map(|nodes| nodes.iter().map(|(node, _)| *node))
            .collect();
        let there = nodes.iter().flat_map(|node| decided.holds.of(*node));
        let (held, reserved): (BTreeSet<_>, BTreeSet<_>) = there
            .filter_map(|hold| Some((hold.job()?, hold.from > now)))
            .filter(|(job, _)| *job != id)
            .partition(|(_, later)| !later);
        let others = |it: &&Booking| !it.admits(&job.request.user);
        let bookings = self.bookings.values().filter(others);
        let booked: BTreeSet<_> = bookings.flat_map(|it| &it.nodes).copied().collect();
        let booked = booked.intersection(&nodes);
        let booked = booked.filter_map(|id| Some(self.node(*id)?.name.clone()));
        let jobs = |all: BTreeSet<(JobId, bool)>| all.into_iter().map(|(job, _)| job).collect();
        let ahead = decided.order.iter().position(|job| *job == id);
        let ahead = ahead.unwrap_or_default();
        let mut reasons = vec![Reason::Held { by: jobs(held) }];
        reasons.push(Reason::Reserved { by: jobs(reserved) });
        reasons.push(Reason::Booked {
            nodes: booked.collect(),
        });
        reasons.push(Reason::Behind { jobs: ahead });
        reasons.retain(|reason| match reason {
            Reason::Held { by } | Reason::Reserved { by } => !by.is_empty(),
            Reason::Booked { nodes } => !nodes.is_empty(),
            Reason::Behind { jobs } => *jobs > 0,
            _ => true,
        });
        Ok(Why {
            reasons,
            could_start,
        })
    }

    /// Nodes that would do but for their CPUs, which are not isolated.
    fn not_isolated(&self, selector: &Selector) -> Vec<String> {
        if !selector.isolated {
            return Vec::new();
        }
        let any = Selector {
            isolated: false,
            ..selector.clone()
        };
        let others = self.nodes.iter().filter(|node| !node.isolated);
        let others = others.filter(|node| any.matches(node));
        others.map(|node| node.name.clone()).collect()
    }

    /// Nodes that there are too few of, whatever runs.
    fn lacking(&self, id: JobId) -> Vec<Reason> {
        let parts = self.jobs.get(&id).map(|job| &job.request.parts);
        let parts = parts.into_iter().flatten().enumerate();
        parts
            .filter_map(|(part, wish)| {
                let all = self.nodes.iter();
                let matching: Vec<_> = all.filter(|node| wish.selector.matches(node)).collect();
                let enough = |count: usize| u32::try_from(count).is_ok_and(|it| it >= wish.count);
                let wanted = wish.count;
                if !enough(matching.len()) {
                    let matching = matching.len();
                    let others = self.not_isolated(&wish.selector);
                    if enough(matching + others.len()) {
                        return Some(Reason::NotIsolated {
                            part,
                            wanted,
                            matching,
                            others,
                        });
                    }
                    return Some(Reason::NoSuchNodes {
                        part,
                        wanted,
                        matching,
                    });
                }
                let others: Vec<_> = matching
                    .iter()
                    .filter(|node| node.health != Health::Ready)
                    .map(|node| (node.name.clone(), node.health.clone()))
                    .collect();
                let ready = matching.len() - others.len();
                (!enough(ready)).then_some(Reason::NotReady {
                    part,
                    wanted,
                    ready,
                    others,
                })
            })
            .collect()
    }
}
