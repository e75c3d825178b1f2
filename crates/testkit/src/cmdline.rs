//! Kernel command lines: an ordered list of words that can be set, appended and removed.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Result};

/// A kernel command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline(Vec<String>);

impl Cmdline {
    /// Splits `text` at white space, except inside double quotes (as the kernel does).
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut quoted = false;
        for letter in text.chars() {
            if letter.is_whitespace() && !quoted {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            quoted ^= letter == '"';
            word.push(letter);
        }
        if !word.is_empty() {
            words.push(word);
        }
        Self(words)
    }

    /// Reads one from a file.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(Error::file("read the kernel command line", path))?;
        Ok(Self::parse(&text))
    }

    fn key(word: &str) -> &str {
        word.split_once('=').map_or(word, |(key, _)| key)
    }

    /// Puts `words` in, each in the place of the words with the same key, else at the end.
    #[must_use]
    pub fn set(mut self, words: &str) -> Self {
        for word in Self::parse(words).0 {
            let key = Self::key(&word).to_owned();
            match self.0.iter().position(|old| Self::key(old) == key) {
                Some(place) => {
                    self.0[place] = word;
                    let mut seen = false;
                    self.0
                        .retain(|old| Self::key(old) != key || !std::mem::replace(&mut seen, true));
                }
                None => self.0.push(word),
            }
        }
        self
    }

    /// Adds `words` at the end, whatever is there already (`console=` may stand twice).
    #[must_use]
    pub fn append(mut self, words: &str) -> Self {
        self.0.extend(Self::parse(words).0);
        self
    }

    /// Takes out every word with this key.
    #[must_use]
    pub fn remove(mut self, key: &str) -> Self {
        self.0.retain(|word| Self::key(word) != key);
        self
    }

    /// The value of the last word with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let word = self.0.iter().rev().find(|word| Self::key(word) == key)?;
        Some(word.split_once('=').map_or("", |(_, value)| value))
    }
}

impl fmt::Display for Cmdline {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_replaces_in_place_and_drops_doubles() {
        let line = Cmdline::parse("console=ttyS0 nohz_full=1-N panic=5 panic=6 quiet\n");
        let line = line.set("panic=-1 nohz_full=2-N stillmetal.smt=keep");
        assert_eq!(
            line.to_string(),
            "console=ttyS0 nohz_full=2-N panic=-1 quiet stillmetal.smt=keep"
        );
        assert_eq!(line.get("panic"), Some("-1"));
        assert_eq!(line.get("quiet"), Some(""));
        assert_eq!(line.get("absent"), None);
    }

    #[test]
    fn append_and_remove() {
        let line = Cmdline::parse("console=tty0 a")
            .append("console=ttyS0")
            .remove("a");
        assert_eq!(line.to_string(), "console=tty0 console=ttyS0");
        assert_eq!(line.remove("console"), Cmdline::default());
    }

    #[test]
    fn quotes_hold_a_word_together() {
        let line = Cmdline::parse(r#"a="b c" d"#);
        assert_eq!(line.get("a"), Some(r#""b c""#));
        assert_eq!(line.to_string(), r#"a="b c" d"#);
    }
}
