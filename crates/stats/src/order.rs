//! Estimators from the order of the samples. NaN has no place in an order: samples with one give no
//! figure.

/// The middle sample, or the mean of the two in the middle; `None` of no samples.
#[must_use]
pub fn median(samples: &[f64]) -> Option<f64> {
    if samples.is_empty() || samples.iter().any(|sample| sample.is_nan()) {
        return None;
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        // halves first: the sum of two large samples may not be a number any more
        Some(sorted[middle - 1] / 2.0 + sorted[middle] / 2.0)
    } else {
        Some(sorted[middle])
    }
}

/// Median absolute deviation from the median, in the samples' own unit and not scaled to a normal
/// distribution (for that multiply by 1.4826). Hampel, "The influence curve and its role in robust
/// estimation", JASA 69 (1974).
#[must_use]
pub fn mad(samples: &[f64]) -> Option<f64> {
    let center = median(samples)?;
    let deviations: Vec<f64> = samples
        .iter()
        .map(|sample| (sample - center).abs())
        .collect();
    median(&deviations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn figures_of_known_samples() {
        // R: median(x), mad(x, constant = 1)
        assert_eq!(median(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]), Some(2.0));
        assert_eq!(mad(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]), Some(1.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(mad(&[4.0, 1.0, 3.0, 2.0]), Some(1.0));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1.0, f64::NAN]), None);
        assert_eq!(mad(&[7.0]), Some(0.0));
    }

    proptest! {
        #[test]
        fn the_median_has_half_of_the_samples_on_each_side(
            samples in prop::collection::vec(-1e12..1e12_f64, 1..50)
        ) {
            let middle = median(&samples).unwrap();
            let below = samples.iter().filter(|sample| **sample < middle).count();
            let above = samples.iter().filter(|sample| **sample > middle).count();
            prop_assert!(below * 2 <= samples.len() && above * 2 <= samples.len());
        }

        #[test]
        fn moving_all_samples_moves_the_median_and_not_its_deviation(
            samples in prop::collection::vec(-1e6..1e6_f64, 1..50),
            by in -1e6..1e6_f64,
        ) {
            let moved: Vec<f64> = samples.iter().map(|sample| sample + by).collect();
            let difference = median(&moved).unwrap() - median(&samples).unwrap() - by;
            prop_assert!(difference.abs() < 1e-6);
            prop_assert!((mad(&moved).unwrap() - mad(&samples).unwrap()).abs() < 1e-6);
        }
    }
}
