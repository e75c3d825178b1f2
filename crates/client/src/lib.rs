//! A typed client of the controller's API: one method for each route of `/v1`.
//!
//! - Trust is the [`Context`]'s authority and nothing else; the context's certificate says who calls.
//! - Every wait has a deadline. What can be asked twice is asked again when the way is bad, a
//!   submission too: it carries an idempotency key.
//! - Whatever comes from the controller is bounded before it is kept.
//!
//! It keeps no state but its connections, and decides nothing.
#![forbid(unsafe_code)]

#[cfg(feature = "fake")]
pub mod fake;
pub mod sse;

mod answers;
mod backoff;
mod call;
mod connection;
mod context;
mod digest;
mod download;
mod error;
mod events;
mod images;
mod jobs;
mod keeping;
mod nodes;
mod queues;
mod system;
mod tokens;

pub use answers::{Version, Why, WhyReason};
pub use bytes::Bytes;
pub use connection::Client;
pub use context::{BadAddress, Context, ContextError, DEFAULT_PORT, controller_address};
pub use download::Download;
pub use error::{Error, Strange};
pub use events::{EventFilter, EventStream};
pub use images::Upload;
pub use jobs::{JobFilter, JobOrder, LONGEST_WAIT, LogStream};
pub use nodes::NodePage;
pub use reqwest::Url;
