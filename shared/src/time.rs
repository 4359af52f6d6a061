//! Clocks as values. Cores never read one: `Now` comes with every event.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};

/// Nanoseconds of the boot clock (`CLOCK_BOOTTIME`: suspend counts). Comparable within one boot
/// only.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Mono(pub u64);

/// Wall clock, milliseconds since 1970-01-01 UTC. Never used for order or for leases.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Unix(pub i64);

/// A length of time in milliseconds.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Span(pub u64);

/// Both clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Now {
    /// Boot clock.
    pub mono: Mono,
    /// Wall clock.
    pub wall: Unix,
}

/// When something happened at a node: order by `(boot, mono)`, show `wall`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Number of the boot within the incarnation, from 1.
    pub boot: u32,
    /// Boot clock, milliseconds.
    pub mono_ms: u64,
    /// Wall clock as the node believed it then.
    pub wall: Unix,
}

impl Span {
    /// `n` seconds.
    #[must_use]
    pub const fn secs(n: u64) -> Self {
        Self(n * 1000)
    }
    /// Whole milliseconds of `nanos`.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos / 1_000_000)
    }
    /// In nanoseconds, saturating.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0.saturating_mul(1_000_000)
    }
}
impl fmt::Display for Span {
    /// The shortest text of the duration grammar of specifications: `1h30m`, `2s500ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, ms) in [
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1000),
            ("ms", 1),
        ] {
            if rest >= ms {
                write!(f, "{}{unit}", rest / ms)?;
                rest %= ms;
            }
        }
        Ok(())
    }
}
impl fmt::Display for Unix {
    /// The instant in UTC, to the second: `2026-11-23 18:02:26Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(1000);
        let (year, month, day) = civil(seconds.div_euclid(86_400));
        let rest = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// The Gregorian date of a day counted from 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468; // days since 0000-03-01, so that leap days end a year
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

impl Add<Span> for Mono {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.nanos()))
    }
}
impl Sub for Mono {
    type Output = Span;
    /// Zero when `earlier` is later.
    fn sub(self, earlier: Self) -> Span {
        Span::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_in_the_grammar_of_specifications() {
        assert_eq!(Span(0).to_string(), "0s");
        assert_eq!(Span::secs(5400).to_string(), "1h30m");
        assert_eq!(Span(2500).to_string(), "2s500ms");
        assert_eq!(Span::secs(90_061).to_string(), "1d1h1m1s");
    }

    #[test]
    fn instants_are_right_around_leap_days() {
        assert_eq!(Unix(0).to_string(), "1970-01-01 00:00:00Z");
        assert_eq!(Unix(951_782_400_000).to_string(), "2000-02-29 00:00:00Z");
        assert_eq!(Unix(1_795_456_946_000).to_string(), "2026-11-23 18:02:26Z");
        assert_eq!(Unix(-1000).to_string(), "1969-12-31 23:59:59Z");
        assert!(!Unix(i64::MIN).to_string().is_empty());
    }
}
