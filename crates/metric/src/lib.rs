//! Numbers out of what a benchmark wrote: a declaration becomes a checked [`Extractor`], and that takes
//! a text to a number, or says why there is none.
//!
//! Pure: whoever has the bytes brings them. Nothing here panics, whatever they are; invalid UTF-8 is
//! replaced; of long inputs the end is looked at ([`Tail`]), as benchmarks print their progress first
//! and their results last. For the same reason the **last** match of a regex counts.
#![forbid(unsafe_code)]

mod declare;
mod extract;
mod path;
mod pointer;
mod tail;

pub use declare::{Extractor, Fault, extractors};
pub use extract::{Missing, Patience};
pub use path::{artifacts, check_path};
pub use tail::{LOOKED_AT, Tail};

#[cfg(test)]
mod tests;
