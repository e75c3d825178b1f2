//! Every bound and deadline of the proxy in one place.

use std::time::Duration;

/// Bounds and deadlines; the defaults are what a node runs with, tests shorten them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections that have not shown a certificate yet. One more, and the oldest is dropped.
    pub handshakes: usize,
    /// Connections in service.
    pub connections: usize,
    /// Connections in service of one certificate.
    pub connections_per_certificate: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake_deadline: Duration,
    /// From a request's first byte to the end of its headers.
    pub header_deadline: Duration,
    /// Between two requests of one connection.
    pub keep_alive_idle: Duration,
    /// Request line and headers together. Registry credentials travel in headers.
    pub header_bytes: usize,
    /// From the end of the headers to the end of a body that is buffered.
    pub body_deadline: Duration,
    /// Connecting to the engine's socket.
    pub engine_connect: Duration,
    /// The engine's answer to a question of the proxy's own.
    pub engine_answer: Duration,
    /// A create, start or restart that goes on although its client is gone.
    pub engine_change: Duration,
    /// The engine's answer about one container.
    pub inspect_bytes: usize,
    /// One event of the engine, as far as events of the past are put in order with the node's own.
    pub event_line_bytes: usize,
    /// When the engine has sent no event for this long, it has told its past.
    pub event_silence: Duration,
    /// After the engine has ended its half of a hijacked stream, a client that sends nothing for
    /// this long is cut off.
    pub half_closed_idle: Duration,
    /// On shutdown, how long answers in progress may go on.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 256,
            connections: 512,
            connections_per_certificate: 256,
            handshake_deadline: Duration::from_secs(10),
            header_deadline: Duration::from_secs(10),
            keep_alive_idle: Duration::from_secs(300),
            header_bytes: 64 * 1024,
            body_deadline: Duration::from_secs(30),
            engine_connect: Duration::from_secs(5),
            engine_answer: Duration::from_secs(30),
            engine_change: Duration::from_secs(3_600),
            inspect_bytes: 8 * 1024 * 1024,
            event_line_bytes: 256 * 1024,
            event_silence: Duration::from_millis(500),
            half_closed_idle: Duration::from_secs(60),
            drain: Duration::from_secs(5),
        }
    }
}
