//! How far a median can be trusted, without assuming a distribution.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::median;

/// Of the intervals that are reported.
pub const CONFIDENCE: f64 = 0.95;
pub const RESAMPLES: usize = 2000;

/// Both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
    /// 0.95: of a hundred such intervals 95 are to hold the true median.
    pub confidence: f64,
}

/// Percentile bootstrap of the median: Efron, "Bootstrap methods: another look at the jackknife",
/// Annals of Statistics 7 (1979). `None` of fewer than two samples, which say nothing of their
/// spread, and of samples without an order.
///
/// The interval of a handful of samples is too narrow (of five, say, it cannot reach beyond them).
#[must_use]
pub fn median_interval(samples: &[f64], seed: u64) -> Option<Interval> {
    if samples.len() < 2 {
        return None;
    }
    median(samples)?;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut resample = vec![0.0; samples.len()];
    let mut medians = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for slot in &mut resample {
            *slot = samples[random.random_range(0..samples.len())];
        }
        medians.push(median(&resample)?);
    }
    medians.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Some(Interval {
        low: medians[rank(tail)],
        high: medians[rank(1.0 - tail)],
        confidence: CONFIDENCE,
    })
}

/// Of a quantile among [`RESAMPLES`] ordered values.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the quantile is between 0 and 1, and there are 2000"
)]
fn rank(quantile: f64) -> usize {
    ((quantile * RESAMPLES as f64) as usize).min(RESAMPLES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_interval_needs_samples_that_differ() {
        assert_eq!(median_interval(&[1.0], 0), None);
        let same = median_interval(&[3.0; 9], 0).unwrap();
        assert_eq!((same.low, same.high), (3.0, 3.0));
    }

    /// The interval has to hold the true median about as often as it promises: 200 sets of 25
    /// samples of a distribution whose median is 0.5.
    #[test]
    fn it_holds_the_true_median_as_often_as_it_says() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let held = (0..200)
            .filter(|seed| {
                let samples: Vec<f64> = (0..25).map(|_| random.random::<f64>()).collect();
                let interval = median_interval(&samples, *seed).unwrap();
                interval.low <= 0.5 && 0.5 <= interval.high
            })
            .count();
        assert!((180..=199).contains(&held), "{held} of 200");
    }

    proptest! {
        #[test]
        fn it_lies_within_the_samples_and_around_their_median(
            samples in prop::collection::vec(-1e9..1e9_f64, 2..30),
            seed: u64,
        ) {
            let interval = median_interval(&samples, seed).unwrap();
            let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
            let high = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(low <= interval.low && interval.low <= interval.high && interval.high <= high);
            prop_assert_eq!(median_interval(&samples, seed), Some(interval));
        }
    }
}
