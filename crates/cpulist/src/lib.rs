//! CPU sets and their algebra: the kernel's "List format" (`0-3,8,16-31:2/4`) in and out.
//!
//! The format is that of `bitmap_parselist()`, see the kernel's
//! `Documentation/admin-guide/kernel-parameters.rst` ("cpu lists"). The same type serves NUMA
//! node lists (`cpuset.mems`), which the kernel prints the same way. This crate touches no file.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One more than the largest CPU number accepted. Linux' own ceiling is `NR_CPUS=8192`
/// (`CONFIG_MAXSMP`); without a bound a typo such as `0-4000000000` would take all memory.
pub const MAX_CPUS: u32 = 8192;

/// A set of logical CPU (or NUMA node) numbers.
///
/// As bits, since the scheduler compares hundreds of sets to place one job. Those of machines with up
/// to 64 CPUs take no memory of their own.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct CpuSet {
    /// CPUs 0 to 63.
    low: u64,
    /// The others; the last word is not 0, so equal sets have equal words.
    high: Vec<u64>,
}

/// Bits of a word.
const WORD: u32 = u64::BITS;

/// Why a text is not a CPU list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("`{item}` in CPU list `{list}` is not a number, a range `a-b` or `a-b:used/group`")]
    Malformed { list: String, item: String },
    #[error("range `{item}` in CPU list `{list}` runs backwards")]
    Backwards { list: String, item: String },
    #[error("CPU {cpu} in list `{list}` is beyond the largest supported number {}", MAX_CPUS - 1)]
    TooLarge { list: String, cpu: u32 },
    #[error("group in `{item}` of CPU list `{list}` must be at least 1 and hold the used part")]
    BadGroup { list: String, item: String },
}

impl CpuSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.word((cpu / WORD) as usize) & (1 << (cpu % WORD)) != 0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.low == 0 && self.high.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.words().map(|word| word.count_ones() as usize).sum()
    }

    /// Ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        (0..self.high.len() + 1).flat_map(|index| Bits {
            // numbers are far below 2^32, whoever made them: see `MAX_CPUS`
            from: u32::try_from(index)
                .unwrap_or(u32::MAX)
                .saturating_mul(WORD),
            left: self.word(index),
        })
    }

    /// The lowest member.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        let from = (0..).step_by(WORD as usize);
        let mut words = from.zip(self.words());
        words.find_map(|(from, left)| Bits { from, left }.next())
    }

    fn last(&self) -> Option<u32> {
        self.iter().next_back()
    }

    pub fn insert(&mut self, cpu: u32) {
        let (index, bit) = ((cpu / WORD) as usize, 1 << (cpu % WORD));
        match index.checked_sub(1) {
            None => self.low |= bit,
            Some(index) => {
                if self.high.len() <= index {
                    self.high.resize(index + 1, 0);
                }
                self.high[index] |= bit;
            }
        }
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.with(other, |own, others| own | others)
    }

    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.with(other, |own, others| own & others)
    }

    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.with(other, |own, others| own & !others)
    }

    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        let mut words = self.words().enumerate();
        words.all(|(index, word)| word & !other.word(index) == 0)
    }

    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        let mut words = self.words().enumerate();
        words.all(|(index, word)| word & other.word(index) == 0)
    }

    fn word(&self, index: usize) -> u64 {
        match index.checked_sub(1) {
            None => self.low,
            Some(index) => self.high.get(index).copied().unwrap_or(0),
        }
    }

    fn words(&self) -> impl Iterator<Item = u64> + '_ {
        std::iter::once(self.low).chain(self.high.iter().copied())
    }

    fn with(&self, other: &Self, join: impl Fn(u64, u64) -> u64) -> Self {
        let words = self.high.len().max(other.high.len());
        let mut high = Vec::new();
        if words > 0 {
            high.extend((1..=words).map(|index| join(self.word(index), other.word(index))));
            while high.last() == Some(&0) {
                high.pop();
            }
        }
        Self {
            low: join(self.low, other.low),
            high,
        }
    }

    /// The kernel's mask format: 32-bit hex words, most significant first, joined by commas,
    /// as `/proc/irq/default_smp_affinity` and `workqueue/cpumask` want it.
    #[must_use]
    pub fn to_mask(&self) -> String {
        let words = self.last().map_or(1, |last| last / 32 + 1);
        (0..words)
            .rev()
            .map(|word| {
                let bits = (0..32)
                    .filter(|bit| self.contains(word * 32 + bit))
                    .fold(0_u32, |acc, bit| acc | (1 << bit));
                if word + 1 == words {
                    format!("{bits:x}")
                } else {
                    format!("{bits:08x}")
                }
            })
            .collect::<Vec<_>>()
            .join(",")
    }

    /// Reads the mask format written by the kernel (see [`CpuSet::to_mask`]).
    ///
    /// # Errors
    /// [`ParseError::Malformed`] when a word is not hexadecimal, [`ParseError::TooLarge`].
    pub fn from_mask(text: &str) -> Result<Self, ParseError> {
        let list = text.trim();
        let mut set = Self::new();
        let words: Vec<&str> = list.split(',').collect();
        for (index, word) in words.iter().rev().enumerate() {
            let malformed = || ParseError::Malformed {
                list: list.into(),
                item: (*word).to_owned(),
            };
            let bits = u32::from_str_radix(word, 16).map_err(|_| malformed())?;
            for bit in (0..32).filter(|bit| bits & (1 << bit) != 0) {
                let cpu = u32::try_from(index).map_err(|_| malformed())? * 32 + bit;
                if cpu >= MAX_CPUS {
                    return Err(ParseError::TooLarge {
                        list: list.into(),
                        cpu,
                    });
                }
                set.insert(cpu);
            }
        }
        Ok(set)
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(iter: I) -> Self {
        let mut set = Self::new();
        iter.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }
}

/// As their members would compare, one by one.
impl Ord for CpuSet {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for CpuSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuSet({self})")
    }
}

/// Members of one word.
struct Bits {
    /// The number of its first bit.
    from: u32,
    left: u64,
}

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let bit = self.left.trailing_zeros();
        (bit < WORD).then(|| {
            self.left &= self.left - 1;
            self.from + bit
        })
    }
}

impl DoubleEndedIterator for Bits {
    fn next_back(&mut self) -> Option<u32> {
        let bit = (WORD - 1).checked_sub(self.left.leading_zeros())?;
        self.left &= !(1 << bit);
        Some(self.from + bit)
    }
}

impl FromStr for CpuSet {
    type Err = ParseError;

    /// Accepts what the kernel prints and takes: ranges, `a-b:used/group` strides, blanks and a
    /// trailing newline, the empty text, and `(null)`, which old kernels print for "none".
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let list = text.trim();
        let mut set = Self::new();
        if list.is_empty() || list == "(null)" {
            return Ok(set);
        }
        for item in list.split(',').map(str::trim) {
            let malformed = || ParseError::Malformed {
                list: list.into(),
                item: item.into(),
            };
            let number = |text: &str| match text.parse::<u32>() {
                Ok(cpu) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                    if cpu < MAX_CPUS {
                        Ok(cpu)
                    } else {
                        Err(ParseError::TooLarge {
                            list: list.into(),
                            cpu,
                        })
                    }
                }
                _ => Err(malformed()),
            };
            let (range, stride) = match item.split_once(':') {
                Some((range, stride)) => (range, Some(stride)),
                None => (item, None),
            };
            let (first, last) = match range.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(range)?, number(range)?),
            };
            if first > last {
                return Err(ParseError::Backwards {
                    list: list.into(),
                    item: item.into(),
                });
            }
            let (used, group) = match stride.map(|stride| stride.split_once('/')) {
                None => (1, 1),
                Some(Some((used, group))) => (number(used)?, number(group)?),
                Some(None) => return Err(malformed()),
            };
            if group == 0 || used == 0 || used > group {
                return Err(ParseError::BadGroup {
                    list: list.into(),
                    item: item.into(),
                });
            }
            let members = (first..=last).filter(|cpu| (cpu - first) % group < used);
            members.for_each(|cpu| set.insert(cpu));
        }
        Ok(set)
    }
}

impl fmt::Display for CpuSet {
    /// The shortest list form without strides, as the kernel prints it; empty for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut cpus = self.iter().peekable();
        while let Some(first) = cpus.next() {
            let mut last = first;
            while cpus.peek() == Some(&(last + 1)) {
                last += 1;
                cpus.next();
            }
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl Serialize for CpuSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
