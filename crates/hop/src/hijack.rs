//! Connections that have stopped talking HTTP: attach, exec and buildkit sessions.

use std::io;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::answer::Answer;
use crate::join::{Resets, Traffic, join};

/// Both sides of an upgrade that the server has agreed to.
#[derive(Debug)]
pub struct Hijack {
    /// Taken before the request was forwarded.
    pub client: OnUpgrade,
    /// The server's.
    pub server: OnUpgrade,
    /// With status 101; it keeps the server's connection alive until that has changed hands.
    pub answer: Answer,
    /// What a reset of the server's side means.
    pub resets: Resets,
}

/// Why a hijacked stream did not come to a clean end.
#[derive(Debug, thiserror::Error)]
pub enum HijackError {
    /// One of the connections did not change hands in time.
    #[error("the upgrade was not complete within {within:?}")]
    Slow {
        /// The time it had.
        within: Duration,
    },
    /// One of the connections ended instead.
    #[error("complete the upgrade")]
    Upgrade(#[source] hyper::Error),
    /// The client's connection broke, or the server's before its output had ended.
    #[error("pass bytes on")]
    Broken(#[source] io::Error),
}

impl Hijack {
    /// Passes bytes both ways until both have ended. Given up or ended with an error, both sides are
    /// dropped as they are: neither sees a clean end that was not meant.
    ///
    /// `handshake` bounds the time in which the 101 is on its way to the client; after the server
    /// has ended its half, a client that sends nothing for `idle` is cut off.
    ///
    /// # Errors
    /// When it did not come to a clean end.
    pub async fn run(
        self,
        handshake: Duration,
        idle: Duration,
        traffic: &Traffic,
    ) -> Result<(), HijackError> {
        let both = async { tokio::try_join!(self.client, self.server) };
        let (client, server) = timeout(handshake, both)
            .await
            .map_err(|_| HijackError::Slow { within: handshake })?
            .map_err(HijackError::Upgrade)?;
        drop(self.answer);
        let (client, server) = (TokioIo::new(client), TokioIo::new(server));
        join(client, server, self.resets, idle, traffic)
            .await
            .map_err(HijackError::Broken)
    }
}
