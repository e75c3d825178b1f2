//! The node's container API: a streaming reverse proxy in front of the engine's unix socket.
//!
//! One [`Service`] answers on a mutual-TLS listener ([`Server`]), on streams that somebody else has
//! authenticated ([`Service::serve_stream`]), or on both. Who calls is read from the client
//! certificate, or told with the stream. `policy` decides about every request; bodies that
//! it must see are buffered within bounds, and what goes to the engine is the re-serialised value
//! that was checked, at a target that was rebuilt, with headers from an allow-list. Everything else
//! streams in both directions, with the peers' own flow control as the only buffer.
//!
//! What this crate does not do: it dials nobody, and it neither starts the engine nor chooses CPUs, see the traits
//! [`EngineGate`], [`Placement`] and [`NodeApi`].

mod audit;
mod body;
mod connection;
mod create;
mod engine_client;
mod events;
mod forward;
mod headers;
mod inspect;
mod limits;
mod listener;
mod peer;
mod respond;
mod service;
mod start;
mod store;
mod subjects;
mod traits;
mod upgrade;

pub use events::{ContainerEvent, EventLog};
pub use limits::Limits;
pub use listener::{Error, Server};
pub use respond::{full, json, message};
pub use service::{Parts, Service};
pub use traits::{
    Body, BodyError, Claimed, EngineGate, EngineStatus, NodeApi, Placement, StoreSpace, Subject,
};
