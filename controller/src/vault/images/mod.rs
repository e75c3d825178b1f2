//! Images, as `docker save` writes them.
//!
//! An archive is an object like any other. What it holds is known by the ids of its images, the
//! digests of their configurations: that is what jobs run, and what an engine is asked for.

mod archive;
mod index;
mod load;
mod push;
mod rest;

pub use archive::ArchiveError;
pub use index::{ImageIndex, ImageRecord, full_name};
pub use load::{EnsureError, Ensured};
pub use push::PushError;
