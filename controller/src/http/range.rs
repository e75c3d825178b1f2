//! The header Range (RFC 9110 §14): single ranges of bytes.

use std::ops::Range;

/// What of a document to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extent {
    All,
    Part(Range<u64>),
    /// It begins behind the end.
    Outside,
}

/// What `header` asks for of a document of so many bytes. What is malformed, or names several ranges,
/// is as if it were not there: a server may always send all.
pub(crate) fn extent(header: Option<&str>, bytes: u64) -> Extent {
    header
        .and_then(|header| single(header, bytes))
        .unwrap_or(Extent::All)
}

fn single(header: &str, bytes: u64) -> Option<Extent> {
    let (unit, spec) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let count = position(last)?;
        return Some(if count == 0 || bytes == 0 {
            Extent::Outside
        } else {
            Extent::Part(bytes.saturating_sub(count)..bytes)
        });
    }
    let first = position(first)?;
    let end = if last.is_empty() {
        bytes
    } else {
        let last = position(last)?;
        if last < first {
            return None;
        }
        last.saturating_add(1).min(bytes)
    };
    Some(if first >= bytes {
        Extent::Outside
    } else {
        Extent::Part(first..end)
    })
}

/// Digits; more than fit are as many as there can be.
fn position(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_in_the_rfc() {
        let part = Extent::Part;
        for (header, expected) in [
            ("bytes=0-499", part(0..500)),
            ("bytes=500-999", part(500..1000)),
            ("bytes=-500", part(500..1000)),
            ("bytes=-5000", part(0..1000)),
            ("bytes=9-", part(9..1000)),
            ("bytes=0-0", part(0..1)),
            ("bytes=999-", part(999..1000)),
            ("bytes=990-99999999999999999999999", part(990..1000)),
            ("Bytes = 1 - 2 ", part(1..3)),
            ("bytes=1000-", Extent::Outside),
            ("bytes=99999999999999999999999-", Extent::Outside),
            ("bytes=-0", Extent::Outside),
            ("bytes=2-1", Extent::All),
            ("bytes=0-0,5-6", Extent::All),
            ("bytes=-", Extent::All),
            ("bytes=a-b", Extent::All),
            ("bytes=+1-2", Extent::All),
            ("bytes", Extent::All),
            ("lines=0-1", Extent::All),
            ("", Extent::All),
        ] {
            assert_eq!(extent(Some(header), 1000), expected, "{header:?}");
        }
        assert_eq!(extent(None, 1000), Extent::All);
        assert_eq!(extent(Some("bytes=0-"), 0), Extent::Outside);
        assert_eq!(extent(Some("bytes=-1"), 0), Extent::Outside);
    }

    proptest::proptest! {
        #[test]
        fn a_part_is_within_and_not_empty(header in ".{0,24}", digits in "bytes=[0-9]{0,20}-[0-9]{0,20}", bytes: u64) {
            for header in [header, digits] {
                if let Extent::Part(range) = extent(Some(&header), bytes) {
                    proptest::prop_assert!(range.start < range.end && range.end <= bytes);
                }
            }
        }
    }
}
