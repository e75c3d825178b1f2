//! How a tunnel ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why a tunnel carries no bytes any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum End {
    /// This side went away, and all streams had come to their end.
    #[error("the tunnel was closed")]
    Finished,
    /// This side went away, and streams that took too long were cut off.
    #[error("the tunnel was closed, with streams still open after {within:?}")]
    Cut {
        /// What they were given.
        within: Duration,
    },
    /// The peer closed the connection.
    #[error("the peer closed the tunnel")]
    PeerClosed,
    /// No byte arrived, although the peer was asked.
    #[error("the peer has been silent for {silence:?}, although it was asked")]
    Dead {
        /// Since the last sign of life, at least.
        silence: Duration,
    },
    /// One side broke the rules, or does not speak HTTP/2 at all.
    #[error("the tunnel's protocol was violated")]
    Protocol {
        /// What HTTP/2 says, and which side said it.
        source: Arc<h2::Error>,
    },
    /// The connection broke.
    #[error("the tunnel's connection broke")]
    Io {
        /// The system's or TLS's word.
        source: Arc<io::Error>,
    },
    /// The [`Driver`](crate::Driver) was dropped.
    #[error("the tunnel's driver was dropped")]
    Abandoned,
}

impl End {
    /// What an error of the whole connection means.
    pub(crate) fn of(error: h2::Error) -> Self {
        if error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR) {
            return Self::PeerClosed;
        }
        if !error.is_io() {
            return Self::Protocol {
                source: Arc::new(error),
            };
        }
        let kind = error.get_io().map(io::Error::kind);
        match error.into_io() {
            // The peer's process is gone: the system closes its socket, and TLS misses its farewell.
            Some(_) if kind == Some(io::ErrorKind::UnexpectedEof) => Self::PeerClosed,
            Some(source) => Self::Io {
                source: Arc::new(source),
            },
            None => Self::PeerClosed,
        }
    }
}
