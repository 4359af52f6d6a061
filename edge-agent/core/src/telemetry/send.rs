//! What goes up next: gaps, then the newest samples, then what is stored, newest first; never more
//! than the window allows, on average no faster than the rate.

use super::{Entry, Limits, Media, Ring, Segment, piece};
use shared::codec;
use shared::telemetry::{
    Content, Gap, GapReason, Piece, RANGES_PER_ACK, Range, RangeSet, WINDOW_BYTES,
};
use std::collections::VecDeque;

/// What was sent and not acknowledged for so long is sent again.
const PATIENCE_MS: u64 = 300_000;
/// The budget saves up so many seconds of its rate.
const BURST_SECONDS: u64 = 4;

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Send this.
    Piece(Piece),
    /// The budget allows nothing before this moment of the boot clock, milliseconds.
    Wait(u64),
    /// Nothing to send before the next sample or acknowledgement, or [`Ring::counts_lost_at`].
    Idle,
}

#[derive(Debug)]
struct Flight {
    range: Range,
    bytes: u64,
    sent_ms: u64,
}

/// The state of sending.
#[derive(Debug)]
pub(super) struct Sending {
    connected: bool,
    /// What the coordinator has, as far as this life of the process was told.
    pub(super) known: RangeSet,
    /// `known`, and what is on its way.
    claimed: RangeSet,
    flights: VecDeque<Flight>,
    gaps: VecDeque<Gap>,
    rate: u64,
    live_ms: u64,
    /// When the newest samples went up last.
    live_at: Option<u64>,
    /// Bytes that may go; below zero after a large piece.
    credit: i64,
    credit_at: u64,
}

impl Sending {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            connected: false,
            known: RangeSet::default(),
            claimed: RangeSet::default(),
            flights: VecDeque::new(),
            gaps: VecDeque::new(),
            rate: limits.rate.max(1),
            live_ms: limits.live_ms,
            live_at: None,
            credit: 0,
            credit_at: 0,
        }
    }

    pub(super) fn declare(&mut self, gap: Gap) {
        if self.connected {
            self.gaps.push_front(gap);
        }
    }

    fn refill(&mut self, now: u64) {
        let whole = i64::try_from(self.rate.saturating_mul(BURST_SECONDS)).unwrap_or(i64::MAX);
        let passed = now.saturating_sub(self.credit_at).min(BURST_SECONDS * 1000);
        let more = self.rate.saturating_mul(passed) / 1000;
        if more > 0 {
            self.credit_at = now;
            let more = i64::try_from(more).unwrap_or(i64::MAX);
            self.credit = self.credit.saturating_add(more).min(whole);
        }
    }

    /// When there is credit again.
    fn due(&self, now: u64) -> u64 {
        let short = self.credit.min(0).unsigned_abs() + 1;
        now + (short.saturating_mul(1000)).div_ceil(self.rate)
    }

    /// Whether what is on its way counts as lost from now on.
    fn expires(&mut self, now: u64) -> bool {
        let late = |flight: &Flight| now.saturating_sub(flight.sent_ms) > PATIENCE_MS;
        let expires = self.flights.front().is_some_and(late);
        if expires {
            self.flights.clear();
            self.claim();
        }
        expires
    }

    fn claim(&mut self) {
        let flying = self.flights.iter().map(|flight| flight.range);
        self.claimed = RangeSet::of(self.known.ranges().iter().copied().chain(flying));
    }
}

impl Segment {
    /// Its newest entry that is not in `claimed`; a month of them is stepped over in a few steps.
    fn newest_outside(&self, claimed: &RangeSet) -> Option<Entry> {
        let mut left = self.entries.as_slice();
        while let Some(last) = left.last() {
            let Some(known) = claimed.around(&last.range) else {
                return Some(*last);
            };
            let before = left.partition_point(|entry| entry.range.after < known.after);
            left = &left[..before];
        }
        None
    }
}

/// The newest of these ranges, as many as one acknowledgement can have: more are not kept, whatever
/// is told in whichever order. What is left out is sent again.
fn newest(ranges: &RangeSet) -> RangeSet {
    let ranges = ranges.ranges();
    let from = ranges.len().saturating_sub(RANGES_PER_ACK);
    RangeSet::of(ranges[from..].iter().copied())
}

impl<M: Media> Ring<M> {
    /// A session stands in which the coordinator named what it has.
    pub fn connected(&mut self, has: &[Range]) {
        self.sending.connected = true;
        self.sending.known = newest(&RangeSet::of(has.iter().copied()));
        self.sending.flights.clear();
        self.sending.live_at = None;
        self.sending.claim();
        self.sending.gaps = self.unknown_gaps();
    }

    /// The gaps that the coordinator does not know, newest first.
    fn unknown_gaps(&self) -> VecDeque<Gap> {
        let held = self.held();
        let gaps = self.gaps.iter().rev();
        gaps.flat_map(|gap| {
            let parts = held.missing(gap.range).into_iter().rev();
            let parts = parts.flat_map(|part| self.sending.known.missing(part));
            let reason = gap.reason;
            parts
                .map(move |range| Gap { range, reason })
                .collect::<Vec<_>>()
        })
        .collect()
    }

    /// The session is over.
    pub fn disconnected(&mut self) {
        self.sending.connected = false;
        self.sending.flights.clear();
        self.sending.gaps.clear();
        self.sending.claim();
    }

    /// The coordinator has these ranges durably.
    pub fn acknowledged(&mut self, ranges: &[Range]) {
        let Sending { known, flights, .. } = &mut self.sending;
        let all = RangeSet::of(known.ranges().iter().chain(ranges).copied());
        flights.retain(|flight| !all.covers(&flight.range));
        *known = newest(&all);
    }

    /// When what is on its way counts as lost and is sent again: a moment of the boot clock,
    /// milliseconds.
    pub fn counts_lost_at(&self) -> Option<u64> {
        let first = self.sending.flights.front();
        first.map(|flight| flight.sent_ms + PATIENCE_MS + 1)
    }

    /// Changes the budget, bytes a second.
    pub fn set_rate(&mut self, rate: u64) {
        self.sending.rate = rate.max(1);
    }

    /// What to send at `now` of the boot clock, milliseconds. A piece counts as sent.
    pub fn next(&mut self, now: u64) -> Next {
        if !self.sending.connected {
            return Next::Idle;
        }
        self.sending.refill(now);
        if self.sending.expires(now) {
            self.sending.gaps = self.unknown_gaps();
        }
        let flying: u64 = self.sending.flights.iter().map(|flight| flight.bytes).sum();
        if flying >= WINDOW_BYTES as u64 {
            return Next::Idle;
        }
        let wait = (self.sending.credit <= 0).then(|| self.sending.due(now));
        if let Some(due) = wait {
            return Next::Wait(due);
        }
        let next = self.next_gap().or_else(|| self.next_live(now));
        let Some(piece) = next.or_else(|| self.next_stored()) else {
            return Next::Idle;
        };
        let bytes = codec::encode(&piece).len() as u64;
        let sending = &mut self.sending;
        sending.credit -= i64::try_from(bytes).unwrap_or(i64::MAX);
        sending.claimed.insert(piece.range);
        sending.flights.push_back(Flight {
            range: piece.range,
            bytes,
            sent_ms: now,
        });
        Next::Piece(piece)
    }

    fn next_gap(&mut self) -> Option<Piece> {
        let sending = &mut self.sending;
        while let Some(gap) = sending.gaps.pop_front() {
            if !sending.claimed.covers(&gap.range) {
                return Some(Piece {
                    range: gap.range,
                    content: Content::Gap(gap.reason),
                });
            }
        }
        None
    }

    fn next_live(&mut self, now: u64) -> Option<Piece> {
        let due = self
            .sending
            .live_at
            .map_or(0, |at| at + self.sending.live_ms);
        let tail = self.tail.as_ref().filter(|_| due <= now)?;
        let part = self.sending.claimed.missing(tail.range()).pop()?;
        let newest = tail.cut(part);
        if newest.points.is_empty() {
            return None;
        }
        self.sending.live_at = Some(now);
        super::parts(newest).last().map(piece)
    }

    fn next_stored(&mut self) -> Option<Piece> {
        loop {
            let (id, entry, level) = self.newest_unclaimed()?;
            let Some(mut block) = self.read(id, entry) else {
                self.drop_entry(id, entry);
                continue;
            };
            if level == 0 {
                let missing = self.sending.claimed.missing(entry.range);
                block = block.cut(missing.last().copied().unwrap_or(entry.range));
            }
            if block.points.is_empty() {
                // Acknowledged in part by ranges that do not end at points: nothing is left.
                self.sending.claimed.insert(entry.range);
                continue;
            }
            return Some(piece(&block));
        }
    }

    fn newest_unclaimed(&self) -> Option<(u32, Entry, u8)> {
        let claimed = &self.sending.claimed;
        let newest = |(id, s): (&u32, &Segment)| Some((*id, s.newest_outside(claimed)?, s.level));
        let open = self.segments.iter().filter_map(newest);
        open.max_by_key(|(_, entry, _)| entry.range.upto)
    }

    fn drop_entry(&mut self, id: u32, entry: Entry) {
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.entries.retain(|known| known.range != entry.range);
        }
        self.declare(entry.range, GapReason::Damaged);
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryMedia;
    use super::*;
    use shared::ids::Incarnation;
    use shared::telemetry::At;

    fn range(n: usize) -> Range {
        let at = |ms: usize| At {
            boot: 1,
            ms: ms as u64,
        };
        Range::new(at(3 * n), at(3 * n + 1))
    }

    /// Each receipt added its ranges to all before; the last ones of a receipt counted as newest.
    #[test]
    fn of_any_receipts_the_newest_ranges_are_kept_and_no_more() {
        let media = MemoryMedia::default();
        let mut ring = Ring::open(media, Incarnation([1; 16]), Limits::default()).unwrap();
        let many = 3 * RANGES_PER_ACK;
        let newest = |from: usize| (from - RANGES_PER_ACK..from).map(range);

        let backwards: Vec<Range> = (0..many).rev().map(range).collect();
        ring.connected(&backwards);
        let known = |ring: &Ring<MemoryMedia>| ring.sending.known.ranges().to_vec();
        assert_eq!(known(&ring), newest(many).collect::<Vec<_>>());

        for n in many..2 * many {
            ring.acknowledged(&[range(n)]);
        }
        assert_eq!(known(&ring), newest(2 * many).collect::<Vec<_>>());
        // what is older than all that is kept takes no place of what is newer
        ring.acknowledged(&[range(0)]);
        assert_eq!(known(&ring), newest(2 * many).collect::<Vec<_>>());
    }
}
