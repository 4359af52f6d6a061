//! The time at which certificates are judged. It comes from the caller, who knows more than the
//! wall clock.

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use shared::time::{Span, Unix};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// No right clock shows less: this version was written then. The floor for gateways without a clock
/// battery, which wake in 1970 and would find every certificate not valid yet.
pub const WRITTEN: Unix = Unix(1_793_491_200_000);

/// How far a wall clock may be ahead of the last time that was seen. What is further ahead is taken
/// for a wrong clock: a machine that woke in 2090 would find every certificate expired.
const LEAP: Span = Span::secs(366 * 86_400);

/// The time to judge certificates by where nobody trustworthy was heard since the machine booted:
/// the wall clock, not below `floor` (the last time that was seen, or when this version was
/// written) and not more than a year above it. Every certificate of a fleet is valid from a time
/// before any floor, so judging too early never locks anybody out.
#[must_use]
pub fn believable(wall: Unix, floor: Unix) -> Unix {
    let floor = floor.max(WRITTEN);
    Unix(wall.0.clamp(floor.0, floor.0.saturating_add(LEAP.0 as i64)))
}

/// Start of validity of every certificate. Long before [`WRITTEN`], so that a gateway whose clock
/// is behind the authority's can still connect and learn the time.
pub(crate) const NOT_BEFORE_YEAR: i32 = 2026;

/// A source of time for certificate checks, called once per handshake.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Unix + Send + Sync>);

impl Clock {
    /// `read` gives the best knowledge of the present: the wall clock, the last time that was seen.
    /// It is never taken for less than [`WRITTEN`].
    #[must_use]
    pub fn new(read: impl Fn() -> Unix + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The time by which certificates are judged now.
    #[must_use]
    pub fn now(&self) -> Unix {
        (self.0)().max(WRITTEN)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(to_pki(self.now()))
    }
}

pub(crate) fn to_pki(at: Unix) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(at.0.max(0) as u64))
}

pub(crate) fn from_pki(at: UnixTime) -> Unix {
    Unix(
        i64::try_from(at.as_secs())
            .unwrap_or(i64::MAX / 1000)
            .saturating_mul(1000),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_brought_back_to_what_was_seen() {
        let seen = Unix(WRITTEN.0 + 5_000);
        let year = 366 * 86_400_000;
        for (wall, floor, judged) in [
            (Unix(0), seen, seen),
            (Unix(-1), Unix(0), WRITTEN),
            (Unix(i64::MAX), seen, Unix(seen.0 + year)),
            (Unix(seen.0 + 7), seen, Unix(seen.0 + 7)),
            (Unix(WRITTEN.0 + 9), Unix(0), Unix(WRITTEN.0 + 9)),
            (WRITTEN, Unix(i64::MAX), Unix(i64::MAX)),
        ] {
            assert_eq!(believable(wall, floor), judged, "{wall:?} {floor:?}");
        }
    }
}
