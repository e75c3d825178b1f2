//! Bounds and deadlines of the relay.

use std::time::Duration;

/// Fewer than a tunnel has streams ([`tunnel::limits::STREAMS`]): the rest are for the controller's own
/// requests, and for its control stream.
const PER_NODE: usize = 240;
const _: () = assert!(PER_NODE < tunnel::limits::STREAMS as usize);

/// The defaults are what a controller runs with, tests shorten them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests and hijacked streams of people to one node at a time.
    pub per_node: usize,
    /// The same of one user.
    pub per_user: usize,
    /// How long one more waits for its turn.
    pub turn: Duration,
    /// From a node's 101 until both connections have changed hands.
    pub handshake: Duration,
    /// After a node has ended its half of a hijacked stream, a client that sends nothing for this
    /// long is cut off.
    pub half_closed_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_node: PER_NODE,
            per_user: 224,
            turn: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            half_closed_idle: Duration::from_secs(60),
        }
    }
}
