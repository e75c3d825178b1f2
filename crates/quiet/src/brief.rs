//! Reasons in few words: what is missing for one cause is told once.

use std::collections::BTreeMap;

const UNKNOWN: [&str; 2] = [" are not known: ", " is not known: "];
/// So many may be named one by one.
const NAMED: usize = 3;

/// The same reasons, with those that differ only in what is not known as one line, where the first of
/// them stood. A certificate names them all.
#[must_use]
pub fn brief(reasons: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for cause in reasons.iter().filter_map(|reason| cause(reason)) {
        *counts.entry(cause).or_default() += 1;
    }
    let mut told = Vec::new();
    for reason in reasons {
        let several = cause(reason).filter(|cause| counts[cause] > NAMED);
        let line = match several {
            Some(cause) => format!("{} counters are not known: {cause}", counts[cause]),
            None => reason.clone(),
        };
        if several.is_none() || !told.contains(&line) {
            told.push(line);
        }
    }
    told
}

fn cause(reason: &str) -> Option<&str> {
    UNKNOWN
        .iter()
        .find_map(|words| Some(reason.split_once(words)?.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cause_is_told_once() {
        let text = |all: &[&str]| -> Vec<String> { all.iter().map(|it| (*it).into()).collect() };
        let many = text(&[
            "no canary",
            "A are not known: one snapshot",
            "B is not known: one snapshot",
            "late",
            "C are not known: one snapshot",
            "D are not known: one snapshot",
            "E are not known: a reset",
        ]);
        let wanted = text(&[
            "no canary",
            "4 counters are not known: one snapshot",
            "late",
            "E are not known: a reset",
        ]);
        assert_eq!(brief(&many), wanted);
        let few = text(&["A are not known: x", "B are not known: x", "A", "A"]);
        assert_eq!(brief(&few), few);
    }
}
