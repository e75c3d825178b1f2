//! One control stream: frames in, frames out, nothing else. Both directions go on by themselves, so
//! that a peer which does not read is still heard.

use std::convert::Infallible;
use std::time::Duration;

use api::work::{Order, Report};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Message, SessionError, Worker};
use crate::frame::{FrameError, FrameReader, encode};

/// From the greeting to its answer.
pub(super) const WELCOME: Duration = Duration::from_secs(30);
/// What a message may take until the stream has it.
const WRITE: Duration = Duration::from_secs(20);

/// The owner's end of a session.
pub(super) struct Line {
    /// The owner fills it in.
    pub(super) number: oneshot::Sender<u64>,
    /// Room for one: what is to be said next is decided when it can be.
    pub(super) reports: mpsc::Sender<Report>,
    /// Cancelled when the session has ended.
    pub(super) end: CancellationToken,
    /// Ends the session.
    pub(super) why: oneshot::Sender<SessionError>,
}

pub(super) async fn serve<S>(worker: &Worker, stream: S) -> Result<(), SessionError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (number, named) = oneshot::channel();
    let (reports, mut outgoing) = mpsc::channel(1);
    let (why, ended_because) = oneshot::channel();
    let end = CancellationToken::new();
    let line = Line {
        number,
        reports,
        end: end.clone(),
        why,
    };
    // however this future ends, the owner learns of it
    let _over = end.drop_guard();
    let opened = worker.messages.send(Message::Open(line)).await;
    opened.map_err(|_| SessionError::Stopped)?;
    let number = named.await.map_err(|_| SessionError::Stopped)?;

    let (read, mut write) = tokio::io::split(stream);
    let reading = async {
        let mut reader = FrameReader::new(read);
        loop {
            match reader.next::<Order>().await {
                Ok(Some(order)) => {
                    let taken = worker.orders.send((number, order)).await;
                    taken.map_err(|_| SessionError::Stopped)?;
                }
                Ok(None) => return Ok(()),
                Err(error @ FrameError::Content { .. }) => {
                    let error = crate::chain(&error);
                    tracing::warn!(%error, "no order: refused");
                    let told = worker.messages.send(Message::Rejected(number)).await;
                    told.map_err(|_| SessionError::Stopped)?;
                }
                Err(error) => return Err(SessionError::Frame(error)),
            }
        }
    };
    let writing = async {
        while let Some(report) = outgoing.recv().await {
            let frame = encode(&report)?;
            let written = async {
                write.write_all(&frame).await?;
                write.flush().await
            };
            match tokio::time::timeout(WRITE, written).await {
                Ok(Ok(())) => {}
                Ok(Err(source)) => return Err(FrameError::Write { source }.into()),
                Err(_elapsed) => return Err(SessionError::Stalled { within: WRITE }),
            }
            let told = worker.messages.send(Message::Sent(number, report)).await;
            told.map_err(|_| SessionError::Stopped)?;
        }
        // the owner has left, and says why
        std::future::pending().await
    };
    let ended = async { Err(ended_because.await.unwrap_or(SessionError::Stopped)) };
    tokio::select! {
        result = reading => result,
        result = writing => result.map(|never: Infallible| match never {}),
        result = ended => result.map(|never: Infallible| match never {}),
        () = worker.stop.cancelled() => Err(SessionError::Stopped),
    }
}
