//! The body of an answer to `/events`: waits for the engine and for the node at once.
//!
//! It is polled by the client's connection: a client that does not read stops both, and one that
//! leaves drops it, and with it the connection to the engine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::time::sleep;

use super::event::ContainerEvent;
use super::log::Follower;
use super::merge::{Due, Merge};
use super::query::Query;
use crate::limits::Limits;
use crate::traits::BodyError;

struct Source<E> {
    engine: E,
    follower: Follower,
    query: Query,
    merge: Merge,
    silence: Duration,
    ended: bool,
}

/// The engine's stream with the node's events in it.
pub(super) fn merged<E>(
    engine: E,
    mut follower: Follower,
    query: Query,
    limits: &Limits,
) -> impl hyper::body::Body<Data = Bytes, Error = BodyError> + Send + Sync + 'static
where
    E: hyper::body::Body<Data = Bytes, Error = BodyError> + Send + Sync + Unpin + 'static,
{
    let past = follower.past();
    let past = past.iter().filter(|event| query.takes_past(event));
    let source = Source {
        merge: Merge::new(
            past.map(|event| due(event)).collect(),
            limits.event_line_bytes,
        ),
        engine,
        follower,
        query,
        silence: limits.event_silence,
        ended: false,
    };
    StreamBody::new(unfold(source, async |mut source| {
        let frame = source.next().await?;
        Some((frame, source))
    }))
}

impl<E> Source<E>
where
    E: hyper::body::Body<Data = Bytes, Error = BodyError> + Unpin,
{
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        while !self.ended {
            let (ordering, room) = (self.merge.is_ordering(), self.merge.has_room());
            let out = tokio::select! {
                // what the engine has to say goes first: its past is there at once
                biased;
                frame = self.engine.frame() => match frame.map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(piece))) => self.merge.engine(piece),
                    Some(Ok(Err(other))) => return Some(Ok(other)),
                    Some(Err(error)) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                    None => {
                        self.ended = true;
                        self.merge.end()
                    }
                },
                events = self.follower.more(), if room => self.told(&events),
                () = sleep(self.silence), if ordering => self.merge.silence(),
            };
            if !out.is_empty() {
                return Some(Ok(Frame::data(out)));
            }
        }
        None
    }

    fn told(&mut self, events: &[Arc<ContainerEvent>]) -> Bytes {
        let mut out = Vec::new();
        for event in events.iter().filter(|event| self.query.takes(event)) {
            out.extend_from_slice(&self.merge.ours(due(event)));
        }
        out.into()
    }
}

fn due(event: &ContainerEvent) -> Due {
    Due {
        time_ns: event.time_ns,
        line: event.line(),
    }
}
