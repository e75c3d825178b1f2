//! One look at everything that waits: what starts now, and what later ones must not delay.

use std::collections::{BTreeMap, BTreeSet};

use crate::booking::{Booking, BookingId};
use crate::catalogue::{Catalogue, ready};
use crate::fair::Usage;
use crate::holds::{Holder, Holds, Promises, Search};
use crate::node::{Node, NodeId};
use crate::queue::Queue;
use crate::request::{Part, Request};
use crate::scheduler::{Job, JobId};
use crate::settings::Settings;
use crate::waits::Waits;
use crate::{Slot, Time};

/// What there is: jobs, nodes, what is held of them, queues, usage.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) settings: Settings,
    pub(crate) jobs: &'a BTreeMap<JobId, Job>,
    pub(crate) waits: &'a Waits,
    pub(crate) nodes: &'a [Node],
    pub(crate) queues: &'a BTreeMap<String, Queue>,
    pub(crate) bookings: &'a BTreeMap<BookingId, Booking>,
    pub(crate) usage: &'a Usage,
    pub(crate) holds: Holds<'a>,
    /// From the pass before.
    pub(crate) reserved: Reservations,
    pub(crate) now: Time,
}

/// Requests that find the same places, but for their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shape<'a> {
    parts: &'a [Part],
    share: bool,
    /// Where it matters: there are bookings.
    user: Option<&'a str>,
}

/// Places that a job will have, and from when on.
pub(crate) type Reservation = (Time, Vec<Slot>);

pub(crate) type Reservations = BTreeMap<JobId, Reservation>;

/// What came out of it.
#[derive(Debug, Default)]
pub(crate) struct Decided<'a> {
    /// In the order in which they were decided.
    pub(crate) starts: Vec<(JobId, Vec<Slot>)>,
    pub(crate) reservations: Reservations,
    /// Those that were looked at, in this order.
    pub(crate) order: Vec<JobId>,
    pub(crate) holds: Holds<'a>,
}

impl<'a> Pass<'a> {
    /// Looks until nothing more can start or be reserved; `thorough`, at all that waits.
    pub(crate) fn decide(self, thorough: bool) -> Decided<'a> {
        let jobs = self.jobs;
        let depth = self.settings.depth.max(self.settings.reservations);
        let mut order = self.waits.order(self.queues, self.usage, self.impatient());
        let mut look = Look::begin(self);
        let due = look.start_due();
        for request in due.values() {
            order.charge(&request.user, request.price());
        }
        let mut looked = 0;
        while (thorough || look.may_find() && looked < depth)
            && let Some(id) = order.next()
        {
            let Some(Job { request, .. }) = jobs.get(&id).filter(|_| !due.contains_key(&id)) else {
                continue;
            };
            match look.at(id, request) {
                // it does not count, or such jobs would hide all others behind them
                Found::Never => continue,
                Found::Nothing => {}
                Found::Place => order.charge(&request.user, request.price()),
            }
            looked += 1;
        }
        look.end()
    }

    /// Jobs that may still start hold what they had reserved.
    fn promise(&mut self) {
        for (id, (start, slots)) in std::mem::take(&mut self.reserved) {
            let Some(Job { request, .. }) = self.jobs.get(&id) else {
                continue;
            };
            let queue = self.queues.get(&request.queue);
            if queue.is_some_and(|queue| !queue.draining) {
                let holder = Holder::Promise(id);
                self.holds.add_all(holder, request, start, &slots);
                self.reserved.insert(id, (start, slots));
            }
        }
    }

    /// Takes back what is promised to a job, to decide anew.
    fn release(&mut self, id: JobId) -> Option<Reservation> {
        let had = self.reserved.remove(&id)?;
        self.holds.release(id, &had.1);
        Some(had)
    }

    /// The last job that has waited too long.
    fn impatient(&self) -> JobId {
        let since = self.now.checked_sub(self.settings.patience);
        let last = since.and_then(|since| self.waits.until(since));
        last.unwrap_or_default()
    }

    fn open(&self) -> impl Iterator<Item = (NodeId, &'a Node)> {
        let idle = |id| self.holds.of(id).iter().all(|hold| hold.job().is_none());
        ready(self.nodes).filter(move |(id, node)| node.share || idle(*id))
    }
}

/// What is left to give, while one job after the other is looked at.
#[derive(Debug)]
struct Look<'a> {
    pass: Pass<'a>,
    ready: Catalogue<'a>,
    idle: Catalogue<'a>,
    /// Nodes on which something may start now: at most these.
    open: usize,
    /// Reservations that may still be made.
    left: usize,
    /// The least limit with which such a request did not fit now, all promises broken.
    full: BTreeMap<Shape<'a>, u64>,
    /// What does not fit into these nodes at any time.
    never: BTreeSet<Shape<'a>>,
    decided: Decided<'a>,
}

/// What a look at one job came to.
enum Found {
    /// It starts, or has a reservation.
    Place,
    Nothing,
    /// It is too large for these nodes.
    Never,
}

impl<'a> Look<'a> {
    fn begin(mut pass: Pass<'a>) -> Self {
        let idle = Catalogue::of(pass.open());
        pass.promise();
        Self {
            ready: Catalogue::of(ready(pass.nodes)),
            open: idle.len(),
            idle,
            left: pass.settings.reservations.max(1),
            full: BTreeMap::new(),
            never: BTreeSet::new(),
            decided: Decided::default(),
            pass,
        }
    }

    fn may_find(&self) -> bool {
        self.left > 0 || self.open > 0
    }

    /// Jobs whose reserved time has come start before all others, on the places that they had reserved. One
    /// that cannot is looked at again in its place in the order.
    fn start_due(&mut self) -> BTreeMap<JobId, &'a Request> {
        let (now, jobs) = (self.pass.now, self.pass.jobs);
        let reserved = self.pass.reserved.iter();
        let due = reserved.filter(|(_, (start, _))| *start <= now);
        let due: BTreeSet<_> = due.map(|(id, (start, _))| (*start, *id)).collect();
        let mut started = BTreeMap::new();
        for (_, id) in due {
            let request = jobs.get(&id).map(|job| &job.request);
            let had = self.pass.release(id);
            if let Some((request, (_, slots))) = request.zip(had)
                && self.search(request, Promises::Break).are_free(now, &slots)
            {
                self.decided.order.push(id);
                self.start(id, request, slots);
                started.insert(id, request);
            }
        }
        started
    }

    fn at(&mut self, id: JobId, request: &'a Request) -> Found {
        self.decided.order.push(id);
        let had = self.pass.release(id);
        let shape = self.shape(request);
        if self.never.contains(&shape) {
            return Found::Never;
        }
        let had = had.filter(|(start, slots)| {
            let search = self.search(request, Promises::Break);
            search.are_free(*start, slots)
        });
        // who has a place already takes no other that is promised, or all promises of those after it would
        // be worth nothing as soon as something ends early
        let promises = had.as_ref().map_or(Promises::Break, |_| Promises::Keep);
        if let Some(slots) = self.place(request, shape, promises) {
            self.start(id, request, slots);
            return Found::Place;
        }
        if self.left == 0 {
            return Found::Nothing;
        }
        // the first that cannot start moves up when others ended early, or it might wait for limits of
        // runs that are over; to try that for all costs too much
        let first = self.decided.reservations.is_empty();
        let found = if first || had.is_none() {
            let now = self.pass.now;
            let found = self.search(request, promises).earliest(now);
            had.into_iter().chain(found).min_by_key(|(start, _)| *start)
        } else {
            had
        };
        let Some((start, slots)) = found else {
            self.never.insert(shape);
            return Found::Never;
        };
        self.left -= 1;
        let holder = Holder::Job(id);
        self.pass.holds.add_all(holder, request, start, &slots);
        self.decided.reservations.insert(id, (start, slots));
        Found::Place
    }

    /// Slots for a start now.
    fn place(
        &mut self,
        request: &'a Request,
        shape: Shape<'a>,
        promises: Promises,
    ) -> Option<Vec<Slot>> {
        // the cheap look first: hundreds of jobs come by in each pass, and few nodes are idle
        if request.places() > self.open
            || (self.full.get(&shape)).is_some_and(|least| request.limit >= *least)
        {
            return None;
        }
        let search = Search {
            request,
            suitable: self.idle.suitable(request),
            held: &self.pass.holds,
            promises,
        };
        let slots = search.place(self.pass.now);
        if slots.is_none() && promises == Promises::Break {
            // for longer it does not fit either: places only become fewer
            let least = self.full.entry(shape).or_insert(request.limit);
            *least = request.limit.min(*least);
        }
        slots
    }

    fn start(&mut self, id: JobId, request: &Request, slots: Vec<Slot>) {
        let share = |slot: &&Slot| {
            let node = self.pass.nodes.get(slot.node.index());
            node.is_none_or(|node| node.share)
        };
        let closed = slots.iter().filter(|slot| !share(slot)).count();
        self.open = self.open.saturating_sub(closed);
        let now = self.pass.now;
        let holder = Holder::Job(id);
        self.pass.holds.add_all(holder, request, now, &slots);
        self.decided.starts.push((id, slots));
    }

    fn search(&mut self, request: &'a Request, promises: Promises) -> Search<'_> {
        Search {
            request,
            suitable: self.ready.suitable(request),
            held: &self.pass.holds,
            promises,
        }
    }

    fn end(self) -> Decided<'a> {
        Decided {
            holds: self.pass.holds,
            ..self.decided
        }
    }

    fn shape(&self, request: &'a Request) -> Shape<'a> {
        Shape {
            parts: &request.parts,
            share: request.share,
            user: (!self.pass.bookings.is_empty()).then_some(&request.user),
        }
    }
}
