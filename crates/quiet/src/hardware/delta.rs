//! How far a counter went between readings, and several such figures as one.

use crate::Value;

/// What a counter gained from one reading to the next, or why that is not known.
pub(super) type Step = fn(u64, u64) -> Result<u64, String>;

/// Of a counter so wide that it never goes round: 64 bits of cycles last a century.
pub(super) fn grown(then: u64, now: u64) -> Result<u64, String> {
    now.checked_sub(then)
        .ok_or_else(|| format!("it went backwards, from {then} to {now}"))
}

/// Of a counter of 32 bits, the upper ones reserved (`MSR_SMI_COUNT`, Intel SDM vol. 4). More than
/// half a round is taken for a step backwards: no run has two billion of them.
pub(super) fn grown_32_bits(then: u64, now: u64) -> Result<u64, String> {
    const ROUND: u64 = 1 << 32;
    let (then, now) = (then % ROUND, now % ROUND);
    let gained = (ROUND + now - then) % ROUND;
    if gained < ROUND / 2 {
        Ok(gained)
    } else {
        Err(format!("it went backwards, from {then} to {now}"))
    }
}

/// Of a counter that goes round at `range` (`max_energy_range_uj`, Linux's sysfs-class-powercap).
/// `possible` is more than it can have gained: when another round would still be below it, the
/// number of rounds is not known.
pub(super) fn wrapped(
    then: u64,
    now: u64,
    range: Option<u64>,
    possible: u64,
) -> Result<u64, String> {
    let Some(range) = range.filter(|range| *range > 0) else {
        return Err("where its counter goes round is not known".to_owned());
    };
    if then > range || now > range {
        return Err(format!("its counter is beyond its own range of {range}"));
    }
    // lazily: only what is smaller than before has room to be added
    let gained = now.checked_sub(then).unwrap_or_else(|| range - then + now);
    if gained.saturating_add(range) < possible {
        return Err(format!(
            "its counter goes round at {range} and may have done so more than once"
        ));
    }
    Ok(gained)
}

/// What a counter gained over all its readings. What was seen of it counts when it is more than
/// `limit`, whatever else was missed; else nothing may be missing.
pub(super) fn gained(readings: Vec<Value>, step: Step, limit: u64) -> Value {
    let mut sum: u64 = 0;
    let mut last = None;
    let mut lost = None;
    let some = readings.iter().any(|one| one.measured().is_some());
    for reading in readings {
        match reading {
            Value::Measured(now) => {
                match last.map_or(Ok(0), |then| step(then, now)) {
                    Ok(gained) => sum = sum.saturating_add(gained),
                    Err(why) => lost = lost.or(Some(Value::Unobservable { why })),
                }
                last = Some(now);
            }
            Value::Absent if some => {
                let why = "it was there at some readings only";
                lost = lost.or_else(|| Some(Value::unobservable(why)));
            }
            missing => lost = lost.or(Some(missing)),
        }
    }
    match lost {
        Some(lost) if sum <= limit => lost,
        None if last.is_none() => Value::Absent,
        _ => Value::Measured(sum),
    }
}

/// The largest. One above `limit` decides by itself; else it is known only if each is.
pub(super) fn worst(values: impl IntoIterator<Item = Value>, limit: u64) -> Value {
    let mut worst: Option<u64> = None;
    let mut missing = None;
    for value in values {
        match value {
            Value::Measured(one) => worst = worst.max(Some(one)),
            // a reason tells more than that there is none
            value @ Value::Unobservable { .. } => match missing {
                Some(Value::Unobservable { .. }) => {}
                _ => missing = Some(value),
            },
            Value::Absent => missing = missing.or(Some(Value::Absent)),
        }
    }
    match (worst, missing) {
        (Some(worst), Some(_)) if worst > limit => Value::Measured(worst),
        (Some(_), Some(Value::Absent)) => Value::unobservable("not all of its CPUs have it"),
        (_, Some(missing)) => missing,
        (Some(worst), None) => Value::Measured(worst),
        (None, None) => Value::Absent,
    }
}

/// All of them together, known only if each is.
pub(super) fn sum(values: impl IntoIterator<Item = Value>) -> Value {
    let values: Vec<Value> = values.into_iter().collect();
    let total = values
        .iter()
        .filter_map(Value::measured)
        .fold(0, u64::saturating_add);
    match worst(values, u64::MAX) {
        Value::Measured(_) => Value::Measured(total),
        missing => missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_of_32_bits_goes_round() {
        assert_eq!(grown_32_bits(0xffff_fffe, 1), Ok(3));
        assert_eq!(grown_32_bits(7 << 32 | 5, 6), Ok(1), "upper bits are noise");
        assert!(grown_32_bits(5, 4).is_err());
        assert!(grown(5, 4).is_err());
        assert_eq!(grown(5, 5), Ok(0));
    }

    #[test]
    fn an_energy_counter_goes_round_once() {
        assert_eq!(wrapped(90, 10, Some(100), 100), Ok(20));
        assert_eq!(wrapped(10, 90, Some(100), 180), Ok(80));
        assert!(wrapped(10, 90, Some(100), 181).is_err(), "or 180?");
        assert!(wrapped(90, 101, Some(100), 1).is_err());
        assert!(wrapped(1, 2, None, 1).is_err());
        assert!(wrapped(1, 2, Some(0), 1).is_err());
        assert_eq!(wrapped(0, 7, Some(u64::MAX), 9), Ok(7));
    }

    #[test]
    fn what_is_too_much_counts_whatever_was_missed() {
        let (one, lost) = (Value::Measured, || Value::unobservable("x"));
        assert_eq!(gained(vec![one(1), one(3)], grown, 0), one(2));
        assert_eq!(gained(vec![one(1), one(3), lost()], grown, 0), one(2));
        assert_eq!(gained(vec![one(1), one(1), lost()], grown, 0), lost());
        assert_eq!(gained(vec![Value::Absent; 2], grown, 0), Value::Absent);
        assert_eq!(gained(vec![], grown, 0), Value::Absent);
        let appeared = gained(vec![Value::Absent, one(0)], grown, 0);
        assert!(matches!(appeared, Value::Unobservable { .. }));
        let reset = gained(vec![one(9), one(0), one(1)], grown, 5);
        assert!(matches!(reset, Value::Unobservable { .. }), "{reset:?}");

        assert_eq!(worst([one(1), one(3), one(2)], 5), one(3));
        assert_eq!(worst([one(6), lost()], 5), one(6));
        assert_eq!(worst([one(5), lost()], 5), lost());
        assert_eq!(worst([Value::Absent, lost()], 5), lost());
        assert_eq!(worst([], 5), Value::Absent);
        let some = worst([one(5), Value::Absent], 5);
        assert!(matches!(some, Value::Unobservable { .. }));
        assert_eq!(sum([one(1), one(2)]), one(3));
        assert_eq!(sum([one(1), lost()]), lost());
    }
}
