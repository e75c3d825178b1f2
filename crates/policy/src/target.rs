//! Reads a request target (`/v1.45/containers/json?all=1`) strictly, and writes it anew.
//!
//! Whatever two parsers could read in two ways is refused: encoded slashes and dots, empty and
//! dot segments, a second level of escaping is never undone. What is forwarded is rebuilt from
//! the parts that were checked.

use crate::denial::{Denial, shown};

/// Longest target accepted, before any parsing.
pub(crate) const MAX_TARGET_BYTES: usize = 8 << 10;

/// Oldest and newest minor of API version 1 that a path may name.
const API_MINORS: std::ops::RangeInclusive<u32> = 24..=99;

#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) version: Option<u32>,
    /// Decoded and checked; never empty, `.` or `..`.
    pub(crate) segments: Vec<String>,
    pub(crate) query: Vec<(String, Vec<u8>)>,
}

impl Target {
    pub(crate) fn parse(target: &str) -> Result<Self, Denial> {
        if target.len() > MAX_TARGET_BYTES {
            return Err(Denial::too_large("the request target", MAX_TARGET_BYTES));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Some(path) = path.strip_prefix('/') else {
            return Err(bad(target, "it must begin with `/`"));
        };
        if path.is_empty() {
            return Ok(Self {
                version: None,
                segments: Vec::new(),
                query: parse_query(query)?,
            });
        }
        let mut segments = Vec::new();
        for raw in path.split('/') {
            segments.push(segment(raw).map_err(|why| bad(target, why))?);
        }
        let version = version(&segments[0])?;
        if version.is_some() {
            segments.remove(0);
        }
        Ok(Self {
            version,
            segments,
            query: parse_query(query)?,
        })
    }

    /// The first value of `key`, "" without one. A value that is not UTF-8 is refused: a rule
    /// that cannot read it cannot allow it.
    pub(crate) fn param(&self, key: &str) -> Result<&str, Denial> {
        match self.query.iter().find(|(name, _)| name == key) {
            None => Ok(""),
            Some((_, value)) => std::str::from_utf8(value)
                .map_err(|_| Denial::malformed(format!("parameter {key} is not UTF-8 text"))),
        }
    }

    /// The path without the version, for messages.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.segments.join("/"))
    }

    pub(crate) fn rebuild(&self) -> String {
        let mut text = String::new();
        if let Some(minor) = self.version {
            text.push_str(&format!("/v1.{minor}"));
        }
        text.push_str(&self.path());
        for (index, (key, value)) in self.query.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.push_str(key);
            text.push('=');
            encode(value, &mut text);
        }
        text
    }
}

fn bad(target: &str, why: &str) -> Denial {
    Denial::malformed(format!(
        "request target {} is refused: {why}",
        shown(target)
    ))
}

/// One path segment: the characters of ids, names and image references, escaped at most once.
fn segment(raw: &str) -> Result<String, &'static str> {
    if raw.is_empty() {
        return Err("it has an empty path segment");
    }
    let mut text = String::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        let escaped = byte == b'%';
        let byte = if escaped {
            let (high, low) = (bytes.next(), bytes.next());
            hex(high, low).ok_or("it has a broken percent escape")?
        } else {
            byte
        };
        if escaped && matches!(byte, b'/' | b'.' | b'\\' | b'%') {
            return Err("it hides a slash, dot or percent sign behind an escape");
        }
        if !(byte.is_ascii_alphanumeric() || b"_.-:@".contains(&byte)) {
            return Err("only letters, digits and `_.-:@` may stand in a path segment");
        }
        text.push(char::from(byte));
    }
    if text == "." || text == ".." {
        return Err("it has a dot segment");
    }
    Ok(text)
}

/// `v1.45` → 45. A first segment that only looks like a version is refused, not guessed at.
fn version(first: &str) -> Result<Option<u32>, Denial> {
    let Some(rest) = first.strip_prefix('v') else {
        return Ok(None);
    };
    if !rest.starts_with(|character: char| character.is_ascii_digit() || character == '.') {
        return Ok(None);
    }
    let minor = rest
        .strip_prefix("1.")
        .filter(|minor| minor.len() == 2 && minor.bytes().all(|byte| byte.is_ascii_digit()));
    match minor
        .and_then(|minor| minor.parse::<u32>().ok())
        .filter(|m| API_MINORS.contains(m))
    {
        Some(minor) => Ok(Some(minor)),
        None => Err(Denial::malformed(format!(
            "API version {} is not supported: use /v1.{} to /v1.{}, as `docker version` negotiates",
            shown(first),
            API_MINORS.start(),
            API_MINORS.end()
        ))),
    }
}

pub(crate) fn parse_query(query: &str) -> Result<Vec<(String, Vec<u8>)>, Denial> {
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let refuse =
            |why| Denial::malformed(format!("query item {} is refused: {why}", shown(pair)));
        let key = form_decode(key).ok_or_else(|| refuse("broken percent escape"))?;
        let value = form_decode(value).ok_or_else(|| refuse("broken percent escape"))?;
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let key = match String::from_utf8(key) {
            Ok(key) if !key.is_empty() && key.bytes().all(|byte| plain(&byte)) => key,
            _ => {
                return Err(refuse(
                    "a parameter's name is letters, digits, `-`, `_` and `.`",
                ));
            }
        };
        if value.contains(&0) {
            return Err(refuse("it has a NUL byte"));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// `application/x-www-form-urlencoded`, as Go's `url.ParseQuery` reads it.
fn form_decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next(), bytes.next())?,
            b'+' => b' ',
            // A raw control or non-ASCII byte has no place in a request line.
            0x21..=0x7e => byte,
            _ => return None,
        });
    }
    Some(decoded)
}

fn encode(value: &[u8], text: &mut String) {
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            text.push('%');
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 0xf)]));
        }
    }
}

fn hex(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    Some(digit(high?)? << 4 | digit(low?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_rebuilds() {
        for (target, rebuilt) in [
            ("/_ping", "/_ping"),
            ("/version", "/version"),
            ("/volumes", "/volumes"),
            (
                "/v1.45/containers/json?all=1",
                "/v1.45/containers/json?all=1",
            ),
            ("/images/a/b%40sha256:12/json", "/images/a/b@sha256:12/json"),
            ("/x?a=b+c%20d&e&f=", "/x?a=b%20c%20d&e=&f="),
            ("/x?a=1;b=2", "/x?a=1%3Bb%3D2"),
            ("/x?p=%2Fe%C3%A9%FF", "/x?p=%2Fe%C3%A9%FF"),
            ("/x?a=%2541", "/x?a=%2541"),
        ] {
            let parsed = Target::parse(target).unwrap();
            assert_eq!(parsed.rebuild(), rebuilt);
            assert_eq!(Target::parse(rebuilt).unwrap().rebuild(), rebuilt);
        }
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways() {
        for target in [
            "",
            "containers/json",
            "http://x/containers/json",
            "//containers/json",
            "/containers//json",
            "/containers/json/",
            "/containers/../json",
            "/containers/./json",
            "/containers/%2e%2e/json",
            "/containers/a%2Fb/json",
            "/containers/a%5cb/json",
            "/containers/a%252Fb/json",
            "/containers/a%00/json",
            "/containers/a%0a/json",
            "/containers/a%4/json",
            "/containers/a%zz/json",
            "/containers/ä/json",
            "/containers/a b/json",
            "/containers/a#b",
            "/x?a=%00",
            "/x?a=%4",
            "/x?%C3%A9=1",
            "/x?=1",
            "/x?a=\u{e9}",
            "/v1.23/info",
            "/v1.100/info",
            "/v1.045/info",
            "/v2.45/info",
            "/v1/info",
            "/v1.45.1/info",
        ] {
            assert_eq!(Target::parse(target).unwrap_err().status, 400, "{target}");
        }
        let long = format!("/{}", "a".repeat(MAX_TARGET_BYTES));
        assert_eq!(Target::parse(&long).unwrap_err().status, 413);
    }
}
