//! Nodes that join a controller over real TLS on loopback.
//!
//! Deadlines only keep a test from hanging; nothing here depends on how fast the machine is.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod answers;
mod controller;
mod joining;
mod lifetime;
mod node;
mod quiet;
mod reconnecting;
mod relay;
