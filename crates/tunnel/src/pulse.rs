//! Finds out that the peer is gone although nothing says so.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use crate::limits::Liveness;
use crate::meter::Received;

pub(crate) struct Pulse {
    pings: PingPong,
    received: Received,
    liveness: Liveness,
    /// What had arrived when it was looked last.
    seen: u64,
    /// The peer was asked since then.
    asked: bool,
    /// HTTP/2 carries one question at a time; this one's answer has not been taken yet.
    outstanding: bool,
    timer: Pin<Box<Sleep>>,
}

impl Pulse {
    pub(crate) fn new(pings: PingPong, received: Received, liveness: Liveness) -> Self {
        let mut pulse = Self {
            pings,
            received,
            liveness,
            seen: 0,
            asked: false,
            outstanding: false,
            timer: Box::pin(sleep(Duration::ZERO)),
        };
        pulse.set(liveness);
        pulse
    }

    /// Begins anew; what was asked before decides nothing any more.
    pub(crate) fn set(&mut self, liveness: Liveness) {
        self.liveness = liveness;
        self.asked = false;
        self.seen = self.received.bytes();
        if let Liveness::Ping { every, .. } = liveness {
            self.timer.as_mut().reset(Instant::now() + every);
        }
    }

    /// Ready when the peer is gone, with the time for which it has certainly been silent.
    pub(crate) fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Liveness::Ping { every, within } = self.liveness else {
            return Poll::Pending;
        };
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let received = self.received.bytes();
            if received != self.seen {
                self.seen = received;
                self.asked = false;
                self.timer.as_mut().reset(Instant::now() + every);
            } else if self.asked {
                return Poll::Ready(every + within);
            } else {
                self.ask(cx);
                self.asked = true;
                self.timer.as_mut().reset(Instant::now() + within);
            }
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>) {
        if self.outstanding && self.pings.poll_pong(cx).is_ready() {
            self.outstanding = false;
        }
        // An error means that the connection has ended, and whoever drives it learns that there.
        // Where an older question is still open, its answer will do as a sign of life.
        if !self.outstanding && self.pings.send_ping(Ping::opaque()).is_ok() {
            self.outstanding = true;
        }
    }
}
