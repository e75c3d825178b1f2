//! Estimators for benchmark samples. Pure and seeded: the same samples give the same figures on
//! every machine.
//!
//! Robust ones only: benchmark times are skewed, and one sample in a hundred is far away.
#![forbid(unsafe_code)]

mod bootstrap;
mod dispersion;
mod order;

pub use bootstrap::{CONFIDENCE, Interval, RESAMPLES, median_interval};
pub use dispersion::Dispersion;
pub use order::{mad, median};
