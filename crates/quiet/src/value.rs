//! One figure of a certificate, or why there is none.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A count that was measured, or the reason that it was not. There is no way from the other two to
/// a number: what was not observed is never zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub enum Value {
    Measured(u64),
    /// This kernel or machine has no such source.
    Absent,
    /// There is something, but it cannot be trusted here.
    Unobservable {
        why: String,
    },
}

impl Value {
    #[must_use]
    pub fn unobservable(why: impl Into<String>) -> Self {
        Self::Unobservable { why: why.into() }
    }

    /// `None` is a source that does not exist.
    #[must_use]
    pub fn from_source(count: Option<u64>) -> Self {
        count.map_or(Self::Absent, Self::Measured)
    }

    #[must_use]
    pub fn measured(&self) -> Option<u64> {
        match self {
            Self::Measured(count) => Some(*count),
            Self::Absent | Self::Unobservable { .. } => None,
        }
    }

    /// Adds what a counter that only grows gained between two readings. A reading that is missing
    /// on one side, or smaller than the one before, makes the sum unobservable for good.
    pub(crate) fn advance(&mut self, then: Option<u64>, now: Option<u64>) {
        let gained = match (then, now) {
            (None, None) => return,
            (Some(then), Some(now)) => now
                .checked_sub(then)
                .ok_or_else(|| format!("it went backwards, from {then} to {now}")),
            (None, Some(_)) => Err("it appeared within the window".to_owned()),
            (Some(_), None) => Err("it vanished within the window".to_owned()),
        };
        match (&mut *self, gained) {
            (Self::Measured(sum), Ok(gained)) => *sum = sum.saturating_add(gained),
            (Self::Unobservable { .. } | Self::Absent, Ok(_)) => {}
            (Self::Unobservable { .. }, Err(_)) => {}
            (_, Err(why)) => *self = Self::Unobservable { why },
        }
    }

    /// Keeps an earlier reason, and keeps what does not exist absent.
    pub(crate) fn spoil(&mut self, why: &str) {
        if matches!(self, Self::Measured(_)) {
            *self = Self::unobservable(why);
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Measured(count) => count.fmt(f),
            Self::Absent => f.pad("-"),
            Self::Unobservable { .. } => f.pad("?"),
        }
    }
}

/// How a value looks in JSON: `{"status":"measured","value":0}`.
#[derive(Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Form {
    Measured { value: u64 },
    Absent,
    Unobservable { why: String },
}

impl From<Form> for Value {
    fn from(form: Form) -> Self {
        match form {
            Form::Measured { value } => Self::Measured(value),
            Form::Absent => Self::Absent,
            Form::Unobservable { why } => Self::Unobservable { why },
        }
    }
}

impl From<Value> for Form {
    fn from(value: Value) -> Self {
        match value {
            Value::Measured(value) => Self::Measured { value },
            Value::Absent => Self::Absent,
            Value::Unobservable { why } => Self::Unobservable { why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_shows_status_and_value() {
        let json = |value: Value| serde_json::to_string(&value).unwrap();
        assert_eq!(
            json(Value::Measured(0)),
            r#"{"status":"measured","value":0}"#
        );
        assert_eq!(json(Value::Absent), r#"{"status":"absent"}"#);
        assert_eq!(
            json(Value::unobservable("a VM")),
            r#"{"status":"unobservable","why":"a VM"}"#
        );
        assert!(serde_json::from_str::<Value>(r#"{"status":"measured"}"#).is_err());
    }

    #[test]
    fn what_was_lost_once_stays_lost() {
        let mut value = Value::Measured(0);
        value.advance(Some(5), Some(7));
        assert_eq!(value, Value::Measured(2));
        value.advance(Some(7), Some(6));
        value.advance(Some(6), Some(9));
        assert_eq!(value, Value::unobservable("it went backwards, from 7 to 6"));
        let mut value = Value::Absent;
        value.advance(None, None);
        assert_eq!(value, Value::Absent);
        value.advance(None, Some(0));
        assert_eq!(value.measured(), None);
    }
}
