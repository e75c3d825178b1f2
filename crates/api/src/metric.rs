//! Metrics of a benchmark: where a run writes them, and what was found there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stats::Dispersion;

/// Metrics of one job.
pub const METRICS: usize = 64;
/// Artifacts of one job.
pub const ARTIFACTS: usize = 32;

/// A number that each run writes somewhere. Exactly one of `regex` and `pointer` says where in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Unique in its job.
    #[cfg_attr(
        feature = "openapi",
        schema(pattern = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$")
    )]
    pub name: String,
    /// For people, such as `req/s`; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[cfg_attr(
        feature = "openapi",
        schema(max_length = 32, default = "", pattern = r"^[^\u0000-\u001f\u007f]*$")
    )]
    pub unit: String,
    #[serde(default)]
    pub direction: Direction,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::metric_source))]
    pub from: Source,
    /// Its group `value`, else its first one, is the number; of several matches the last one counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 512))]
    pub regex: Option<String>,
    /// A JSON pointer (RFC 6901) into the whole text, or, if that is JSON lines, into the last line that
    /// is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(max_length = 512, pattern = r"^(/([^~]|~[01])*)?$")
    )]
    pub pointer: Option<String>,
}

/// Which values are better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// As of a duration.
    #[default]
    Lower,
    /// As of a throughput.
    Higher,
}

impl Direction {
    /// As in the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
        }
    }
}

/// What a metric is read from: `"stdout"`, `"stderr"` or `{"file": "/path"}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "SourceForm")]
pub enum Source {
    #[default]
    Stdout,
    Stderr,
    /// Absolute path in the container, or on the node for a program of the node.
    File(String),
}

/// The same as it is read: serde's own way with such an enum takes `{"stdout": null}` too.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "not a source: \"stdout\", \"stderr\" or {\"file\": \"/path\"}"
)]
enum SourceForm {
    Stream(String),
    File(SourceFile),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceFile {
    file: String,
}

impl TryFrom<SourceForm> for Source {
    type Error = String;

    fn try_from(form: SourceForm) -> Result<Self, String> {
        match form {
            SourceForm::Stream(name) if name == "stdout" => Ok(Self::Stdout),
            SourceForm::Stream(name) if name == "stderr" => Ok(Self::Stderr),
            SourceForm::Stream(name) => Err(format!(
                "{name:?} is no stream: stdout, stderr or {{\"file\": \"/path\"}}"
            )),
            SourceForm::File(SourceFile { file }) => Ok(Self::File(file)),
        }
    }
}

/// What a run came to in one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reading {
    Found {
        /// Finite.
        value: f64,
        #[serde(default)]
        unit: String,
        direction: Direction,
    },
    Missing {
        /// Why there is no number.
        missing: String,
    },
}

impl Reading {
    /// The number, if there is one.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        match self {
            Self::Found { value, .. } => Some(*value),
            Self::Missing { .. } => None,
        }
    }
}

/// By name.
pub type Readings = BTreeMap<String, Reading>;

/// What the quiet runs of a series came to in one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricFigures {
    #[serde(default)]
    pub unit: String,
    pub direction: Direction,
    /// In that unit.
    pub values: Dispersion,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_one_form_each() {
        for source in [Source::Stdout, Source::Stderr, Source::File("/x".into())] {
            let text = serde_json::to_string(&source).unwrap();
            assert_eq!(serde_json::from_str::<Source>(&text).unwrap(), source);
        }
        for wrong in [
            r#"{"stdout": null}"#,
            r#""file""#,
            r#"{"file": "/x", "more": 1}"#,
            "null",
            "{}",
        ] {
            assert!(serde_json::from_str::<Source>(wrong).is_err(), "{wrong}");
        }
    }
}
