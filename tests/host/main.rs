//! The root lane's hosts: the agent as a daemon beside other work, at an engine that it did not start.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, also in its helpers, a panic is the report"
)]

mod container;
mod daemon;
mod engine;
mod local;
