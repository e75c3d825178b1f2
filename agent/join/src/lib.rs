//! How a node joins its controller and stays joined.
//!
//! The node always dials; it needs no open port. It knows its controller by the [hash](pki::Pin) of
//! that one's authority, and says nothing secret before TLS has shown it. Then:
//!
//! 1. **Enrolment.** A key is made here and never leaves. Its signing request goes to `/v1/enrol`, with
//!    a token if there is one; otherwise somebody has to approve the fingerprint that both sides show.
//! 2. **Identity.** What comes back is a short-lived certificate with the node's id. It is kept in the
//!    state directory ([`Joiner`] says how), so that a restart of the agent is no new enrolment. At two
//!    thirds of its life it is replaced by one for a new key, over a connection of its own.
//! 3. **Tunnel.** Over one long connection the controller opens streams ([`Services`]). When it ends,
//!    the node dials again, for ever, with a wait that grows and is drawn evenly ([`tunnel::Backoff`]);
//!    the controller's name is resolved anew each time.
//!
//! [`JoinStatus`] says how far it is. While a measurement holds the node [`Quiet`], nothing goes over
//! the wire on this side's account: no question whether the peer is there, no renewal, no dialling.
//!
//! What it does not do: decide who may join, and know what the streams carry.

mod alert;
mod call;
mod dial;
mod enrol;
mod error;
mod identity;
mod joiner;
mod keep;
mod lifetime;
pub mod machine;
mod options;
mod quiet;
mod renew;
mod resolve;
mod session;
mod status;

pub use joiner::Joiner;
pub use keep::KeepError;
pub use options::{Controller, Deadlines, JoinOptions};
pub use quiet::{Quiet, Silence};
pub use resolve::{Resolve, Resolving, SystemResolver};
pub use session::{Caller, Services, Serving};
pub use status::{JoinStatus, Phase};
