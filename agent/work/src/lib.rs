//! The work that a controller gives to this node: what is said about it, what is remembered of it,
//! and who does it. No kernel and no engine: how work is really done is an
//! [`Executor`](executor::Executor)'s business.
//!
//! ```text
//! frame      messages on a byte stream, for both ends
//! worker     the task that owns it all
//!   state      decides: orders, events and time in, effects out; pure
//!   journal    remembers, on disk or in memory
//!   folder     documents and notes of one attempt
//!   executor   does it: the node's own, or a fake
//! documents  what of it is shown over HTTP
//! simulated  a whole node that only pretends
//! ```

pub mod attempt;
pub mod documents;
pub mod executor;
pub mod fakes;
pub mod folder;
pub mod frame;
pub mod journal;
pub mod simulated;
pub mod worker;

mod durable;
mod fences;
mod state;

pub use executor::{Executor, Task};
pub use fences::Fences;
pub use worker::Worker;

/// An error and its causes in one line, for logs and reports.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
