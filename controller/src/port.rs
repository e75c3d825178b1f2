//! The controller's one port: TLS, and behind it tunnels of nodes and HTTP of everybody else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::fleet::NodeId;
use axum::Router;
use axum::body::Body;
use hop::{Busy, Held, SocketWatch, Timed, tend};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pki::{Protocol, peer_of};
use policy::Role;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::desk::Caller;
use crate::fleet::{self, Fleet};
use crate::http::Peer;

/// From the first byte to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at the same time; who comes later waits in the kernel's queue.
const HANDSHAKES: usize = 2_048;
/// Connections that talk HTTP.
const CLIENTS: usize = 4_096;
/// For the head of a request that has begun to arrive, and until the next one.
const HEADER: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(120);
const HEADER_BYTES: usize = 64 * 1024;

/// What every connection needs.
#[derive(Clone)]
pub struct Port {
    pub acceptor: TlsAcceptor,
    pub fleet: Arc<Fleet>,
    pub router: Router,
    pub tasks: TaskTracker,
    /// No new requests.
    pub stop: CancellationToken,
    handshakes: Arc<Semaphore>,
    clients: Arc<Semaphore>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

impl Port {
    #[must_use]
    pub fn new(
        acceptor: TlsAcceptor,
        fleet: Arc<Fleet>,
        router: Router,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            acceptor,
            fleet,
            router,
            tasks,
            stop,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            clients: Arc::new(Semaphore::new(CLIENTS)),
        }
    }

    /// Accepts until it is stopped. No peer, whatever it does or omits, reaches this loop.
    pub async fn run(self, listener: TcpListener) {
        loop {
            let place = tokio::select! {
                () = self.stop.cancelled() => return,
                place = Arc::clone(&self.handshakes).acquire_owned() => match place {
                    Ok(place) => place,
                    Err(_closed) => return,
                },
            };
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    self.tasks
                        .spawn(self.clone().connection(stream, from, place));
                }
                Err(error) => {
                    // Out of descriptors, or the peer is gone already. The pause keeps the loop
                    // from spinning while the first lasts.
                    tracing::warn!(%error, "accept failed");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream, from: SocketAddr, place: OwnedSemaphorePermit) {
        if let Err(error) = tend(&stream) {
            tracing::debug!(%from, %error, "socket options refused");
        }
        let handshake = timeout(HANDSHAKE, self.acceptor.accept(stream));
        let handshaken = tokio::select! {
            () = self.stop.cancelled() => return,
            handshaken = handshake => handshaken,
        };
        drop(place);
        let tls = match handshaken {
            Err(_elapsed) => {
                tracing::debug!(%from, "no TLS handshake in time");
                return;
            }
            Ok(Err(error)) => {
                tracing::info!(%from, %error, "TLS handshake failed");
                return;
            }
            Ok(Ok(tls)) => tls,
        };
        let (protocol, peer) = who(&tls, from);
        match (protocol, peer) {
            (Some(Protocol::Tunnel), Peer::Node { id, address }) => {
                // in a task of its own, as the other: this one has room for the handshake, for weeks
                self.tasks.spawn(fleet::serve(self.fleet, tls, id, address));
            }
            (Some(Protocol::Tunnel), _) => {
                tracing::info!(%from, "a tunnel without a node's certificate: closed");
            }
            (Some(Protocol::Http), peer) => {
                let tasks = self.tasks.clone();
                tasks.spawn(self.http(tls, peer));
            }
            (None, _) => tracing::info!(%from, "an unknown protocol: closed"),
        }
    }

    async fn http(self, tls: TlsStream<TcpStream>, peer: Peer) {
        let Ok(_place) = self.clients.try_acquire() else {
            tracing::warn!("too many connections of clients: closed");
            return;
        };
        let Ok(socket) = SocketWatch::of(tls.get_ref().0) else {
            return;
        };
        let busy = Busy::default();
        let io = Timed::new(tls, busy.clone(), HEADER, IDLE);
        let service = service_fn(|request| self.answer(&peer, &socket, &busy, request));
        let connection = http1::Builder::new()
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        tokio::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "connection ended");
        }
        if !busy.is_hijacked() {
            socket.clone().linger().await;
        }
    }

    async fn answer(
        &self,
        peer: &Peer,
        socket: &SocketWatch,
        busy: &Busy,
        mut request: Request<Incoming>,
    ) -> Result<Response<Held<Body>>, Infallible> {
        let guard = busy.begin();
        let extensions = request.extensions_mut();
        extensions.insert(peer.clone());
        extensions.insert(socket.clone());
        if let Peer::Client(caller, _) = peer {
            extensions.insert(caller.clone());
        }
        let response = self.router.clone().oneshot(request.map(Body::new)).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            guard.hijack();
        }
        Ok(response.map(|body| Held::new(body, guard)))
    }
}

/// What is spoken, and who the certificate says that it is.
fn who(tls: &TlsStream<TcpStream>, address: SocketAddr) -> (Option<Protocol>, Peer) {
    let session = tls.get_ref().1;
    let protocol = Protocol::of(session.alpn_protocol());
    let nobody = Peer::Nobody { address };
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    // the handshake has verified the chain and the role
    let Some(Ok(peer)) = certificate.map(peer_of) else {
        return (protocol, nobody);
    };
    let node = peer.node.and_then(|id| NodeId::try_from(id).ok());
    let role = match (peer.role.as_str(), node) {
        ("node", Some(id)) => return (protocol, Peer::Node { id, address }),
        ("admin", _) => Role::Admin,
        ("user", _) => Role::User,
        _ => return (protocol, nobody),
    };
    let user = peer.subject;
    let caller = Caller { user, role };
    (protocol, Peer::Client(caller, address))
}
