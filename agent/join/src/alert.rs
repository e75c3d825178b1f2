//! What the controller's TLS says after the node believes the handshake to be over.
//!
//! In TLS 1.3 a client has finished before the server has looked at its certificate: that it was
//! refused arrives as an alert in place of the first bytes. HTTP/2 keeps of that error the text only,
//! so the alert is taken note of here, below it. And an alert is lost when the other side's system
//! finds unread bytes at its close; hence [`Alerted::hear`], which lets the controller speak first.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use pki::rustls::{self, AlertDescription};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Room for the first bytes.
const FIRST: usize = 1024;

/// The first alert of a connection, if there was one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Alert(Arc<OnceLock<AlertDescription>>);

impl Alert {
    pub(crate) fn get(&self) -> Option<AlertDescription> {
        self.0.get().copied()
    }

    fn note(&self, error: &io::Error) {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        if let Some(rustls::Error::AlertReceived(alert)) = inner {
            self.0.get_or_init(|| *alert);
        }
    }
}

/// A TLS stream whose alerts are noted.
#[derive(Debug)]
pub(crate) struct Alerted<T> {
    io: T,
    heard: BytesMut,
    alert: Alert,
}

impl<T> Alerted<T> {
    pub(crate) fn new(io: T) -> Self {
        Self {
            io,
            heard: BytesMut::new(),
            alert: Alert::default(),
        }
    }

    pub(crate) fn alert(&self) -> Alert {
        self.alert.clone()
    }
}

impl<T: AsyncRead + Unpin> Alerted<T> {
    /// Waits until the peer has said something, which is then there to be read.
    ///
    /// # Errors
    /// When it goes instead.
    pub(crate) async fn hear(&mut self) -> io::Result<()> {
        let mut first = BytesMut::with_capacity(FIRST);
        match self.read_buf(&mut first).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {
                self.heard = first;
                Ok(())
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Alerted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.heard.is_empty() {
            let count = self.heard.len().min(buf.remaining());
            buf.put_slice(&self.heard[..count]);
            self.heard.advance(count);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            self.alert.note(error);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Alerted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
