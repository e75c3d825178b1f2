//! The agent's end: accepts streams.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::header::HeaderValue;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tokio_util::sync::PollSemaphore;

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

/// The header with the reason of a refusal.
pub(crate) const REFUSAL: &str = "stillmetal-refusal";

/// Longest reason, in bytes.
const REASON: usize = 1024;

/// The agent's end of a tunnel. When it is dropped, the tunnel closes after its last stream.
pub struct Acceptor {
    /// As many as there are permits for streams, so the channel needs no bound.
    incoming: mpsc::UnboundedReceiver<Incoming>,
    common: Arc<Common>,
}

/// Sets up the agent's end over a connection that it has dialled.
///
/// # Errors
/// When the peer does not speak HTTP/2, says nothing, or goes.
pub async fn accept<T>(io: T, limits: &Limits) -> Result<(Acceptor, Driver), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (io, received) = Metered::new(io);
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(RESET_MEMORY)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(ERROR_RESETS)
        .data_frame_budget(FRAMING_BUDGET);
    let within = limits.handshake;
    let mut connection = timeout(within, builder.handshake(io))
        .await
        .map_err(|_| HandshakeError::Deadline { within })?
        .map_err(|error| HandshakeError::Ended(End::of(error)))?;
    let (common, pumps) = Common::new(limits);
    let (ready, incoming) = mpsc::unbounded_channel();
    let pings = connection.ping_pong().expect("taken once");
    let side = Agent {
        connection,
        waiting: VecDeque::new(),
        permits: PollSemaphore::new(Arc::clone(&common.streams)),
        ready,
        away: false,
        common: Arc::clone(&common),
    };
    let pulse = Pulse::new(pings, received, limits.liveness);
    let driver = Driver::new(side, pulse, &common, pumps);
    Ok((Acceptor { incoming, common }, driver))
}

impl Acceptor {
    /// The next stream that the controller wants; None when the tunnel has ended, about which
    /// [`Handle::closed`] knows more. Beyond [`STREAMS`] that are held, it waits for one to be
    /// dropped.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Liveness, going away, and the end.
    pub fn handle(&self) -> Handle {
        Handle {
            common: Arc::clone(&self.common),
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.common.go_away(None);
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("handle", &self.handle())
            .finish_non_exhaustive()
    }
}

/// Why a stream could not be accepted: the controller has given it up, or the tunnel has ended.
#[derive(Debug, thiserror::Error)]
#[error("accept the stream for {service}")]
pub struct AcceptError {
    /// What it was for.
    pub service: String,
    /// What HTTP/2 says.
    pub source: h2::Error,
}

/// A stream that waits for an answer. Dropped without one, it is reset.
pub struct Incoming {
    head: Head,
    asked: Asked,
    permit: OwnedSemaphorePermit,
    common: Arc<Common>,
}

impl Incoming {
    /// What it is for, and who asks.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Takes the stream.
    ///
    /// # Errors
    /// When the controller waits no longer.
    pub fn accept(self) -> Result<Stream, AcceptError> {
        let Self {
            head,
            mut asked,
            permit,
            common,
        } = self;
        match asked.respond.send_response(Response::new(()), false) {
            Ok(send) => Ok(Stream::new(send, asked.receive, permit, &common)),
            Err(source) => Err(AcceptError {
                service: head.service().to_owned(),
                source,
            }),
        }
    }

    /// Declines the stream. The reason is for people; what exceeds 1 KiB of it is cut off.
    pub fn refuse(self, reason: &str) {
        self.asked.refuse(StatusCode::SERVICE_UNAVAILABLE, reason);
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

/// A request that was not answered yet.
struct Asked {
    respond: SendResponse<Bytes>,
    receive: RecvStream,
}

impl Asked {
    fn refuse(mut self, status: StatusCode, reason: &str) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        let reason = reason[..reason.floor_char_boundary(REASON)].replace(char::is_control, " ");
        let reason = HeaderValue::from_bytes(reason.trim().as_bytes());
        let reason = reason.expect("text without control characters is a header's value");
        response.headers_mut().insert(REFUSAL, reason);
        // An error means that nobody waits for it any more.
        drop(self.respond.send_response(response, true));
    }

    /// Whether the controller has given it up, or is gone.
    fn is_reset(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.respond.poll_reset(&mut nobody).is_ready()
    }
}

struct Agent<T> {
    connection: server::Connection<Metered<T>, Bytes>,
    /// Streams beyond those that may be held. They carry nothing: the controller's end sends no
    /// byte before it is accepted.
    waiting: VecDeque<(Head, Asked)>,
    permits: PollSemaphore,
    ready: mpsc::UnboundedSender<Incoming>,
    away: bool,
    common: Arc<Common>,
}

impl<T> Side for Agent<T>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.receive(request, respond),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        self.hand_over(cx);
        Poll::Pending
    }

    fn go_away(&mut self) {
        self.away = true;
        for (_, asked) in self.waiting.drain(..) {
            asked.refuse(StatusCode::SERVICE_UNAVAILABLE, GOING);
        }
        self.connection.graceful_shutdown();
    }

    fn is_idle(&self) -> bool {
        !self.connection.has_streams()
    }
}

const GOING: &str = "the agent is about to close the tunnel";

impl<T> Agent<T> {
    fn receive(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let head = Head::of_request(&request);
        let asked = Asked {
            respond,
            receive: request.into_body(),
        };
        match head {
            Err(error) => asked.refuse(StatusCode::BAD_REQUEST, &error.to_string()),
            Ok(_) if self.away => asked.refuse(StatusCode::SERVICE_UNAVAILABLE, GOING),
            Ok(head) => {
                // HTTP/2 bounds those that still wait, but not those given up.
                if self.waiting.len() >= 2 * STREAMS as usize {
                    self.waiting.retain_mut(|(_, asked)| !asked.is_reset());
                }
                self.waiting.push_back((head, asked));
            }
        }
    }

    fn hand_over(&mut self, cx: &mut Context<'_>) {
        while !self.waiting.is_empty() {
            let Poll::Ready(Some(permit)) = self.permits.poll_acquire(cx) else {
                return;
            };
            while let Some((head, mut asked)) = self.waiting.pop_front() {
                if asked.is_reset() {
                    continue;
                }
                // If the acceptor is gone the stream is dropped, which resets it.
                drop(self.ready.send(Incoming {
                    head,
                    asked,
                    permit,
                    common: Arc::clone(&self.common),
                }));
                break;
            }
        }
    }
}
