//! Splits a command line into words as the kernel does.

/// One parameter. The key has `-` turned into `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub key: String,
    pub value: Option<String>,
}

/// The words of a command line, in order.
pub fn words(line: &str) -> impl Iterator<Item = Word> + '_ {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = rest
            .find(|c| {
                quoted ^= c == '"';
                is_space(c) && !quoted
            })
            .unwrap_or(rest.len());
        let (raw, tail) = rest.split_at(end);
        rest = tail;
        Some(word(raw))
    })
}

fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\0'
}

fn word(raw: &str) -> Word {
    // `"key=a b"` and `key="a b"` mean the same.
    let raw = unquote(raw);
    match raw.split_once('=') {
        Some((key, value)) => Word {
            key: normal(key),
            value: Some(unquote(value).to_owned()),
        },
        None => Word {
            key: normal(raw),
            value: None,
        },
    }
}

fn unquote(text: &str) -> &str {
    match text.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => text,
    }
}

fn normal(key: &str) -> String {
    key.replace('-', "_")
}
