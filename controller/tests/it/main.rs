//! The controller's parts in front of real parts of nodes, over real connections.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod hijack;
mod images;
mod refusals;
mod relay;
mod rig;
mod vault;
