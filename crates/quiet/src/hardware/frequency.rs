//! Whether a CPU ran as fast as it was told to.
//!
//! While a CPU is awake (C0), `IA32_MPERF` counts at its base frequency and `IA32_APERF` at the one
//! it really has; only their ratio is defined (Intel SDM vol. 3, "Hardware Feedback and Performance
//! Counters"; AMD PPR, `MPERF`: "increments at the P0 frequency"). Linux's turbostat makes
//! frequencies of it the same way: base × ΔAPERF / ΔMPERF. So a CPU that is held at F has the ratio
//! F / base: 1 when it is held at its base frequency, as this node does. Where no frequency is
//! fixed there is nothing to deviate from.

use crate::{HardwareSpan, Value};

use super::delta::grown;

/// The two counters are read one after the other, at most this far apart at either edge. Together
/// with [`MIN_AWAKE_MS`] this is an error of at most 800 ppm.
pub const MAX_SKEW_NS: u64 = 100_000;
/// A CPU that was awake for less tells nothing.
const MIN_AWAKE_MS: u64 = 250;

/// What a CPU's frequency is fixed at, and what its `IA32_MPERF` counts at, kHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    fixed_khz: u64,
    base_khz: u64,
}

impl Pace {
    /// From `scaling_min_freq`, `scaling_max_freq` and the base frequency.
    ///
    /// # Errors
    /// Why there is no one frequency.
    pub fn new(min_khz: u64, max_khz: u64, base_khz: Option<u64>) -> Result<Self, String> {
        let Some(base_khz) = base_khz.filter(|khz| *khz > 0) else {
            return Err("this machine does not say its base frequency".to_owned());
        };
        if min_khz != max_khz || min_khz == 0 {
            return Err(format!(
                "no frequency is fixed: it may be {min_khz} to {max_khz} kHz"
            ));
        }
        Ok(Self {
            fixed_khz: min_khz,
            base_khz,
        })
    }

    /// ppm. `None` if nothing was counted.
    fn deviation(self, aperf: u64, mperf: u64) -> Option<u64> {
        let is = u128::from(aperf).checked_mul(u128::from(self.base_khz))?;
        let should = u128::from(mperf).checked_mul(u128::from(self.fixed_khz))?;
        let ppm = is
            .abs_diff(should)
            .checked_mul(1_000_000)?
            .checked_div(should)?;
        Some(u64::try_from(ppm).unwrap_or(u64::MAX))
    }
}

/// How far one CPU's frequency was off over one span, ppm.
pub(super) fn deviation(span: &HardwareSpan, cpu: u32) -> Value {
    let (Some(begin), Some(end)) = (span.begin.cpus.get(&cpu), span.end.cpus.get(&cpu)) else {
        return Value::unobservable(format!("CPU {cpu} was not read each time"));
    };
    let readings = [&begin.aperf, &end.aperf, &begin.mperf, &end.mperf];
    let [
        Value::Measured(aperf_then),
        Value::Measured(aperf_now),
        Value::Measured(mperf_then),
        Value::Measured(mperf_now),
    ] = readings
    else {
        let missing = |one: &&&Value| matches!(one, Value::Unobservable { .. });
        let why = readings.iter().find(missing);
        return match why {
            Some(why) => (*why).clone(),
            None if readings.iter().all(|one| **one == Value::Absent) => Value::Absent,
            None => Value::unobservable("it was there at some readings only"),
        };
    };
    let (window, known) = (span.window, || {
        let pace = begin.pace.clone()?;
        if end.pace.as_ref() != Ok(&pace) {
            return Err("the frequency did not stay fixed".to_owned());
        }
        let aperf = grown(*aperf_then, *aperf_now)?;
        let mperf = grown(*mperf_then, *mperf_now)?;
        if mperf < pace.base_khz.saturating_mul(MIN_AWAKE_MS) {
            return Err(format!(
                "it was awake for less than {MIN_AWAKE_MS} ms, or counts no cycles"
            ));
        }
        pace.deviation(aperf, mperf)
            .ok_or_else(|| "its counters are beyond all measure".to_owned())
    });
    match known() {
        Ok(ppm) => Value::Measured(ppm),
        Err(why) => Value::unobservable(format!("CPU {cpu}, {window}: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nominal_ratio_is_fixed_over_base() {
        let at_base = Pace::new(2_000_000, 2_000_000, Some(2_000_000)).unwrap();
        assert_eq!(at_base.deviation(1_000_000, 1_000_000), Some(0));
        assert_eq!(at_base.deviation(995_000, 1_000_000), Some(5_000));
        assert_eq!(at_base.deviation(1_005_001, 1_000_000), Some(5_001));
        let slower = Pace::new(1_500_000, 1_500_000, Some(2_000_000)).unwrap();
        assert_eq!(slower.deviation(750_000, 1_000_000), Some(0));
        assert_eq!(slower.deviation(1_000_000, 1_000_000), Some(333_333));
        assert_eq!(at_base.deviation(0, 0), None);
        assert_eq!(at_base.deviation(u64::MAX, 1), Some(u64::MAX));
    }

    #[test]
    fn no_fixed_frequency_no_nominal_one() {
        assert!(Pace::new(800_000, 2_000_000, Some(2_000_000)).is_err());
        assert!(Pace::new(2_000_000, 2_000_000, None).is_err());
        assert!(Pace::new(2_000_000, 2_000_000, Some(0)).is_err());
        assert!(Pace::new(0, 0, Some(2_000_000)).is_err());
    }
}
