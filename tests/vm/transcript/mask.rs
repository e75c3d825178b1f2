//! Takes out of an output what differs from run to run: ids and times.

/// The text with ids as `ID` and times as `TIME`, trailing blanks removed.
pub(crate) fn mask(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() || "_.:-".contains(letter) {
            word.push(letter);
        } else {
            out.push_str(&mask_word(&word));
            word.clear();
            if letter != '\r' {
                out.push(letter);
            }
        }
    }
    out.push_str(&mask_word(&word));
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned()
}

fn mask_word(word: &str) -> String {
    // The end of a sentence is no part of an id.
    let core = word.trim_end_matches(['.', ':']);
    let end = &word[core.len()..];
    mask_core(core) + end
}

fn mask_core(word: &str) -> String {
    if let Some(digest) = word.strip_prefix("sha256:")
        && is_id(digest)
    {
        return "sha256:ID".into();
    }
    if is_id(word) {
        return "ID".into();
    }
    if is_time(word) {
        "TIME".into()
    } else {
        word.into()
    }
}

fn is_id(word: &str) -> bool {
    let hex = word
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    hex && matches!(word.len(), 12 | 64)
}

/// RFC 3339, as docker prints it: `2026-11-21T00:24:39.123Z`.
fn is_time(word: &str) -> bool {
    let bytes = word.as_bytes();
    word.len() >= 20
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && (bytes[4], bytes[7], bytes[10], bytes[13]) == (b'-', b'-', b'T', b':')
}

#[test]
fn ids_and_times_are_masked() {
    let id = "0123456789ab".repeat(6)[..64].to_owned();
    let text =
        format!("{id}. \r\nsha256:{id} 0123456789ab 2026-11-21T00:24:39.123Z 12345678901z\n");
    assert_eq!(mask(&text), "ID.\nsha256:ID ID TIME 12345678901z");
    assert_eq!(
        mask("deadbeef stays, so does 123"),
        "deadbeef stays, so does 123"
    );
}
