//! Every bound of the tunnel in one place.
//!
//! HTTP/2 has a window per stream and one for the connection. What a reader has not consumed counts
//! against both, so readers that stall must not be able to use up the connection's window among
//! themselves, or every other stream waits for ever: 16 stalled readers of 1 MiB did that to a
//! window of 16 MiB, five times out of five. Hence the rule that is asserted below, and hence both
//! ends count the streams that are *held* and not the ones that HTTP/2 calls open: a stream that
//! both sides have ended is closed, although its last bytes may still lie unread.

use std::time::Duration;

/// Streams of one tunnel at a time. More wait.
pub const STREAMS: u32 = 256;

/// What a peer may have sent on one stream without its having been read, in bytes.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all streams of a connection together, in bytes.
pub const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

const _: () = assert!(
    STREAMS as u64 * STREAM_WINDOW as u64 <= CONNECTION_WINDOW as u64,
    "stalled readers could use up the connection's window and starve every other stream"
);

/// One frame, in bytes: what a small message waits for at most before its turn comes. HTTP/2 allows
/// no smaller limit (RFC 9113 §6.5.2).
pub(crate) const FRAME: u32 = 16 * 1024;

/// What the library may hold of one stream that is not on the wire yet, in bytes.
pub(crate) const SEND_BUFFER: usize = STREAM_WINDOW as usize;

/// Names and values of a head as [RFC 9113 §6.5.2] counts them, in bytes.
///
/// [RFC 9113 §6.5.2]: https://www.rfc-editor.org/rfc/rfc9113#section-6.5.2
pub(crate) const HEADER_LIST: u32 = 16 * 1024;

/// Streams that this side has reset, for which frames may still arrive and are passed over.
pub(crate) const REMEMBERED_RESETS: usize = 4 * STREAMS as usize;

/// How long they are remembered: a round trip behind a full socket buffer of a slow line.
pub(crate) const RESET_MEMORY: Duration = Duration::from_secs(60);

/// Streams that the peer opened and reset before this side looked. All opens that wait can pass
/// their deadline at the same moment.
pub(crate) const UNSEEN_RESETS: usize = 4 * STREAMS as usize;

/// Streams reset for errors of the peer's: no bound. The library would count them over the whole life
/// of the connection, which is weeks, and a frame for a stream that is no longer remembered is one.
pub(crate) const ERROR_RESETS: Option<usize> = None;

/// Bound on short frames: none. The library charges each frame of fewer than 256 bytes with the
/// difference, and closes the connection when the sum gets too large, by default half of the
/// connection's window. Honest peers get there: nine programs that write lines of 16 bytes that
/// nobody reads; and frames for streams that were dropped are charged and never given back. What the
/// bound is for is done otherwise here: frames are merged as soon as they have been decoded, and in
/// one turn of the driver the runtime lets it decode about a mebibyte.
pub(crate) const FRAMING_BUDGET: usize = usize::MAX;

/// Deadlines and bounds that may differ from tunnel to tunnel.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From the first byte until the peer has shown that it speaks HTTP/2.
    pub handshake: Duration,
    /// From [`Tunnel::open`](crate::Tunnel::open) until the agent has accepted, including the time
    /// in which there are too many streams.
    pub open: Duration,
    /// Opens that wait at the same time. One more fails at once.
    pub pending_opens: usize,
    /// How the tunnel begins; [`Handle::set_liveness`](crate::Handle::set_liveness) changes it.
    pub liveness: Liveness,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            open: Duration::from_secs(30),
            pending_opens: 1024,
            liveness: Liveness::Ping {
                every: Duration::from_secs(25),
                within: Duration::from_secs(15),
            },
        }
    }
}

/// Whether this side asks whether the other one is still there.
///
/// Either side answers when asked, so a line is silent only if both are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Nothing is sent and nothing is concluded. For the time of a measurement.
    Silent,
    /// When no byte has arrived for `every`, the peer is asked; when still none has arrived after
    /// `within`, it is gone. That takes `2 × every + within` at most.
    Ping {
        /// From a sign of life to the question.
        every: Duration,
        /// From the question to the end.
        within: Duration,
    },
}
