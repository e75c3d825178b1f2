//! What both ends can ask of their tunnel, and what all parts of one end share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};

use crate::end::End;
use crate::inbox::Pump;
use crate::limits::{Limits, Liveness, STREAMS};

/// What the driver is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wishes {
    pub(crate) liveness: Liveness,
    pub(crate) away: Option<Away>,
}

/// No new streams, and the end after the last one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Away {
    /// The deadline, if there is one.
    pub(crate) within: Option<Duration>,
}

pub(crate) struct Common {
    pub(crate) wishes: watch::Sender<Wishes>,
    end: watch::Sender<Option<End>>,
    /// As many as there are permits of `streams`, so the channel needs no bound.
    pumps: mpsc::UnboundedSender<Pump>,
    /// One permit for each stream held; closed when there are to be no more.
    pub(crate) streams: Arc<Semaphore>,
}

impl Common {
    pub(crate) fn new(limits: &Limits) -> (Arc<Self>, mpsc::UnboundedReceiver<Pump>) {
        let (pumps, receiver) = mpsc::unbounded_channel();
        let common = Self {
            wishes: watch::Sender::new(Wishes {
                liveness: limits.liveness,
                away: None,
            }),
            end: watch::Sender::new(None),
            pumps,
            streams: Arc::new(Semaphore::new(STREAMS as usize)),
        };
        (Arc::new(common), receiver)
    }

    /// Has the driver drive it. If that is gone already, the pump's end is the stream's.
    pub(crate) fn drive(&self, pump: Pump) {
        drop(self.pumps.send(pump));
    }

    /// A shorter deadline replaces a longer one, never the other way round.
    pub(crate) fn go_away(&self, within: Option<Duration>) {
        self.wishes.send_if_modified(|wishes| {
            let sooner = match (wishes.away, within) {
                (None, _) | (Some(Away { within: None }), Some(_)) => true,
                (Some(Away { within: Some(old) }), Some(new)) => new < old,
                (Some(_), None) => false,
            };
            if sooner {
                wishes.away = Some(Away { within });
            }
            sooner
        });
    }

    /// Whether this side wanted the end.
    pub(crate) fn going_away(&self) -> bool {
        self.wishes.borrow().away.is_some()
    }

    /// The first end counts.
    pub(crate) fn finish(&self, end: End) {
        self.end.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(end);
            }
            first
        });
        self.streams.close();
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.end.borrow().clone()
    }

    pub(crate) async fn closed(&self) -> End {
        let mut end = self.end.subscribe();
        let known = end.wait_for(Option::is_some).await;
        known
            .expect("the sender is part of self")
            .clone()
            .expect("just waited for it")
    }
}

/// Either end's hold on its tunnel. Holding it does not keep the tunnel open.
#[derive(Clone)]
pub struct Handle {
    pub(crate) common: Arc<Common>,
}

impl Handle {
    /// From now on. Silence is complete once the peer is told to be silent too and all streams are.
    pub fn set_liveness(&self, liveness: Liveness) {
        self.common.wishes.send_if_modified(|wishes| {
            let other = wishes.liveness != liveness;
            wishes.liveness = liveness;
            other
        });
    }

    /// Ends the tunnel: no new streams from now on, and what has not ended `within` this time is
    /// cut off. When it is asked again, the shorter time counts.
    pub fn go_away(&self, within: Duration) {
        self.common.go_away(Some(within));
    }

    /// Waits until the tunnel has ended, and says why.
    pub async fn closed(&self) -> End {
        self.common.closed().await
    }

    /// Why the tunnel has ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.common.end()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wishes = *self.common.wishes.borrow();
        f.debug_struct("Handle")
            .field("liveness", &wishes.liveness)
            .field("away", &wishes.away)
            .field("end", &self.common.end())
            .finish_non_exhaustive()
    }
}
