//! Named queues: who may submit, and how much may wait.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::request::Request;

/// More than any lab has; a gang of more is a mistake.
const MAX_PLACES: u32 = 4_096;

/// Where jobs wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Higher ones come first.
    pub priority: i32,
    /// Waiting jobs that it takes.
    pub capacity: usize,
    /// `None`: everybody may submit.
    pub users: Option<BTreeSet<String>>,
    /// The longest limit of a job, ms; a longer one is cut to it.
    pub limit: u64,
    /// Takes nothing new and starts nothing.
    pub draining: bool,
}

/// A job that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("there is no queue `{queue}`")]
    NoQueue { queue: String },
    #[error("queue `{queue}` is draining: it takes no new jobs")]
    Draining { queue: String },
    #[error("queue `{queue}` is full: {capacity} jobs wait in it")]
    Full { queue: String, capacity: usize },
    #[error("user `{user}` may not submit to queue `{queue}`")]
    NotAllowed { queue: String, user: String },
    #[error("the job asks for nothing: it needs a part with a count and CPUs of at least 1")]
    Nothing,
    #[error("the job asks for {places} places: at most {MAX_PLACES}")]
    TooWide { places: u64 },
    #[error("the job has no time: its limit is 0 ms")]
    NoTime,
}

impl Queue {
    /// Whether `request` may be added to this queue, in which `waiting` jobs are.
    pub(crate) fn admit(&self, request: &Request, waiting: usize) -> Result<(), Refused> {
        let queue = request.queue.clone();
        let user = request.user.clone();
        if self.draining {
            return Err(Refused::Draining { queue });
        }
        if self.users.as_ref().is_some_and(|all| !all.contains(&user)) {
            return Err(Refused::NotAllowed { queue, user });
        }
        let capacity = self.capacity;
        if waiting >= capacity {
            return Err(Refused::Full { queue, capacity });
        }
        let empty = |part: &crate::Part| part.count == 0 || part.cpus == 0;
        if request.parts.is_empty() || request.parts.iter().any(empty) {
            return Err(Refused::Nothing);
        }
        let places = request.parts.iter().map(|part| u64::from(part.count)).sum();
        if places > u64::from(MAX_PLACES) {
            return Err(Refused::TooWide { places });
        }
        if request.limit == 0 || self.limit == 0 {
            return Err(Refused::NoTime);
        }
        Ok(())
    }
}
