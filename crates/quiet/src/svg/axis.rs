//! From instants to places.

use std::fmt;

use super::text::Span;

/// Time, ns, along a stretch of the picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    start_ns: u64,
    length_ns: u64,
    /// px.
    left: u64,
    /// px.
    plot: u64,
}

impl Axis {
    pub(super) fn new(start_ns: u64, end_ns: u64, left: u64, plot: u64) -> Self {
        Self {
            start_ns,
            length_ns: end_ns.saturating_sub(start_ns).max(1),
            left,
            plot,
        }
    }

    pub(super) fn start_ns(&self) -> u64 {
        self.start_ns
    }

    pub(super) fn length_ns(&self) -> u64 {
        self.length_ns
    }

    /// The place of an instant; what lies outside is put at the edge.
    pub(super) fn x(&self, at_ns: u64) -> Px {
        Px(self.left * 100 + self.hundredths(at_ns.saturating_sub(self.start_ns)))
    }

    /// From one instant to another, and at least wide enough to be seen.
    pub(super) fn width(&self, from_ns: u64, to_ns: u64) -> Px {
        Px((self.x(to_ns).0.saturating_sub(self.x(from_ns).0)).max(100))
    }

    fn hundredths(&self, since_ns: u64) -> u64 {
        let (since, length) = (since_ns.min(self.length_ns), self.length_ns);
        let place = u128::from(since) * u128::from(self.plot * 100) / u128::from(length);
        u64::try_from(place).unwrap_or(self.plot * 100)
    }

    /// In seconds after the start, or before it.
    pub(super) fn since_start(&self, at_ns: u64) -> String {
        match at_ns.checked_sub(self.start_ns) {
            Some(since) => Seconds(since).to_string(),
            None => format!("{} before the start", Span(self.start_ns - at_ns)),
        }
    }

    /// Places and labels, s, of five to twelve round instants.
    pub(super) fn ticks(&self) -> Vec<(Px, String)> {
        let mut step: u64 = 1;
        // 1, 2, 5, 10, ...
        for factor in [2, 5, 10].into_iter().cycle() {
            if self.length_ns / step <= 12 {
                break;
            }
            let decade = 10_u64.pow(step.ilog10());
            step = decade.saturating_mul(factor);
        }
        let decimals = 9_usize.saturating_sub(usize::try_from(step.ilog10()).unwrap_or(9));
        (0..=self.length_ns / step)
            .map(|tick| tick * step)
            .map(|since| {
                let (whole, rest) = (since / 1_000_000_000, since % 1_000_000_000);
                let fraction: String = format!("{rest:09}").chars().take(decimals).collect();
                let label = if fraction.is_empty() {
                    whole.to_string()
                } else {
                    format!("{whole}.{fraction}")
                };
                (self.x(self.start_ns.saturating_add(since)), label)
            })
            .collect()
    }
}

/// Hundredths of a px.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Px(u64);

impl Px {
    pub(super) fn whole(self) -> u64 {
        self.0 / 100
    }
}

impl fmt::Display for Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 100 {
            0 => write!(f, "{}", self.0 / 100),
            rest => write!(f, "{}.{rest:02}", self.0 / 100),
        }
    }
}

/// ns, written as seconds to the µs.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0 / 1000;
        write!(f, "{}.{:06} s", micros / 1_000_000, micros % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn labels(length_ns: u64) -> Vec<String> {
        let axis = Axis::new(5 * SECOND, 5 * SECOND + length_ns, 100, 1000);
        axis.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(labels(20 * SECOND).len(), 11);
        assert_eq!(labels(20 * SECOND)[..3], ["0", "2", "4"]);
        assert_eq!(labels(SECOND)[..3], ["0.0", "0.1", "0.2"]);
        assert_eq!(labels(3 * SECOND)[..3], ["0.0", "0.5", "1.0"]);
        assert_eq!(labels(3600 * SECOND).last().unwrap(), "3500");
        for length in [1, 7, 999, 12_345_678, 90_000 * SECOND, u64::MAX / 2] {
            let count = labels(length).len();
            assert!((2..=13).contains(&count), "{length}: {count}");
        }
    }

    #[test]
    fn instants_outside_are_put_at_the_edge_and_nothing_is_too_thin_to_see() {
        let axis = Axis::new(10, 20, 100, 1000);
        assert_eq!(axis.x(15).to_string(), "600");
        assert_eq!((axis.x(3).whole(), axis.x(99).whole()), (100, 1100));
        assert_eq!(axis.width(12, 12).to_string(), "1");
        assert_eq!(axis.width(0, 99).to_string(), "1000");
        assert_eq!(Axis::new(7, 7, 0, 10).x(7).whole(), 0);
        assert_eq!(axis.since_start(1_000_000_010), "1.000000 s");
        assert_eq!(axis.since_start(8), "2 ns before the start");
    }
}
