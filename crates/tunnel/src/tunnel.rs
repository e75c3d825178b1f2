//! The controller's end: opens streams.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::{Reason, RecvStream};
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::acceptor::REFUSAL;
use crate::driver::{Driver, HandshakeError, Side};
use crate::end::End;
use crate::handle::{Common, Handle};
use crate::head::Head;
use crate::limits::{
    CONNECTION_WINDOW, ERROR_RESETS, FRAME, FRAMING_BUDGET, HEADER_LIST, Limits, REMEMBERED_RESETS,
    RESET_MEMORY, SEND_BUFFER, STREAM_WINDOW, STREAMS, UNSEEN_RESETS,
};
use crate::meter::Metered;
use crate::pulse::Pulse;
use crate::stream::Stream;

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// As many opens wait already as may.
    #[error("{pending} streams wait to be opened already")]
    Busy {
        /// So many.
        pending: usize,
    },
    /// Not accepted in time.
    #[error("the stream was not accepted within {within:?}")]
    Deadline {
        /// The time it had.
        within: Duration,
    },
    /// The agent does not want it.
    #[error("the agent refused the stream: {reason}")]
    Refused {
        /// In the agent's words.
        reason: String,
    },
    /// The agent dropped it without a word.
    #[error("the agent dropped the stream ({reason})")]
    Reset {
        /// As HTTP/2 names it.
        reason: Reason,
    },
    /// One side is about to close the tunnel.
    #[error("the tunnel takes no new streams, it is about to be closed")]
    GoingAway,
    /// The tunnel has ended.
    #[error("the tunnel ended")]
    Ended(#[source] End),
}

/// The controller's end of a tunnel. When the last clone is dropped, the tunnel closes after its
/// last stream.
#[derive(Clone)]
pub struct Tunnel {
    shared: Arc<Shared>,
}

struct Shared {
    /// None from the moment in which there are to be no new streams.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    /// One permit for each open that waits.
    places: Semaphore,
    limits: Limits,
    common: Arc<Common>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.common.go_away(None);
    }
}

/// Sets up the controller's end over a connection that an agent has dialled.
///
/// # Errors
/// When the peer does not speak HTTP/2, says nothing, or goes.
pub async fn connect<T>(io: T, limits: &Limits) -> Result<(Tunnel, Driver), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (io, received) = Metered::new(io);
    let within = limits.handshake;
    let (sender, mut connection) = timeout(within, handshake(io))
        .await
        .map_err(|_| HandshakeError::Deadline { within })?
        .map_err(HandshakeError::Ended)?;
    let (common, pumps) = Common::new(limits);
    let shared = Arc::new(Shared {
        sender: Mutex::new(Some(sender)),
        places: Semaphore::new(limits.pending_opens),
        limits: limits.clone(),
        common: Arc::clone(&common),
    });
    let pings = connection.ping_pong().expect("taken once");
    let side = Controller {
        connection,
        shared: Arc::downgrade(&shared),
        common: Arc::clone(&common),
    };
    let pulse = Pulse::new(pings, received, limits.liveness);
    let driver = Driver::new(side, pulse, &common, pumps);
    Ok((Tunnel { shared }, driver))
}

async fn handshake<T>(
    io: Metered<T>,
) -> Result<(SendRequest<Bytes>, client::Connection<Metered<T>>), End>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (sender, mut connection) = client::Builder::new()
        .enable_push(false)
        // Until the agent's settings are known.
        .initial_max_send_streams(0)
        .max_concurrent_streams(0)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(RESET_MEMORY)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(ERROR_RESETS)
        .data_frame_budget(FRAMING_BUDGET)
        .handshake(io)
        .await
        .map_err(End::of)?;
    // The library's handshake only writes; the peer has not shown anything yet.
    poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(End::PeerClosed)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(End::of(error))),
        Poll::Pending if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await?;
    Ok((sender, connection))
}

impl Tunnel {
    /// Opens a stream and waits until the agent has accepted it. Where there are as many streams
    /// as there may be, it waits for one to be dropped.
    ///
    /// # Errors
    /// When the agent refuses, the deadline of [`Limits::open`] passes, or the tunnel ends.
    pub async fn open(&self, head: &Head) -> Result<Stream, OpenError> {
        let shared = &*self.shared;
        let _place = shared.places.try_acquire().map_err(|_| OpenError::Busy {
            pending: shared.limits.pending_opens,
        })?;
        let within = shared.limits.open;
        timeout(within, shared.open(head))
            .await
            .unwrap_or(Err(OpenError::Deadline { within }))
    }

    /// Liveness, going away, and the end.
    pub fn handle(&self) -> Handle {
        Handle {
            common: Arc::clone(&self.shared.common),
        }
    }
}

impl Shared {
    async fn open(&self, head: &Head) -> Result<Stream, OpenError> {
        let permit = Arc::clone(&self.common.streams).acquire_owned().await;
        let Ok(permit) = permit else {
            return Err(self.no_more());
        };
        let sender = self.sender().clone();
        let mut sender = sender.ok_or_else(|| self.no_more())?;
        let (response, send) = match sender.send_request(head.to_request(), false) {
            Ok(parts) => parts,
            Err(error) => return Err(self.failed(error).await),
        };
        // Held on to, it would keep the tunnel from closing.
        drop(sender);
        match response.await {
            Ok(response) if response.status() == StatusCode::OK => {
                let receive = response.into_body();
                Ok(Stream::new(send, receive, permit, &self.common))
            }
            Ok(response) => Err(OpenError::Refused {
                reason: refusal(&response),
            }),
            Err(error) => Err(self.failed(error).await),
        }
    }

    fn sender(&self) -> std::sync::MutexGuard<'_, Option<SendRequest<Bytes>>> {
        self.sender
            .lock()
            .expect("nothing panics while it holds it")
    }

    fn no_more(&self) -> OpenError {
        self.common
            .end()
            .map_or(OpenError::GoingAway, OpenError::Ended)
    }

    async fn failed(&self, error: h2::Error) -> OpenError {
        match error.reason() {
            Some(reason) if error.is_reset() => OpenError::Reset { reason },
            Some(Reason::NO_ERROR) if error.is_go_away() => self.no_more(),
            // The driver is about to say what it is.
            _ if error.is_io() || error.is_go_away() => {
                OpenError::Ended(self.common.closed().await)
            }
            // Numbers for streams are used up after 2³⁰ of them; another connection has new ones.
            _ => {
                self.common.go_away(None);
                OpenError::GoingAway
            }
        }
    }
}

fn refusal(response: &Response<RecvStream>) -> String {
    match response.headers().get(REFUSAL) {
        Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        None => response.status().to_string(),
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("handle", &self.handle())
            .finish_non_exhaustive()
    }
}

struct Controller<T> {
    connection: client::Connection<Metered<T>>,
    shared: Weak<Shared>,
    common: Arc<Common>,
}

impl<T> Side for Controller<T>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        Pin::new(&mut self.connection).poll(cx)
    }

    fn go_away(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            self.common.streams.close();
            // Without it the library closes the connection after the last stream.
            drop(shared.sender().take());
        }
    }

    fn is_idle(&self) -> bool {
        self.common.streams.available_permits() == STREAMS as usize
    }
}
