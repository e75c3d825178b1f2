//! A node behind a tunnel, and the controller's port in front of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use futures_util::future::BoxFuture;
use hop::SocketWatch;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pki::rustls::ServerConfig;
use pki::rustls::pki_types::ServerName;
use pki::{Authority, RoleName, Validity};
use policy::Role;
use serde_json::Value;
use stillmetal_controller::desk::Caller;
use stillmetal_controller::relay::{
    Audit, Entry, Limits, OpenNodeError, Opener, Relay, docker, head,
};
use stillmetal_fakes::{Dialled, FakeEngine, FakeNode, dial};
use stillmetal_proxy::{Body, Parts, Service, full};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::ServiceExt;
use tunnel::Stream;

/// Long enough for a loaded machine, short enough to find a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Fails the test instead of hanging it.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// One node that has dialled, and one that has not.
pub(crate) struct Nodes {
    pub(crate) dialled: Dialled,
}

impl Opener for Nodes {
    fn open<'a>(
        &'a self,
        node: &'a str,
        role: Role,
        user: &'a str,
    ) -> BoxFuture<'a, Result<Stream, OpenNodeError>> {
        Box::pin(async move {
            let name = node.to_owned();
            match node {
                "n1" => {
                    let head = head(role, user).map_err(|source| OpenNodeError::Head {
                        node: name.clone(),
                        source,
                    })?;
                    let opened = self.dialled.tunnel.open(&head).await;
                    opened.map_err(|source| OpenNodeError::Open { node: name, source })
                }
                "away" => Err(OpenNodeError::Offline { node: name }),
                _ => Err(OpenNodeError::Unknown { node: name }),
            }
        })
    }
}

/// Remembers.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Vec<Entry>>);

impl Audit for Log {
    fn record(&self, entry: &Entry) {
        self.0.lock().unwrap().push(entry.clone());
    }
}

impl Log {
    /// The first entry for this target, once it is there.
    pub(crate) async fn entry(&self, target: &str) -> Entry {
        soon(target, async {
            loop {
                let entries = self.0.lock().unwrap().clone();
                if let Some(entry) = entries.into_iter().find(|entry| entry.target == target) {
                    return entry;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    pub(crate) engine: FakeEngine,
    pub(crate) node: Arc<FakeNode>,
    pub(crate) service: Service,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) relay: Relay,
    pub(crate) log: Arc<Log>,
    pub(crate) tasks: TaskTracker,
    _dir: TempDir,
    _serving: AbortOnDropHandle<()>,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = FakeEngine::start(dir.path().join("engine.sock"));
        let node = Arc::new(FakeNode::new(engine.socket.clone()));
        let parts = Parts {
            placement: node.clone(),
            node_api: node.clone(),
            engine: node.clone(),
            events: node.told.clone(),
        };
        let service = Service::new(parts, stillmetal_proxy::Limits::default());
        let dialled = dial(service.clone()).await;
        let nodes = Arc::new(Nodes { dialled });
        let (log, tasks) = (Arc::<Log>::default(), TaskTracker::new());
        let relay = Relay::new(
            nodes.clone(),
            log.clone(),
            limits,
            tasks.clone(),
            CancellationToken::new(),
        );
        let authority = Authority::generate("test").unwrap();
        let (address, serving) = serve(&authority, docker::router(relay.clone())).await;
        Self {
            address,
            authority,
            engine,
            node,
            service,
            nodes,
            relay,
            log,
            tasks,
            _dir: dir,
            _serving: serving,
        }
    }

    pub(crate) async fn client(&self, role: RoleName) -> Client {
        Client::over(self.connect(role).await).await
    }

    pub(crate) async fn user(&self) -> Client {
        self.client(RoleName::User).await
    }

    pub(crate) async fn admin(&self) -> Client {
        self.client(RoleName::Admin).await
    }

    pub(crate) async fn connect(&self, role: RoleName) -> Tls {
        let ca = self.authority.cert_pem();
        let issued = self
            .authority
            .issue_client(role.as_str(), role, Validity::days(1))
            .unwrap();
        let config = pki::client_config(ca, &issued.cert_pem, &issued.key_pem).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::IpAddress(self.address.ip().into());
        let connecting = TlsConnector::from(config).connect(name, stream);
        soon("TLS handshake", connecting).await.unwrap()
    }
}

/// The controller's port, as far as this needs one: who it is, and the router.
async fn serve(authority: &Authority, router: Router) -> (SocketAddr, AbortOnDropHandle<()>) {
    let ours = authority
        .issue_node(&["127.0.0.1"], Validity::days(1))
        .unwrap();
    let config: Arc<ServerConfig> =
        pki::server_config(authority.cert_pem(), &ours.cert_pem, &ours.key_pem).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(config);
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(connection(acceptor.clone(), stream, router.clone()));
        }
    });
    (address, AbortOnDropHandle::new(serving))
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, router: Router) {
    let socket = SocketWatch::of(&stream).unwrap();
    let tls = acceptor.accept(stream).await.unwrap();
    let certificates = tls.get_ref().1.peer_certificates().unwrap();
    let peer = pki::peer_of(&certificates[0]).unwrap();
    let caller = Caller {
        user: peer.subject,
        role: peer.role.parse().unwrap(),
    };
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        request.extensions_mut().insert(socket.clone());
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .serve_connection(TokioIo::new(tls), service)
        .with_upgrades();
    // Broken connections are what some tests are about.
    drop(connection.await);
}

pub(crate) type Tls = client::TlsStream<TcpStream>;
pub(crate) type Raw = TokioIo<Upgraded>;

pub(crate) struct Client {
    pub(crate) sender: SendRequest<Body>,
}

impl Client {
    pub(crate) async fn over(stream: Tls) -> Self {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move {
            // A test that cares looks at the answer.
            drop(connection.with_upgrades().await);
        });
        Self { sender }
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> hyper::Result<Response<Incoming>> {
        soon("ready", self.sender.ready()).await?;
        soon("answer's head", self.sender.send_request(request)).await
    }

    pub(crate) async fn call(
        &mut self,
        method: &str,
        target: &str,
        body: &str,
    ) -> (StatusCode, Value) {
        let response = self.send(request(method, target, body)).await.unwrap();
        let status = response.status();
        let body = soon("answer's body", response.collect()).await.unwrap();
        let bytes = body.to_bytes();
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        (status, value)
    }

    pub(crate) async fn get(&mut self, target: &str) -> (StatusCode, Value) {
        self.call("GET", target, "").await
    }

    pub(crate) async fn post(&mut self, target: &str, body: &str) -> (StatusCode, Value) {
        self.call("POST", target, body).await
    }

    /// The raw stream of an exec or attach.
    pub(crate) async fn hijack(&mut self, target: &str) -> Raw {
        let mut request = request("POST", target, r#"{"Detach":false,"Tty":false}"#);
        let upgrade = BTreeMap::from([("connection", "Upgrade"), ("upgrade", "tcp")]);
        for (name, value) in upgrade {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let response = self.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["upgrade"], "tcp");
        assert_eq!(
            response.headers()["content-type"],
            "application/vnd.docker.raw-stream"
        );
        let upgraded = soon("upgrade", hyper::upgrade::on(response)).await;
        TokioIo::new(upgraded.unwrap())
    }
}

pub(crate) fn request(method: &str, target: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(target)
        .header("host", "controller")
        .header("content-type", "application/json")
        .body(full(body.to_owned()))
        .unwrap()
}
