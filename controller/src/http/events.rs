//! `/v1/events`: pages, and streams of server-sent events.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::job::{JobId, Page};
use axum::body::Body;
use axum::http::Response;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use store::EventFilter;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::answer::ok;
use super::app::{Answer, App, Vault};
use super::call::Call;
use super::fault::Fault;
use super::feed::Feed;
use super::history::History;
use super::nodes::node_id;
use super::query::{MOST, number};
use crate::desk::Desk;

/// Items of a page when the caller does not say.
const PAGE: u64 = 100;
/// A stream that has nothing to say says so.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A reader that takes nothing for so long is cut off.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Batches on their way to a reader at most.
const BATCHES: usize = 2;
const EVENT_STREAM: &str = "text/event-stream";

impl<D: Desk, H: History, V: Vault> App<D, H, V> {
    pub(crate) async fn events(&self, call: Call) -> Answer {
        let query = &call.query;
        let filter = EventFilter {
            job: query.integer("job").map(JobId),
            node: match query.text("node") {
                Some(name) => Some(node_id(&self.desk, name).await?),
                None => None,
            },
        };
        let after = query.integer("after");
        let limit = query.integer("limit");
        let last = last_event_id(&call)?;
        if wants_stream(&call) {
            return self.stream(filter, last.or(after).unwrap_or(0), limit);
        }
        let limit = limit.unwrap_or(PAGE);
        let limit = usize::try_from(limit).unwrap_or_default();
        // one more, to know whether there are more
        let ask = u32::try_from(limit + 1).unwrap_or(u32::MAX);
        let after = after.unwrap_or(0);
        let mut items = self.history.events(after, ask, &filter).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more);
        let next = next.map(|event| event.seq.to_string());
        let size = items.len() * 256;
        super::call::heavy(size, move || ok(&Page { items, next })).await?
    }

    fn stream(&self, filter: EventFilter, after: u64, limit: Option<u64>) -> Answer {
        if self.stop.is_cancelled() {
            return Err(Fault::stopping());
        }
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        let permit = permit.map_err(|_| Fault::too_many("streams of events"))?;
        let (batches, body) = channel();
        let source = Source {
            feed: Arc::clone(&self.feed),
            history: self.history.clone(),
            filter,
            after,
            left: limit.unwrap_or(u64::MAX),
            stop: self.stop.clone(),
            _permit: permit,
            _open: self.metrics.stream_opened(),
        };
        self.tracker.spawn(source.run(batches));
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // for proxies that would collect it
        headers.insert(
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        );
        Ok(response)
    }
}

/// Only who names the format gets a stream: it does not end by itself.
fn wants_stream(call: &Call) -> bool {
    let accept = call.header(ACCEPT.as_str()).unwrap_or_default();
    let mut formats = accept.split(',');
    formats.any(|format| {
        let (name, rest) = format.split_once(';').unwrap_or((format, ""));
        let refused = rest.split(';').any(|p| matches!(p.trim(), "q=0" | "q=0.0"));
        name.trim().eq_ignore_ascii_case(EVENT_STREAM) && !refused
    })
}

fn last_event_id(call: &Call) -> Result<Option<u64>, Fault> {
    let Some(value) = call.headers.get("last-event-id") else {
        return Ok(None);
    };
    let id = value.to_str().ok().and_then(number);
    match id.filter(|id| *id <= MOST) {
        Some(id) => Ok(Some(id)),
        None => Err(Fault::invalid(
            "header Last-Event-ID",
            "not the number of an event",
            "send the `id` of the last event that came, or leave it out",
        )),
    }
}

/// To a body: few batches, so that a slow reader is noticed and not stored for.
struct Batches {
    sender: mpsc::Sender<Bytes>,
    /// The body ends in an error: what was sent is not all that there is.
    cut: Arc<AtomicBool>,
}

fn channel() -> (Batches, Body) {
    let (sender, receiver) = mpsc::channel(BATCHES);
    let cut = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&cut);
    let bytes = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|bytes| (bytes, receiver))
    });
    let end = stream::once(async move {
        told.load(Ordering::Acquire)
            .then(|| Err(io::Error::new(io::ErrorKind::TimedOut, "cut off")))
    });
    let bytes = bytes
        .map(|bytes| Some(Ok::<_, io::Error>(bytes)))
        .chain(end)
        .filter_map(|item| async { item });
    (Batches { sender, cut }, Body::from_stream(bytes))
}

impl Batches {
    /// `Err`: nobody reads any more, or too slowly.
    async fn send(&self, text: Bytes) -> Result<(), Gone> {
        match tokio::time::timeout(PATIENCE, self.sender.send(text)).await {
            Ok(sent) => sent.map_err(|_| Gone),
            Err(_) => {
                tracing::debug!("a reader of events is cut off");
                self.cut.store(true, Ordering::Release);
                Err(Gone)
            }
        }
    }
}

#[derive(Debug)]
struct Gone;

/// One stream.
struct Source<H> {
    feed: Arc<Feed>,
    history: H,
    filter: EventFilter,
    after: u64,
    left: u64,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
    _open: crate::metrics::OpenStream,
}

impl<H: History> Source<H> {
    async fn run(mut self, batches: Batches) {
        match self.tell(&batches).await {
            Ok(never) => match never {},
            // the reader's stream ends with this
            Err(Gone) => drop(batches),
        }
    }

    async fn tell(&mut self, batches: &Batches) -> Result<Infallible, Gone> {
        let mut head = self.feed.head();
        // how long to wait before asking again
        batches.send(Bytes::from_static(b"retry: 1000\n\n")).await?;
        while self.left > 0 {
            head.mark_unchanged();
            let next = self
                .feed
                .next(&self.history, self.after, self.left, &self.filter);
            let next = tokio::select! {
                next = next => next,
                () = self.stop.cancelled() => return Err(Gone),
            };
            match next {
                Ok(Some(batch)) => {
                    self.after = batch.upto;
                    self.left = self.left.saturating_sub(batch.count);
                    if !batch.text.is_empty() {
                        batches.send(batch.text).await?;
                    }
                }
                Ok(None) => tokio::select! {
                    changed = head.changed() => changed.map_err(|_| Gone)?,
                    () = tokio::time::sleep(KEEP_ALIVE) => {
                        batches.send(Bytes::from_static(b": nothing new\n\n")).await?;
                    }
                    () = batches.sender.closed() => return Err(Gone),
                    () = self.stop.cancelled() => return Err(Gone),
                },
                Err(error) => {
                    tracing::warn!(%error, "a stream of events ends");
                    batches.cut.store(true, Ordering::Release);
                    return Err(Gone);
                }
            }
        }
        Err(Gone)
    }
}
