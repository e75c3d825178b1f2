//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::clock::{Busy, Timed};
use crate::forward;
use crate::listener::{Shared, tend};
use crate::peer::{Line, Peer, PeerError, Place};
use crate::respond;
use crate::traits::Body;

/// Runs in a task of its own: nothing that a peer does or omits reaches the accept loop.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    from: SocketAddr,
    patience: CancellationToken,
) {
    if let Err(error) = tend(&stream) {
        tracing::debug!(%from, %error, "socket options refused");
    }
    // Outlives the TLS stream, see `linger`.
    let Ok(descriptor) = stream.as_fd().try_clone_to_owned() else {
        return;
    };
    let handshake = timeout(shared.limits.handshake_deadline, acceptor.accept(stream));
    let handshaken = tokio::select! {
        () = patience.cancelled() => None,
        () = shared.drain.cancelled() => None,
        handshaken = handshake => Some(handshaken),
    };
    patience.cancel();
    let tls = match handshaken {
        None => return,
        Some(Err(_)) => {
            tracing::debug!(%from, "no TLS handshake in time");
            return;
        }
        Some(Ok(Err(error))) => {
            tracing::info!(%from, %error, "TLS handshake failed");
            return;
        }
        Some(Ok(Ok(tls))) => tls,
    };
    let certificates = tls.get_ref().1.peer_certificates();
    let peer = Peer::of(certificates);
    let place = certificates.and_then(<[_]>::first).and_then(|certificate| {
        let limits = &shared.limits;
        shared.census.enter(
            certificate,
            limits.connections,
            limits.connections_per_certificate,
        )
    });
    let cut = shared.cut.clone();
    let caller = Caller::new(peer, place, &descriptor);
    let ended = tokio::select! {
        () = cut.cancelled() => Ended::Cut,
        ended = talk(shared, tls, caller) => ended,
    };
    if let Ended::Http = ended {
        linger(descriptor).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// As HTTP ends.
    Http,
    /// The stream lives on in a task of its own, or must not.
    Cut,
}

async fn talk(shared: Arc<Shared>, tls: TlsStream<TcpStream>, caller: Caller) -> Ended {
    let limits = &shared.limits;
    let mut refusal = None;
    if matches!(caller, Caller::Nobody(..)) {
        let Ok(permit) = shared.refusals.try_acquire() else {
            return Ended::Cut;
        };
        refusal = Some(permit);
    }
    let busy = Busy::default();
    let io = Timed::new(
        tls,
        busy.clone(),
        limits.header_deadline,
        limits.keep_alive_idle,
    );
    let keep_alive = matches!(caller, Caller::Known(..));
    let service = service_fn(|request| answer(&shared, &caller, &busy, request));
    let connection = http1::Builder::new()
        .keep_alive(keep_alive)
        .max_buf_size(limits.header_bytes)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shared.drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    drop(refusal);
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
    if busy.is_hijacked() {
        Ended::Cut
    } else {
        Ended::Http
    }
}

enum Caller {
    Known(Peer, Arc<Line>),
    /// Told why and sent away.
    Nobody(StatusCode, String),
}

impl Caller {
    fn new(peer: Result<Peer, PeerError>, place: Option<Place>, socket: &OwnedFd) -> Self {
        match (peer, place, socket.try_clone()) {
            (Err(reason), ..) => Self::Nobody(StatusCode::FORBIDDEN, reason.to_string()),
            (Ok(_), None, _) => Self::Nobody(
                StatusCode::TOO_MANY_REQUESTS,
                "too many connections at once, in all or with this certificate; close some".into(),
            ),
            (Ok(_), _, Err(_)) => Self::Nobody(
                StatusCode::SERVICE_UNAVAILABLE,
                "the node has no file descriptors left; try again later".into(),
            ),
            (Ok(peer), Some(place), Ok(socket)) => Self::Known(
                peer,
                Arc::new(Line {
                    _place: place,
                    socket,
                }),
            ),
        }
    }
}

async fn answer(
    shared: &Arc<Shared>,
    caller: &Caller,
    busy: &Busy,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    Ok(match caller {
        Caller::Nobody(status, reason) => respond::message(*status, reason),
        Caller::Known(peer, line) => {
            forward::answer(shared, peer, line, busy.begin(), request).await
        }
    })
}

/// How long and how much a client may go on sending after its answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// Closing a socket in which unread bytes lie makes the kernel send a reset, and the reset can
/// destroy the answer that the peer has not read yet (RFC 9112 §9.6). So: end our half, read what
/// still comes for a moment, then close.
async fn linger(descriptor: OwnedFd) {
    let Ok(mut stream) = TcpStream::from_std(descriptor.into()) else {
        return;
    };
    if stream.shutdown().await.is_err() {
        return;
    }
    let drain = async {
        let mut scratch = vec![0; 16 * 1024];
        let mut left = LINGER_BYTES;
        while let Ok(count @ 1..) = stream.read(&mut scratch).await {
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
    };
    // Whether the time is over or the stream is: it is closed either way.
    drop(timeout(LINGER, drain).await);
}
