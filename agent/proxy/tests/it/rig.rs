//! A proxy with its authority, fake engine and fake node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pki::{Authority, Issued, RoleName, Validity};
use stillmetal_proxy::{Limits, Parts, Server};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::fake_engine::FakeEngine;
use crate::fake_node::FakeNode;

/// Long enough for a loaded machine, short enough to find a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Fails the test instead of hanging it.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    pub(crate) engine: FakeEngine,
    pub(crate) node: Arc<FakeNode>,
    _dir: TempDir,
    pub(crate) shutdown: CancellationToken,
    pub(crate) server: Option<JoinHandle<()>>,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = FakeEngine::start(dir.path().join("engine.sock"));
        Self::over(limits, engine, dir).await
    }

    async fn over(limits: Limits, engine: FakeEngine, dir: TempDir) -> Self {
        let node = Arc::new(FakeNode::new(engine.socket.clone()));
        let authority = Authority::generate("test").unwrap();
        let (address, shutdown, server) = serve(&authority, &node, limits).await;
        Self {
            address,
            authority,
            engine,
            node,
            _dir: dir,
            shutdown,
            server: Some(server),
        }
    }

    pub(crate) fn issue(&self, role: RoleName) -> Issued {
        self.authority
            .issue_client(role.as_str(), role, Validity::days(1))
            .unwrap()
    }

    pub(crate) async fn admin(&self) -> Client {
        self.client(RoleName::Admin).await
    }

    pub(crate) async fn user(&self) -> Client {
        self.client(RoleName::User).await
    }

    pub(crate) async fn client(&self, role: RoleName) -> Client {
        Client::connect(self.address, &self.authority, &self.issue(role))
            .await
            .unwrap()
    }
}

/// A proxy on a port of its own.
pub(crate) async fn serve(
    authority: &Authority,
    node: &Arc<FakeNode>,
    limits: Limits,
) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let issued = authority
        .issue_node(&["127.0.0.1"], Validity::days(1))
        .unwrap();
    let tls = pki::server_config(authority.cert_pem(), &issued.cert_pem, &issued.key_pem).unwrap();
    let parts = Parts {
        placement: node.clone(),
        node_api: node.clone(),
        engine: node.clone(),
        events: node.told.clone(),
    };
    let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, parts)
        .await
        .unwrap()
        .with_limits(limits);
    let address = server.local_addr();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.run(shutdown.clone()));
    (address, shutdown, running)
}
