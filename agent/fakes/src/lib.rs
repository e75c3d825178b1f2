//! A node without a machine: engine, placement and documents with a memory, and the tunnel that a
//! node would dial. For tests of what stands before a node, whose own parts are the real ones.

#![expect(clippy::unwrap_used, reason = "fakes fail as tests do")]

mod archive;
mod documents;
mod engine;
pub mod lab;
mod node;
pub mod packed;
mod tunnelled;

pub use archive::FakeImage;
pub use documents::FakeDocument;
pub use engine::{FakeEngine, MEMORY, Seen, State};
pub use node::{FakeNode, STORE};
pub use tunnelled::{Dialled, dial};
