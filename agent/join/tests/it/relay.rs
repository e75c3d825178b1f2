//! A line between node and controller that counts, and that can lose everything without a word.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug, Default)]
struct Shared {
    /// From the node.
    bytes: AtomicU64,
    connections: AtomicU64,
    /// Number of the first connection that still passes anything on.
    first_alive: AtomicU64,
}

impl Relay {
    pub(crate) async fn to(controller: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let stop = CancellationToken::new();
        let (done, all) = (stop.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let accept = async {
                loop {
                    let (near, _) = listener.accept().await.unwrap();
                    let number = all.connections.fetch_add(1, Ordering::SeqCst);
                    let Ok(far) = TcpStream::connect(controller).await else {
                        continue;
                    };
                    let (near_read, near_write) = split(near);
                    let (far_read, far_write) = split(far);
                    for (read, write, counts) in
                        [(near_read, far_write, true), (far_read, near_write, false)]
                    {
                        let (all, done) = (Arc::clone(&all), done.clone());
                        tokio::spawn(async move {
                            tokio::select! {
                                () = done.cancelled() => {}
                                () = pass(read, write, number, counts, &all) => {}
                            }
                        });
                    }
                }
            };
            tokio::select! {
                () = done.cancelled() => {}
                () = accept => {}
            }
        });
        Self {
            address,
            shared,
            _stop: stop.drop_guard(),
        }
    }

    /// Bytes that the node has sent, over all connections.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// Connections that the node has made.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// From now on what goes into the present connections does not come out, and nobody is told: the
    /// cable is out. New ones are as good as before.
    pub(crate) fn sever(&self) {
        let next = self.connections();
        self.shared.first_alive.store(next, Ordering::SeqCst);
    }
}

async fn pass(
    mut read: ReadHalf<TcpStream>,
    mut write: WriteHalf<TcpStream>,
    number: u64,
    counts: bool,
    shared: &Shared,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count) = read.read(&mut buffer).await else {
            return;
        };
        if number < shared.first_alive.load(Ordering::SeqCst) {
            // Neither bytes nor the end get through.
            std::future::pending::<()>().await;
        }
        if counts {
            shared.bytes.fetch_add(count as u64, Ordering::SeqCst);
        }
        if count == 0 {
            drop(write.shutdown().await);
            return;
        }
        if write.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
