//! One connection of a node, from its tunnel's first byte to its last.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::fleet::NodeId;
use api::work::{CONTROL, Key, NOTICE, Order, Report, Stage};
use stillmetal_work::frame::{FrameError, FrameReader, write_frame};
use tokio::io::{AsyncRead, AsyncWrite, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tunnel::{Head, Limits, Liveness, Stream, Tunnel};

use super::{Fleet, ORDERS, Session};
use crate::lifecycle::Core;

/// From the tunnel to the node's first words.
const HELLO: Duration = Duration::from_secs(20);
/// For a node to take note of why its connection ends.
const NOTED: Duration = Duration::from_secs(3);
/// A frame that the node does not take in this time ends the connection.
const WRITE: Duration = Duration::from_secs(30);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("set up the tunnel")]
    Tunnel(#[source] tunnel::HandshakeError),
    #[error("open the control stream")]
    Open(#[source] tunnel::OpenError),
    #[error("the node said nothing within {0:?}")]
    Mute(Duration),
    #[error("the node's first message was no hello")]
    NoHello,
    #[error("another machine has the same identity, and is connected from {address}")]
    Cloned { address: SocketAddr },
    #[error("read a report")]
    Read(#[source] FrameError),
    #[error("write an order")]
    Write(#[source] FrameError),
    #[error("the node did not take an order within {0:?}")]
    Stuck(Duration),
    #[error("the tunnel ended")]
    Lost(#[source] tunnel::End),
    #[error("the node ended its control stream")]
    Closed,
    #[error("ended from here")]
    Cut,
}

/// Serves a node whose certificate TLS has verified.
pub async fn serve<T>(fleet: Arc<Fleet>, io: T, node: NodeId, address: SocketAddr)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let ended = match connection(&fleet, io, &node, address).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    };
    let why = crate::chain(&ended);
    match ended {
        Ended::Cloned { address: other } => {
            tracing::error!(%node, %address, %other, "refused: two machines have one identity");
            let first = other.to_string();
            let second = address.to_string();
            fleet
                .dispatch
                .tell(move |core, now| core.cloned(now, &node, &first, &second))
                .await;
        }
        _ => tracing::info!(%node, %address, why, "node's connection ended"),
    }
}

/// No value: a connection only ever ends by an error or on request.
enum Never {}

/// Moves the tunnel's bytes and talks to the node, in one task: a heartbeat wakes no other.
async fn connection<T>(
    fleet: &Arc<Fleet>,
    io: T,
    node: &NodeId,
    address: SocketAddr,
) -> Result<Never, Ended>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // boxed: its room is not kept for as long as the connection lasts
    let connected = Box::pin(tunnel::connect(io, &Limits::default())).await;
    let (tunnel, driver) = connected.map_err(Ended::Tunnel)?;
    let cut = fleet.stop.child_token();
    let driving = async {
        tokio::select! {
            _end = driver => {}
            () = cut.cancelled() => {}
        }
    };
    let mut talk = std::pin::pin!(talk(fleet, tunnel, cut.clone(), node, address));
    tokio::select! {
        ended = &mut talk => return ended,
        () = driving => {}
    }
    // the tunnel is gone, and every wait in it ends by that
    talk.await
}

/// From the control stream's opening to the connection's end. `cut` ends it.
async fn talk(
    fleet: &Arc<Fleet>,
    tunnel: Tunnel,
    cut: CancellationToken,
    node: &NodeId,
    address: SocketAddr,
) -> Result<Never, Ended> {
    let head = Head::new(CONTROL).expect("a plain word is a service's name");
    let stream = tunnel.open(&head).await.map_err(Ended::Open)?;
    let (reader, writer) = split(stream);
    let mut reports = FrameReader::new(reader);
    let hello = timeout(HELLO, reports.next::<Report>()).await;
    let hello = hello
        .map_err(|_elapsed| Ended::Mute(HELLO))?
        .map_err(Ended::Read)?;
    let Some(Report::Hello { facts, held }) = hello else {
        return Err(Ended::NoHello);
    };
    let (orders, queued) = mpsc::channel(ORDERS);
    let session = Arc::new(Session {
        number: fleet.numbers.fetch_add(1, Ordering::Relaxed),
        address,
        orders,
        tunnel,
        cut: cut.clone(),
        received: AtomicU64::new(1),
        sent: AtomicU64::default(),
        seen_ms: AtomicU64::new(fleet.dispatch.clock().now()),
    });
    if let Err(other) = fleet.enter(node, Arc::clone(&session)).await {
        give_notice(
            &session,
            &format!("another machine has this identity, at {other}"),
        )
        .await;
        return Err(Ended::Cloned { address: other });
    }
    tracing::info!(%node, %address, "node connected");
    let _counted = fleet.metrics.tunnel_opened();
    let (own, number) = (node.clone(), session.number);
    let names = Arc::clone(fleet);
    let connected = move |core: &mut Core, now| {
        core.connected(now, &own, number, *facts, &held);
        if let Some(row) = core.node(&own) {
            names.name(&row.name, &own);
        }
    };
    fleet.dispatch.tell(connected).await;

    let handle = session.handle();
    let ended = tokio::select! {
        ended = read(fleet, &session, node, reports) => ended,
        ended = write(fleet, &session, queued, writer) => ended,
        end = handle.closed() => Ended::Lost(end),
        () = cut.cancelled() => Ended::Cut,
    };
    if fleet.leave(node, session.number) {
        let (own, why) = (node.clone(), crate::chain(&ended));
        fleet
            .dispatch
            .tell(move |core, now| core.disconnected(now, &own, number, &why))
            .await;
    }
    Err(ended)
}

/// Tells the node why its connection ends, if it listens.
async fn give_notice(session: &Session, reason: &str) {
    let head = Head::new(NOTICE).and_then(|head| head.with("reason", reason));
    if let Ok(head) = head {
        // it refuses the stream once it has taken note; whatever else happens, the end comes
        drop(timeout(NOTED, session.tunnel.open(&head)).await);
    }
}

/// Passes reports on. While the node measures something, nothing is sent to see whether it is there.
async fn read<R>(
    fleet: &Fleet,
    session: &Session,
    node: &NodeId,
    mut reports: FrameReader<R>,
) -> Ended
where
    R: AsyncRead + Unpin,
{
    let mut measuring: BTreeSet<Key> = BTreeSet::new();
    loop {
        let report = match reports.next::<Report>().await {
            Ok(Some(report)) => report,
            Ok(None) => return Ended::Closed,
            Err(error) => return Ended::Read(error),
        };
        session.received.fetch_add(1, Ordering::Relaxed);
        fleet.metrics.control_received(1);
        session
            .seen_ms
            .store(fleet.dispatch.clock().now(), Ordering::Relaxed);
        let silent = !measuring.is_empty();
        match &report {
            Report::Stage {
                key,
                stage: Stage::Measuring,
                ..
            } => {
                measuring.insert(*key);
            }
            Report::Stage { key, .. } | Report::Ended { key, .. } => {
                measuring.remove(key);
            }
            _ => {}
        }
        if silent == measuring.is_empty() {
            let liveness = if measuring.is_empty() {
                Limits::default().liveness
            } else {
                Liveness::Silent
            };
            session.handle().set_liveness(liveness);
        }
        if matches!(report, Report::Heartbeat {}) {
            continue;
        }
        let (own, number) = (node.clone(), session.number);
        fleet
            .dispatch
            .tell(move |core, now| core.reported(now, &own, number, report))
            .await;
    }
}

/// Sends orders.
async fn write(
    fleet: &Fleet,
    session: &Session,
    mut orders: mpsc::Receiver<Order>,
    mut writer: WriteHalf<Stream>,
) -> Ended {
    while let Some(order) = orders.recv().await {
        match timeout(WRITE, write_frame(&mut writer, &order)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Ended::Write(error),
            Err(_elapsed) => return Ended::Stuck(WRITE),
        }
        session.sent.fetch_add(1, Ordering::Relaxed);
        fleet.metrics.control_sent(1);
    }
    Ended::Cut
}
