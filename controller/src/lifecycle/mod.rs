//! The life of jobs and nodes: pure, deterministic, without a clock.
//!
//! The caller tells a [`Core`] what happened (a job was submitted, a node connected or reported, a
//! document is stored, time has passed) and then takes the [`Step`] that follows: rows and events to
//! be made durable, and only after that orders to be sent and documents to be fetched. What the core
//! knows is always at least as new as the store; nothing acts on it before the store has it.
//!
//! States: queued → assigned → preparing → measuring → collecting → one of the ends. An attempt that
//! must not go on is given a [`Fate`]; its nodes are told to end it, and it concludes when they have,
//! are gone, or have had their time. Only then are its places free.

mod attempt;
mod booking;
mod cancel;
mod fate;
mod health;
mod job;
mod lost;
mod node;
mod place;
mod progress;
mod settings;
mod step;
mod submit;
mod time;
mod why;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use api::event::Event;
use api::fleet::NodeId;
use api::job::{JobId, JobState};
use api::queue::{QueueSettings, QueueView};
use sched::Scheduler;

use node::Node;

pub use attempt::{Attempt, Part, Progress};
pub use booking::{BOOKINGS, Booking, Bookings};
pub use fate::Fate;
pub use health::{Check, Checkup, HEALTH_CHECK};
pub use job::{Job, counts};
pub use node::{Certificate, Row as NodeRow};
pub use settings::Settings;
pub use step::{Collect, Conclusion, Instruction, Mark, Orphan, Step};
pub use submit::Wanted;

/// Milliseconds since the epoch.
pub type Millis = u64;

/// What an earlier controller left.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inheritance {
    /// Those that are not over.
    pub jobs: Vec<Job>,
    pub nodes: Vec<NodeRow>,
    pub queues: BTreeMap<String, QueueSettings>,
    pub bookings: Bookings,
    pub health: Option<Check>,
    /// The highest ever given to a job.
    pub last_job: u64,
    /// The highest ever given to an attempt.
    pub last_fence: u64,
}

/// All jobs that are not over, all nodes and queues.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    sched: Scheduler,
    jobs: BTreeMap<JobId, Job>,
    nodes: BTreeMap<NodeId, Node>,
    /// By the scheduler's numbers.
    seats: Vec<NodeId>,
    queues: BTreeMap<String, QueueSettings>,
    bookings: Bookings,
    health: Option<Check>,
    /// When it is looked next at which nodes are due for it.
    health_look: Millis,
    /// Checks that are not over.
    checking: BTreeMap<JobId, NodeId>,
    /// Jobs with a place.
    placed: BTreeSet<JobId>,
    /// Jobs that are not to wait for ever.
    impatient: BTreeSet<(Millis, JobId)>,
    /// Those that are not asked for a while.
    held_off: BTreeSet<NodeId>,
    /// Something happened after which others may have a place.
    stirred: bool,
    /// Jobs whose rows are to be written as they are when the step is taken.
    touched: BTreeSet<JobId>,
    step: Step,
}

impl Core {
    /// As the controller was, except that no node is connected yet.
    #[must_use]
    pub fn new(settings: Settings, left: Inheritance, now: Millis) -> Self {
        let mut core = Self {
            sched: Scheduler::new(sched::Settings {
                // offers are withdrawn here, where the nodes are told
                offer: u64::MAX,
                ..settings.scheduler
            }),
            settings,
            jobs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            seats: Vec::new(),
            queues: BTreeMap::new(),
            bookings: Bookings::default(),
            health: left.health,
            health_look: now,
            checking: BTreeMap::new(),
            placed: BTreeSet::new(),
            impatient: BTreeSet::new(),
            held_off: BTreeSet::new(),
            stirred: true,
            touched: BTreeSet::new(),
            step: Step::default(),
        };
        core.sched.continue_after(left.last_job, left.last_fence);
        for (name, settings) in left.queues {
            core.put_queue(name, settings);
        }
        for node in left.nodes {
            core.add_node(node, now);
        }
        for job in left.jobs {
            core.restore(job);
        }
        core.restore_bookings(left.bookings);
        core.restore_checks();
        core
    }

    fn restore(&mut self, job: Job) {
        let id = job.status.id;
        let placed = job.attempt.as_ref().map(|attempt| {
            (
                attempt.number(id),
                attempt.slots(|node| self.nodes.get(node).map(|node| node.seat)),
                attempt.assigned_ms,
            )
        });
        self.sched.restore(
            sched::JobId(id.0),
            self.request(&job.status),
            job.status.submitted_ms,
            job.status.attempts,
            placed,
        );
        self.jobs.insert(id, job);
        self.remember(id);
    }

    /// Keeps the indices of jobs that are looked at as time passes.
    fn remember(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if job.attempt.is_some() {
            self.placed.insert(id);
        } else {
            self.placed.remove(&id);
        }
        if let Some(until) = job.queued_until() {
            self.impatient.insert((until, id));
        }
    }

    /// What follows from everything since the last step: to be made durable first, then acted on.
    #[must_use]
    pub fn take_step(&mut self) -> Step {
        let mut step = std::mem::take(&mut self.step);
        for id in std::mem::take(&mut self.touched) {
            if let Some(job) = self.jobs.get(&id) {
                step.jobs.insert(id, job.clone());
            }
        }
        step
    }

    /// A job that is not over.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// Jobs that are not over.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// A queue from now on.
    pub fn set_queue(&mut self, now: Millis, user: &str, name: &str, settings: QueueSettings) {
        self.step
            .queues
            .insert(name.to_owned(), Some(settings.clone()));
        self.event(now, "queue.set", |event| {
            event.user = Some(user.to_owned());
            event.data = serde_json::json!({ "queue": name, "settings": settings });
        });
        self.put_queue(name.to_owned(), settings);
    }

    fn put_queue(&mut self, name: String, settings: QueueSettings) {
        self.sched.set_queue(
            name.clone(),
            sched::Queue {
                priority: settings.priority,
                capacity: settings.capacity,
                users: settings.users.clone(),
                limit: settings.limit_seconds.saturating_mul(1000),
                draining: settings.draining,
            },
        );
        self.queues.insert(name, settings);
        self.stirred = true;
    }

    /// False: there is none, or jobs are in it.
    pub fn remove_queue(&mut self, now: Millis, user: &str, name: &str) -> bool {
        let used = self
            .jobs
            .values()
            .any(|job| job.status.request.queue == name);
        if used || self.queues.remove(name).is_none() {
            return false;
        }
        self.sched.remove_queue(name);
        self.step.queues.insert(name.to_owned(), None);
        self.event(now, "queue.removed", |event| {
            event.user = Some(user.to_owned());
            event.data = serde_json::json!({ "queue": name });
        });
        true
    }

    #[must_use]
    pub fn queues(&self) -> Vec<QueueView> {
        let view = |(name, settings): (&String, &QueueSettings)| QueueView {
            name: name.clone(),
            settings: settings.clone(),
            waiting: self.sched.waiting(name),
            running: self
                .placed
                .iter()
                .filter_map(|id| self.jobs.get(id))
                .filter(|job| job.status.request.queue == *name)
                .count(),
        };
        self.queues.iter().map(view).collect()
    }

    #[must_use]
    pub fn queue(&self, name: &str) -> Option<&QueueSettings> {
        self.queues.get(name)
    }

    fn event(&mut self, now: Millis, kind: &str, fill: impl FnOnce(&mut Event)) {
        let mut event = Event {
            seq: 0,
            at_ms: now,
            kind: kind.to_owned(),
            job: None,
            node: None,
            user: None,
            data: serde_json::Value::Null,
        };
        fill(&mut event);
        self.step.events.push(event);
    }

    fn mark(&mut self, id: JobId, mark: Mark) {
        if let Some(job) = self.jobs.get(&id) {
            let queue = job.status.request.queue.clone();
            self.step.marks.push((queue, mark));
        }
    }

    /// A job's row is to be written, and its change to be told.
    fn changed(&mut self, now: Millis, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let status = &job.status;
        let data = serde_json::json!({
            "attempt": status.attempts,
            "fence": status.fence,
            "nodes": status.parts.iter().map(|part| &part.node).collect::<Vec<_>>(),
            "reason": status.reason,
        });
        let kind = format!("job.{}", status.state);
        self.remember(id);
        self.touched.insert(id);
        self.event(now, &kind, |event| {
            event.job = Some(id);
            event.data = data;
        });
    }

    /// Moves a job to a state that it is not in yet.
    fn enter(&mut self, now: Millis, id: JobId, state: JobState) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.status.state == state {
            return;
        }
        job.status.state = state;
        if state == JobState::Measuring && job.status.started_ms.is_none() {
            job.status.started_ms = Some(now);
        }
        self.changed(now, id);
    }
}
