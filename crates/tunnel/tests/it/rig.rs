//! Two ends joined, with a handful of services on the agent's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pki::rustls::pki_types::ServerName;
use pki::{Authority, RoleName, Validity};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tunnel::{Acceptor, End, Handle, Head, Incoming, Limits, Stream, Tunnel, accept, connect};

use crate::io::wires;

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Over {
    Memory,
    Tls,
}

/// Both ends, driven.
pub(crate) struct Pair {
    pub(crate) tunnel: Tunnel,
    pub(crate) controller: JoinHandle<End>,
    pub(crate) acceptor: Acceptor,
    pub(crate) agent: JoinHandle<End>,
}

/// The controller's end, with an agent that serves.
pub(crate) struct Served {
    pub(crate) tunnel: Tunnel,
    pub(crate) controller: JoinHandle<End>,
    pub(crate) agent: JoinHandle<End>,
    pub(crate) agent_handle: Handle,
    /// What the services have written, and the stream taken.
    pub(crate) written: Arc<AtomicU64>,
}

pub(crate) async fn pair(over: Over) -> Pair {
    pair_with(over, &Limits::default()).await
}

pub(crate) async fn pair_with(over: Over, limits: &Limits) -> Pair {
    match over {
        Over::Memory => {
            let (controller, agent, _) = wires();
            joined(controller, agent, limits).await
        }
        Over::Tls => {
            let (controller, agent) = tls().await;
            joined(controller, agent, limits).await
        }
    }
}

pub(crate) async fn joined<C, A>(controller: C, agent: A, limits: &Limits) -> Pair
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let agent = {
        let limits = limits.clone();
        tokio::spawn(async move {
            let (acceptor, driver) = accept(agent, &limits).await.unwrap();
            (acceptor, tokio::spawn(driver))
        })
    };
    let (tunnel, driver) = connect(controller, limits).await.unwrap();
    let controller = tokio::spawn(driver);
    let (acceptor, agent) = agent.await.unwrap();
    Pair {
        tunnel,
        controller,
        acceptor,
        agent,
    }
}

/// The agent dials, so it is TLS's client too.
async fn tls() -> (
    tokio_rustls::server::TlsStream<TcpStream>,
    tokio_rustls::client::TlsStream<TcpStream>,
) {
    let authority = Authority::generate("test").unwrap();
    let ca = authority.cert_pem();
    let controller = authority
        .issue_node(&["127.0.0.1"], Validity::days(1))
        .unwrap();
    let agent = authority
        .issue_client("agent", RoleName::User, Validity::days(1))
        .unwrap();
    let server = pki::server_config(ca, &controller.cert_pem, &controller.key_pem).unwrap();
    let client = pki::client_config(ca, &agent.cert_pem, &agent.key_pem).unwrap();
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

impl Pair {
    pub(crate) fn serve(self) -> Served {
        let written = Arc::<AtomicU64>::default();
        let agent_handle = self.acceptor.handle();
        let mut acceptor = self.acceptor;
        let counter = Arc::clone(&written);
        tokio::spawn(async move {
            while let Some(incoming) = acceptor.next().await {
                tokio::spawn(serve(incoming, Arc::clone(&counter)));
            }
        });
        Served {
            tunnel: self.tunnel,
            controller: self.controller,
            agent: self.agent,
            agent_handle,
            written,
        }
    }
}

impl Served {
    pub(crate) async fn open(&self, service: &str) -> Stream {
        let head = Head::new(service).unwrap();
        soon("open", self.tunnel.open(&head)).await.unwrap()
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }
}

async fn serve(incoming: Incoming, written: Arc<AtomicU64>) {
    let service = incoming.head().service().to_owned();
    match service.as_str() {
        // What is read, until there is no more.
        "echo" => {
            let (mut read, mut write) = split(incoming.accept().unwrap());
            if copy(&mut read, &mut write).await.is_ok() {
                drop(write.shutdown().await);
            }
        }
        // Zeros for ever, a lot at a time.
        "flood" => write_for_ever(incoming, &[0; 8192], &written).await,
        // The same in short lines.
        "drip" => write_for_ever(incoming, b"a short line....", &written).await,
        // First all of the input, then as much of its own.
        "after" => {
            let mut stream = incoming.accept().unwrap();
            let input = read_all(&mut stream).await;
            stream.write_all(&pattern(input.len(), 2)).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        // First its output, then it reads, and counts into `written`.
        "before" => {
            let mut stream = incoming.accept().unwrap();
            stream.write_all(&pattern(1 << 20, 3)).await.unwrap();
            stream.shutdown().await.unwrap();
            let input = read_all(&mut stream).await;
            assert_eq!(input, pattern(input.len(), 4));
            written.fetch_add(input.len() as u64, Ordering::SeqCst);
        }
        // Ends its output and goes, whatever the input.
        "early" => {
            let mut stream = incoming.accept().unwrap();
            stream.write_all(&pattern(60_000, 5)).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        // The same, but it waits for the end of the input.
        "answer" => {
            let mut stream = incoming.accept().unwrap();
            stream.write_all(&pattern(60_000, 5)).await.unwrap();
            stream.shutdown().await.unwrap();
            read_all(&mut stream).await;
        }
        // Holds the stream and does nothing until the controller drops it.
        "hold" => {
            let mut stream = incoming.accept().unwrap();
            drop(stream.read_u8().await);
        }
        // Never reads.
        "deaf" => {
            let _stream = incoming.accept().unwrap();
            std::future::pending::<()>().await;
        }
        "ignore" => drop(incoming),
        other => incoming.refuse(&format!("no service {other:?}\nhere")),
    }
}

async fn write_for_ever(incoming: Incoming, chunk: &[u8], written: &AtomicU64) {
    let mut stream = incoming.accept().unwrap();
    while let Ok(count) = stream.write(chunk).await {
        written.fetch_add(count as u64, Ordering::SeqCst);
    }
}

/// Bytes that tell a shift, a gap and a mix-up of streams.
pub(crate) fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub(crate) async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    soon("read to the end", stream.read_to_end(&mut all))
        .await
        .unwrap();
    all
}

pub(crate) async fn echo_once(stream: &mut Stream, message: &[u8]) {
    stream.write_all(message).await.unwrap();
    let mut back = vec![0; message.len()];
    soon("echo", stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, message);
}
