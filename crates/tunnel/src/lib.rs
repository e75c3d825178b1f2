//! The multiplexed tunnel between an agent that dials out and its controller.
//!
//! One connection (TLS 1.3 in earnest, any byte stream here) carries HTTP/2 with the roles reversed:
//! the agent, which dialled, is the HTTP/2 server and [serves](accept) it; the controller is the
//! client and [opens](Tunnel::open) streams. A stream is opened by a CONNECT (RFC 9113 §8.5) whose
//! [`Head`] names the service wanted and who asks; once accepted it is plain bytes, which the agent
//! hands to the router that it serves on its listening socket too.
//!
//! What holds:
//! - A stream whose reader has stalled holds up no other one, see [`limits`].
//! - Either direction of a stream ends by itself ([`Stream`]), and an end that the peer sees as clean
//!   was meant to be one.
//! - Memory per stream is bounded by its window, whatever the size of the writes.
//! - With [`Liveness::Silent`] an idle tunnel sends nothing and wakes nobody.
//! - Whatever waits, waits with a deadline, except reading from and writing to a stream.
//!
//! What it does not do: dial, TLS, enrolment, roles, HTTP/1.1, and connections for bulk.

pub mod limits;

mod acceptor;
mod backoff;
mod driver;
mod end;
mod handle;
mod head;
mod inbox;
mod meter;
mod outbox;
mod pulse;
mod stream;
mod tunnel;

pub use acceptor::{AcceptError, Acceptor, Incoming, accept};
pub use backoff::Backoff;
pub use driver::{Driver, HandshakeError};
pub use end::End;
pub use handle::Handle;
pub use head::{Head, HeadError};
pub use limits::{Limits, Liveness};
pub use stream::{Stream, StreamError};
pub use tunnel::{OpenError, Tunnel, connect};
