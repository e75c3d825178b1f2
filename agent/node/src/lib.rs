//! The node behind the API: it supervises the engine, places containers on isolated CPUs, runs
//! host processes, certifies runs and series of them, and reports what it is and counts.
//!
//! It implements the traits of `stillmetal-proxy`; it never sees a TLS connection or a Docker
//! request. Kernel files are reached through [`host::Tree`] only.

pub mod certify;
pub mod cgroups;
pub mod engine;
pub mod facts;
mod http;
pub mod jobs;
mod node;
pub mod placement;
pub mod power;
mod process;
pub mod runs;
pub mod selftest;
pub mod status;
pub mod tools;
pub mod unproven;

pub use http::Http;
pub use node::{Host, Node, Parts, SharedReport, since_boot};
pub use process::Processes;

/// An error and its causes in one line, for logs and answers.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
