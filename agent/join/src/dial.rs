//! From the controller's name to a TLS connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pki::ServerRefused;
use pki::rustls::ClientConfig;
use pki::rustls::pki_types::ServerName;
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::alert::Alerted;
use crate::error::{DialError, LineError};
use crate::options::{Deadlines, JoinOptions};

/// More addresses than these are not tried.
const ADDRESSES: usize = 16;

/// A connection to the controller.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) tls: Alerted<TlsStream<TcpStream>>,
    /// To change its options later. A descriptor of its own, so it must go when the connection does.
    pub(crate) socket: Option<Socket>,
    pub(crate) address: SocketAddr,
}

/// Tries one address after the other.
pub(crate) async fn dial(
    options: &JoinOptions,
    config: &Arc<ClientConfig>,
) -> Result<Line, DialError> {
    let name = ServerName::try_from(options.controller.host.clone());
    let name = name.map_err(|_| DialError::Name {
        host: options.controller.host.clone(),
    })?;
    let mut tried = Vec::new();
    for address in addresses(options).await? {
        match line(address, &name, config, &options.deadlines).await {
            Ok(line) => return Ok(line),
            Err(error) => tried.push((address, error)),
        }
    }
    Err(DialError::NoneAnswered { tried })
}

async fn addresses(options: &JoinOptions) -> Result<Vec<SocketAddr>, DialError> {
    let (host, port) = (&options.controller.host, options.controller.port);
    let within = options.deadlines.resolve;
    let resolved = timeout(within, options.resolver.resolve(host, port)).await;
    let host = host.clone();
    match resolved {
        Err(_elapsed) => Err(DialError::ResolveDeadline { host, within }),
        Ok(Err(source)) => Err(DialError::Resolve { host, source }),
        Ok(Ok(addresses)) if addresses.is_empty() => Err(DialError::NoAddress { host }),
        Ok(Ok(mut addresses)) => {
            addresses.truncate(ADDRESSES);
            Ok(addresses)
        }
    }
}

async fn line(
    address: SocketAddr,
    name: &ServerName<'static>,
    config: &Arc<ClientConfig>,
    deadlines: &Deadlines,
) -> Result<Line, LineError> {
    let within = deadlines.connect;
    let tcp = timeout(within, TcpStream::connect(address))
        .await
        .map_err(|_elapsed| LineError::ConnectDeadline { within })?
        .map_err(|source| LineError::Connect { source })?;
    let socket = SockRef::from(&tcp);
    let tended = tcp
        .set_nodelay(true)
        .and_then(|()| socket.set_tcp_user_timeout(Some(deadlines.unacknowledged)))
        .and_then(|()| keep_alive(&socket, Wire::Tended));
    if let Err(error) = tended {
        tracing::debug!(%address, %error, "socket options refused");
    }
    let socket = socket.try_clone().ok();
    let within = deadlines.tls;
    let connecting = TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp);
    let tls = timeout(within, connecting)
        .await
        .map_err(|_elapsed| LineError::TlsDeadline { within })?
        .map_err(|source| match ServerRefused::find(&source) {
            Some(refused) => LineError::Stranger(refused.clone()),
            None => LineError::Tls { source },
        })?;
    Ok(Line {
        tls: Alerted::new(tls),
        socket,
        address,
    })
}

/// Whether the kernel may ask by itself if the peer's system is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Tended,
    Silent,
}

pub(crate) fn keep_alive(socket: &Socket, wire: Wire) -> std::io::Result<()> {
    match wire {
        Wire::Silent => socket.set_keepalive(false),
        Wire::Tended => socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(Duration::from_secs(30))
                .with_interval(Duration::from_secs(10))
                .with_retries(3),
        ),
    }
}
