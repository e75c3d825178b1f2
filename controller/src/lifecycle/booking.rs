//! Nodes that are kept for somebody for a time.

use std::collections::{BTreeMap, BTreeSet};

use api::booking::BookingView;
use api::fleet::NodeId;
use sched::{BookingId, Unbookable};
use serde::{Deserialize, Serialize};

use super::{Core, Millis};

/// Under which the store keeps them.
pub const BOOKINGS: &str = "bookings";

/// All that are not over, and the highest number ever given to one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bookings {
    last: u64,
    open: BTreeMap<u64, Booking>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    pub nodes: BTreeSet<NodeId>,
    /// Whose jobs may run there meanwhile.
    pub users: BTreeSet<String>,
    pub from_ms: Millis,
    pub until_ms: Millis,
    pub made_by: String,
}

impl Core {
    /// Keeps nodes for users.
    ///
    /// # Errors
    /// The scheduler's refusal; nothing has changed then.
    pub fn book(&mut self, now: Millis, booking: Booking) -> Result<BookingView, Unbookable> {
        let id = self.sched.book(now, self.as_booked(&booking))?.0;
        let data = serde_json::json!({ "id": id, "booking": booking });
        self.booking_event(now, "booking.made", Some(booking.made_by.clone()), data);
        let view = self.booking_view(id, &booking);
        self.bookings.last = id;
        self.bookings.open.insert(id, booking);
        self.keep_bookings();
        Ok(view)
    }

    /// Ends one before its time. `None`: there is none of this number.
    pub fn unbook(&mut self, now: Millis, user: &str, id: u64) -> Option<Booking> {
        let booking = self.bookings.open.remove(&id)?;
        self.sched.unbook(BookingId(id));
        let data = serde_json::json!({ "id": id });
        self.booking_event(now, "booking.cancelled", Some(user.to_owned()), data);
        self.keep_bookings();
        Some(booking)
    }

    /// Those that are not over.
    #[must_use]
    pub fn bookings(&self) -> Vec<BookingView> {
        let all = self.bookings.open.iter();
        all.map(|(id, it)| self.booking_view(*id, it)).collect()
    }

    /// One of them.
    #[must_use]
    pub fn booking(&self, id: u64) -> Option<&Booking> {
        self.bookings.open.get(&id)
    }

    /// As an earlier controller left them.
    pub(super) fn restore_bookings(&mut self, left: Bookings) {
        for (id, booking) in &left.open {
            let booking = self.as_booked(booking);
            self.sched.rebook(BookingId(*id), booking);
        }
        self.sched.continue_bookings_after(left.last);
        self.bookings = left;
    }

    pub(super) fn end_bookings(&mut self, now: Millis) {
        let open = self.bookings.open.iter();
        let over = open.filter(|(_, booking)| booking.until_ms <= now);
        let over: Vec<u64> = over.map(|(id, _)| *id).collect();
        for id in &over {
            self.bookings.open.remove(id);
            let data = serde_json::json!({ "id": id });
            self.booking_event(now, "booking.over", None, data);
        }
        if !over.is_empty() {
            self.keep_bookings();
        }
    }

    fn as_booked(&self, booking: &Booking) -> sched::Booking {
        let nodes = booking.nodes.iter();
        sched::Booking {
            nodes: nodes
                .filter_map(|id| Some(self.nodes.get(id)?.seat))
                .collect(),
            users: booking.users.clone(),
            from: booking.from_ms,
            until: booking.until_ms,
        }
    }

    fn booking_view(&self, id: u64, booking: &Booking) -> BookingView {
        BookingView {
            id,
            nodes: booking.nodes.clone(),
            node_names: booking.nodes.iter().map(|id| self.name(id)).collect(),
            users: booking.users.clone(),
            from_ms: booking.from_ms,
            until_ms: booking.until_ms,
            made_by: booking.made_by.clone(),
        }
    }

    fn booking_event(
        &mut self,
        now: Millis,
        kind: &str,
        user: Option<String>,
        data: serde_json::Value,
    ) {
        self.event(now, kind, |event| {
            event.user = user;
            event.data = data;
        });
    }

    fn keep_bookings(&mut self) {
        // plain data: nothing in it can fail to be written
        let value = serde_json::to_value(&self.bookings).unwrap_or_default();
        self.step.settings.insert(BOOKINGS, value);
        self.stirred = true;
    }
}
