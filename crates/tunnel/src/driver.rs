//! The task that owns the connection.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::end::End;
use crate::handle::{Common, Wishes};
use crate::inbox::Pump;
use crate::pulse::Pulse;

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer did not show in time that it speaks HTTP/2.
    #[error("no HTTP/2 from the peer within {within:?}")]
    Deadline {
        /// The time it had.
        within: Duration,
    },
    /// The connection ended, or carried something else.
    #[error("set up the tunnel")]
    Ended(#[source] End),
}

/// Moves the bytes: nothing happens unless it is polled, so it wants a task of its own. It ends with
/// the tunnel. Dropping it cuts the connection.
#[must_use = "a tunnel carries nothing unless its driver runs"]
pub struct Driver {
    future: Pin<Box<dyn Future<Output = End> + Send>>,
    common: Arc<Common>,
}

impl Future for Driver {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        self.future.as_mut().poll(cx)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // First, so that the streams can say so. Where the tunnel has ended already, that stands.
        self.common.finish(End::Abandoned);
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// What differs between the two ends of a connection.
pub(crate) trait Side: Send + 'static {
    /// Moves bytes until there are none to move; ready when the connection is over.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>>;

    /// Lets the connection end after its last stream.
    fn go_away(&mut self);

    /// Whether every stream has come to its end.
    fn is_idle(&self) -> bool;
}

impl Driver {
    pub(crate) fn new(
        side: impl Side,
        pulse: Pulse,
        common: &Arc<Common>,
        pumps: mpsc::UnboundedReceiver<Pump>,
    ) -> Self {
        let connection = Connection {
            side,
            pulse,
            wishes: common.wishes.subscribe(),
            new_pumps: pumps,
            cut: None,
            away: false,
            common: Arc::clone(common),
        };
        Self {
            future: Box::pin(Box::new(connection).run()),
            common: Arc::clone(common),
        }
    }
}

struct Connection<S> {
    side: S,
    pulse: Pulse,
    wishes: watch::Receiver<Wishes>,
    new_pumps: mpsc::UnboundedReceiver<Pump>,
    /// When streams are cut off, and how long they had.
    cut: Option<(Instant, Duration)>,
    away: bool,
    common: Arc<Common>,
}

impl<S: Side> Connection<S> {
    /// Boxed, since a future keeps room for what it is given and for where it puts it.
    async fn run(mut self: Box<Self>) -> End {
        let mut pumps = FuturesUnordered::new();
        let end = self.pass_bytes(&mut pumps).await;
        // Before the pumps go, since they tell it to their streams.
        self.common.finish(end.clone());
        end
    }

    async fn pass_bytes(&mut self, pumps: &mut FuturesUnordered<Pump>) -> End {
        loop {
            let cut = self.cut;
            tokio::select! {
                biased;
                end = poll_fn(|cx| poll_end(&mut self.side, &self.common, cx)) => return end,
                // After the connection, so that in one turn it is emptied of what the connection has
                // put into its queues.
                Some(pump) = self.new_pumps.recv() => pumps.push(pump),
                Some(()) = pumps.next(), if !pumps.is_empty() => {}
                silence = poll_fn(|cx| self.pulse.poll_dead(cx)) => return End::Dead { silence },
                Ok(()) = self.wishes.changed() => self.obey(),
                within = deadline(cut), if cut.is_some() => return End::Cut { within },
            }
        }
    }

    fn obey(&mut self) {
        let wishes = *self.wishes.borrow_and_update();
        self.pulse.set(wishes.liveness);
        let Some(away) = wishes.away else {
            return;
        };
        if let Some(within) = away.within {
            let deadline = Instant::now() + within;
            self.cut = match self.cut {
                Some(cut) if cut.0 <= deadline => Some(cut),
                _ => Some((deadline, within)),
            };
        }
        if !self.away {
            self.away = true;
            self.side.go_away();
        }
    }
}

fn poll_end(side: &mut impl Side, common: &Common, cx: &mut Context<'_>) -> Poll<End> {
    // Afterwards every stream has ended, one way or another.
    let idle = side.is_idle();
    let over = ready!(side.poll_over(cx));
    Poll::Ready(match over {
        Ok(()) if common.going_away() => End::Finished,
        // The peer was told, and was the first to close.
        Err(error) if common.going_away() && idle && error.is_io() => End::Finished,
        Ok(()) => End::PeerClosed,
        Err(error) => End::of(error),
    })
}

async fn deadline(cut: Option<(Instant, Duration)>) -> Duration {
    match cut {
        Some((deadline, within)) => {
            sleep_until(deadline).await;
            within
        }
        None => std::future::pending().await,
    }
}
