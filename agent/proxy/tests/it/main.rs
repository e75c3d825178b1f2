//! The whole proxy between a real TLS client and a fake engine, and, in the root lane, between the
//! stock `docker` client and a real engine.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod client;
mod docker;
mod events;
mod fake_engine;
mod fake_node;
mod hijack;
mod limits;
mod placement;
mod rig;
mod roles;
mod streams;
