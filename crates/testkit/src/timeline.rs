//! When a boot passed which mark: host time since power-on, and the guest's own word.

use std::time::Duration;

use crate::lines::Line;

/// One mark that was passed.
#[derive(Debug, Clone, PartialEq)]
pub struct Passed {
    /// The mark's name.
    pub mark: String,
    /// Host time since power-on.
    pub at: Duration,
    /// The guest's `uptime=` at the end of the line, if it has one.
    pub uptime_s: Option<f64>,
}

/// The first line of each mark, in the order of `marks`; `None` for one that never came. A mark
/// is a name and a part of its line.
#[must_use]
pub fn timeline(lines: &[Line], marks: &[(&str, &str)]) -> Vec<Option<Passed>> {
    let find = |(mark, part): &(&str, &str)| {
        let line = lines.iter().find(|line| line.text.contains(part))?;
        Some(Passed {
            mark: (*mark).into(),
            at: line.at,
            uptime_s: uptime_s(&line.text),
        })
    };
    marks.iter().map(find).collect()
}

/// The number after `uptime=`.
#[must_use]
pub fn uptime_s(line: &str) -> Option<f64> {
    let (_, rest) = line.rsplit_once("uptime=")?;
    rest.split_whitespace()
        .next()?
        .trim_end_matches('s')
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_once_and_in_order() {
        let line = |ms, text: &str| Line {
            at: Duration::from_millis(ms),
            text: text.into(),
        };
        let lines = [
            line(900, "Linux version 6.12"),
            line(1500, "stillmetal: init started uptime=0.71"),
            line(1600, "stillmetal: init started uptime=0.99"),
        ];
        let found = timeline(
            &lines,
            &[("init", "init started"), ("api", "api listening")],
        );
        let first = found[0].clone().unwrap();
        assert_eq!(
            (first.at, first.uptime_s),
            (Duration::from_millis(1500), Some(0.71))
        );
        assert_eq!(found[1], None);
    }
}
