//! What was written by others, made fit for a terminal.

/// The text without anything that could steer a terminal: control characters become `?`, except line
/// feeds and tabs.
pub(crate) fn clean(text: &str) -> String {
    let harmless = |letter: char| !letter.is_control() || matches!(letter, '\n' | '\t');
    text.chars()
        .map(|letter| if harmless(letter) { letter } else { '?' })
        .collect()
}

/// The same on one line.
pub(crate) fn clean_line(text: &str) -> String {
    clean(text).replace(['\n', '\t'], " ")
}

/// `1 job`, `2 jobs`.
pub(crate) fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_steered() {
        assert_eq!(clean("a\x1b[2Jb\u{9b}c\r\nä\t"), "a?[2Jb?c?\nä\t");
        assert_eq!(clean_line("a\nb\tc"), "a b c");
    }
}
