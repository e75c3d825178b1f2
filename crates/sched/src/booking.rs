//! Nodes that are kept for somebody for a time.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::node::NodeId;
use crate::scheduler::{JobId, Scheduler, Unknown};
use crate::{Slot, Time};

/// A booking's number, in the order in which they were made.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct BookingId(pub u64);

impl fmt::Display for BookingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whole nodes, for these users only. Jobs of others start there only if they are over before it
/// begins, and may wait longer for its sake than they were told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    pub nodes: BTreeSet<NodeId>,
    pub users: BTreeSet<String>,
    pub from: Time,
    pub until: Time,
}

/// A booking that was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unbookable {
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error("a booking needs nodes, users, and an end that is after its start and after now")]
    Nothing,
    #[error("job {job} may hold node {node} until {until}: book from then on, or cancel it")]
    Held {
        node: NodeId,
        job: JobId,
        until: Time,
    },
    #[error("node {node} is booked already, as number {booking}")]
    Booked { node: NodeId, booking: BookingId },
}

impl Booking {
    pub(crate) fn admits(&self, user: &str) -> bool {
        self.users.contains(user)
    }

    fn overlaps(&self, from: Time, until: Time) -> bool {
        self.from < until && from < self.until
    }

    /// What it takes of each node: all, however little of it is named.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.nodes.iter().map(|node| Slot {
            node: *node,
            part: 0,
            cpus: cpulist::CpuSet::new(),
            memory: 0,
            devices: Vec::new(),
        })
    }
}

impl Scheduler {
    /// Keeps nodes for users.
    ///
    /// # Errors
    /// [`Unbookable`]; nothing has changed then.
    pub fn book(&mut self, now: Time, booking: Booking) -> Result<BookingId, Unbookable> {
        let Booking { from, until, .. } = booking;
        if booking.nodes.is_empty() || booking.users.is_empty() || until <= from.max(now) {
            return Err(Unbookable::Nothing);
        }
        if let Some(&node) = booking.nodes.iter().find(|id| self.node(**id).is_none()) {
            return Err(Unknown::Node(node).into());
        }
        for (id, other) in &self.bookings {
            let both = other.nodes.intersection(&booking.nodes).next();
            if let Some(&node) = both.filter(|_| other.overlaps(from, until)) {
                let booking = *id;
                return Err(Unbookable::Booked { node, booking });
            }
        }
        for (id, job, slots, due) in self.held(now) {
            let mut taken = slots.iter().map(|slot| slot.node);
            if !booking.admits(&job.request.user)
                && booking.overlaps(now, due)
                && let Some(node) = taken.find(|node| booking.nodes.contains(node))
            {
                let (job, until) = (id, due);
                return Err(Unbookable::Held { node, job, until });
            }
        }
        self.last_booking += 1;
        let id = BookingId(self.last_booking);
        self.bookings.insert(id, booking);
        Ok(id)
    }

    /// A booking that was made before a restart.
    pub fn rebook(&mut self, id: BookingId, booking: Booking) {
        self.continue_bookings_after(id.0);
        self.bookings.insert(id, booking);
    }

    /// Numbers go on from there after a restart.
    pub fn continue_bookings_after(&mut self, last: u64) {
        self.last_booking = self.last_booking.max(last);
    }

    /// Ends a booking before its time.
    pub fn unbook(&mut self, id: BookingId) -> Option<Booking> {
        self.bookings.remove(&id)
    }

    /// Those that are not over.
    pub fn bookings(&self) -> impl Iterator<Item = (BookingId, &Booking)> {
        self.bookings.iter().map(|(id, booking)| (*id, booking))
    }
}
