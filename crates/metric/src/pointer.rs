//! JSON pointers (RFC 6901), followed while the text is read: nothing of it is kept in memory.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Its tokens, unescaped.
pub(crate) fn parse(text: &str) -> Result<Vec<String>, &'static str> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rest = text.strip_prefix('/').ok_or("does not begin with `/`")?;
    rest.split('/').map(unescape).collect()
}

fn unescape(token: &str) -> Result<String, &'static str> {
    let mut text = String::with_capacity(token.len());
    let mut letters = token.chars();
    while let Some(letter) = letters.next() {
        text.push(match letter {
            '~' => match letters.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err("has a `~` that is neither `~0` nor `~1`"),
            },
            letter => letter,
        });
    }
    Ok(text)
}

/// What is at a pointer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum At {
    Number(f64),
    /// Another kind of value.
    Other(&'static str),
    Nothing,
}

/// Looks into a text that is one JSON value.
pub(crate) fn look(text: &str, tokens: &[String]) -> Result<At, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = Seek(tokens).deserialize(&mut reader)?;
    reader.end()?;
    Ok(found)
}

struct Seek<'a>(&'a [String]);

impl Seek<'_> {
    /// A value that has no parts.
    fn leaf(&self, what: At) -> At {
        if self.0.is_empty() { what } else { At::Nothing }
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = At;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<At, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = At;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<At, E> {
        Ok(self.leaf(At::Other("true or false")))
    }

    fn visit_unit<E>(self) -> Result<At, E> {
        Ok(self.leaf(At::Other("null")))
    }

    fn visit_str<E>(self, _: &str) -> Result<At, E> {
        Ok(self.leaf(At::Other("a string")))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "JSON's numbers are doubles to most"
    )]
    fn visit_u64<E>(self, number: u64) -> Result<At, E> {
        Ok(self.leaf(At::Number(number as f64)))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "JSON's numbers are doubles to most"
    )]
    fn visit_i64<E>(self, number: i64) -> Result<At, E> {
        Ok(self.leaf(At::Number(number as f64)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<At, E> {
        Ok(self.leaf(At::Number(number)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<At, A::Error> {
        let Some((token, rest)) = self.0.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(At::Other("an object"));
        };
        let mut found = At::Nothing;
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            if key == token.as_str() {
                // of equal keys the last one counts, as to most readers
                found = map.next_value_seed(Seek(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<At, A::Error> {
        let Some((token, rest)) = self.0.split_first() else {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(At::Other("an array"));
        };
        // RFC 6901, 4: digits without leading zeros
        let sound = token == "0" || !token.starts_with(['0', '+']);
        let wanted = token.parse::<usize>().ok().filter(|_| sound);
        let (mut found, mut index) = (At::Nothing, 0_usize);
        loop {
            if Some(index) == wanted {
                match list.next_element_seed(Seek(rest))? {
                    Some(at) => found = at,
                    None => return Ok(found),
                }
            } else if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            index += 1;
        }
    }
}
