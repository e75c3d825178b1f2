//! Query strings, read strictly: unknown, repeated and malformed parameters are refused, each by name.

use api::job::JobState;

use super::fault::Fault;

/// One parameter of a call. The same table is used for reading and for the OpenAPI document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) about: &'static str,
}

/// What its value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Integer {
        least: u64,
        last: u64,
    },
    /// 1 to 256 characters, without control characters.
    Text,
    Choice(&'static [&'static str]),
    /// One or more, with commas.
    States,
    /// A page's `next`: this letter, then 1 to so many hexadecimal digits.
    Token {
        letter: char,
        digits: usize,
    },
    Flag,
}

/// Numbers of jobs and events: what the store can hold.
pub(crate) const MOST: u64 = i64::MAX.unsigned_abs();

const LONGEST: usize = 256;

/// The parameters that a call came with, all of them well formed.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// # Errors
    /// 400, naming the parameter and what it takes.
    pub(crate) fn parse(raw: Option<&str>, known: &[Parameter]) -> Result<Self, Fault> {
        let mut query = Self::default();
        let pairs = raw.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| not_utf8(name))?;
            let Some(parameter) = known.iter().find(|parameter| parameter.name == name) else {
                return Err(unknown(&name, known));
            };
            let at = format!("query parameter {}", parameter.name);
            let value = decode(value).ok_or_else(|| not_utf8(parameter.name))?;
            if query.text(parameter.name).is_some() {
                return Err(Fault::invalid(&at, "given twice", "give it once"));
            }
            if !parameter.shape.fits(&value) {
                let detail = format!("{value:?} is not {}", parameter.shape.words());
                let next = format!("give {}, or leave it out", parameter.shape.words());
                return Err(Fault::invalid(&at, detail, next));
            }
            query.0.push((parameter.name, value));
        }
        Ok(query)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter();
        all.find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Of a parameter of shape [`Shape::Integer`].
    pub(crate) fn integer(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Of a parameter of shape [`Shape::States`].
    pub(crate) fn states(&self, name: &str) -> Vec<JobState> {
        let text = self.text(name).unwrap_or_default();
        text.split(',').filter_map(JobState::parse).collect()
    }

    /// Of a parameter of shape [`Shape::Flag`]; `false` if it is not given.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// Of a parameter of shape [`Shape::Token`]: without its letter.
    pub(crate) fn token(&self, name: &str) -> Option<&str> {
        self.text(name).and_then(|text| text.get(1..))
    }
}

impl Shape {
    fn fits(self, value: &str) -> bool {
        match self {
            Self::Integer { least, last } => {
                number(value).is_some_and(|n| (least..=last).contains(&n))
            }
            Self::Text => {
                let count = value.chars().count();
                (1..=LONGEST).contains(&count) && !value.chars().any(|c| c < ' ' || c == '\u{7f}')
            }
            Self::Choice(choices) => choices.contains(&value),
            Self::States => value
                .split(',')
                .all(|state| JobState::parse(state).is_some()),
            Self::Token { letter, digits } => {
                let text = value.strip_prefix(letter).unwrap_or_default();
                let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
                (1..=digits).contains(&text.len()) && text.bytes().all(digit)
            }
            Self::Flag => matches!(value, "true" | "false"),
        }
    }

    fn words(self) -> String {
        match self {
            Self::Integer { least, last } => format!("a whole number from {least} to {last}"),
            Self::Text => format!("1 to {LONGEST} characters without control characters"),
            Self::Choice(choices) => format!("one of {}", choices.join(", ")),
            Self::States => {
                let states = JobState::ALL.map(JobState::as_str);
                format!("one or more of {}, with commas", states.join(", "))
            }
            Self::Token { .. } => "the `next` of a page".to_owned(),
            Self::Flag => "true or false".to_owned(),
        }
    }
}

/// Digits only: no sign, no space, nothing that only some parsers take.
pub(crate) fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn unknown(name: &str, known: &[Parameter]) -> Fault {
    let names: Vec<_> = known.iter().map(|parameter| parameter.name).collect();
    let next = match names.as_slice() {
        [] => "leave it out: this call takes no parameters".to_owned(),
        names => format!("this call takes {}", names.join(", ")),
    };
    let at = format!("query parameter {}", super::audit::escape(name));
    Fault::invalid(&at, "there is no such parameter", next)
}

fn not_utf8(name: &str) -> Fault {
    let at = format!("query parameter {}", super::audit::escape(name));
    Fault::invalid(
        &at,
        "its percent-encoding is broken, or not UTF-8",
        "encode it as UTF-8, then with %XX",
    )
}

/// `application/x-www-form-urlencoded`; `None`: broken.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
