//! Metrics as `still run` takes them. Pure.

use api::metric::{Direction, Metric, Source};

use crate::outcome::Misuse;

/// `NAME[:UNIT][:lower|higher]=PATTERN`, of stdout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    name: String,
    unit: String,
    direction: Direction,
    pattern: String,
}

/// Reads one; that name and pattern are sound is said by the whole request's check.
pub(super) fn parse(text: &str) -> Result<Given, String> {
    let bad = || format!("{text:?} is not NAME[:UNIT][:lower|higher]=PATTERN");
    let (what, pattern) = text.split_once('=').ok_or_else(bad)?;
    let (what, direction) = match what.rsplit_once(':') {
        Some((what, "lower")) => (what, Direction::Lower),
        Some((what, "higher")) => (what, Direction::Higher),
        _ => (what, Direction::default()),
    };
    let (name, unit) = what.split_once(':').unwrap_or((what, ""));
    if name.is_empty() || pattern.is_empty() {
        return Err(bad());
    }
    Ok(Given {
        name: name.into(),
        unit: unit.into(),
        direction,
        pattern: pattern.into(),
    })
}

/// All of them, checked: by regex, by JSON pointer, and which of them are read from a file.
pub(super) fn metrics(
    regexes: &[Given],
    pointers: &[Given],
    files: &[(String, String)],
) -> Result<Vec<Metric>, Misuse> {
    let metric = |given: &Given| Metric {
        name: given.name.clone(),
        unit: given.unit.clone(),
        direction: given.direction,
        from: Source::Stdout,
        regex: None,
        pointer: None,
    };
    let by_regex = regexes.iter().map(|given| Metric {
        regex: Some(given.pattern.clone()),
        ..metric(given)
    });
    let by_pointer = pointers.iter().map(|given| Metric {
        pointer: Some(given.pattern.clone()),
        ..metric(given)
    });
    let mut all: Vec<Metric> = by_regex.chain(by_pointer).collect();
    for (name, path) in files {
        let metric = all.iter_mut().find(|metric| metric.name == *name);
        let metric = metric.ok_or_else(|| Misuse::NoSuchMetric(name.clone()))?;
        metric.from = Source::File(path.clone());
    }
    metric::extractors(&all).map_err(|fault| Misuse::Declared {
        why: fault.why,
        next: fault.next,
    })?;
    Ok(all)
}
