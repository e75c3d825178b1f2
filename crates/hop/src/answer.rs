//! One request over a connection of its own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Why a body that was being streamed broke off.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer's headers and what of its body is buffered, bytes.
const BUFFER: usize = 256 * 1024;

/// Sends a request and returns as soon as the answer's head is there. Dropping the future or the
/// answer's body closes the connection.
///
/// A server may refuse an upload and close before it has read it. That must not hide its answer, so
/// when it does not read any more, writing goes nowhere; one that ended without an answer shows when
/// it is read. A hijacked stream is exempt.
///
/// # Errors
/// When the connection ends before the answer's head, or carries something else.
pub async fn ask<IO, B>(
    io: IO,
    request: Request<B>,
    tasks: &TaskTracker,
) -> Result<Response<Answer>, hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let lenient = Arc::new(AtomicBool::new(true));
    let io = Lenient {
        io,
        lenient: Arc::clone(&lenient),
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(io))
        .await?;
    let task = tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection ended");
        }
    });
    let connection = AbortOnDropHandle::new(task);
    let response = sender.send_request(request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        lenient.store(false, Ordering::Relaxed);
    }
    Ok(response.map(|inner| Answer {
        inner,
        _connection: connection,
    }))
}

/// An answer's body; dropping it closes the connection.
#[derive(Debug)]
pub struct Answer {
    inner: Incoming,
    _connection: AbortOnDropHandle<()>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.get_mut().inner)
            .poll_frame(cx)
            .map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Writes to nobody rather than fail.
#[derive(Debug)]
struct Lenient<IO> {
    io: IO,
    lenient: Arc<AtomicBool>,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Lenient<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Lenient<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.io).poll_write(cx, buf) {
            Poll::Ready(Err(error)) if not_read(&error) && this.lenient.load(Ordering::Relaxed) => {
                Poll::Ready(Ok(buf.len()))
            }
            other => other,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

fn not_read(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
