//! One stream, the same at both ends.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use crate::end::End;
use crate::handle::Common;
use crate::inbox::{Finish, Inbox};
use crate::limits::STREAM_WINDOW;
use crate::outbox::Outbox;

/// A stream of bytes in both directions.
///
/// - `shutdown` ends the own direction; the peer reads to a clean end, and the other direction goes
///   on for as long as the peer likes.
/// - Dropping it before both directions have ended resets it: what was written last may be lost, and
///   the peer gets an error and no clean end. Only the agent may stop reading early: if it has shut
///   down its own direction, the peer still reads all of that to its clean end.
/// - Writing waits for window, so at most [`STREAM_WINDOW`] bytes are under way that the peer's
///   program has not read. `flush` does nothing, since nothing is held back.
pub struct Stream {
    outbox: Arc<Outbox>,
    inbox: Arc<Inbox>,
    shut_down: bool,
    /// Counts the stream until it is dropped.
    _permit: OwnedSemaphorePermit,
}

/// Inside the [`io::Error`] of a stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer dropped its end.
    #[error("the peer reset the stream ({reason})")]
    Reset {
        /// As HTTP/2 names it.
        reason: Reason,
    },
    /// The peer has ended its direction and does not read this one.
    #[error("the peer reads no more of the stream")]
    NotRead,
    /// Written to after its own shutdown.
    #[error("the stream was shut down for writing")]
    ShutDown,
    /// The whole tunnel has ended.
    #[error("the stream's tunnel ended")]
    Tunnel {
        /// How.
        source: End,
    },
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset { .. } => io::ErrorKind::ConnectionReset,
            StreamError::NotRead | StreamError::ShutDown => io::ErrorKind::BrokenPipe,
            StreamError::Tunnel { .. } => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

impl Stream {
    pub(crate) fn new(
        send: SendStream<Bytes>,
        receive: RecvStream,
        permit: OwnedSemaphorePermit,
        common: &Arc<Common>,
    ) -> Self {
        Self {
            outbox: Outbox::new(send, common),
            inbox: Inbox::new(receive, common),
            shut_down: false,
            _permit: permit,
        }
    }

    /// Waits until the peer has given the stream up, or the tunnel has ended. Reading tells that too,
    /// but only until the peer's half has ended: this tells it afterwards as well. It is also over
    /// when the stream is dropped. Of several that wait, only the last is told.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let outbox = Arc::clone(&self.outbox);
        let common = Arc::clone(&self.inbox.common);
        async move {
            tokio::select! {
                () = poll_fn(|cx| outbox.poll_gone(cx)) => {}
                _ = common.closed() => {}
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.inbox.poll_read(cx, buf).map_err(|finish| {
            match finish {
                Finish::Clean => unreachable!("a clean end is no error"),
                Finish::Reset(reason) => StreamError::Reset { reason },
                Finish::Ended(source) => StreamError::Tunnel { source },
            }
            .into()
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.shut_down {
            return Poll::Ready(Err(StreamError::ShutDown.into()));
        }
        // An empty frame means nothing, and a peer counts them as a sign of malice.
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.outbox.poll_send(cx, buf, STREAM_WINDOW as usize)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut_down {
            self.outbox.end()?;
            self.shut_down = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The library resets a stream when the last part of it is dropped.
        let send = self.outbox.abandon();
        self.inbox.abandon();
        drop(send);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("shut_down", &self.shut_down)
            .finish_non_exhaustive()
    }
}
