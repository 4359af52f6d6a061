//! Sets of moments, kept as few disjoint ranges.

use super::{At, Range};

/// A set of moments: disjoint ranges in order; ranges that touch are one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// The moments of any `ranges`; empty ones count for nothing. Takes no longer for ranges that
    /// come in an odd order: they are a peer's.
    pub fn of(ranges: impl IntoIterator<Item = Range>) -> Self {
        let mut all: Vec<Range> = ranges.into_iter().filter(|r| !r.is_empty()).collect();
        all.sort_unstable();
        all.dedup_by(|next, before| {
            let touches = next.after <= before.upto;
            if touches {
                before.upto = before.upto.max(next.upto);
            }
            touches
        });
        Self(all)
    }

    /// Adds all moments of `range`.
    pub fn insert(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|known| known.upto < range.after);
        let end = self.0.partition_point(|known| known.after <= range.upto);
        let mut all = range;
        if first < end {
            all.after = all.after.min(self.0[first].after);
            all.upto = all.upto.max(self.0[end - 1].upto);
        }
        self.0.splice(first..end, [all]);
    }

    /// Whether every moment of `range` is in it.
    #[must_use]
    pub fn covers(&self, range: &Range) -> bool {
        range.is_empty() || self.around(range).is_some()
    }

    /// The one of its ranges in which all of `range` lies.
    #[must_use]
    pub fn around(&self, range: &Range) -> Option<Range> {
        let at = self.0.partition_point(|known| known.upto < range.upto);
        let next = self.0.get(at).copied();
        next.filter(|known| known.after <= range.after)
    }

    /// Whether `at` is in it.
    #[must_use]
    pub fn contains(&self, at: At) -> bool {
        let next = self.0.partition_point(|known| known.upto < at);
        self.0.get(next).is_some_and(|known| known.after < at)
    }

    /// The parts of `range` that are not in it, in order.
    #[must_use]
    pub fn missing(&self, range: Range) -> Vec<Range> {
        let mut parts = Vec::new();
        let mut from = range.after;
        let first = self.0.partition_point(|known| known.upto <= range.after);
        for known in &self.0[first..] {
            if known.after >= range.upto {
                break;
            }
            parts.push(Range::new(from, known.after));
            from = known.upto;
        }
        parts.push(Range::new(from, range.upto));
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// Its ranges, in order.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range((boot, after): (u32, u64), upto: (u32, u64)) -> Range {
        let at = |(boot, ms)| At { boot, ms };
        Range::new(at((boot, after)), at(upto))
    }

    #[test]
    fn ranges_that_touch_are_one_also_across_boots() {
        let mut set = RangeSet::of([range((1, 0), (1, 9)), range((2, 3), (2, 8))]);
        assert_eq!(set.ranges().len(), 2);
        assert_eq!(
            set.missing(range((1, 0), (3, 0))),
            [range((1, 9), (2, 3)), range((2, 8), (3, 0))]
        );
        set.insert(range((1, 9), (2, 3)));
        assert_eq!(set.ranges(), [range((1, 0), (2, 8))]);
        assert!(set.covers(&range((1, 5), (2, 8))) && !set.covers(&range((1, 5), (2, 9))));
    }

    /// Each range went in before all others, which were moved for it: a receipt of one frame kept
    /// an agent busy for an hour.
    #[test]
    fn many_ranges_in_the_wrong_order_are_a_set_at_once() {
        let many = 400_000;
        let of = |n: u64| range((1, 3 * n), (1, 3 * n + 1));
        let set = RangeSet::of((0..many).rev().map(of));
        assert!(set.ranges().iter().copied().eq((0..many).map(of)));
    }

    proptest! {
        #[test]
        fn a_set_is_what_its_ranges_say(
            ranges in prop::collection::vec((0u64..40, 0u64..12), 0..12),
            probe in (0u64..40, 0u64..12)
        ) {
            let of = |(after, length): (u64, u64)| range((1, after), (1, after + length));
            let set = RangeSet::of(ranges.iter().copied().map(of));
            let mut one_by_one = RangeSet::default();
            for one in ranges.iter().copied() {
                one_by_one.insert(of(one));
            }
            prop_assert_eq!(&set, &one_by_one);
            let holds = |ms: u64| ranges.iter().any(|(after, n)| *after < ms && ms <= after + n);
            let whole = of(probe);
            let missing = set.missing(whole);
            for ms in probe.0 + 1..=probe.0 + probe.1 {
                let at = At { boot: 1, ms };
                let is_missing = missing.iter().any(|part| part.after < at && at <= part.upto);
                prop_assert_eq!(set.contains(at), holds(ms));
                prop_assert_eq!(is_missing, !holds(ms));
            }
            prop_assert_eq!(set.covers(&whole), missing.is_empty());
            prop_assert!(set.ranges().windows(2).all(|pair| pair[0].upto < pair[1].after));
        }
    }
}
