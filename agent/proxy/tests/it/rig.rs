//! A proxy on its port or behind a tunnel, with its authority, fake engine and fake node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pki::{Authority, Issued, RoleName, Validity};
use stillmetal_fakes::{Dialled, FakeEngine, FakeNode, dial};
use stillmetal_proxy::{Limits, Parts, Service};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tunnel::{Head, Stream};

use crate::client::Client;

/// Long enough for a loaded machine, short enough to find a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Fails the test instead of hanging it.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// How clients reach the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Port,
    /// One that the node has dialled; it has no port at all.
    Tunnel,
}

pub(crate) struct Rig {
    /// Of the node's own port.
    pub(crate) address: SocketAddr,
    pub(crate) dialled: Option<Dialled>,
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
        Self::over(Over::Port, limits).await
    }

    pub(crate) async fn over(over: Over, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = FakeEngine::start(dir.path().join("engine.sock"));
        let node = Arc::new(FakeNode::new(engine.socket.clone()));
        let authority = Authority::generate("test").unwrap();
        let (address, dialled, shutdown, server) = match over {
            Over::Port => {
                let (address, shutdown, server) = serve(&authority, &node, limits).await;
                (address, None, shutdown, server)
            }
            Over::Tunnel => {
                let (dialled, shutdown, server) = dialled(&node, limits).await;
                (([0; 4], 0).into(), Some(dialled), shutdown, server)
            }
        };
        Self {
            address,
            dialled,
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
        match &self.dialled {
            None => Client::connect(self.address, &self.authority, &self.issue(role))
                .await
                .unwrap(),
            Some(_) => Client::over(self.stream(role).await).await,
        }
    }

    /// A stream that the controller opens for a user of the role's name.
    pub(crate) async fn stream(&self, role: RoleName) -> Stream {
        let head = Head::new("router")
            .and_then(|head| head.with("role", role.as_str()))
            .and_then(|head| head.with("user", role.as_str()))
            .unwrap();
        let tunnel = &self.dialled.as_ref().unwrap().tunnel;
        soon("a stream", tunnel.open(&head)).await.unwrap()
    }
}

fn parts(node: &Arc<FakeNode>) -> Parts {
    Parts {
        placement: node.clone(),
        node_api: node.clone(),
        engine: node.clone(),
        events: node.told.clone(),
    }
}

async fn dialled(
    node: &Arc<FakeNode>,
    limits: Limits,
) -> (Dialled, CancellationToken, JoinHandle<()>) {
    let service = Service::new(parts(node), limits);
    let dialled = dial(service.clone()).await;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let running = tokio::spawn(async move {
        stop.cancelled().await;
        service.end().await;
    });
    (dialled, shutdown, running)
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
    let server = Service::new(parts(node), limits)
        .listen(([127, 0, 0, 1], 0).into(), tls)
        .await
        .unwrap();
    let address = server.local_addr();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.run(shutdown.clone()));
    (address, shutdown, running)
}
