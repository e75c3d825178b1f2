//! Tools that look at a run while it is measured: which there are, what a job may ask for, what the
//! kernel's texts say, and the series that they become.
//!
//! Pure: whoever reads the files brings their texts and the time. What cannot be observed is a stated
//! reason and never zero. Nothing here panics, whatever the texts are, and every series is bounded.
#![forbid(unsafe_code)]

pub mod parse;

mod ask;
mod event;
mod series;

pub use ask::{Asked, Events, Fault, Need, Set, Tool, asked, split};
pub use event::{Event, Family};
pub use series::{Birth, CELLS, COLUMNS, Kind, Reading, SAMPLES, SCHEMA, Series, Zero};
