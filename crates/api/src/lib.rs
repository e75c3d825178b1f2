//! Wire types of `/stillmetal/v1`: plain serde structures shared by node, controller and client.
//!
//! No logic beyond what keeps a value well formed; depends on neither tokio, hyper nor nix.
#![forbid(unsafe_code)]

pub mod counters;
pub mod node;
pub mod process;
pub mod report;
pub mod run;
