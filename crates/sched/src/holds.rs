//! Who has what of which node, from when until when.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::booking::Booking;
use crate::catalogue::Suitable;
use crate::matching::matching;
use crate::neighbours::Neighbours;
use crate::node::{Node, NodeId};
use crate::request::{Part, Request};
use crate::scheduler::JobId;
use crate::{Slot, Time};

/// Times that are tried for a reservation; after these, when all is over.
const MAX_TIMES: usize = 64;

/// Who has it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Holder<'a> {
    Job(JobId),
    /// Reserved for a job in the pass before, and not yet looked at in this one.
    Promise(JobId),
    Booking(&'a Booking),
}

/// Whether a search leaves alone what is promised to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promises {
    Keep,
    Break,
}

/// A slot for a time.
#[derive(Debug, Clone)]
pub(crate) struct Hold<'a> {
    pub(crate) holder: Holder<'a>,
    pub(crate) from: Time,
    pub(crate) until: Time,
    pub(crate) share: bool,
    pub(crate) slot: Cow<'a, Slot>,
}

/// All of them, by the number of the node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holds<'a>(Vec<Vec<Hold<'a>>>);

/// Looks for places beside what is held.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    pub(crate) request: &'a Request,
    pub(crate) suitable: Suitable<'a>,
    pub(crate) held: &'a Holds<'a>,
    pub(crate) promises: Promises,
}

impl Hold<'_> {
    pub(crate) fn job(&self) -> Option<JobId> {
        match self.holder {
            Holder::Job(job) => Some(job),
            Holder::Promise(_) | Holder::Booking(_) => None,
        }
    }
}

impl<'a> Holds<'a> {
    /// None, of so many nodes.
    pub(crate) fn new(nodes: usize) -> Self {
        Self(vec![Vec::new(); nodes])
    }

    pub(crate) fn add(&mut self, hold: Hold<'a>) {
        if let Some(holds) = self.0.get_mut(hold.slot.node.index()) {
            holds.push(hold);
        }
    }

    /// A job's slots from `start` until its limit is over.
    pub(crate) fn add_all(
        &mut self,
        holder: Holder<'a>,
        request: &Request,
        start: Time,
        slots: &[Slot],
    ) {
        for slot in slots {
            self.add(Hold {
                holder,
                from: start,
                until: start.saturating_add(request.limit),
                share: request.share,
                slot: Cow::Owned(slot.clone()),
            });
        }
    }

    /// The slots that were promised to a job are no longer.
    pub(crate) fn release(&mut self, job: JobId, slots: &[Slot]) {
        let other = |hold: &Hold<'_>| !matches!(hold.holder, Holder::Promise(it) if it == job);
        for slot in slots {
            if let Some(holds) = self.0.get_mut(slot.node.index()) {
                holds.retain(other);
            }
        }
    }

    pub(crate) fn of(&self, node: NodeId) -> &[Hold<'a>] {
        self.0.get(node.index()).map_or(&[], Vec::as_slice)
    }
}

impl<'a> Search<'a> {
    /// What the request cannot share a node's time with. A booking is none for those it is for.
    fn of(&self, node: NodeId) -> impl Iterator<Item = &'a Hold<'a>> {
        let user = self.request.user.as_str();
        let promises = self.promises;
        let all = self.held.of(node).iter();
        all.filter(move |hold| match hold.holder {
            Holder::Job(_) => true,
            Holder::Promise(_) => promises == Promises::Keep,
            Holder::Booking(booking) => !booking.admits(user),
        })
    }

    /// What is there at some time between `start` and the end of the request's limit.
    fn beside(&self, node: NodeId, start: Time) -> impl Iterator<Item = &'a Hold<'a>> {
        let end = start.saturating_add(self.request.limit);
        self.of(node)
            .filter(move |hold| hold.from < end && start < hold.until)
    }

    /// The earliest start, from `now` on, at which the whole request has room until its limit is
    /// over. `None`: never, as the nodes are.
    pub(crate) fn earliest(&self, now: Time) -> Option<(Time, Vec<Slot>)> {
        let bound = self.bound(now)?;
        if let Some(slots) = self.place(bound) {
            return Some((bound, slots));
        }
        let nodes = self.suitable.iter().flat_map(|nodes| nodes.iter());
        let ends = nodes
            .flat_map(|(id, _)| self.of(*id))
            .map(|hold| hold.until);
        let mut times: Vec<Time> = ends.filter(|end| *end > bound).collect();
        times.sort_unstable();
        times.dedup();
        let last = times.last().copied();
        let mut times = times.into_iter().take(MAX_TIMES).chain(last);
        times.find_map(|time| Some((time, self.place(time)?)))
    }

    /// No start is before this: when, part by part, enough nodes could each take one.
    fn bound(&self, now: Time) -> Option<Time> {
        let mut bound = now;
        for (part, nodes) in self.request.parts.iter().zip(&self.suitable) {
            let first = |(id, node): &(NodeId, &Node)| self.first(part, *id, node, now);
            let mut times: Vec<Time> = nodes.iter().filter_map(first).collect();
            let count = usize::try_from(part.count).ok()?;
            let nth = count.checked_sub(1).filter(|nth| *nth < times.len())?;
            bound = bound.max(*times.select_nth_unstable(nth).1);
        }
        Some(bound)
    }

    /// From when on a node has room for one of a part. When idle it has, or it were not suitable.
    fn first(&self, part: &Part, id: NodeId, node: &Node, now: Time) -> Option<Time> {
        if !(self.request.share && node.share) {
            let mut time = now;
            while let Some(hold) = self.beside(id, time).next() {
                time = hold.until;
            }
            return Some(time);
        }
        let ends = self.of(id).map(|hold| hold.until);
        let mut times: Vec<Time> = ends.filter(|end| *end > now).chain([now]).collect();
        times.sort_unstable();
        let fits = |time: &Time| self.room(part, id, node, *time).is_some();
        times.into_iter().find(fits)
    }

    /// Slots for the whole request if it starts at `start`.
    pub(crate) fn place(&self, start: Time) -> Option<Vec<Slot>> {
        let mut numbers: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut nodes: Vec<(NodeId, &Node)> = Vec::new();
        let mut candidates: Vec<Vec<usize>> = Vec::new();
        for (part, suitable) in self.request.parts.iter().zip(&self.suitable) {
            let with_room = suitable.iter().filter_map(|(id, node)| {
                let (left, _) = self.room(part, *id, node, start)?;
                Some((left, *id, *node))
            });
            let mut rooms: Vec<(usize, NodeId, &Node)> = with_room.collect();
            // those with least room, so that large ones stay whole
            rooms.sort_unstable_by_key(|(left, id, _)| (*left, *id));
            let mut mine = Vec::with_capacity(rooms.len());
            for (_, id, node) in rooms {
                mine.push(*numbers.entry(id).or_insert_with(|| {
                    nodes.push((id, node));
                    nodes.len() - 1
                }));
            }
            candidates.push(mine);
        }
        let of_parts = self.request.parts.iter().enumerate();
        let places: Vec<usize> = of_parts
            .flat_map(|(index, part)| (0..part.count).map(move |_| index))
            .collect();
        if places.len() > nodes.len() {
            return None;
        }
        let wanted: Vec<&[usize]> = places.iter().map(|part| &candidates[*part][..]).collect();
        let given = matching(&wanted, nodes.len())?;
        let chosen = places.into_iter().zip(given);
        chosen
            .map(|(part, number)| {
                let (id, node) = nodes[number];
                self.slot(part, id, node, start)
            })
            .collect()
    }

    /// Whether the job can still have these slots from `start` on.
    pub(crate) fn are_free(&self, start: Time, slots: &[Slot]) -> bool {
        slots.iter().all(|slot| self.is_free(start, slot).is_some())
    }

    fn is_free(&self, start: Time, slot: &Slot) -> Option<()> {
        let nodes = self.suitable.get(slot.part)?;
        let number = nodes.binary_search_by_key(&slot.node, |(id, _)| *id).ok()?;
        let (id, node) = *nodes.get(number)?;
        let mut domains = node.domains.iter();
        let domain = domains.find(|domain| slot.cpus.is_subset(&domain.cpus))?;
        let beside = self.neighbours(id, node, start)?;
        let devices = beside.devices(node);
        let free = slot.cpus.is_subset(&beside.cpus(domain))
            && slot.memory <= beside.memory(domain)
            && slot.devices.iter().all(|device| devices.contains(&device));
        free.then_some(())
    }

    /// What is on a node until the request's limit is over. `None`: something does not bear neighbours.
    fn neighbours(&self, id: NodeId, node: &Node, start: Time) -> Option<Neighbours<'a>> {
        let share = self.request.share && node.share;
        let mut all = self.beside(id, start);
        let holds = if share {
            all.map(|hold| hold.share.then_some(hold)).collect()
        } else {
            all.next().is_none().then(Vec::new)
        };
        let holds = holds?;
        Some(Neighbours { holds, start })
    }

    fn room(&self, part: &Part, id: NodeId, node: &Node, start: Time) -> Option<(usize, usize)> {
        self.neighbours(id, node, start)?.room(part, node)
    }

    /// What is given to one of a part on a node with room.
    fn slot(&self, index: usize, id: NodeId, node: &Node, start: Time) -> Option<Slot> {
        let part = self.request.parts.get(index)?;
        let (_, domain) = self.room(part, id, node, start)?;
        let beside = self.neighbours(id, node, start)?;
        let cpus = beside.cpus(node.domains.get(domain)?);
        Some(Slot {
            node: id,
            part: index,
            cpus: cpus.iter().take(usize::try_from(part.cpus).ok()?).collect(),
            memory: part.memory,
            devices: beside.devices_for(part, node)?,
        })
    }
}
