//! The listening socket, the accept loop and the end of it all.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pki::rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection;
use crate::events::EventLog;
use crate::limits::Limits;
use crate::peer::Census;
use crate::traits::{EngineGate, NodeApi, Placement};

/// Beyond this many, connections that are not to be served are closed without a word.
const REFUSALS: usize = 64;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// As asked for.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
}

/// What the node puts behind the proxy.
#[derive(Clone)]
pub struct Parts {
    /// Who may run where.
    pub placement: Arc<dyn Placement>,
    /// Everything under `/stillmetal/`.
    pub node_api: Arc<dyn NodeApi>,
    /// Whether and where the engine listens.
    pub engine: Arc<dyn EngineGate>,
    /// What the node adds to the engine's events.
    pub events: EventLog,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// What every connection and request of one server needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) parts: Parts,
    pub(crate) limits: Limits,
    pub(crate) tasks: TaskTracker,
    pub(crate) census: Arc<Census>,
    /// Connections that are told at once why they are not served.
    pub(crate) refusals: Semaphore,
    /// No new requests.
    pub(crate) drain: CancellationToken,
    /// No more bytes either.
    pub(crate) cut: CancellationToken,
}

/// The container API of one node.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    parts: Parts,
    limits: Limits,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Listens; connections wait in the kernel's queue until [`Server::run`].
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(
        address: SocketAddr,
        tls: Arc<ServerConfig>,
        parts: Parts,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            acceptor: tls.into(),
            parts,
            limits: Limits::default(),
        })
    }

    /// Other bounds than the default ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`; then lets answers in progress end, within [`Limits::drain`], and
    /// cuts off the rest. No task of the server outlives this.
    pub async fn run(self, shutdown: CancellationToken) {
        let shared = Arc::new(Shared {
            parts: self.parts,
            limits: self.limits,
            tasks: TaskTracker::new(),
            census: Arc::default(),
            refusals: Semaphore::new(REFUSALS),
            drain: shutdown.clone(),
            cut: CancellationToken::new(),
        });
        let mut handshakes = Handshakes::new(shared.limits.handshakes);
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    let patience = handshakes.admit();
                    shared.tasks.spawn(connection::serve(
                        Arc::clone(&shared),
                        self.acceptor.clone(),
                        stream,
                        from,
                        patience,
                    ));
                }
                Err(error) => {
                    // Out of descriptors, or the peer is gone already. The pause keeps the loop
                    // from spinning while the first lasts.
                    tracing::warn!(%error, "accept failed");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.listener);
        shared.tasks.close();
        if timeout(shared.limits.drain, shared.tasks.wait())
            .await
            .is_err()
        {
            shared.cut.cancel();
            shared.tasks.wait().await;
        }
    }
}

/// Connections whose peer has not shown a certificate yet. They cost little each, but anybody can
/// open them: beyond the bound the oldest goes, since an honest handshake takes milliseconds.
struct Handshakes {
    bound: usize,
    waiting: VecDeque<CancellationToken>,
}

impl Handshakes {
    fn new(bound: usize) -> Self {
        Self {
            bound,
            waiting: VecDeque::new(),
        }
    }

    /// A token that its task cancels when the handshake is over, or that is cancelled for it.
    fn admit(&mut self) -> CancellationToken {
        self.waiting.retain(|waiting| !waiting.is_cancelled());
        if self.waiting.len() >= self.bound
            && let Some(oldest) = self.waiting.pop_front()
        {
            oldest.cancel();
        }
        let token = CancellationToken::new();
        self.waiting.push_back(token.clone());
        token
    }
}

/// What a socket needs so that a peer that vanished without a word is noticed.
pub(crate) fn tend(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(30))
            .with_interval(Duration::from_secs(10))
            .with_retries(3),
    )
}
