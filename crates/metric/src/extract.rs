//! From a text to a number.

use regex::Regex;

use crate::declare::{Extractor, Way, short};
use crate::pointer::{self, At};
use crate::tail::{LOOKED_AT, Tail};

/// Says whether to go on. One search takes time in proportion to the text; how many there are depends
/// on both, and together they may take its square.
pub type Patience<'a> = &'a dyn Fn() -> bool;

/// Why there is no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}{}", if *.cut { CUT } else { "" })]
pub struct Missing {
    why: String,
    /// Not all of the text was looked at.
    cut: bool,
}

const CUT: &str = " (it is longer than 16 MiB: only its last 16 MiB were looked at)";
const _: () = assert!(LOOKED_AT == 16 << 20, "as `CUT` says");

impl Extractor {
    /// The number in a text.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn extract(&self, tail: &mut Tail, patience: Patience<'_>) -> Result<f64, Missing> {
        let (text, cut) = tail.text();
        if cut && text.is_empty() {
            let why = "its last line has no beginning".into();
            return Err(Missing { why, cut });
        }
        let found = match &self.way {
            Way::Regex { regex, group } => matched(&text, regex, *group, patience),
            Way::Pointer(tokens) => pointed(&text, tokens, patience),
        };
        found.map_err(|why| Missing { why, cut })
    }
}

fn matched(text: &str, regex: &Regex, group: usize, patience: Patience<'_>) -> Result<f64, String> {
    let mut last = None;
    for found in regex.captures_iter(text) {
        if !patience() {
            return Err(slow());
        }
        last = Some(found);
    }
    let pattern = regex.as_str();
    let Some(last) = last else {
        return Err(format!("nothing matches {pattern:?}"));
    };
    let Some(value) = last.get(group) else {
        return Err(format!(
            "the last match of {pattern:?} is {:?}, without the group of the number",
            short(last.get(0).map_or("", |all| all.as_str()))
        ));
    };
    let value = value.as_str();
    let number = value.trim().parse::<f64>().ok();
    number.filter(|number| number.is_finite()).ok_or_else(|| {
        format!(
            "{:?}, in the last match of {pattern:?}, is no number",
            short(value)
        )
    })
}

fn pointed(text: &str, tokens: &[String], patience: Patience<'_>) -> Result<f64, String> {
    let whole = match pointer::look(text, tokens) {
        Ok(at) => return number(at, tokens, "the JSON"),
        Err(error) => error,
    };
    for line in text.lines().rev().filter(|line| !line.trim().is_empty()) {
        if !patience() {
            return Err(slow());
        }
        if let Ok(at) = pointer::look(line, tokens) {
            return number(at, tokens, "the last line that is JSON");
        }
    }
    if text.trim().is_empty() {
        return Err("nothing was written there".into());
    }
    Err(format!("it is not JSON ({whole}), nor is any line of it"))
}

fn number(at: At, tokens: &[String], within: &str) -> Result<f64, String> {
    let escaped = |token: &String| token.replace('~', "~0").replace('/', "~1");
    let pointer: String = tokens
        .iter()
        .map(|token| format!("/{}", escaped(token)))
        .collect();
    match at {
        At::Number(number) if number.is_finite() => Ok(number),
        At::Number(_) => Err(format!(
            "what is at {pointer:?} in {within} is no finite number"
        )),
        At::Other(what) => Err(format!("{pointer:?} in {within} is {what}, not a number")),
        At::Nothing => Err(format!("there is nothing at {pointer:?} in {within}")),
    }
}

fn slow() -> String {
    "it took too long to look for it: write a simpler pattern, or less output".into()
}
