//! A controller as a node sees it: enrolment, renewal, tunnels. What it does is set by the test.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use api::fleet::{EnrolAnswer, EnrolRequest, NodeId, RenewAnswer, RenewRequest};
use api::problem::Problem;
use api::work::CONTROL;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pki::rustls::ServerConfig;
use pki::{
    Authority, NodeIdentity, Peer, Pin, Protocol, Revocation, Validity, controller_server_config,
    csr, peer_of, serial_hex,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::{Head, Limits, Liveness, Stream, Tunnel};

/// What it does with those who ask to be let in.
#[derive(Debug, Clone)]
pub(crate) enum Policy {
    /// Everybody.
    Admit,
    /// Those whose fingerprint is in [`World::approved`].
    Approve,
    /// Nobody, with this status and these words.
    Refuse(u16, String),
    /// Those with a token are refused, the others wait.
    RefuseTokens,
    /// Never answers.
    Mute,
    /// Answers with this text.
    Say(String),
    /// Lets in, but with a certificate for somebody else's key.
    ForAnotherKey,
    /// Lets in, and names an authority that is not its own.
    UnderAnotherAuthority,
}

/// What it knows and has seen; survives its restarts.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) authority: Authority,
    state: Mutex<State>,
    /// Grows with each tunnel whose control stream is open.
    pub(crate) sessions: watch::Sender<Vec<Arc<Session>>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) policy: Policy,
    /// Of the certificates that it issues.
    pub(crate) life: Duration,
    pub(crate) approved: HashSet<String>,
    pub(crate) revoked: HashSet<String>,
    /// Requests to be let in: fingerprint and token of each.
    pub(crate) enrolments: Vec<(String, Option<String>)>,
    /// Fingerprints of renewed keys.
    pub(crate) renewals: Vec<String>,
    /// When each certificate ends, by serial.
    pub(crate) issued: BTreeMap<String, SystemTime>,
    /// TLS connections that came about.
    pub(crate) handshakes: usize,
    /// What it says to the next nodes that connect, before it ends the connection.
    pub(crate) notice: Option<String>,
    /// Ends tunnels right after their control stream was opened.
    pub(crate) hang_up: bool,
}

/// One tunnel.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) peer: Peer,
    pub(crate) tunnel: Tunnel,
    /// Held, so that it stays open.
    _control: Stream,
    pub(crate) cut: CancellationToken,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Self::of(Authority::generate("lab").unwrap())
    }

    pub(crate) fn of(authority: Authority) -> Arc<Self> {
        Arc::new(Self {
            authority,
            state: Mutex::new(State {
                policy: Policy::Admit,
                life: Duration::from_secs(3600),
                approved: HashSet::new(),
                revoked: HashSet::new(),
                enrolments: Vec::new(),
                renewals: Vec::new(),
                issued: BTreeMap::new(),
                handshakes: 0,
                notice: None,
                hang_up: false,
            }),
            sessions: watch::Sender::default(),
        })
    }

    pub(crate) fn pin(&self) -> Pin {
        Pin::of_pem(self.authority.cert_pem()).unwrap()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits for this many tunnels in all, and returns the last one.
    pub(crate) async fn session(&self, number: usize) -> Arc<Session> {
        let mut sessions = self.sessions.subscribe();
        let sessions = crate::node::soon(
            "a tunnel",
            sessions.wait_for(|sessions| sessions.len() >= number),
        )
        .await;
        Arc::clone(sessions.unwrap().last().unwrap())
    }

    fn issue(&self, csr_pem: &str, id: &str) -> String {
        let (from, length) = (SystemTime::now(), self.state().life);
        let validity = Validity {
            not_before: from - Duration::from_secs(86_400),
            not_after: from + length,
        };
        let cert = self
            .authority
            .issue_joined_node(csr_pem, &NodeIdentity { id }, validity)
            .unwrap();
        self.state().issued.insert(cert.serial_hex, cert.not_after);
        cert.cert_pem
    }
}

impl Revocation for World {
    fn is_revoked(&self, serial: &[u8]) -> bool {
        self.state().revoked.contains(&serial_hex(serial))
    }
}

/// A running one. Dropping it ends all of its connections at once, as a killed process does.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Controller {
    pub(crate) async fn start(world: &Arc<World>) -> Self {
        Self::start_at(world, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(world: &Arc<World>, address: SocketAddr) -> Self {
        let own = world
            .authority
            .issue_controller(&["127.0.0.1", "controller.test"], Validity::days(1))
            .unwrap();
        let tls = controller_server_config(
            world.authority.cert_pem(),
            &own.cert_pem,
            &own.key_pem,
            Arc::clone(world) as _,
        )
        .unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let done = stop.clone();
        let world = Arc::clone(world);
        tokio::spawn(async move {
            let tasks = TaskTracker::new();
            loop {
                let accepted = tokio::select! {
                    () = done.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((tcp, _)) = accepted else { continue };
                let one = connection(
                    Arc::clone(&world),
                    Arc::clone(&tls),
                    tcp,
                    done.child_token(),
                );
                let done = done.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = done.cancelled() => {}
                        () = one => {}
                    }
                });
            }
        });
        Self { address, stop }
    }
}

async fn connection(
    world: Arc<World>,
    tls: Arc<ServerConfig>,
    tcp: TcpStream,
    cut: CancellationToken,
) {
    let Ok(tls) = TlsAcceptor::from(tls).accept(tcp).await else {
        return;
    };
    world.state().handshakes += 1;
    let session = tls.get_ref().1;
    let peer = session
        .peer_certificates()
        .map(|certificates| peer_of(&certificates[0]).unwrap());
    match (Protocol::of(session.alpn_protocol()), peer) {
        (Some(Protocol::Tunnel), Some(peer)) => serve_tunnel(&world, tls, peer, cut).await,
        (Some(Protocol::Http), peer) => {
            let service = service_fn(|request| answer(&world, peer.as_ref(), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(tls), service);
            // Nodes close when they have what they want.
            drop(connection.await);
        }
        _ => {}
    }
}

async fn serve_tunnel(
    world: &World,
    tls: tokio_rustls::server::TlsStream<TcpStream>,
    peer: Peer,
    cut: CancellationToken,
) {
    let limits = Limits {
        liveness: Liveness::Silent,
        ..Limits::default()
    };
    let Ok((tunnel, driver)) = tunnel::connect(tls, &limits).await else {
        return;
    };
    let serve = async {
        let control = tunnel.open(&Head::new(CONTROL).unwrap()).await?;
        let (notice, hang_up) = {
            let state = world.state();
            (state.notice.clone(), state.hang_up)
        };
        if let Some(notice) = notice {
            let head = Head::new(api::work::NOTICE).unwrap();
            let head = head.with("reason", &notice).unwrap();
            assert!(tunnel.open(&head).await.is_err(), "it carries nothing");
            return Ok(());
        }
        let session = Arc::new(Session {
            peer,
            tunnel: tunnel.clone(),
            _control: control,
            cut: cut.clone(),
        });
        world
            .sessions
            .send_modify(|sessions| sessions.push(session));
        if hang_up {
            return Ok(());
        }
        std::future::pending::<()>().await;
        Ok::<(), tunnel::OpenError>(())
    };
    tokio::select! {
        _end = driver => {}
        _over = serve => {}
        () = cut.cancelled() => {}
    }
}

type Answered = Result<Response<Full<Bytes>>, Infallible>;

async fn answer(world: &Arc<World>, peer: Option<&Peer>, request: Request<Incoming>) -> Answered {
    let path = request.uri().path().to_owned();
    assert_eq!(request.method(), "POST");
    assert!(request.headers().contains_key("host"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    match (&*path, peer) {
        ("/v1/enrol", None) => enrol(world, serde_json::from_slice(&body).unwrap()).await,
        ("/v1/renew", Some(peer)) => {
            let request: RenewRequest = serde_json::from_slice(&body).unwrap();
            let fingerprint = csr::fingerprint(&request.csr_pem).unwrap();
            world.state().renewals.push(fingerprint);
            let cert_pem = world.issue(&request.csr_pem, peer.node.as_ref().unwrap());
            Ok(json(StatusCode::OK, &RenewAnswer { cert_pem }))
        }
        other => panic!("unexpected request {other:?}"),
    }
}

async fn enrol(world: &World, request: EnrolRequest) -> Answered {
    let fingerprint = csr::fingerprint(&request.csr_pem).unwrap();
    let policy = {
        let mut state = world.state();
        let seen = (fingerprint.clone(), request.token.clone());
        state.enrolments.push(seen);
        state.policy.clone()
    };
    let id = request.machine.hostname;
    let admit = |csr_pem: &str, ca_pem: &str| EnrolAnswer::Admitted {
        cert_pem: world.issue(csr_pem, &id),
        id: NodeId::try_from(id.clone()).unwrap(),
        ca_pem: ca_pem.to_owned(),
    };
    let pending = EnrolAnswer::Pending {
        fingerprint: fingerprint.clone(),
        ask_again_seconds: 1,
    };
    let own = world.authority.cert_pem();
    let answer = match policy {
        Policy::Admit => admit(&request.csr_pem, own),
        Policy::Approve if world.state().approved.contains(&fingerprint) => {
            admit(&request.csr_pem, own)
        }
        Policy::Approve => pending,
        Policy::RefuseTokens if request.token.is_none() => pending,
        Policy::RefuseTokens => return Ok(refusal(403, "the token was used before")),
        Policy::Refuse(status, why) => return Ok(refusal(status, &why)),
        Policy::Mute => std::future::pending().await,
        Policy::Say(text) => return Ok(Response::new(Full::new(text.into()))),
        Policy::ForAnotherKey => {
            let (_, csr_pem) = csr::generate().unwrap();
            admit(&csr_pem, own)
        }
        Policy::UnderAnotherAuthority => {
            let other = Authority::generate("lab").unwrap();
            admit(&request.csr_pem, other.cert_pem())
        }
    };
    Ok(json(StatusCode::OK, &answer))
}

fn refusal(status: u16, detail: &str) -> Response<Full<Bytes>> {
    let problem = Problem {
        kind: "stillmetal:test".into(),
        title: "no".into(),
        status,
        detail: detail.into(),
        instance: None,
        next: Some("ask somebody".into()),
    };
    json(StatusCode::from_u16(status).unwrap(), &problem)
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).unwrap();
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
