//! What is reported of a series of samples.

use serde::{Deserialize, Serialize};

use crate::{Interval, mad, median, median_interval};

/// The seed of all reported intervals: whoever has the samples gets the same interval.
const SEED: u64 = 0;

/// Middle and spread of samples, in their own unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dispersion {
    pub samples: usize,
    pub median: f64,
    /// Median absolute deviation, not scaled.
    pub mad: f64,
    pub min: f64,
    pub max: f64,
    /// Of the median; `None` of a single sample.
    pub interval: Option<Interval>,
}

impl Dispersion {
    /// `None` of no samples, and of samples without an order.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        Some(Self {
            samples: samples.len(),
            median: median(samples)?,
            mad: mad(samples)?,
            min: samples.iter().copied().fold(f64::INFINITY, f64::min),
            max: samples.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            interval: median_interval(samples, SEED),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_figures_are_of_the_same_samples() {
        let dispersion = Dispersion::of(&[5.0, 1.0, 3.0]).unwrap();
        assert_eq!(
            (dispersion.samples, dispersion.median, dispersion.mad),
            (3, 3.0, 2.0)
        );
        assert_eq!((dispersion.min, dispersion.max), (1.0, 5.0));
        assert_eq!(dispersion.interval.unwrap().confidence, 0.95);
        assert_eq!(Dispersion::of(&[]), None);
        assert_eq!(Dispersion::of(&[1.0]).unwrap().interval, None);
    }
}
