//! `GET /events`: what the node has to tell of its containers, between the engine's own events.
//!
//! The engine's bytes pass as they are. The node's events are in Docker's own form ([`event`]), the
//! newest of them are remembered ([`log`]), the client's question is read as the engine reads it
//! ([`query`], [`filter`]), and a line of ours comes between two lines of the engine and never within
//! one ([`merge`]).

mod event;
mod filter;
mod log;
mod merge;
mod query;
mod stream;

use hop::Answer;
use hyper::Response;
use hyper::header::CONTENT_LENGTH;
use policy::Route;

use crate::forward;
use crate::service::Shared;
use crate::traits::Body;
use query::Query;

pub use event::ContainerEvent;
pub use log::EventLog;

/// The engine's answer with the node's events in it, as far as they were asked for.
pub(crate) fn answer(shared: &Shared, route: &Route, response: Response<Answer>) -> Response<Body> {
    let Some(query) = Query::of(route) else {
        // an engine that reads it nevertheless knows a form that we do not
        tracing::debug!(target = route.target, "events asked for in an unknown form");
        return forward::stream(response);
    };
    let mut response = response;
    response.headers_mut().remove(CONTENT_LENGTH);
    let follower = shared.parts.events.follow(query.past());
    let limits = &shared.limits;
    forward::stream(response.map(|engine| stream::merged(engine, follower, query, limits)))
}
