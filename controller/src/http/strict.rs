//! JSON read as the document describes it, and in no other way.
//!
//! serde takes more than that: an array in place of an object (its fields in their order), and
//! `{"io": null}` in place of `"io"`. Both are refused here. And it takes less: for JSON Schema `3.0` is
//! an integer. Made for the types of requests: all their enums are either names or objects with a tag,
//! none of their numbers has a fraction, and nothing in them is of any type.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, Visitor,
};

/// Reads from `D`.
#[derive(Debug)]
pub(crate) struct Strict<D>(pub(crate) D);

/// Whether an array may stand here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Array {
    Allowed,
    Refused,
}

struct Within<V>(V, Array);

/// A name.
struct Name<V>(V);

struct Inside<T>(T);

macro_rules! forward {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(Within(visitor, Array::Allowed))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    forward! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_option deserialize_unit deserialize_seq deserialize_map
        deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_f32(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_f64(visitor)
    }

    /// Asked for by enums that are objects with a tag.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Within(visitor, Array::Refused))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Within(visitor, Array::Refused);
        self.0.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_str(Name(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Within(visitor, Array::Allowed);
        self.0.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Within(visitor, Array::Allowed);
        self.0.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0
            .deserialize_tuple(length, Within(visitor, Array::Allowed))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Within(visitor, Array::Allowed);
        self.0.deserialize_tuple_struct(name, length, visitor)
    }
}

macro_rules! visit {
    ($($method:ident: $type:ty)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Within<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    visit! {
        visit_bool: bool visit_i64: i64 visit_i128: i128 visit_u64: u64 visit_u128: u128
        visit_str: &str visit_borrowed_str: &'de str visit_string: String
        visit_bytes: &[u8] visit_borrowed_bytes: &'de [u8] visit_byte_buf: Vec<u8>
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        match whole(value) {
            Some(number) => self.0.visit_i64(number),
            None => self.0.visit_f64(value),
        }
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Strict(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Strict(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        match self.1 {
            Array::Allowed => self.0.visit_seq(Inside(items)),
            Array::Refused => Err(A::Error::invalid_type(Unexpected::Seq, &self.0)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Inside(fields))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(variant)
    }
}

/// As an integer, if it is one and the text had all of its digits.
fn whole(value: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() != 0.0 || value.abs() > EXACT {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is whole, and below 2^53"
    )]
    Some(value as i64)
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Name<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<V::Value, E> {
        self.0.visit_enum(StrDeserializer::new(name))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Inside<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Inside(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Inside<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Inside(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Inside<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(inner))
    }
}

#[cfg(test)]
mod tests {
    use api::job::JobRequest;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::call::parse;

    fn read(json: &Value) -> Option<JobRequest> {
        parse(json.to_string().as_bytes()).ok()
    }

    #[test]
    fn arrays_are_no_objects_and_objects_are_no_names() {
        for json in [
            json!([]),
            json!(["name", "queue"]),
            json!({ "place": [] }),
            json!({ "place": [2] }),
            json!({ "limits": [60] }),
            json!({ "on_loss": ["fail"] }),
            json!({ "on_loss": ["requeue", 3] }),
            json!({ "measure": { "class": { "io": null } } }),
            json!({ "measure": { "tick_mode": { "tick": null } } }),
            json!({ "env": [] }),
            json!({ "argv": {} }),
        ] {
            // serde alone takes some of them
            assert_eq!(read(&json), None, "{json}");
        }
    }

    #[test]
    fn what_serde_takes_as_described_is_taken() {
        for json in [
            json!({}),
            json!({
                "name": null, "image": "a", "argv": ["x"], "command": null, "env": { "A": "b" },
                "place": { "devices": ["d"], "memory_bytes": 7, "labels": { "a": "b" } },
                "measure": { "class": "io", "tick_mode": "nohz_full", "nice": -3, "fifo": null },
                "limits": { "total_seconds": 9 },
                "on_loss": { "attempts": 1, "policy": "requeue" },
            }),
            json!({ "command": ["/bin/true"], "on_loss": { "policy": "fail" } }),
            json!({ "measure": { "tick_mode": null } }),
        ] {
            let plain: JobRequest = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(read(&json), Some(plain), "{json}");
        }
    }

    #[test]
    fn a_whole_number_is_an_integer_however_it_is_written() {
        let read = |text: &str| parse::<JobRequest>(text.as_bytes()).ok();
        let request = read(
            r#"{"place":{"cpus":3.0,"memory_bytes":1e9},"measure":{"nice":-4.0},
                "on_loss":{"policy":"requeue","attempts":2.0}}"#,
        );
        let request = request.unwrap();
        assert_eq!(
            (request.place.cpus, request.place.memory_bytes),
            (3, Some(1_000_000_000))
        );
        assert_eq!(request.measure.nice, Some(-4));
        assert_eq!(request.on_loss, api::job::OnLoss::Requeue { attempts: 2 });
        for text in [
            r#"{"place":{"cpus":3.5}}"#,
            r#"{"place":{"cpus":-1.0}}"#,
            r#"{"place":{"cpus":1e300}}"#,
            r#"{"place":{"cpus":"3"}}"#,
            r#"{"place":{"memory_bytes":1e19}}"#,
            r#"{"on_loss":{"policy":"requeue","attempts":2.5}}"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        /// It is stricter than serde, and never different.
        #[test]
        fn whatever_it_takes_serde_takes_alike(
            keys in prop::collection::vec(prop::sample::select(vec![
                "image", "argv", "place", "measure", "on_loss", "env", "command", "x",
            ]), 0..4),
            value in prop::sample::select(vec![
                json!(null), json!("a"), json!(["/a"]), json!([]), json!({}), json!(3),
                json!({ "policy": "fail" }), json!({ "class": "io" }), json!({ "nodes": 3 }),
            ]),
        ) {
            let fields = keys.into_iter().map(|key| (key.to_owned(), value.clone()));
            let json = Value::Object(fields.collect());
            if let Some(request) = read(&json) {
                prop_assert_eq!(request, serde_json::from_value(json).unwrap());
            }
        }
    }
}
