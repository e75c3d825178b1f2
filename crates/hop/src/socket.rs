//! The socket below a client's connection.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sets what a socket needs so that a peer that vanished without a word is noticed.
///
/// # Errors
/// When the system refuses.
pub fn tend(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(30))
            .with_interval(Duration::from_secs(10))
            .with_retries(3),
    )
}

/// The socket of a connection, for those who do not own the connection.
///
/// It keeps the descriptor open: the connection is closed when it is shut down, or when all of these
/// have been dropped too.
#[derive(Debug, Clone)]
pub struct SocketWatch(Arc<OwnedFd>);

impl SocketWatch {
    /// # Errors
    /// When there are no descriptors left.
    pub fn of(stream: &TcpStream) -> io::Result<Self> {
        Ok(Self(Arc::new(stream.as_fd().try_clone_to_owned()?)))
    }

    /// A descriptor of its own, since the kernel queues readiness per descriptor.
    fn stream(&self) -> io::Result<TcpStream> {
        TcpStream::from_std(self.0.try_clone()?.into())
    }

    /// Waits until the kernel has given the connection up: reset by the peer, or silent despite
    /// keep-alive probes. Nobody notices by reading, once the peer has ended its half.
    pub async fn gone(self) {
        match self.stream() {
            Ok(stream) => drop(stream.ready(Interest::ERROR).await),
            Err(error) => {
                tracing::debug!(%error, "connection cannot be watched");
                std::future::pending::<()>().await;
            }
        }
    }

    /// Closes a connection that has said its last word.
    ///
    /// Closing a socket in which unread bytes lie makes the kernel send a reset, and the reset can
    /// destroy the answer that the peer has not read yet (RFC 9112 §9.6). So: end our half, read what
    /// still comes for a moment, then close.
    pub async fn linger(self) {
        let Ok(mut stream) = self.stream() else {
            return;
        };
        if stream.shutdown().await.is_err() {
            return;
        }
        let drain = async {
            let mut scratch = vec![0; 16 * 1024];
            let mut left = LINGER_BYTES;
            while let Ok(count @ 1..) = stream.read(&mut scratch).await {
                left = left.saturating_sub(count);
                if left == 0 {
                    break;
                }
            }
        };
        // Whether the time is over or the stream is: it is closed either way.
        drop(timeout(LINGER, drain).await);
    }
}

/// How long and how much a client may go on sending after its answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024 * 1024;
