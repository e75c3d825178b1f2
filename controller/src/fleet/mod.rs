//! The nodes that are connected: one session each, by which orders go out and streams are opened.

mod session;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use api::fleet::NodeId;
use api::work::Order;
use futures_util::future::BoxFuture;
use policy::Role;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tunnel::{Handle, Liveness, OpenError, Stream, Tunnel};

use crate::dispatch::Dispatch;
use crate::lifecycle::Instruction;
use crate::metrics::Metrics;
use crate::relay::{OpenNodeError, Opener, head};

pub use session::serve;

/// Orders that wait for a node that does not read. One more, and its connection ends; what it was to
/// be told it is told when it is back.
const ORDERS: usize = 1_024;
/// How long an older connection of the same identity has to show that it is alive.
const PROOF: Duration = Duration::from_secs(3);

/// All sessions.
pub struct Fleet {
    sessions: Mutex<HashMap<NodeId, Arc<Session>>>,
    /// All nodes that there are, by their names.
    names: Mutex<HashMap<String, NodeId>>,
    numbers: AtomicU64,
    dispatch: Dispatch,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}

/// One node's connection.
#[derive(Debug)]
pub struct Session {
    number: u64,
    pub address: SocketAddr,
    orders: mpsc::Sender<Order>,
    tunnel: Tunnel,
    /// Ends it.
    cut: CancellationToken,
    pub received: AtomicU64,
    pub sent: AtomicU64,
    /// Milliseconds since the epoch.
    pub seen_ms: AtomicU64,
}

impl Session {
    fn handle(&self) -> Handle {
        self.tunnel.handle()
    }
}

impl Fleet {
    #[must_use]
    pub fn new(dispatch: Dispatch, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        Self {
            sessions: Mutex::default(),
            names: Mutex::default(),
            numbers: AtomicU64::default(),
            dispatch,
            metrics,
            stop,
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<NodeId, Arc<Session>>> {
        self.sessions
            .lock()
            .expect("nothing panics while it holds it")
    }

    /// A node can be reached by this name, too.
    pub fn name(&self, name: &str, node: &NodeId) {
        let mut names = self.names.lock().expect("nothing panics while it holds it");
        names.insert(name.to_owned(), node.clone());
    }

    /// The node of this id or name, connected or not.
    fn find(&self, wanted: &str) -> Option<NodeId> {
        let names = self.names.lock().expect("nothing panics while it holds it");
        if let Some(id) = names.get(wanted) {
            return Some(id.clone());
        }
        let id = NodeId::try_from(wanted.to_owned()).ok()?;
        names.values().find(|known| **known == id).cloned()
    }

    /// The present connection of a node.
    #[must_use]
    pub fn session(&self, node: &NodeId) -> Option<Arc<Session>> {
        self.sessions().get(node).cloned()
    }

    /// How many are connected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands an order to the connection that it is meant for. If that has no room, it ends: the node
    /// is told everything again when it is back.
    pub fn deliver(&self, instruction: Instruction) {
        let Instruction {
            node,
            session,
            order,
        } = instruction;
        if let Some(session) = self.session(&node).filter(|it| it.number == session)
            && session.orders.try_send(order).is_err()
        {
            tracing::warn!(%node, "the node does not read its orders");
            session.cut.cancel();
        }
    }

    /// Ends a node's connection.
    pub fn dismiss(&self, node: &NodeId, why: &str) {
        if let Some(session) = self.session(node) {
            tracing::info!(%node, why, "connection ended");
            session.cut.cancel();
        }
    }

    /// Takes the place of the node's older connection, unless that is alive: then two machines have
    /// one identity.
    async fn enter(&self, node: &NodeId, session: Arc<Session>) -> Result<(), SocketAddr> {
        loop {
            let older = {
                let mut sessions = self.sessions();
                match sessions.get(node) {
                    None => {
                        sessions.insert(node.clone(), Arc::clone(&session));
                        return Ok(());
                    }
                    Some(older) => Arc::clone(older),
                }
            };
            if alive(&older.handle()).await {
                return Err(older.address);
            }
            older.cut.cancel();
            self.leave(node, older.number);
        }
    }

    /// False: another one is in its place already.
    fn leave(&self, node: &NodeId, number: u64) -> bool {
        let mut sessions = self.sessions();
        let own = sessions
            .get(node)
            .is_some_and(|session| session.number == number);
        if own {
            sessions.remove(node);
        }
        own
    }
}

impl Opener for Fleet {
    fn open<'a>(
        &'a self,
        node: &'a str,
        role: Role,
        user: &'a str,
    ) -> BoxFuture<'a, Result<Stream, OpenNodeError>> {
        Box::pin(async move {
            let id = self.find(node);
            let id = id.ok_or_else(|| OpenNodeError::Unknown { node: node.into() })?;
            let offline = || OpenNodeError::Offline { node: node.into() };
            let session = self.session(&id).ok_or_else(offline)?;
            let head = head(role, user).map_err(|source| OpenNodeError::Head {
                node: node.into(),
                source,
            })?;
            session
                .tunnel
                .open(&head)
                .await
                .map_err(|source| match source {
                    OpenError::Ended(_) | OpenError::GoingAway => offline(),
                    source => OpenNodeError::Open {
                        node: node.into(),
                        source,
                    },
                })
        })
    }
}

/// Whether the peer answers when it is asked now.
async fn alive(tunnel: &Handle) -> bool {
    tunnel.set_liveness(Liveness::Ping {
        every: Duration::from_millis(100),
        within: PROOF / 2,
    });
    let ended = tokio::time::timeout(PROOF, tunnel.closed()).await;
    tunnel.set_liveness(tunnel::Limits::default().liveness);
    ended.is_err()
}
