//! Two deadlines that hyper does not tell apart: a short one for headers that have begun to arrive,
//! a long one for a connection that waits for its next request.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Counts requests, so that the connection's IO knows whether one is being served.
#[derive(Debug, Clone, Default)]
pub struct Busy(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicUsize,
    ended: AtomicUsize,
    hijacked: AtomicBool,
}

impl Busy {
    /// A request's headers are complete; until the guard is dropped its body may take its time.
    #[must_use]
    pub fn begin(&self) -> BusyGuard {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        BusyGuard(Arc::clone(&self.0))
    }

    /// Whether the connection has stopped talking HTTP.
    #[must_use]
    pub fn is_hijacked(&self) -> bool {
        self.0.hijacked.load(Ordering::Relaxed)
    }
}

/// See [`Busy::begin`].
#[derive(Debug)]
pub struct BusyGuard(Arc<Counts>);

impl BusyGuard {
    /// The connection carries raw bytes from here on and belongs to somebody else.
    pub fn hijack(&self) {
        self.0.hijacked.store(true, Ordering::Relaxed);
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// An answer's body; the connection is busy until it is dropped.
#[derive(Debug)]
pub struct Held<B> {
    body: B,
    _busy: BusyGuard,
}

impl<B> Held<B> {
    #[must_use]
    pub fn new(body: B, busy: BusyGuard) -> Self {
        Self { body, _busy: busy }
    }
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Headers,
    Busy,
}

/// A connection that fails with `TimedOut` when headers or the next request take too long.
#[derive(Debug)]
pub struct Timed<IO> {
    io: IO,
    busy: Busy,
    seen: usize,
    phase: Phase,
    header_deadline: Duration,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
}

impl<IO> Timed<IO> {
    pub fn new(io: IO, busy: Busy, header_deadline: Duration, idle: Duration) -> Self {
        // A new connection has a request in mind: it gets no more than the short deadline.
        let timer = Box::pin(sleep_until(Instant::now() + header_deadline));
        Self {
            io,
            busy,
            seen: 0,
            phase: Phase::Headers,
            header_deadline,
            idle,
            timer,
        }
    }

    fn follow_requests(&mut self) {
        let counts = &self.busy.0;
        let begun = counts.begun.load(Ordering::Relaxed);
        let idle = counts.ended.load(Ordering::Relaxed) == begun;
        if self.busy.is_hijacked() || !idle {
            self.phase = Phase::Busy;
        } else if begun != self.seen {
            self.seen = begun;
            self.enter(Phase::Waiting);
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        let wait = match phase {
            Phase::Waiting => self.idle,
            Phase::Headers => self.header_deadline,
            Phase::Busy => return,
        };
        self.timer.as_mut().reset(Instant::now() + wait);
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Timed<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.follow_requests();
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.io).poll_read(cx, buf) {
            if this.phase == Phase::Waiting && buf.filled().len() > before {
                this.enter(Phase::Headers);
            }
            // Bytes that trickle in do not outlive the deadline either.
            if this.phase != Phase::Headers || this.timer.deadline() > Instant::now() {
                return Poll::Ready(result);
            }
        }
        if this.phase == Phase::Busy {
            return Poll::Pending;
        }
        ready!(this.timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Timed<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
