//! Bookings: who may make and end which.

use api::booking::{BookingRequest, BookingView};
use policy::Role;
use sched::Unbookable;

use super::no_such_node;
use crate::desk::Caller;
use crate::lifecycle::{Booking, Core, Millis};
use crate::refusal::{Kind, Refusal};

/// The longest booking of a `user`, seconds.
const USERS_LONGEST: u64 = 6 * 3600;
/// How far ahead a `user` may book, seconds.
const USERS_AHEAD: u64 = 7 * 86_400;

pub(super) fn book(
    core: &mut Core,
    now: Millis,
    caller: &Caller,
    request: BookingRequest,
) -> Result<BookingView, Refusal> {
    let mut users = request.users;
    if users.is_empty() {
        users.insert(caller.user.clone());
    }
    if caller.role != Role::Admin {
        let own = users.contains(&caller.user);
        let (length, ahead) = (request.for_seconds, request.in_seconds);
        if !own || length > USERS_LONGEST || ahead > USERS_AHEAD {
            let detail =
                "role `user` may book for itself and others, for 6 hours at most, and 7 days ahead";
            return Err(Refusal::new(Kind::Forbidden, detail)
                .next("book less, or ask somebody with a certificate of role `admin`"));
        }
    }
    let mut nodes = std::collections::BTreeSet::new();
    for name in &request.nodes {
        let node = core.node_named(name).ok_or_else(|| no_such_node(name))?;
        nodes.insert(node.id.clone());
    }
    let from_ms = now.saturating_add(request.in_seconds.saturating_mul(1000));
    let booking = Booking {
        nodes,
        users,
        from_ms,
        until_ms: from_ms.saturating_add(request.for_seconds.saturating_mul(1000)),
        made_by: caller.user.clone(),
    };
    core.book(now, booking)
        .map_err(|why| unbookable(core, &why))
}

fn unbookable(core: &Core, why: &Unbookable) -> Refusal {
    let name = |seat| core.seated(seat).map_or("?", |row| row.name.as_str());
    match why {
        Unbookable::Unknown(_) | Unbookable::Nothing => {
            Refusal::new(Kind::Invalid, why.to_string())
        }
        Unbookable::Held { node, job, .. } => {
            let node = name(*node);
            let detail = format!("job {job} may hold {node} beyond the booking's begin");
            Refusal::new(Kind::Conflict, detail).next(format!(
                "book for later (still job show {job} tells its limit), or cancel it"
            ))
        }
        Unbookable::Booked { node, booking } => {
            let node = name(*node);
            Refusal::new(
                Kind::Conflict,
                format!("{node} is booked already, as number {booking}"),
            )
            .next("still booking list shows from when to when")
        }
    }
}

pub(super) fn unbook(
    core: &mut Core,
    now: Millis,
    caller: &Caller,
    id: u64,
) -> Result<(), Refusal> {
    let Some(booking) = core.booking(id) else {
        let detail = format!("there is no booking {id}");
        return Err(Refusal::new(Kind::NoSuchBooking, detail).next("still booking list shows them"));
    };
    if caller.role != Role::Admin && booking.made_by != caller.user {
        let detail = format!("booking {id} was made by {}", booking.made_by);
        return Err(Refusal::new(Kind::Forbidden, detail)
            .next("ask them, or use a certificate of role `admin`"));
    }
    core.unbook(now, &caller.user, id);
    Ok(())
}
