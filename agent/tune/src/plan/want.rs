//! What a knob shall be, and whether a text that was read back says so.

use std::fmt;

use cpulist::CpuSet;

/// The wish for one knob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// This word.
    Text(String),
    /// This number, however the kernel pads it.
    Number(i64),
    /// A CPU list that holds no other CPUs than these, `ignored` ones aside: a CPU that is offline
    /// does no harm, and a list of nothing else could not be written back. Written: `cpus`.
    ListWithin { cpus: CpuSet, ignored: CpuSet },
    /// The same in mask format; the empty mask ("feature off") also is within.
    MaskWithin(CpuSet),
    /// Must be this word; nothing can be written.
    Expect(String),
    /// Only noted.
    Record,
    /// The plan already knows that this machine has no such knob, and why.
    Absent(String),
}

impl Want {
    pub(crate) fn is_met_by(&self, text: &str) -> bool {
        match self {
            Self::Text(word) | Self::Expect(word) => text == word,
            Self::Number(number) => text.parse() == Ok(*number),
            Self::ListWithin { cpus, ignored } => text
                .parse::<CpuSet>()
                .is_ok_and(|found| found.difference(ignored).is_subset(cpus)),
            Self::MaskWithin(cpus) => {
                CpuSet::from_mask(text).is_ok_and(|found| found.is_subset(cpus))
            }
            Self::Record | Self::Absent(_) => true,
        }
    }

    /// What to write; `None`: nothing, ever.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Text(word) => Some(word.clone()),
            Self::Number(number) => Some(number.to_string()),
            Self::ListWithin { cpus, .. } => Some(cpus.to_string()),
            Self::MaskWithin(cpus) => Some(cpus.to_mask()),
            Self::Expect(_) | Self::Record | Self::Absent(_) => None,
        }
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(word) | Self::Expect(word) => f.write_str(word),
            Self::Number(number) => write!(f, "{number}"),
            Self::ListWithin { cpus, .. } => write!(f, "within {cpus}"),
            Self::MaskWithin(cpus) => write!(f, "within mask {}", cpus.to_mask()),
            Self::Record | Self::Absent(_) => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_by_meaning() {
        let housekeeping: CpuSet = "0-1".parse().unwrap();
        let ignored = "5".parse().unwrap();
        let list = Want::ListWithin {
            cpus: housekeeping.clone(),
            ignored,
        };
        assert!(list.is_met_by("0") && list.is_met_by("0-1,5") && list.is_met_by(""));
        assert!(!list.is_met_by("0-2") && !list.is_met_by("rubbish"));
        let mask = Want::MaskWithin(housekeeping);
        assert!(mask.is_met_by("00000000,00000003") && mask.is_met_by("0") && !mask.is_met_by("4"));
        assert_eq!(mask.text().unwrap(), "3");
        assert!(Want::Number(-1).is_met_by("-1") && !Want::Number(0).is_met_by("on"));
    }
}
