//! Durations, sizes, labels and moments: as people write them and as they are shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A text that is none of what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadQuantity {
    #[error("{0:?} is no duration: a number and a unit, such as 90s, 5m, 2h, 1h30m or 1d")]
    Duration(String),
    #[error("{0:?} is too long: at most {max}", max = seconds(u64::from(u32::MAX)))]
    TooLong(String),
    #[error("{0:?} is less than a second")]
    TooShort(String),
    #[error("{0:?} is no size: a number of bytes, or one with a unit, such as 512M or 2G")]
    Size(String),
    #[error("{0:?} is not NAME=VALUE")]
    Pair(String),
}

/// Seconds of a text such as `1h30m`; each unit once, from the longest to the shortest.
pub(crate) fn parse_seconds(text: &str) -> Result<u32, BadQuantity> {
    let bad = || BadQuantity::Duration(text.to_owned());
    let mut rest = text;
    let mut total = 0_u64;
    let mut units: &[(char, u64)] = &[('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit());
        let (number, unit) = rest.split_at(digits.ok_or_else(bad)?);
        let mut letters = unit.chars();
        let unit = letters.next().ok_or_else(bad)?;
        let at = units.iter().position(|(name, _)| *name == unit);
        let at = at.ok_or_else(bad)?;
        if number.is_empty() {
            return Err(bad());
        }
        let too_long = || BadQuantity::TooLong(text.to_owned());
        let number: u64 = number.parse().map_err(|_| too_long())?;
        let part = number.checked_mul(units[at].1).ok_or_else(too_long)?;
        total = total.checked_add(part).ok_or_else(too_long)?;
        units = &units[at + 1..];
        rest = letters.as_str();
    }
    u32::try_from(total).map_err(|_| BadQuantity::TooLong(text.to_owned()))
}

/// A limit: at least a second.
pub(crate) fn parse_limit(text: &str) -> Result<u32, BadQuantity> {
    match parse_seconds(text)? {
        0 => Err(BadQuantity::TooShort(text.to_owned())),
        seconds => Ok(seconds),
    }
}

/// Seconds, with or without a unit.
pub(crate) fn parse_plain_seconds(text: &str) -> Result<u32, BadQuantity> {
    text.parse().or_else(|_| parse_seconds(text))
}

/// Bytes of a text such as `512M`; units are powers of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, BadQuantity> {
    let bad = || BadQuantity::Size(text.to_owned());
    let digits = text.find(|letter: char| !letter.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit = unit
        .strip_suffix("iB")
        .or(unit.strip_suffix('B'))
        .unwrap_or(unit);
    let shift = match unit {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// Name and value of `NAME=VALUE`; the value may be empty.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), BadQuantity> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(BadQuantity::Pair(text.to_owned())),
    }
}

/// `2 h 5 min`: the two largest units.
pub(crate) fn seconds(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (name, length) in units {
        let number = left / length;
        left %= length;
        if number > 0 {
            parts.push(format!("{number} {name}"));
        } else if !parts.is_empty() {
            // not `1 d 3 s`
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() {
        return "0 s".into();
    }
    parts.join(" ")
}

/// `512 MiB`; exact when it is, else with one digit.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while unit + 1 < units.len() && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let size = 1_u64 << (10 * unit);
    let (whole, rest) = (bytes / size, bytes % size);
    if rest == 0 {
        return format!("{whole} {}", units[unit]);
    }
    format!("{whole}.{} {}", rest * 10 / size, units[unit])
}

/// Nanoseconds with the unit that leaves one to three digits before the point.
pub(crate) fn nanoseconds(ns: f64) -> String {
    let (unit, size) = match ns.abs() {
        size if size < 1e3 => ("ns", 1.0),
        size if size < 1e6 => ("µs", 1e3),
        size if size < 1e9 => ("ms", 1e6),
        _ => ("s", 1e9),
    };
    format!("{:.3} {unit}", ns / size)
}

/// A number of any size with six digits that count; whole ones as they are.
pub(crate) fn figure(number: f64) -> String {
    let size = number.abs();
    if number == number.trunc() && size < 1e15 {
        return format!("{number}");
    }
    // rounded there, and read again, so that the shortest text of it is left
    let rounded = format!("{number:.5e}").parse().unwrap_or(number);
    if (1e-4..1e15).contains(&size) {
        format!("{rounded}")
    } else {
        format!("{rounded:e}")
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    millis(now.unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `3 min 5 s ago`. Clocks differ: what seems to come is now.
pub(crate) fn ago(then_ms: u64, now_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) / 1000 {
        0 => "now".into(),
        past => format!("{} ago", seconds(past)),
    }
}

/// `in 4 min`.
pub(crate) fn ahead(then_ms: u64, now_ms: u64) -> String {
    match then_ms.saturating_sub(now_ms).div_ceil(1000) {
        0 => "now".into(),
        future => format!("in {}", seconds(future)),
    }
}

/// A moment in UTC, to the second: `2026-11-21T23:05:00Z`.
pub(crate) fn moment(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).ok();
    let moment = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    moment.map_or_else(|| format!("{ms} ms"), |moment| moment.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 300),
            ("2h", 7200),
            ("1h30m", 5400),
            ("1d2h3m4s", 93_784),
            ("0s", 0),
        ] {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
        for text in [
            "", "5", "m", "5x", "5 m", "-5m", "1.5h", "5m1h", "5m5m", "h5", "5m3",
        ] {
            let bad = Err(BadQuantity::Duration(text.into()));
            assert_eq!(parse_seconds(text), bad, "{text}");
        }
        for text in ["4294967296s", "99999999999999999999999d", "1d4294967295s"] {
            let bad = Err(BadQuantity::TooLong(text.into()));
            assert_eq!(parse_seconds(text), bad, "{text}");
        }
        assert_eq!(parse_limit("0m"), Err(BadQuantity::TooShort("0m".into())));
        assert_eq!(parse_plain_seconds("5"), Ok(5));
        assert_eq!(parse_plain_seconds("1m"), Ok(60));
        let error = parse_seconds("soon").unwrap_err().to_string();
        assert!(error.starts_with("\"soon\" is no duration"), "{error}");
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("512M", 512 << 20),
            ("2G", 2 << 30),
            ("2GiB", 2 << 30),
            ("3KB", 3 << 10),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "1.5G", "-1", "12X", "1 G", "18446744073709551615K"] {
            let bad = Err(BadQuantity::Size(text.into()));
            assert_eq!(parse_bytes(text), bad, "{text}");
        }
    }

    #[test]
    fn pairs_are_read() {
        assert_eq!(parse_pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(parse_pair("a="), Ok(("a".into(), String::new())));
        assert!(parse_pair("=b").is_err());
        assert!(parse_pair("a").is_err());
    }

    #[test]
    fn quantities_are_shown() {
        for (n, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_725, "1 h 2 min"),
            (3_605, "1 h"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(seconds(n), text);
        }
        assert_eq!(bytes(512 << 20), "512 MiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(nanoseconds(12_345_678.0), "12.346 ms");
        assert_eq!(nanoseconds(999.0), "999.000 ns");
        for (number, text) in [
            (0.0, "0"),
            (-3.0, "-3"),
            (123_456_789.0, "123456789"),
            (123_456.789, "123457"),
            (1234.5, "1234.5"),
            (0.1 + 0.2, "0.3"),
            (0.012_345_678, "0.0123457"),
            (1.5e-9, "1.5e-9"),
            (2.5e300, "2.5e300"),
        ] {
            assert_eq!(figure(number), text);
        }
        assert_eq!(ago(1_000, 66_500), "1 min 5 s ago");
        assert_eq!(ago(2_000, 1_000), "now");
        assert_eq!(ahead(61_500, 0), "in 1 min 2 s");
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
    }

    proptest! {
        #[test]
        fn any_whole_number_of_seconds_can_be_written(seconds: u32) {
            let (d, h) = (seconds / 86_400, seconds / 3_600 % 24);
            let (m, s) = (seconds / 60 % 60, seconds % 60);
            prop_assert_eq!(parse_seconds(&format!("{d}d{h}h{m}m{s}s")), Ok(seconds));
            prop_assert_eq!(parse_seconds(&format!("{seconds}s")), Ok(seconds));
        }

        #[test]
        fn no_text_breaks_them(text in "\\PC{0,12}") {
            drop((parse_seconds(&text), parse_bytes(&text), parse_pair(&text)));
        }
    }
}
