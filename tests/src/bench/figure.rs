//! One figure, and the table of them.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// As design.md §7 fixes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    pub id: String,
    pub what: String,
    pub unit: String,
    pub ours: Option<f64>,
    pub theirs: Option<f64>,
    /// Ours/theirs, or theirs/ours where `what` says so.
    pub ratio: Option<f64>,
    pub target: String,
    pub met: bool,
    /// Share of the host's CPUs that was busy with other work just before, 0 to 1.
    pub background_busy: f64,
    pub note: String,
}

impl Figure {
    #[must_use]
    pub fn new(id: &str, what: &str, unit: &str, target: &str, background_busy: f64) -> Self {
        Self {
            id: id.into(),
            what: what.into(),
            unit: unit.into(),
            ours: None,
            theirs: None,
            ratio: None,
            target: target.into(),
            met: false,
            background_busy,
            note: String::new(),
        }
    }

    #[must_use]
    pub fn values(mut self, ours: f64, theirs: Option<f64>) -> Self {
        self.ours = Some(ours);
        self.theirs = theirs;
        self.ratio = theirs
            .filter(|theirs| *theirs != 0.0)
            .map(|theirs| ours / theirs);
        self
    }

    #[must_use]
    pub fn met(mut self, met: bool) -> Self {
        self.met = met;
        self
    }

    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// Aligned text.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let number = |value: Option<f64>| {
        value.map_or("-".into(), |value| match value {
            value if value.fract() == 0.0 => format!("{value:.0}"),
            value => format!("{value:.3}"),
        })
    };
    let mut out = String::new();
    let mut line = |cells: [&str; 8]| {
        let [id, ours, theirs, unit, ratio, target, met, busy] = cells;
        writeln!(
            out,
            "{id:<27} {ours:>12} {theirs:>12} {unit:<10} {ratio:>10}  {target:<38} {met:<5} {busy:>5}"
        )
        .expect("writing to a String does not fail");
    };
    line([
        "id", "ours", "theirs", "unit", "ratio", "target", "met", "busy",
    ]);
    for figure in figures {
        line([
            &figure.id,
            &number(figure.ours),
            &number(figure.theirs),
            &figure.unit,
            &number(figure.ratio),
            &figure.target,
            if figure.met { "yes" } else { "NO" },
            &format!("{:.0} %", figure.background_busy * 100.0),
        ]);
    }
    for figure in figures.iter().filter(|figure| !figure.note.is_empty()) {
        writeln!(out, "{}: {}", figure.id, figure.note).expect("as above");
    }
    out
}

/// The middle one, or the mean of the two middle ones.
#[must_use]
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_missed_target_is_seen() {
        let figure = Figure::new("a.b", "w", "s", "≤ 1", 0.1).values(2.0, Some(4.0));
        assert_eq!(figure.ratio, Some(0.5));
        assert!(table(&[figure]).contains(" NO "));
    }
}
