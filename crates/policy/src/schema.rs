//! Checks a JSON value against the Go structs that the engine will decode it into.
//!
//! Go matches keys ignoring case, with Unicode folding (`K` KELVIN SIGN equals `k`), so in a
//! struct a known key must be spelled exactly, and non-ASCII keys are refused. An unknown key
//! that carries something is refused; one that carries nothing (a newer client's unset option)
//! is dropped. In maps (labels, options) every key is data and passes. `null` passes everywhere:
//! Go leaves the field unset.

use serde_json::{Map, Value};

use crate::denial::{Denial, shown};
use crate::json;

/// The fields of one Go struct.
pub(crate) type Fields = &'static [(&'static str, Kind)];

/// What Go would decode a value into.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Bool,
    /// Any Go integer; ranges are the engine's business.
    Int,
    Str,
    /// `strslice.StrSlice`: one string or a list of them.
    StrOrList,
    List(&'static Kind),
    /// A Go map with string keys.
    Map(&'static Kind),
    Struct(Fields),
    /// Sent by some client, ignored by every engine: removed.
    Dropped,
}

pub(crate) const STRINGS: Kind = Kind::List(&Kind::Str);
pub(crate) const STRING_MAP: Kind = Kind::Map(&Kind::Str);

/// Checks `object` against `fields` and removes what is to be dropped. `at` names the place for
/// messages, for example `HostConfig`; empty for the whole body.
pub(crate) fn check_struct(object: &mut Value, fields: Fields, at: &str) -> Result<(), Denial> {
    match object {
        Value::Object(map) => check_fields(map, fields, at),
        other => Err(wrong_type(at, "an object", other)),
    }
}

fn check_fields(map: &mut Map<String, Value>, fields: Fields, at: &str) -> Result<(), Denial> {
    let mut dropped = Vec::new();
    for (key, value) in map.iter_mut() {
        match fields.iter().find(|(name, _)| name == key) {
            Some((_, Kind::Dropped)) => dropped.push(key.clone()),
            Some((_, kind)) => check_value(value, kind, &join(at, key))?,
            None => {
                refuse_unknown(key, value, fields, at)?;
                dropped.push(key.clone());
            }
        }
    }
    map.retain(|key, _| !dropped.contains(key));
    Ok(())
}

fn refuse_unknown(key: &str, value: &Value, fields: Fields, at: &str) -> Result<(), Denial> {
    let place = || shown(&join(at, key));
    if !key.is_ascii() {
        return Err(Denial::malformed(format!(
            "key {} is not ASCII: the engine could fold it into another option; spell options as the Engine API does",
            place()
        )));
    }
    if let Some((name, _)) = fields
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(key))
    {
        return Err(Denial::malformed(format!(
            "key {} must be spelled `{name}`: the engine ignores case, so another spelling could hide an option",
            place()
        )));
    }
    if json::is_zero(value) {
        return Ok(());
    }
    Err(Denial::malformed(format!(
        "option {} is unknown to this node: what is not checked is not forwarded; leave it out",
        place()
    )))
}

fn check_value(value: &mut Value, kind: &Kind, at: &str) -> Result<(), Denial> {
    match (kind, value) {
        (_, Value::Null)
        | (Kind::Bool, Value::Bool(_))
        | (Kind::Str | Kind::StrOrList, Value::String(_)) => Ok(()),
        (Kind::Int, Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(()),
        (Kind::StrOrList, Value::Array(items)) => check_items(items, &Kind::Str, at),
        (Kind::List(kind), Value::Array(items)) => check_items(items, kind, at),
        (Kind::Map(kind), Value::Object(map)) => map
            .iter_mut()
            .try_for_each(|(key, value)| check_value(value, kind, &join(at, key))),
        (Kind::Struct(fields), Value::Object(map)) => check_fields(map, fields, at),
        (kind, other) => Err(wrong_type(at, expected(kind), other)),
    }
}

fn check_items(items: &mut [Value], kind: &Kind, at: &str) -> Result<(), Denial> {
    let at = format!("{at}[]");
    for item in items {
        // Go makes a nil pointer of it, which handlers of the engine may dereference.
        if item.is_null() && matches!(kind, Kind::Struct(_)) {
            return Err(wrong_type(&at, expected(kind), item));
        }
        check_value(item, kind, &at)?;
    }
    Ok(())
}

fn wrong_type(at: &str, expected: &str, found: &Value) -> Denial {
    let at = if at.is_empty() {
        "the request body".to_owned()
    } else {
        shown(at)
    };
    Denial::malformed(format!(
        "{at} must be {expected}, not {}",
        json::kind(found)
    ))
}

fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "a boolean",
        Kind::Int => "a 64-bit integer",
        Kind::Str => "a string",
        Kind::StrOrList => "a string or an array of strings",
        Kind::List(_) => "an array",
        Kind::Map(_) | Kind::Struct(_) => "an object",
        Kind::Dropped => "absent",
    }
}

fn join(at: &str, key: &str) -> String {
    if at.is_empty() {
        key.to_owned()
    } else {
        format!("{at}.{key}")
    }
}

/// Reading accessors for values whose types were checked; absent and null read as Go's zero.
pub(crate) trait Read {
    fn text(&self, key: &str) -> &str;
    fn int(&self, key: &str) -> i128;
    fn flag(&self, key: &str) -> bool;
    fn items(&self, key: &str) -> &[Value];
    fn object(&self, key: &str) -> Option<&Map<String, Value>>;
    /// The strings of a list; a null item reads as "".
    fn texts<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str>;
}

impl Read for Map<String, Value> {
    fn text(&self, key: &str) -> &str {
        self.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn int(&self, key: &str) -> i128 {
        let number = self.get(key).and_then(Value::as_number);
        number
            .and_then(serde_json::Number::as_i128)
            .unwrap_or_default()
    }

    fn flag(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or_default()
    }

    fn items(&self, key: &str) -> &[Value] {
        self.get(key)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    fn object(&self, key: &str) -> Option<&Map<String, Value>> {
        self.get(key).and_then(Value::as_object)
    }

    fn texts<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        self.items(key)
            .iter()
            .map(|item| item.as_str().unwrap_or_default())
    }
}
