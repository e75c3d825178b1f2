//! The listening socket and the accept loop.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pki::rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::connection;
use crate::limits::Limits;
use crate::service::{Parts, Service, Shared};

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

/// The container API of one node on a port of its own.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    service: Service,
    shared: Arc<Shared>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A service of its own with default limits, listening; see [`Service::listen`].
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(
        address: SocketAddr,
        tls: Arc<ServerConfig>,
        parts: Parts,
    ) -> Result<Self, Error> {
        Service::new(parts, Limits::default())
            .listen(address, tls)
            .await
    }

    pub(crate) async fn open(
        service: Service,
        shared: Arc<Shared>,
        address: SocketAddr,
        tls: Arc<ServerConfig>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            acceptor: tls.into(),
            service,
            shared,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`; then the whole service [ends](Service::end).
    pub async fn run(self, shutdown: CancellationToken) {
        let shared = self.shared;
        let mut handshakes = Handshakes::new(shared.limits.handshakes);
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = shared.drain.cancelled() => break,
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
        self.service.end().await;
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
