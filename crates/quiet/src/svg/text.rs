//! Words and lengths of time in a picture.

use std::fmt::{self, Write};

/// Text that stands for itself in XML. Characters that XML 1.0 has no way to write (section 2.2)
/// are replaced.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                    f.write_char('\u{fffd}')?;
                }
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A length of time, ns, in the unit that suits it.
pub(crate) struct Span(pub(crate) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return write!(f, "{} ns", self.0),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let tenths = self.0 / (unit / 10) % 10;
        write!(f, "{}.{tenths} {name}", self.0 / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_takes_for_its_own_is_escaped() {
        assert_eq!(
            Escaped("<a b=\"c\">&'\u{1b}\u{ffff}ü").to_string(),
            "&lt;a b=&quot;c&quot;&gt;&amp;&#39;\u{fffd}\u{fffd}ü"
        );
    }

    #[test]
    fn lengths_have_their_units() {
        let shown =
            [999, 1_588, 999_999, 45_250_000, 12_960_000_000].map(|ns| Span(ns).to_string());
        assert_eq!(shown, ["999 ns", "1.5 µs", "999.9 µs", "45.2 ms", "12.9 s"]);
    }
}
