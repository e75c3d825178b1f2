//! The node's one router, wherever its requests come from.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use pki::rustls::ServerConfig;
use policy::Role;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{self, Caller};
use crate::events::EventLog;
use crate::limits::Limits;
use crate::listener::{Error, Server};
use crate::peer::{Census, Holder, Peer};
use crate::traits::{EngineGate, NodeApi, Placement};

/// Beyond this many, connections that are not to be served are closed without a word.
const REFUSALS: usize = 64;

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

/// What every connection and request of one service needs.
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

/// The container API of one node, with or without a socket of its own. Cheap to clone; the clones
/// share limits and end together.
#[derive(Debug, Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

impl Service {
    /// Serves nobody yet.
    pub fn new(parts: Parts, limits: Limits) -> Self {
        let shared = Shared {
            parts,
            limits,
            tasks: TaskTracker::new(),
            census: Arc::default(),
            refusals: Semaphore::new(REFUSALS),
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Listens; connections wait in the kernel's queue until [`Server::run`].
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn listen(
        &self,
        address: SocketAddr,
        tls: Arc<ServerConfig>,
    ) -> Result<Server, Error> {
        Server::open(self.clone(), Arc::clone(&self.shared), address, tls).await
    }

    /// Serves a stream of bytes whose other end was authenticated by somebody else, for a user in a
    /// role, like a connection of the node's own port. Returns when it no longer carries HTTP; what it
    /// was hijacked for goes on in a task of the service. Dropping the future cuts it off.
    ///
    /// `gone` is over when the peer has left. Reading tells that only until the peer has ended its
    /// half, and what runs in a hijacked stream may have no more to read and nothing to write yet.
    pub async fn serve_stream<IO, G>(&self, io: IO, gone: G, role: Role, user: &str)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        G: Future<Output = ()> + Send + 'static,
    {
        if self.shared.drain.is_cancelled() {
            return;
        }
        let limits = &self.shared.limits;
        let place = self.shared.census.enter(
            Holder::User(user.into()),
            limits.connections,
            limits.connections_per_certificate,
        );
        let peer = Peer {
            role,
            subject: user.into(),
        };
        let caller = Caller::new(Ok(peer), place, gone);
        let served = connection::serve_stream(Arc::clone(&self.shared), io, caller);
        self.shared.tasks.track_future(served).await;
    }

    /// Takes no new requests; lets answers in progress end, within [`Limits::drain`], and cuts off
    /// the rest. No task of the service outlives this.
    pub async fn end(&self) {
        let shared = &self.shared;
        shared.drain.cancel();
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
