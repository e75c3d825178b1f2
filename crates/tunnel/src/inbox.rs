//! What has arrived on a stream and was not read yet.
//!
//! The driver empties the library's queue into one buffer per stream, whether anybody reads or not.
//! It gives the peer no new window for that: that happens when the reader takes the bytes, so the
//! buffer is never larger than the window. Left in the library's queue, each frame of a stalled
//! stream would cost a few hundred bytes however short it is, and keep the block alive that it was
//! read in.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use h2::{Reason, RecvStream};
use tokio::io::ReadBuf;

use crate::end::End;
use crate::handle::Common;

/// An empty buffer up to this size is kept for the next bytes; a larger one is given back, since
/// most streams are silent most of the time.
const KEEP_BYTES: usize = 4 * 1024;

/// How the peer's half of a stream ended.
#[derive(Debug, Clone)]
pub(crate) enum Finish {
    Clean,
    Reset(Reason),
    Ended(End),
}

pub(crate) struct Inbox {
    state: Mutex<State>,
    pub(crate) common: Arc<Common>,
}

struct State {
    /// None once the stream has been dropped.
    receive: Option<RecvStream>,
    unread: BytesMut,
    finish: Option<Finish>,
    reader: Option<Waker>,
    pump: Option<Waker>,
}

impl Inbox {
    /// The inbox; the driver already fills it.
    pub(crate) fn new(receive: RecvStream, common: &Arc<Common>) -> Arc<Self> {
        let inbox = Arc::new(Self {
            state: Mutex::new(State {
                receive: Some(receive),
                unread: BytesMut::new(),
                finish: None,
                reader: None,
                pump: None,
            }),
            common: Arc::clone(common),
        });
        common.drive(Pump {
            inbox: Arc::clone(&inbox),
        });
        inbox
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds it")
    }

    /// Ready with nothing read when the peer's half has ended cleanly.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Finish>> {
        let mut state = self.lock();
        if state.unread.is_empty() {
            return match &state.finish {
                Some(Finish::Clean) => Poll::Ready(Ok(())),
                Some(finish) => Poll::Ready(Err(finish.clone())),
                None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        let count = buf.remaining().min(state.unread.len());
        buf.put_slice(&state.unread[..count]);
        state.unread.advance(count);
        if state.unread.is_empty() && state.unread.capacity() > KEEP_BYTES {
            state.unread = BytesMut::new();
        }
        if let Some(receive) = &mut state.receive {
            // It can only fail if more is released than had arrived.
            let released = receive.flow_control().release_capacity(count);
            debug_assert!(released.is_ok(), "{released:?}");
        }
        Poll::Ready(Ok(()))
    }

    /// Nobody will read any more. What has arrived is given back to the connection's window.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        let receive = state.receive.take();
        let pump = state.pump.take();
        state.unread = BytesMut::new();
        drop(state);
        drop(receive);
        if let Some(pump) = pump {
            pump.wake();
        }
    }

    /// Takes what the library has, until there is no more to come.
    fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(receive) = &mut state.receive else {
            return Poll::Ready(());
        };
        let mut news = false;
        while state.finish.is_none() {
            match receive.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    state.unread.extend_from_slice(&data);
                    news |= !data.is_empty();
                }
                Poll::Ready(Some(Err(error))) => state.finish = Some(self.finish_of(error)),
                Poll::Ready(None) => state.finish = Some(Finish::Clean),
                Poll::Pending => {
                    state.pump = Some(cx.waker().clone());
                    break;
                }
            }
        }
        if (news || state.finish.is_some())
            && let Some(reader) = state.reader.take()
        {
            reader.wake();
        }
        if state.finish.is_some() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn finish_of(&self, error: h2::Error) -> Finish {
        match error.reason() {
            Some(reason) if error.is_reset() => Finish::Reset(reason),
            _ => Finish::Ended(self.common.end().unwrap_or_else(|| End::of(error))),
        }
    }

    /// The driver is gone: whatever is there is all that there will be.
    fn close(&self) {
        let pending = self.poll_fill(&mut Context::from_waker(Waker::noop()));
        if pending.is_pending() {
            let mut state = self.lock();
            state.finish = Some(Finish::Ended(self.common.end().unwrap_or(End::Abandoned)));
            if let Some(reader) = state.reader.take() {
                reader.wake();
            }
        }
    }
}

/// Fills one inbox, in the driver's task.
pub(crate) struct Pump {
    inbox: Arc<Inbox>,
}

impl Future for Pump {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.inbox.poll_fill(cx)
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.inbox.close();
    }
}
