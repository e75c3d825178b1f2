//! Wire types: plain serde structures shared by node, controller and client.
//!
//! `/stillmetal/v1` of a node: [`node`], [`counters`], [`report`], [`process`], [`run`]. `/v1` of the
//! controller: [`job`], [`fleet`], [`queue`], [`booking`], [`health`], [`image`], [`event`], [`problem`]. Between the two: [`work`]. In a
//! result: [`provenance`]. Of both: [`metric`], [`tool`].
//!
//! No logic beyond what keeps a value well formed; depends on neither tokio, hyper nor nix.
#![forbid(unsafe_code)]

pub mod booking;
pub mod counters;
pub mod event;
pub mod fleet;
pub mod health;
pub mod image;
pub mod job;
pub mod metric;
pub mod node;
pub mod problem;
pub mod process;
pub mod provenance;
pub mod queue;
pub mod report;
pub mod run;
#[cfg(feature = "openapi")]
mod schema;
pub mod tool;
pub mod work;
