//! Byte streams that count, and that lose everything without a word.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

/// What a test sees of the line, and does to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    written: Arc<AtomicU64>,
    severed: Arc<AtomicBool>,
}

impl Line {
    /// In both directions together.
    pub(crate) fn bytes(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// From now on nothing arrives, and nobody is told: the cable is out.
    pub(crate) fn sever(&self) {
        self.severed.store(true, Ordering::SeqCst);
    }
}

/// One end of a line in memory.
#[derive(Debug)]
pub(crate) struct Wire {
    io: DuplexStream,
    line: Line,
}

pub(crate) fn wires() -> (Wire, Wire, Line) {
    let line = Line::default();
    let (one, other) = duplex(256 * 1024);
    let wire = |io| Wire {
        io,
        line: line.clone(),
    };
    (wire(one), wire(other), line)
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Not even that the other end was closed.
        if self.line.severed.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.line.severed.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = written {
            self.line.written.fetch_add(count as u64, Ordering::SeqCst);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
