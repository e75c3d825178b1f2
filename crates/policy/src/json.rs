//! A strict JSON reader for bodies that Go's `encoding/json` will read after us.
//!
//! Go keeps the last of two equal keys, other parsers the first; such a difference would let a
//! body be checked with one meaning and obeyed with another. So duplicate keys are refused at any
//! depth, and so are deep nesting, trailing bytes, invalid UTF-8 and lone surrogates. What is
//! forwarded is the value read here, serialised anew.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::denial::{Denial, shown};

/// Deepest nesting accepted. The deepest real body (`HostConfig.Mounts[].VolumeOptions.
/// DriverConfig.Options`) has six levels.
pub(crate) const MAX_DEPTH: usize = 32;

/// Reads exactly one JSON value.
pub(crate) fn read(body: &[u8], max_bytes: usize) -> Result<Value, Denial> {
    if body.len() > max_bytes {
        return Err(Denial::too_large("the request body", max_bytes));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Strict { depth: 0 }
        .deserialize(&mut reader)
        .map_err(malformed)?;
    reader.end().map_err(malformed)?;
    Ok(value)
}

/// Reads one JSON object.
pub(crate) fn read_object(body: &[u8], max_bytes: usize) -> Result<Value, Denial> {
    match read(body, max_bytes)? {
        object @ Value::Object(_) => Ok(object),
        other => Err(Denial::malformed(format!(
            "the request body is {}, not a JSON object: send the object that the Engine API documents",
            kind(&other)
        ))),
    }
}

fn malformed(error: serde_json::Error) -> Denial {
    Denial::malformed(format!("the request body is not acceptable JSON: {error}"))
}

/// What a value is, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Null, false, 0, "", [] and {}: what Go would have left unset.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {}", shown(&key))));
            }
            let value = entries.next_value_seed(inner)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(body: &str) -> Denial {
        read(body.as_bytes(), 1 << 20).unwrap_err()
    }

    #[test]
    fn reads_what_json_can_say() {
        let text = r#"{"a":[1,-2,3.5,true,null,"\u00e9"],"b":{"A":{},"a":[]}}"#;
        let value = read(text.as_bytes(), 100).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn refuses_duplicates_at_any_depth() {
        for body in [
            r#"{"a":1,"a":1}"#,
            r#"[{"x":{"a":1,"b":2,"\u0061":3}}]"#,
            r#"{"HostConfig":{"Privileged":false,"Privileged":true}}"#,
        ] {
            let denial = denial(body);
            assert_eq!(denial.status, 400);
            assert!(denial.message.contains("duplicate key"), "{denial}");
        }
    }

    #[test]
    fn refuses_depth_trailing_bytes_and_broken_text() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(read(deep(MAX_DEPTH).as_bytes(), 1000).is_ok());
        assert!(
            denial(&deep(MAX_DEPTH + 1))
                .message
                .contains("nested deeper")
        );
        for body in [
            "",
            "{} {}",
            "{}x",
            "{\"a\":1,}",
            "nul",
            "\"\\ud800\"",
            "1e999",
            "\u{feff}{}",
        ] {
            assert_eq!(denial(body).status, 400, "{body}");
        }
        assert_eq!(read(b"\"\xff\"", 100).unwrap_err().status, 400);
        assert_eq!(read(b"[1,2,3]", 4).unwrap_err().status, 413);
        assert_eq!(read_object(b"[]", 4).unwrap_err().status, 400);
    }
}
