//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use hop::{Busy, SocketWatch, Timed, tend};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::forward;
use crate::peer::{Holder, Line, Peer, PeerError, Place};
use crate::respond;
use crate::service::Shared;
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
    // Outlives the TLS stream, for its last moments.
    let Ok(socket) = SocketWatch::of(&stream) else {
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
            Holder::Certificate(certificate.to_vec()),
            limits.connections,
            limits.connections_per_certificate,
        )
    });
    let caller = Caller::new(peer, place, socket.clone().gone());
    if let Ended::Http = until_cut(shared, tls, caller).await {
        socket.linger().await;
    }
}

/// Serves what is authenticated already.
pub(crate) async fn serve_stream<IO>(shared: Arc<Shared>, io: IO, caller: Caller)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // Whoever carries the stream takes care of what is under way when it is dropped.
    until_cut(shared, io, caller).await;
}

async fn until_cut<IO>(shared: Arc<Shared>, io: IO, caller: Caller) -> Ended
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let cut = shared.cut.clone();
    tokio::select! {
        () = cut.cancelled() => Ended::Cut,
        ended = talk(shared, io, caller) => ended,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// As HTTP ends.
    Http,
    /// The stream lives on in a task of its own, or must not.
    Cut,
}

async fn talk<IO>(shared: Arc<Shared>, io: IO, caller: Caller) -> Ended
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
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
        io,
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

pub(crate) enum Caller {
    Known(Peer, Arc<Line>),
    /// Told why and sent away.
    Nobody(StatusCode, String),
}

impl Caller {
    /// `gone` is over when the peer has left.
    pub(crate) fn new(
        peer: Result<Peer, PeerError>,
        place: Option<Place>,
        gone: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        match (peer, place) {
            (Err(reason), _) => Self::Nobody(StatusCode::FORBIDDEN, reason.to_string()),
            (Ok(_), None) => Self::Nobody(
                StatusCode::TOO_MANY_REQUESTS,
                "too many connections at once, in all or of this client; close some".into(),
            ),
            (Ok(peer), Some(place)) => Self::Known(peer, Arc::new(Line::new(place, gone))),
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
