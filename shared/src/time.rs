//! Clocks as values. Cores never read one: `Now` comes with every event.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};

/// Nanoseconds of the boot clock (`CLOCK_BOOTTIME`: suspend counts). Comparable within one boot only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Mono(pub u64);

/// Wall clock, milliseconds since 1970-01-01 UTC. Never used for order or for leases.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Unix(pub i64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
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
        for (unit, ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if rest >= ms {
                write!(f, "{}{unit}", rest / ms)?;
                rest %= ms;
            }
        }
        Ok(())
    }
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
        Span(self.0.saturating_sub(earlier.0) / 1_000_000)
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
}
