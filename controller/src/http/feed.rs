//! Events as they become durable: for calls that wait for a job, and for streams.
//!
//! One task reads each new event once and keeps the last ones in memory, rendered. Streams that keep
//! up read from there; who is further behind reads pages from the store. Nothing is kept for any one
//! reader, so a slow one costs nothing but its connection. While nobody listens nothing is read.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::event::Event;
use api::job::JobId;
use bytes::{BufMut as _, Bytes, BytesMut};
use store::EventFilter;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::history::History;
use crate::refusal::Refusal;

/// Events kept in memory at most.
const KEPT: usize = 4096;
/// And their bytes as text.
const KEPT_BYTES: usize = 4 * 1024 * 1024;
/// Read from the store at a time.
const PAGE: u32 = 500;
/// The store's time for a page.
const READ: Duration = Duration::from_secs(20);
/// Text of a batch: when it is reached, the batch ends.
const BATCH_BYTES: usize = 64 * 1024;

/// An event and how a stream says it.
#[derive(Debug)]
struct Line {
    seq: u64,
    job: Option<JobId>,
    node: Option<api::fleet::NodeId>,
    text: Bytes,
}

/// The last events: all those behind `complete_after`.
#[derive(Debug)]
struct Recent {
    complete_after: u64,
    lines: VecDeque<Line>,
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Feed {
    recent: Mutex<Recent>,
    /// The number of the last event that is in `recent`.
    head: watch::Sender<u64>,
    waiting: Mutex<HashMap<JobId, Arc<Notify>>>,
}

/// Some events as a stream says them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Empty: none of them fits the filter.
    pub(crate) text: Bytes,
    pub(crate) count: u64,
    /// All events up to this number have been looked at.
    pub(crate) upto: u64,
}

/// Told of each event of a job, as long as it lives.
#[derive(Debug)]
pub(crate) struct Watch {
    feed: Arc<Feed>,
    job: JobId,
    pub(crate) notify: Arc<Notify>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = lock(&self.feed.waiting);
        // the map's and this one: nobody else waits for it
        if Arc::strong_count(&self.notify) <= 2 {
            waiting.remove(&self.job);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // each holder leaves it as it should be at every step
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    /// Knows nothing before `head`.
    pub(crate) fn new(head: u64) -> Self {
        Self {
            recent: Mutex::new(Recent {
                complete_after: head,
                lines: VecDeque::new(),
                bytes: 0,
            }),
            head: watch::Sender::new(head),
            waiting: Mutex::default(),
        }
    }

    pub(crate) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub(crate) fn watch(self: &Arc<Self>, job: JobId) -> Watch {
        let mut waiting = lock(&self.waiting);
        let notify = Arc::clone(waiting.entry(job).or_default());
        Watch {
            feed: Arc::clone(self),
            job,
            notify,
        }
    }

    /// Reads what becomes durable, until `stop`.
    pub(crate) async fn run<H: History>(self: Arc<Self>, history: H, stop: CancellationToken) {
        let mut seen = history.seen();
        let mut failing = false;
        loop {
            let target = *seen.borrow_and_update();
            match self.catch_up(&history, target).await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "events cannot be read");
                    }
                    failing = true;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = seen.changed(), if !failing => {
                    if changed.is_err() {
                        // the store is closed: nothing more will come
                        return;
                    }
                }
                () = tokio::time::sleep(Duration::from_secs(1)), if failing => {}
            }
        }
    }

    async fn catch_up<H: History>(&self, history: &H, target: u64) -> Result<(), Refusal> {
        loop {
            let head = *self.head.borrow();
            if head >= target {
                return Ok(());
            }
            if self.nobody_listens() {
                self.skip_to(target);
                return Ok(());
            }
            let events = page(history, head, PAGE, &EventFilter::default()).await?;
            let Some(last) = events.last().map(|event| event.seq) else {
                return Ok(());
            };
            self.take(&events);
            self.head.send_replace(last);
            let waiting = lock(&self.waiting);
            for event in &events {
                if let Some(notify) = event.job.and_then(|job| waiting.get(&job)) {
                    notify.notify_waiters();
                }
            }
        }
    }

    fn nobody_listens(&self) -> bool {
        self.head.receiver_count() == 0 && lock(&self.waiting).is_empty()
    }

    /// Who begins to listen after this finds in the store what is skipped: it is durable already.
    fn skip_to(&self, target: u64) {
        *lock(&self.recent) = Recent {
            complete_after: target,
            lines: VecDeque::new(),
            bytes: 0,
        };
        self.head.send_replace(target);
    }

    fn take(&self, events: &[Event]) {
        let mut recent = lock(&self.recent);
        for event in events {
            let line = Line::of(event);
            recent.bytes += line.text.len();
            recent.lines.push_back(line);
        }
        while recent.lines.len() > KEPT || recent.bytes > KEPT_BYTES {
            let Some(line) = recent.lines.pop_front() else {
                break;
            };
            recent.bytes -= line.text.len();
            recent.complete_after = line.seq;
        }
    }

    /// The next events behind `after` that fit, at most `limit`; `None`: there are none yet.
    pub(crate) async fn next<H: History>(
        &self,
        history: &H,
        after: u64,
        limit: u64,
        filter: &EventFilter,
    ) -> Result<Option<Batch>, Refusal> {
        let head = *self.head.borrow();
        if after >= head {
            return Ok(None);
        }
        if let Some(batch) = self.remembered(after, head, limit, filter) {
            return Ok(Some(batch));
        }
        let limit = u32::try_from(limit).unwrap_or(PAGE).min(PAGE);
        let events = page(history, after, limit, filter).await?;
        // fewer than asked for: there are no others up to what was there before the question
        let all = events.len() < limit as usize;
        let last = events.last().map_or(after, |event| event.seq);
        let mut batch = Batch::begin();
        let mut cut = false;
        for event in &events {
            if batch.text.len() >= BATCH_BYTES {
                cut = true;
                break;
            }
            batch.add(event.seq, &Line::of(event).text);
        }
        if !cut {
            batch.upto = if all { last.max(head) } else { last };
        }
        Ok(Some(batch.freeze()))
    }

    /// `None`: memory does not reach back so far.
    fn remembered(&self, after: u64, head: u64, limit: u64, filter: &EventFilter) -> Option<Batch> {
        let recent = lock(&self.recent);
        if after < recent.complete_after {
            return None;
        }
        let begin = recent.lines.partition_point(|line| line.seq <= after);
        let mut batch = Batch::begin();
        for line in recent.lines.range(begin..) {
            if batch.count >= limit || batch.text.len() >= BATCH_BYTES {
                return Some(batch.freeze());
            }
            if line.fits(filter) {
                batch.add(line.seq, &line.text);
            }
            batch.upto = line.seq;
        }
        batch.upto = batch.upto.max(head);
        Some(batch.freeze())
    }
}

async fn page<H: History>(
    history: &H,
    after: u64,
    limit: u32,
    filter: &EventFilter,
) -> Result<Vec<Event>, Refusal> {
    let read = history.events(after, limit, filter);
    tokio::time::timeout(READ, read).await.unwrap_or_else(|_| {
        Err(Refusal::new(
            crate::refusal::Kind::StoreUnavailable,
            "the store did not answer in time",
        ))
    })
}

impl Line {
    fn of(event: &Event) -> Self {
        Self {
            seq: event.seq,
            job: event.job,
            node: event.node.clone(),
            text: render(event),
        }
    }

    fn fits(&self, filter: &EventFilter) -> bool {
        filter.job.is_none_or(|job| self.job == Some(job))
            && (filter.node.is_none() || self.node == filter.node)
    }
}

/// As server-sent event (HTML standard §9.2). JSON has no line breaks, and a kind is made of words.
pub(crate) fn render(event: &Event) -> Bytes {
    let plain = |c: &char| c.is_ascii_graphic();
    let kind: String = event.kind.chars().filter(plain).collect();
    let mut text = BytesMut::new();
    text.put_slice(format!("id: {}\nevent: {kind}\ndata: ", event.seq).as_bytes());
    let mut writer = text.writer();
    // its map keys are strings and memory takes everything
    let written = serde_json::to_writer(&mut writer, event);
    debug_assert!(written.is_ok(), "an event is always JSON");
    let mut text = writer.into_inner();
    text.put_slice(b"\n\n");
    text.freeze()
}

struct Building {
    text: BytesMut,
    count: u64,
    upto: u64,
}

impl Batch {
    fn begin() -> Building {
        Building {
            text: BytesMut::new(),
            count: 0,
            upto: 0,
        }
    }
}

impl Building {
    fn add(&mut self, seq: u64, text: &[u8]) {
        self.text.put_slice(text);
        self.count += 1;
        self.upto = seq;
    }

    fn freeze(self) -> Batch {
        Batch {
            text: self.text.freeze(),
            count: self.count,
            upto: self.upto,
        }
    }
}
