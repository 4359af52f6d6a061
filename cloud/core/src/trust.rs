//! How far a node is trusted with work: how many of the attempts that ended there lately failed.
//!
//! Counts halve with each [`HALF_LIFE`], so that a node is given another chance; a node where all
//! fails is given less, never nothing.

use serde::{Deserialize, Serialize};
use shared::time::Unix;

/// After so many milliseconds an end counts half.
pub const HALF_LIFE: u64 = 3_600_000;
/// One end, in the counts.
const ONE: u64 = 1000;
/// Ends that succeeded and are counted in advance: one failure says little.
const ADVANCE: u64 = 4 * ONE;
/// By so many thousandths the load counts for more where everything fails.
const WORST: u64 = 4000;

/// Ends of attempts at a node, in thousandths, as of an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Trust {
    /// As of.
    pub at: Unix,
    /// Attempts that succeeded or failed.
    pub ended: u64,
    /// Those that failed.
    pub failed: u64,
}

impl Trust {
    /// The counts as they stand at `now`.
    #[must_use]
    pub fn aged(self, now: Unix) -> Self {
        let passed = u64::try_from(now.0.saturating_sub(self.at.0)).unwrap_or(0);
        let halves = u32::try_from(passed / HALF_LIFE).unwrap_or(u32::MAX);
        let rest = passed % HALF_LIFE;
        // between two halvings along the chord, which whole numbers keep exactly
        let age = |count: u64| {
            let count = count.checked_shr(halves).unwrap_or(0);
            count - count * rest / (2 * HALF_LIFE)
        };
        Self {
            // one that lies ahead was told by a clock that was wrong
            at: now,
            ended: age(self.ended),
            failed: age(self.failed),
        }
    }

    /// So many attempts ended, of which some failed.
    pub fn ends(&mut self, now: Unix, ended: u64, failed: u64) {
        if ended > 0 {
            *self = self.aged(now);
            self.ended = self.ended.saturating_add(ended.saturating_mul(ONE));
            self.failed = self.failed.saturating_add(failed.saturating_mul(ONE));
        }
    }

    /// By how many thousandths the node's load counts for more: `WORST · failed / (ended + 4)`.
    #[must_use]
    pub fn distrust(self, now: Unix) -> u64 {
        let Self { ended, failed, .. } = self.aged(now);
        let worst = u128::from(WORST) * u128::from(failed);
        u64::try_from(worst / u128::from(ended.saturating_add(ADVANCE))).unwrap_or(WORST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_against_a_node_and_are_forgotten_by_halves() {
        let mut trust = Trust::default();
        let at = |hours: i64| Unix(1_700_000_000_000 + hours * 3_600_000);
        assert_eq!(trust.distrust(at(0)), 0);
        for _ in 0..4 {
            trust.ends(at(0), 1, 1);
        }
        assert_eq!(trust.distrust(at(0)), 2000, "4 of 4, and 4 in advance");
        assert_eq!(trust.aged(at(1)).failed, 2000);
        assert_eq!(trust.aged(at(2)).failed, 1000);
        assert_eq!(trust.distrust(at(2)), 800, "1 of 1, and 4 in advance");
        assert_eq!(trust.distrust(at(1000)), 0);
        assert!(
            trust.aged(at(-5)).failed == 4000,
            "a clock that went back ages nothing"
        );
        for _ in 0..100_000 {
            trust.ends(at(0), 1, 1);
        }
        assert!(trust.distrust(at(0)) < WORST);
        trust.ends(at(10_000), 1, 1);
        trust.ends(at(1), 1, 0);
        assert_eq!(trust.aged(at(2)).at, at(2), "a clock that was ahead once");
        assert!(trust.distrust(at(20)) == 0);
        let mut good = Trust::default();
        good.ends(at(0), 1, 0);
        assert_eq!(good.distrust(at(0)), 0);
    }
}
