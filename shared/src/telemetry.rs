//! Telemetry: what a gateway measured of itself, in pieces that cover a range of its time.
//!
//! A node's time is a line of moments `(boot, milliseconds of the boot clock)`. Pieces cut that
//! line without overlap: each covers a half-open range and holds either points or the reason why
//! there are none. So ranges alone say what was received, what is missing, and what will never
//! come.

mod block;
mod metric;
mod ranges;

pub mod frame;
pub mod query;

pub use block::{Block, Cell, Point, Sample};
pub use metric::{Key, Metric};
pub use ranges::RangeSet;

use crate::ids::Incarnation;
use crate::state::states;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Points of one block, at most.
pub const POINTS_PER_BLOCK: usize = 1024;
/// Series of one block, at most; what a gateway measures beyond is left out.
pub const KEYS_PER_BLOCK: usize = 256;
/// Bytes of one encoded piece, at most.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Ranges in one acknowledgement, at most.
pub const RANGES_PER_ACK: usize = 1024;
/// Bytes on their way to the coordinator and not acknowledged, at most.
pub const WINDOW_BYTES: usize = 64 * 1024;

/// A moment of a node: number of the boot within the incarnation, boot clock in milliseconds.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct At {
    /// Number of the boot, from 1.
    pub boot: u32,
    /// Boot clock, milliseconds.
    pub ms: u64,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{:03}", self.boot, self.ms / 1000, self.ms % 1000)
    }
}

/// All moments behind `after` up to and with `upto`; may span boots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Range {
    /// The last moment before it.
    pub after: At,
    /// Its last moment.
    pub upto: At,
}

impl Range {
    /// The range behind `after` up to `upto`.
    #[must_use]
    pub fn new(after: At, upto: At) -> Self {
        Self { after, upto }
    }

    /// Whether it holds no moment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.after >= self.upto
    }

    /// Whether a moment is in both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.after < other.upto && other.after < self.upto
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.after, self.upto)
    }
}

states! {
    /// Why there are no points in a range.
    GapReason {
        /// The agent did not run, or what it had measured last was not saved yet.
        NotRunning = "not_running",
        /// The machine was suspended, or too busy to measure.
        Stalled = "stalled",
        /// Measuring was switched off.
        Off = "off",
        /// The disk had no room for it.
        NoRoom = "no_room",
        /// Dropped at the gateway: older than its quota allows even thinned.
        Quota = "quota",
        /// What lay on the disk could not be read any more.
        Damaged = "damaged",
        /// Acknowledged by a coordinator once, and not kept at the gateway since.
        Delivered = "delivered",
        /// Several of these, merged.
        Several = "several",
    }
}

/// A range without points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gap {
    /// Where.
    pub range: Range,
    /// Why.
    pub reason: GapReason,
}

/// What is known about a range.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Piece {
    /// Which one.
    pub range: Range,
    /// What is known.
    pub content: Content,
}

/// Points, or why there are none. Variants are numbered by position and may only be appended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Content {
    /// 0: [`Block::pack`] of the points.
    Block(Vec<u8>),
    /// 1: there are none.
    Gap(GapReason),
}

/// A piece on its way up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Whose time line it cuts.
    pub incarnation: Incarnation,
    /// The piece.
    pub piece: Piece,
}

/// Everything that the coordinator has durably of an incarnation, newest first when there are too
/// many ranges for one message. The first one of a session may say less than those before it did,
/// if the coordinator lost something.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// Whose.
    pub incarnation: Incarnation,
    /// The ranges.
    pub ranges: Vec<Range>,
}

/// Merges neighbouring gaps until there are `most`; the range between two becomes part of the gap,
/// whatever lies there counts all the same.
pub fn merge_gaps(gaps: &mut Vec<Gap>, most: usize) {
    gaps.sort_by_key(|gap| gap.range);
    let mut at = 1;
    while at < gaps.len() {
        let touches = gaps[at].range.after <= gaps[at - 1].range.upto;
        let inside = gaps[at].range.upto <= gaps[at - 1].range.upto;
        if touches && (inside || gaps[at].reason == gaps[at - 1].reason) {
            join(gaps, at - 1);
        } else {
            at += 1;
        }
    }
    while gaps.len() > most.max(1) {
        join(gaps, closest(gaps));
    }
}

/// Position of the gap whose successor is nearest; those of one reason go first.
fn closest(gaps: &[Gap]) -> usize {
    let hole = |pair: &[Gap]| {
        let (before, behind) = (pair[0].range.upto, pair[1].range.after);
        let boots = behind.boot.saturating_sub(before.boot);
        (
            pair[0].reason != pair[1].reason,
            boots,
            behind.ms.saturating_sub(before.ms),
        )
    };
    let holes = gaps.windows(2).enumerate();
    holes
        .min_by_key(|(_, pair)| hole(pair))
        .map_or(0, |(at, _)| at)
}

fn join(gaps: &mut Vec<Gap>, at: usize) {
    let second = gaps.remove(at + 1);
    let first = &mut gaps[at];
    let inside = second.range.upto <= first.range.upto;
    if !inside && first.reason != second.reason {
        first.reason = GapReason::Several;
    }
    first.range.upto = first.range.upto.max(second.range.upto);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(after: u64, upto: u64, reason: GapReason) -> Gap {
        let at = |ms| At { boot: 1, ms };
        Gap {
            range: Range::new(at(after), at(upto)),
            reason,
        }
    }

    #[test]
    fn gaps_are_merged_until_they_are_few_and_none_is_dropped() {
        use GapReason::{NotRunning, Quota, Several};
        let mut gaps = vec![
            gap(50, 60, Quota),
            gap(0, 10, Quota),
            gap(10, 20, Quota),
            gap(25, 30, NotRunning),
        ];
        merge_gaps(&mut gaps, 10);
        let three = [
            gap(0, 20, Quota),
            gap(25, 30, NotRunning),
            gap(50, 60, Quota),
        ];
        assert_eq!(gaps, three);
        merge_gaps(&mut gaps, 2);
        assert_eq!(gaps, [gap(0, 30, Several), gap(50, 60, Quota)]);
        merge_gaps(&mut gaps, 1);
        assert_eq!(gaps, [gap(0, 60, Several)]);
    }
}
