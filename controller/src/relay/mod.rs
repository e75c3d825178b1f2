//! HTTP to nodes, through the tunnels that they have dialled.
//!
//! [`Relay::call`] sends one request to a node's router over a stream of its own: the controller's own
//! requests and those of people go this way. [`docker::router`] is what people see of it: everything
//! under `/nodes/NODE/` is the node's container API and its `/stillmetal/v1`, so
//! `docker -H tcp://CONTROLLER:7443/nodes/NODE` works.
//!
//! - Bodies stream both ways; what is held of one is its stream's window.
//! - An upgraded connection is passed on as raw bytes, and either half ends by itself. It ends in a
//!   clean way only if both ends did.
//! - The node is told the role and the user and decides what they may; nothing is decided here.
//! - Every request of people is audited ([`Audit`]) and counted: neither one user nor all of them
//!   together can take the last stream of a node ([`Limits`]).

pub mod docker;

mod audit;
mod call;
mod limits;
mod opener;
mod places;
mod refuse;

pub use audit::{Audit, AuditLog, Entry};
pub use call::{CallError, Recipient, Relay};
pub use limits::Limits;
pub use opener::{OpenNodeError, Opener, head};
