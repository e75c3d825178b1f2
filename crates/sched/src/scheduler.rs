//! The state, and what happens to it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::booking::{Booking, BookingId};
use crate::fair::Usage;
use crate::holds::{Hold, Holder, Holds};
use crate::node::{Node, NodeId};
use crate::pass::{Decided, Pass, Reservations};
use crate::queue::{Queue, Refused};
use crate::request::Request;
use crate::settings::Settings;
use crate::waits::Waits;
use crate::{Slot, Time};

/// A run that is over its limit holds its place until it is known to have ended; others may expect
/// it to be free so much later, ms.
const OVERDUE: u64 = 1_000;

/// A job's number, in the order of submission.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One try to run a job. Whoever acts for a try names all three numbers; what comes from an older
/// one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    pub job: JobId,
    /// From 1.
    pub number: u32,
    /// Grows with every attempt of any job.
    pub fence: u64,
}

/// Places for a whole job, if each of its nodes accepts until the deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub attempt: Attempt,
    pub slots: Vec<Slot>,
    pub deadline: Time,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    Waiting,
    Offered {
        offer: Offer,
        accepted: BTreeSet<NodeId>,
    },
    Running {
        attempt: Attempt,
        slots: Vec<Slot>,
        since: Time,
    },
}

/// Nothing is known of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unknown {
    #[error("there is no job {0}")]
    Job(JobId),
    #[error("attempt {} of job {} is not the present one", .0.number, .0.job)]
    Stale(Attempt),
    #[error("node {0} is not known, or has no part in that attempt")]
    Node(NodeId),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) submitted: Time,
    pub(crate) attempts: u32,
    pub(crate) phase: Phase,
}

/// Nodes, queues and jobs that are not over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    pub(crate) settings: Settings,
    pub(crate) nodes: Vec<Node>,
    pub(crate) queues: BTreeMap<String, Queue>,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    waits: Waits,
    /// Those that do not wait.
    placed: BTreeSet<JobId>,
    pub(crate) bookings: BTreeMap<BookingId, Booking>,
    usage: Usage,
    pub(crate) reserved: Reservations,
    last_job: u64,
    last_fence: u64,
    pub(crate) last_booking: u64,
}

impl Scheduler {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// A node that was not here before. It stays; what is gone for good is [`Health::Lost`].
    ///
    /// [`Health::Lost`]: crate::Health::Lost
    pub fn add_node(&mut self, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(node);
        id
    }

    /// A node as it is from now on.
    ///
    /// # Errors
    /// [`Unknown::Node`].
    pub fn set_node(&mut self, id: NodeId, node: Node) -> Result<(), Unknown> {
        let known = self.nodes.get_mut(id.index());
        *known.ok_or(Unknown::Node(id))? = node;
        Ok(())
    }

    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.index())
    }

    pub fn set_queue(&mut self, name: impl Into<String>, queue: Queue) {
        self.queues.insert(name.into(), queue);
    }

    /// Adds a job.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    pub fn submit(&mut self, now: Time, mut request: Request) -> Result<JobId, Refused> {
        let queue = self.queues.get(&request.queue);
        let queue = queue.ok_or_else(|| Refused::NoQueue {
            queue: request.queue.clone(),
        })?;
        queue.admit(&request, self.waits.in_queue(&request.queue))?;
        request.limit = request.limit.min(queue.limit);
        self.last_job += 1;
        let id = JobId(self.last_job);
        let job = Job {
            request,
            submitted: now,
            attempts: 0,
            phase: Phase::Waiting,
        };
        self.waits.add(id, &job);
        self.jobs.insert(id, job);
        Ok(id)
    }

    /// A job of an earlier scheduler, as it was there: waiting, or with its places since some time.
    /// Numbers that are given from now on are higher than its own.
    pub fn restore(
        &mut self,
        id: JobId,
        request: Request,
        submitted: Time,
        attempts: u32,
        placed: Option<(Attempt, Vec<Slot>, Time)>,
    ) {
        self.last_job = self.last_job.max(id.0);
        let mut job = Job {
            request,
            submitted,
            attempts,
            phase: Phase::Waiting,
        };
        match placed {
            None => self.waits.add(id, &job),
            Some((attempt, slots, since)) => {
                self.last_fence = self.last_fence.max(attempt.fence);
                job.phase = Phase::Running {
                    attempt,
                    slots,
                    since,
                };
                self.placed.insert(id);
            }
        }
        self.jobs.insert(id, job);
    }

    /// Jobs and fences up to these numbers were given away before.
    pub fn continue_after(&mut self, job: u64, fence: u64) {
        self.last_job = self.last_job.max(job);
        self.last_fence = self.last_fence.max(fence);
    }

    /// A queue that is gone. Jobs that wait in it wait until there is one of its name again.
    pub fn remove_queue(&mut self, name: &str) -> Option<Queue> {
        self.queues.remove(name)
    }

    /// How many jobs wait in a queue.
    #[must_use]
    pub fn waiting(&self, queue: &str) -> usize {
        self.waits.in_queue(queue)
    }

    /// Where a job is that is not over.
    #[must_use]
    pub fn phase(&self, id: JobId) -> Option<&Phase> {
        self.jobs.get(&id).map(|job| &job.phase)
    }

    /// Takes a job away that waits. If it has a place already, the answer is the attempt that the
    /// caller has to end, and to tell so by [`Scheduler::ended`].
    ///
    /// # Errors
    /// [`Unknown::Job`].
    pub fn cancel(&mut self, id: JobId) -> Result<Option<Attempt>, Unknown> {
        let job = self.jobs.get(&id).ok_or(Unknown::Job(id))?;
        if let Some(attempt) = job.attempt() {
            return Ok(Some(attempt));
        }
        self.waits.remove(id, job);
        self.jobs.remove(&id);
        Ok(None)
    }

    /// Offers whose deadline has passed are withdrawn; then all that can start is offered a place.
    pub fn schedule(&mut self, now: Time) -> Vec<Offer> {
        self.usage.decay(now, self.settings.half_life);
        self.withdraw_late(now);
        self.bookings.retain(|_, booking| booking.until > now);
        let had = std::mem::take(&mut self.reserved);
        if self.waits.is_empty() {
            // thousands of nodes are not gone through for nobody
            return Vec::new();
        }
        let Decided {
            starts,
            reservations,
            ..
        } = self.decide(now, had, false);
        self.reserved = reservations;
        let starts = starts.into_iter();
        starts
            .filter_map(|(id, slots)| self.offer(now, id, slots))
            .collect()
    }

    fn offer(&mut self, now: Time, id: JobId, slots: Vec<Slot>) -> Option<Offer> {
        let job = self.jobs.get_mut(&id)?;
        self.waits.remove(id, job);
        self.placed.insert(id);
        self.last_fence += 1;
        job.attempts += 1;
        let offer = Offer {
            attempt: Attempt {
                job: id,
                number: job.attempts,
                fence: self.last_fence,
            },
            slots,
            deadline: now.saturating_add(self.settings.offer),
        };
        job.phase = Phase::Offered {
            offer: offer.clone(),
            accepted: BTreeSet::new(),
        };
        Some(offer)
    }

    /// When a job that waits will have its place, if it has a reservation. Nothing moves that back but
    /// - a node of it that is lost, changed or booked,
    /// - lateness: of a run that is over its limit, of a node that accepts an offer, of a look (see
    ///   [`Scheduler::next_look`]),
    /// - a job without a reservation that comes before it in the order, as a new one may.
    ///
    /// What ends early, and a change of the order among those that have reservations, does not.
    #[must_use]
    pub fn reserved(&self, id: JobId) -> Option<Time> {
        self.reserved.get(&id).map(|(start, _)| *start)
    }

    /// When to [`Scheduler::schedule`] again if nothing happens: a reserved start, the deadline of an
    /// offer, or the beginning or end of a booking.
    #[must_use]
    pub fn next_look(&self, now: Time) -> Option<Time> {
        let starts = self.reserved.values().map(|(start, _)| *start);
        let deadlines = self.offers().map(|offer| offer.deadline);
        let bookings = self.bookings.values();
        let bookings = bookings.flat_map(|booking| [booking.from, booking.until]);
        let all = starts.chain(deadlines).chain(bookings);
        all.filter(|time| *time > now).min()
    }

    /// A node took its part of an offer. True: it was the last, and the job runs from now on.
    ///
    /// # Errors
    /// [`Unknown`], also when the offer was withdrawn.
    pub fn accept(&mut self, now: Time, attempt: Attempt, node: NodeId) -> Result<bool, Unknown> {
        let job = self.present(attempt)?;
        let Phase::Offered { offer, accepted } = &mut job.phase else {
            return Ok(true);
        };
        if offer.slots.iter().all(|slot| slot.node != node) {
            return Err(Unknown::Node(node));
        }
        accepted.insert(node);
        let all = offer.slots.iter().all(|slot| accepted.contains(&slot.node));
        if all {
            job.phase = Phase::Running {
                attempt,
                slots: std::mem::take(&mut offer.slots),
                since: now,
            };
        }
        Ok(all)
    }

    /// An attempt is over without a result: a node refused it, or it is given up. True: the job waits
    /// again; false: it had its last attempt and is gone.
    ///
    /// # Errors
    /// [`Unknown`].
    pub fn give_up(&mut self, attempt: Attempt) -> Result<bool, Unknown> {
        let job = self.present(attempt)?;
        job.phase = Phase::Waiting;
        let again = job.attempts < job.request.attempts;
        self.placed.remove(&attempt.job);
        if !again {
            self.jobs.remove(&attempt.job);
        } else if let Some(job) = self.jobs.get(&attempt.job) {
            self.waits.add(attempt.job, job);
        }
        Ok(again)
    }

    /// A job is over.
    ///
    /// # Errors
    /// [`Unknown`].
    pub fn ended(&mut self, now: Time, attempt: Attempt) -> Result<(), Unknown> {
        self.present(attempt)?;
        self.placed.remove(&attempt.job);
        let job = self.jobs.remove(&attempt.job);
        if let Some(Job {
            request,
            phase: Phase::Running { slots, since, .. },
            ..
        }) = job
        {
            let cpus: usize = slots.iter().map(|slot| slot.cpus.len()).sum();
            let cpus = u64::try_from(cpus).unwrap_or(u64::MAX);
            let took = cpus.saturating_mul(now.saturating_sub(since));
            self.usage.charge(&request.user, took);
        }
        Ok(())
    }

    /// `had`: what was reserved until now.
    pub(crate) fn decide(&self, now: Time, had: Reservations, thorough: bool) -> Decided<'_> {
        let pass = Pass {
            settings: self.settings,
            jobs: &self.jobs,
            waits: &self.waits,
            nodes: &self.nodes,
            queues: &self.queues,
            bookings: &self.bookings,
            usage: &self.usage,
            holds: self.holds(now),
            reserved: had,
            now,
        };
        pass.decide(thorough)
    }

    /// What is taken now, and for how long at most.
    fn holds(&self, now: Time) -> Holds<'_> {
        let mut holds = Holds::new(self.nodes.len());
        for (id, job, slots, until) in self.held(now) {
            for slot in slots {
                holds.add(Hold {
                    holder: Holder::Job(id),
                    from: 0,
                    until,
                    share: job.request.share,
                    slot: Cow::Borrowed(slot),
                });
            }
        }
        for booking in self.bookings.values() {
            for slot in booking.slots() {
                holds.add(Hold {
                    holder: Holder::Booking(booking),
                    from: booking.from,
                    until: booking.until,
                    share: false,
                    slot: Cow::Owned(slot),
                });
            }
        }
        holds
    }

    /// The slots of each job that has any, and until when it may have them.
    pub(crate) fn held(&self, now: Time) -> impl Iterator<Item = (JobId, &Job, &[Slot], Time)> {
        self.placed().filter_map(move |(id, job)| {
            let (slots, since) = match &job.phase {
                Phase::Waiting => return None,
                Phase::Offered { offer, .. } => (&offer.slots, now),
                Phase::Running { slots, since, .. } => (slots, *since),
            };
            let due = since.saturating_add(job.request.limit);
            let until = if due > now {
                due
            } else {
                now.saturating_add(OVERDUE)
            };
            Some((id, job, &slots[..], until))
        })
    }

    fn withdraw_late(&mut self, now: Time) {
        let late = self.offers().filter(|offer| offer.deadline <= now);
        let late: Vec<Attempt> = late.map(|offer| offer.attempt).collect();
        for attempt in late {
            // it is the present one
            self.give_up(attempt).unwrap_or_default();
        }
    }

    fn placed(&self) -> impl Iterator<Item = (JobId, &Job)> {
        let job = |id: &JobId| Some((*id, self.jobs.get(id)?));
        self.placed.iter().filter_map(job)
    }

    fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.placed().filter_map(|(_, job)| match &job.phase {
            Phase::Offered { offer, .. } => Some(offer),
            _ => None,
        })
    }

    fn present(&mut self, attempt: Attempt) -> Result<&mut Job, Unknown> {
        let job = self.jobs.get_mut(&attempt.job);
        let job = job.ok_or(Unknown::Job(attempt.job))?;
        if job.attempt() == Some(attempt) {
            Ok(job)
        } else {
            Err(Unknown::Stale(attempt))
        }
    }
}

impl Job {
    fn attempt(&self) -> Option<Attempt> {
        match &self.phase {
            Phase::Waiting => None,
            Phase::Offered { offer, .. } => Some(offer.attempt),
            Phase::Running { attempt, .. } => Some(*attempt),
        }
    }
}
