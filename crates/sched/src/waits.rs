//! Jobs that wait, and which of them is next.

use std::cmp::Reverse;
use std::collections::btree_set::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::fair::Usage;
use crate::queue::Queue;
use crate::request::Request;
use crate::scheduler::{Job, JobId};

/// By queue and user, each in the order of submission.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waits {
    /// When each was submitted.
    all: BTreeSet<(Time, JobId)>,
    queues: BTreeMap<String, Waiting>,
}

/// In one queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    jobs: usize,
    users: BTreeMap<String, BTreeSet<JobId>>,
}

impl Waits {
    pub(crate) fn add(&mut self, id: JobId, job: &Job) {
        let Request { queue, user, .. } = &job.request;
        if self.all.insert((job.submitted, id)) {
            let queue = self.queues.entry(queue.clone()).or_default();
            queue.jobs += 1;
            queue.users.entry(user.clone()).or_default().insert(id);
        }
    }

    pub(crate) fn remove(&mut self, id: JobId, job: &Job) {
        let Request { queue, user, .. } = &job.request;
        if self.all.remove(&(job.submitted, id))
            && let Some(queue) = self.queues.get_mut(queue)
        {
            queue.jobs -= 1;
            if let Some(jobs) = queue.users.get_mut(user) {
                jobs.remove(&id);
                if jobs.is_empty() {
                    queue.users.remove(user);
                }
            }
        }
    }

    /// The last job of those that were submitted at `time` or before.
    pub(crate) fn until(&self, time: Time) -> Option<JobId> {
        let early = self.all.range(..=(time, JobId(u64::MAX)));
        early.last().map(|(_, id)| *id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn in_queue(&self, queue: &str) -> usize {
        self.queues.get(queue).map_or(0, |queue| queue.jobs)
    }

    /// Those up to `impatient`, as they were submitted; then by the queues' priorities, what the users
    /// used, and submission. Draining queues are left out.
    pub(crate) fn order<'a>(
        &'a self,
        queues: &BTreeMap<String, Queue>,
        usage: &Usage,
        impatient: JobId,
    ) -> Order<'a> {
        let mut levels: BTreeMap<Reverse<i32>, Level<'a>> = BTreeMap::new();
        let mut first = Merged::default();
        for (name, waiting) in &self.queues {
            let Some(queue) = queues.get(name).filter(|queue| !queue.draining) else {
                continue;
            };
            let level = levels.entry(Reverse(queue.priority)).or_default();
            for (user, jobs) in &waiting.users {
                first.add(jobs.range(..=impatient));
                let after = (Bound::Excluded(impatient), Bound::Unbounded);
                let line = level.lines.entry(user).or_default();
                line.used = usage.of(user);
                line.queues.push(jobs.range(after).peekable());
            }
        }
        for level in levels.values_mut() {
            for (user, line) in &mut level.lines {
                if let Some(next) = line.next() {
                    level.next.insert((line.used, next, user));
                }
            }
        }
        Order {
            impatient: first,
            levels,
        }
    }
}

/// What is left of it.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    impatient: Merged<'a>,
    levels: BTreeMap<Reverse<i32>, Level<'a>>,
}

/// Several lists of jobs as one, by their numbers. No more of each is looked at than is asked for: thousands may
/// wait, and a pass wants hundreds.
#[derive(Debug, Default)]
struct Merged<'a> {
    lists: Vec<Range<'a, JobId>>,
    /// The next of each list, and which list it is.
    next: BTreeSet<(JobId, usize)>,
}

impl<'a> Merged<'a> {
    fn add(&mut self, mut list: Range<'a, JobId>) {
        if let Some(first) = list.next() {
            self.next.insert((*first, self.lists.len()));
            self.lists.push(list);
        }
    }
}

impl Iterator for Merged<'_> {
    type Item = JobId;

    fn next(&mut self) -> Option<JobId> {
        let (id, index) = self.next.pop_first()?;
        if let Some(next) = self.lists.get_mut(index).and_then(Range::next) {
            self.next.insert((*next, index));
        }
        Some(id)
    }
}

/// Jobs of one priority.
#[derive(Debug, Default)]
struct Level<'a> {
    lines: BTreeMap<&'a str, Line<'a>>,
    /// What a user used, and which of its jobs is next: the first of these is.
    next: BTreeSet<(u64, JobId, &'a str)>,
}

/// One user's jobs.
#[derive(Debug, Default)]
struct Line<'a> {
    used: u64,
    /// What is left of each queue.
    queues: Vec<Peekable<Range<'a, JobId>>>,
}

impl Line<'_> {
    fn next(&mut self) -> Option<JobId> {
        let next = self.queues.iter_mut().filter_map(Peekable::peek);
        next.min().copied().copied()
    }

    fn pass(&mut self, id: JobId) {
        for queue in &mut self.queues {
            queue.next_if(|next| **next == id);
        }
    }
}

impl Iterator for Order<'_> {
    type Item = JobId;

    fn next(&mut self) -> Option<JobId> {
        let first = self.impatient.next();
        first.or_else(|| self.levels.values_mut().find_map(Level::pop))
    }
}

impl<'a> Order<'a> {
    /// What a job gets counts for its user from now on.
    pub(crate) fn charge(&mut self, user: &'a str, price: u64) {
        for level in self.levels.values_mut() {
            level.charge(user, price);
        }
    }
}

impl<'a> Level<'a> {
    fn pop(&mut self) -> Option<JobId> {
        let (used, id, user) = self.next.pop_first()?;
        let line = self.lines.get_mut(user)?;
        line.pass(id);
        if let Some(next) = line.next() {
            self.next.insert((used, next, user));
        }
        Some(id)
    }

    fn charge(&mut self, user: &'a str, price: u64) {
        let Some(line) = self.lines.get_mut(user) else {
            return;
        };
        let before = line.used;
        line.used = before.saturating_add(price);
        if let Some(next) = line.next()
            && self.next.remove(&(before, next, user))
        {
            self.next.insert((line.used, next, user));
        }
    }
}
