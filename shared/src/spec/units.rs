//! The grammars of single values: durations, sizes, decimals, instants, names, paths. Pure
//! functions of a text; each error says what is wrong and is followed by the mend.

use crate::time::{Span, Unix};

/// What is wrong and the mend.
pub(crate) type Wrong = (String, String);

fn wrong<T>(what: impl Into<String>, mend: impl Into<String>) -> Result<T, Wrong> {
    Err((what.into(), mend.into()))
}

/// Units of durations, largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
/// Longest duration: about a hundred years.
const DURATION_MAX: u64 = 36_500 * 86_400_000;
/// Units of sizes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads a duration: whole numbers, each with its unit, larger units first, each once: `1h30m`,
/// `500ms`.
///
/// # Errors What is wrong, and the mend.
pub fn duration(text: &str) -> Result<Span, (String, String)> {
    const GRAMMAR: &str = "write numbers with the units d, h, m, s, ms, larger first: 1h30m, 90s";
    let (mut rest, mut total, mut next_unit) = (text, 0_u64, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        if digits == 0 {
            return wrong(format!("'{text}' is no duration"), GRAMMAR);
        }
        if unit.is_empty() && tail.is_empty() && total == 0 && next_unit == 0 {
            return wrong(
                format!("the duration '{text}' has no unit"),
                format!("write {text}s, {text}m or {text}h"),
            );
        }
        let found = DURATION_UNITS.iter().position(|(name, _)| *name == unit);
        let Some(position) = found.filter(|p| *p >= next_unit) else {
            return wrong(format!("'{text}' is no duration"), GRAMMAR);
        };
        let part = number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(DURATION_UNITS[position].1));
        let sum = part
            .and_then(|p| p.checked_add(total))
            .filter(|sum| *sum <= DURATION_MAX);
        let Some(sum) = sum else {
            return wrong(
                format!("the duration '{text}' is too long"),
                "at most 36500d",
            );
        };
        (total, next_unit, rest) = (sum, position + 1, tail);
    }
    if text.is_empty() {
        wrong("an empty duration", GRAMMAR)
    } else {
        Ok(Span(total))
    }
}

/// Reads a number of bytes: a decimal number and a unit: `512MiB`, `1.5 GB`.
///
/// # Errors
/// What is wrong, and the mend.
pub fn size(text: &str) -> Result<u64, (String, String)> {
    const GRAMMAR: &str = "write a number and one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB: 512MiB";
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = (text[..split].trim_end(), &text[split..]);
    let Some(milli) = thousandths(number) else {
        return wrong(format!("'{text}' is no size"), GRAMMAR);
    };
    if unit.is_empty() {
        return wrong(
            format!("the size '{text}' has no unit"),
            format!("write {text}MiB, or another of B, kB, MB, GB, KiB, GiB"),
        );
    }
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return wrong(format!("'{unit}' is no unit of size"), GRAMMAR);
    };
    let bytes = u128::from(milli) * u128::from(*factor) / 1000;
    match u64::try_from(bytes) {
        Ok(bytes) if bytes <= 1 << 60 => Ok(bytes),
        _ => wrong(
            format!("the size '{text}' is too large"),
            "at most 1048576TiB",
        ),
    }
}

/// A decimal number with at most three places, in thousandths.
pub(crate) fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(part)
}

/// A share of cores or GPUs in thousandths: `2`, `0.5`, `500m`.
pub(crate) fn share(text: &str) -> Result<u32, Wrong> {
    let milli = match text.strip_suffix('m') {
        Some(number) => number.parse::<u64>().ok(),
        None => thousandths(text),
    };
    match milli.map(u32::try_from) {
        Some(Ok(milli)) if milli <= 1_000_000 => Ok(milli),
        Some(_) => wrong(
            format!("'{text}' is more than any machine has"),
            "at most 1000",
        ),
        None => wrong(
            format!("'{text}' is no number of cores or GPUs"),
            "write 2, 0.5 or 500m",
        ),
    }
}

/// The text of a share or factor in thousandths.
pub(crate) fn thousandths_text(milli: u32) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The text of a size in the largest binary unit that needs no fraction.
pub(crate) fn size_text(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = units
        .iter()
        .find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    whole.map_or_else(
        || format!("{bytes}B"),
        |(name, shift)| format!("{}{name}", bytes >> shift),
    )
}

/// When a deadline is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Deadline {
    /// An instant.
    At(Unix),
    /// So long after the submission.
    After(Span),
}

/// Reads an instant of RFC 3339 with its offset, or a duration.
pub(crate) fn deadline(text: &str) -> Result<Deadline, Wrong> {
    if text.as_bytes().get(4) == Some(&b'-') {
        return match instant(text) {
            Some(at) => Ok(Deadline::At(at)),
            None => wrong(
                format!("'{text}' is no instant"),
                "write it with its offset: 2026-07-01T06:00:00Z or 2026-07-01T08:00:00+02:00",
            ),
        };
    }
    match duration(text)? {
        Span(0) => wrong(
            "a deadline of 0s is over at once",
            "write how long after the submission",
        ),
        span => Ok(Deadline::After(span)),
    }
}

/// RFC 3339: `2026-07-01T06:00:00.5Z`, `2026-07-01 08:00:00+02:00`.
fn instant(text: &str) -> Option<Unix> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| part.parse().ok())
            .flatten()
    };
    let byte = |i: usize| text.as_bytes().get(i).copied();
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if marks.iter().any(|(i, mark)| byte(*i) != Some(*mark))
        || !matches!(byte(10)?, b'T' | b't' | b' ')
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let (millis, zone) = fraction(text.get(19..)?)?;
    let offset = offset_minutes(zone)?;
    let in_month = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    if !in_month || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute - offset;
    Some(Unix((minutes * 60 + second) * 1000 + millis))
}

/// Milliseconds of `.123…` if it stands there, and what follows.
fn fraction(rest: &str) -> Option<(i64, &str)> {
    let Some(after) = rest.strip_prefix('.') else {
        return Some((0, rest));
    };
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let milli: String = after[..digits]
        .chars()
        .chain("000".chars())
        .take(3)
        .collect();
    (digits > 0).then_some((milli.parse().ok()?, &after[digits..]))
}

fn offset_minutes(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes() {
        [b'+', _, _, b':', _, _] => 1,
        [b'-', _, _, b':', _, _] => -1,
        _ => return None,
    };
    let (hours, minutes) = (
        zone.get(1..3)?.parse::<u8>().ok()?,
        zone.get(4..6)?.parse::<u8>().ok()?,
    );
    (hours < 24 && minutes < 60).then_some(sign * (i64::from(hours) * 60 + i64::from(minutes)))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from March, so that
/// the leap day is the last one of its year.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// Checks a name of a workflow, task, or label key.
pub(crate) fn name(text: &str) -> Result<(), Wrong> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if first && text.len() <= 128 && text.bytes().all(fine) {
        return Ok(());
    }
    wrong(
        format!("'{}' is no name", super::mistake::brief(text)),
        "use up to 128 letters, digits, '-', '_' and '.', beginning with a letter or digit",
    )
}

/// A path below an attempt's directory, without `.` parts.
pub(crate) fn inner_path(text: &str) -> Result<String, Wrong> {
    let shown = super::mistake::brief(text);
    if text.starts_with('/') {
        return wrong(
            format!("the path '{shown}' is absolute"),
            "paths are relative to the attempt's own directory",
        );
    }
    if text.split('/').any(|part| part == "..") {
        return wrong(
            format!("the path '{shown}' leaves the attempt's directory"),
            "write it without '..'",
        );
    }
    let parts: Vec<&str> = text
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    let fine = !parts.is_empty() && !text.ends_with('/') && !text.chars().any(char::is_control);
    if !fine || text.len() > 1024 || parts.iter().any(|p| p.len() > 255) {
        return wrong(
            format!("'{shown}' is no path of a file"),
            "write a relative path such as data/raw.txt",
        );
    }
    Ok(parts.join("/"))
}

/// The path in a `file:/…` source.
pub(crate) fn node_file(text: &str) -> Result<String, Wrong> {
    const MEND: &str = "write file:/absolute/path for a file on the node; a file sent along \
                        by `--file NAME=PATH` and an output of a task need no source";
    let shown = super::mistake::brief(text);
    let Some(rest) = text.strip_prefix("file:") else {
        return wrong(format!("'{shown}' is no source"), MEND);
    };
    let path = rest
        .strip_prefix("//")
        .filter(|r| r.starts_with('/'))
        .unwrap_or(rest);
    let parts = || path.split('/').skip(1);
    let fine =
        path.starts_with('/') && path.len() > 1 && path.len() <= 4096 && !path.ends_with('/');
    if !fine
        || parts().any(|p| p.is_empty() || p == ".." || p == ".")
        || path.chars().any(char::is_control)
    {
        return wrong(format!("'{shown}' names no absolute path"), MEND);
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_units_in_order() {
        assert_eq!(duration("1h30m"), Ok(Span::secs(5400)));
        assert_eq!(duration("1m30s"), Ok(Span::secs(90)));
        assert_eq!(duration("1d2h3m4s5ms"), Ok(Span(93_784_005)));
        assert!(duration("90").unwrap_err().0.contains("has no unit"));
        for bad in [
            "",
            "m",
            "30m1h",
            "1h1h",
            "1.5h",
            "1 h",
            "-1s",
            "1w",
            "9999999999999999999s",
            "1h30",
            "٣s",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for ms in [0, 1, 999, 61_001, 86_400_000] {
            assert_eq!(duration(&Span(ms).to_string()), Ok(Span(ms)));
        }
    }

    #[test]
    fn sizes_need_units() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("1.5 GB"), Ok(1_500_000_000));
        assert_eq!(size("0B"), Ok(0));
        assert!(size("512").unwrap_err().0.contains("has no unit"));
        for bad in [
            "",
            "MiB",
            "1mb",
            "1Mb",
            "1e3MB",
            "-1MB",
            "9999999TiB",
            "1..5GB",
            "٣MB",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
        for bytes in [0, 1, 1000, 1024, 1536, 3 << 30] {
            assert_eq!(size(&size_text(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn shares_and_decimals() {
        assert_eq!(share("0.5"), Ok(500));
        assert_eq!(share("500m"), Ok(500));
        assert_eq!(share("2"), Ok(2000));
        assert!(share("2000000").is_err() && share("x").is_err() && share("0.0001").is_err());
        assert_eq!(thousandths_text(2000), "2");
        assert_eq!(thousandths_text(250), "0.25");
    }

    #[test]
    fn instants_follow_rfc_3339() {
        assert_eq!(instant("1970-01-01T00:00:00Z"), Some(Unix(0)));
        assert_eq!(
            instant("2000-02-29T12:00:00.25Z"),
            Some(Unix(951_825_600_250))
        );
        assert_eq!(
            instant("2026-07-01T08:00:00+02:00"),
            instant("2026-07-01T06:00:00Z")
        );
        assert_eq!(
            instant("2026-07-01T06:00:00Z"),
            Some(Unix(1_782_885_600_000))
        );
        assert_eq!(instant("1969-12-31T23:59:59Z"), Some(Unix(-1000)));
        for bad in [
            "2026-02-29T00:00:00Z",
            "2026-07-01T06:00:00",
            "2026-07-01",
            "2026-13-01T06:00:00Z",
            "2026-07-01T24:00:00Z",
        ] {
            assert_eq!(instant(bad), None, "{bad}");
        }
        assert_eq!(deadline("2h"), Ok(Deadline::After(Span::secs(7200))));
        assert!(deadline("0s").is_err() && deadline("2026-7-1").is_err());
    }

    #[test]
    fn paths_stay_inside() {
        assert_eq!(inner_path("a/./b.txt"), Ok("a/b.txt".to_owned()));
        for bad in ["", ".", "/etc/passwd", "../x", "a/../../x", "a/", "a\nb"] {
            assert!(inner_path(bad).is_err(), "{bad}");
        }
        assert_eq!(node_file("file:/data/x.csv"), Ok("/data/x.csv".to_owned()));
        assert_eq!(
            node_file("file:///data/x.csv"),
            Ok("/data/x.csv".to_owned())
        );
        for bad in [
            "/data/x",
            "file:data",
            "file:/a/../b",
            "http://x",
            "file://host/x",
            "file:/",
            "file:/a/",
        ] {
            assert!(node_file(bad).is_err(), "{bad}");
        }
    }
}
