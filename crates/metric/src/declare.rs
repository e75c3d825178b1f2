//! Declarations, checked.

use std::collections::BTreeSet;

use api::metric::{METRICS, Metric, Source};
use regex::{Regex, RegexBuilder};

use crate::path::check_path;
use crate::pointer;

const NAME: usize = 64;
const UNIT: usize = 32;
/// Longest regex and pointer, bytes.
const PATTERN: usize = 512;
/// Memory of one compiled regex, bytes.
const PROGRAM: usize = 1 << 20;
/// Parentheses within parentheses.
const NESTING: u32 = 64;

/// What is wrong with a declaration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Fault {
    /// Where, as a JSON pointer below the list; empty: the list itself.
    pub at: String,
    /// What is wrong, with the metric's name.
    pub why: String,
    /// What to do instead.
    pub next: String,
}

impl Fault {
    pub(crate) fn new(
        at: impl Into<String>,
        why: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            at: at.into(),
            why: why.into(),
            next: next.into(),
        }
    }
}

/// Takes one metric from texts.
#[derive(Debug, Clone)]
pub struct Extractor {
    metric: Metric,
    pub(crate) way: Way,
}

#[derive(Debug, Clone)]
pub(crate) enum Way {
    Regex {
        regex: Regex,
        /// The group that is the number.
        group: usize,
    },
    /// Its tokens, unescaped.
    Pointer(Vec<String>),
}

impl Extractor {
    /// As it was declared.
    #[must_use]
    pub fn metric(&self) -> &Metric {
        &self.metric
    }
}

/// One for each, in their order.
///
/// # Errors
/// The first [`Fault`].
pub fn extractors(metrics: &[Metric]) -> Result<Vec<Extractor>, Fault> {
    if metrics.len() > METRICS {
        return Err(Fault::new(
            "",
            format!("{} metrics, and {METRICS} are the limit", metrics.len()),
            format!("give at most {METRICS}"),
        ));
    }
    let mut names = BTreeSet::new();
    let all = metrics.iter().enumerate().map(|(index, metric)| {
        let at = |field: &str| format!("/{index}/{field}");
        name(metric, &at("name"))?;
        if !names.insert(metric.name.as_str()) {
            return Err(Fault::new(
                at("name"),
                format!("metric {:?} is declared twice", metric.name),
                "give each metric a name of its own",
            ));
        }
        unit(metric, &at("unit"))?;
        if let Source::File(path) = &metric.from {
            check_path(path).map_err(|(why, next)| {
                let why = format!("metric {:?}: file {path:?} {why}", metric.name);
                Fault::new(format!("/{index}/from/file"), why, next)
            })?;
        }
        Ok(Extractor {
            way: way(metric, &at)?,
            metric: metric.clone(),
        })
    });
    all.collect()
}

fn name(metric: &Metric, at: &str) -> Result<(), Fault> {
    let name = metric.name.as_str();
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._/-".contains(&b);
    let begins = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if begins && name.len() <= NAME && name.bytes().all(known) {
        return Ok(());
    }
    Err(Fault::new(
        at,
        format!(
            "{:?} is not the name of a metric: 1 to {NAME} letters, digits and `._/-`, beginning with \
             a letter or digit",
            short(name)
        ),
        "such as \"latency/p99\"",
    ))
}

fn unit(metric: &Metric, at: &str) -> Result<(), Fault> {
    let unit = metric.unit.as_str();
    if unit.chars().count() <= UNIT && !unit.chars().any(|c| c < ' ' || c == '\u{7f}') {
        return Ok(());
    }
    Err(Fault::new(
        at,
        format!(
            "metric {:?}: its unit is longer than {UNIT} characters or has control characters",
            metric.name
        ),
        "such as \"req/s\", or leave it out",
    ))
}

fn way(metric: &Metric, at: &dyn Fn(&str) -> String) -> Result<Way, Fault> {
    let name = &metric.name;
    match (&metric.regex, &metric.pointer) {
        (Some(pattern), None) => regex(name, pattern, &at("regex")),
        (None, Some(text)) => {
            let fault = |why: String| {
                Fault::new(
                    at("pointer"),
                    format!("metric {name:?}: its pointer {:?} {why}", short(text)),
                    "write it as in RFC 6901, such as \"/results/0/mean\"; `~0` is a `~` in a key, `~1` a `/`",
                )
            };
            if text.len() > PATTERN {
                return Err(fault(format!("is longer than {PATTERN} bytes")));
            }
            let tokens = pointer::parse(text).map_err(|why| fault(why.into()))?;
            Ok(Way::Pointer(tokens))
        }
        (given, _) => {
            let how = match given {
                Some(_) => "both `regex` and `pointer`",
                None => "neither `regex` nor `pointer`",
            };
            Err(Fault::new(
                at("regex"),
                format!("metric {name:?} has {how}"),
                "give one of them: `regex` for text, `pointer` for JSON",
            ))
        }
    }
}

fn regex(name: &str, pattern: &str, at: &str) -> Result<Way, Fault> {
    if pattern.len() > PATTERN {
        return Err(Fault::new(
            at,
            format!(
                "metric {name:?}: its regex has {} bytes, and {PATTERN} are the limit",
                pattern.len()
            ),
            "match less of the line: what stands before the number is enough",
        ));
    }
    let built = RegexBuilder::new(pattern)
        .size_limit(PROGRAM)
        .dfa_size_limit(PROGRAM)
        .nest_limit(NESTING)
        .build();
    let regex = built.map_err(|error| match error {
        // a syntax error is shown with the pattern and a mark below the place
        regex::Error::CompiledTooBig(_) => Fault::new(
            at,
            format!("metric {name:?}: its regex {pattern:?} needs more than {PROGRAM} bytes when compiled"),
            "repeat less: `{1,1000}` is that many copies",
        ),
        error => Fault::new(
            at,
            format!("metric {name:?}: its regex is none: {error}"),
            "the syntax is that of the crate `regex`: no look-around and no references back",
        ),
    })?;
    let named = regex
        .capture_names()
        .position(|group| group == Some("value"));
    let first = (regex.captures_len() > 1).then_some(1);
    let Some(group) = named.or(first) else {
        return Err(Fault::new(
            at,
            format!("metric {name:?}: its regex {pattern:?} has no group for the number"),
            "put the number into parentheses, such as `Requests/sec: *([0-9.]+)`, or `(?<value>[0-9.]+)` \
             among others",
        ));
    };
    Ok(Way::Regex { regex, group })
}

/// Its beginning, for a message.
pub(crate) fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(128)]
}
