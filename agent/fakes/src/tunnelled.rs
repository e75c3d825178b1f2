//! A node that has dialled its controller, over the loopback interface and with certificates.

use pki::rustls::pki_types::ServerName;
use pki::{Authority, RoleName, Validity};
use policy::Role;
use stillmetal_proxy::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_util::task::AbortOnDropHandle;
use tunnel::{Acceptor, End, Incoming, Limits, Tunnel, accept, connect};

/// Both ends of a tunnel; the node's end serves its router.
#[derive(Debug)]
pub struct Dialled {
    /// The controller's end.
    pub tunnel: Tunnel,
    _controller: AbortOnDropHandle<End>,
    node: AbortOnDropHandle<End>,
    _serving: AbortOnDropHandle<()>,
}

impl Dialled {
    /// As if the node had lost its power, as far as its peer can see.
    pub fn cut(&self) {
        self.node.abort();
    }
}

/// Dials, and serves streams for `router` as a node does: for the user and in the role that their
/// heads name.
///
/// # Panics
/// When there is no loopback interface.
pub async fn dial(service: Service) -> Dialled {
    let (controller, node) = connection().await;
    let limits = Limits::default();
    let (ours, theirs) = tokio::join!(connect(controller, &limits), accept(node, &limits));
    let ((tunnel, controller), (acceptor, node)) = (ours.unwrap(), theirs.unwrap());
    let handle = |task: JoinHandle<_>| AbortOnDropHandle::new(task);
    Dialled {
        tunnel,
        _controller: handle(tokio::spawn(controller)),
        node: handle(tokio::spawn(node)),
        _serving: AbortOnDropHandle::new(tokio::spawn(serve(acceptor, service))),
    }
}

async fn serve(mut acceptor: Acceptor, service: Service) {
    while let Some(incoming) = acceptor.next().await {
        let head = incoming.head();
        let role = head.get("role").and_then(|role| role.parse().ok());
        let user = head.get("user").map(str::to_owned);
        match (head.service(), role, user) {
            ("router", Some(role), Some(user)) => {
                tokio::spawn(answer(service.clone(), incoming, role, user));
            }
            _ => incoming.refuse("only router, with role and user"),
        }
    }
}

async fn answer(service: Service, incoming: Incoming, role: Role, user: String) {
    // The controller may have given it up meanwhile.
    if let Ok(stream) = incoming.accept() {
        let gone = stream.gone();
        service.serve_stream(stream, gone, role, &user).await;
    }
}

/// The node dials, so it is TLS's client too.
async fn connection() -> (server::TlsStream<TcpStream>, client::TlsStream<TcpStream>) {
    let authority = Authority::generate("tunnel").unwrap();
    let ca = authority.cert_pem();
    let day = Validity::days(1);
    let controller = authority.issue_node(&["127.0.0.1"], day).unwrap();
    let node = authority.issue_client("node", RoleName::User, day).unwrap();
    let server = pki::server_config(ca, &controller.cert_pem, &controller.key_pem).unwrap();
    let client = pki::client_config(ca, &node.cert_pem, &node.key_pem).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = async {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        TlsAcceptor::from(server).accept(stream).await.unwrap()
    };
    let dialled = async {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::IpAddress(address.ip().into());
        TlsConnector::from(client)
            .connect(name, stream)
            .await
            .unwrap()
    };
    tokio::join!(accepted, dialled)
}
