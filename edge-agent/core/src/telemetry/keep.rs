//! How the ring stays below its quota: what the coordinator has goes first, then the oldest of each
//! level is thinned into the next one, and what is oldest of the last level is dropped, declared.

use super::{GapReason, LEVELS_MS, Media, Ring, SHARES, Segment, framed, parts};
use shared::telemetry::{Block, Cell, Point, Range};

/// Points of a block that thinning makes.
const POINTS: usize = 120;

impl<M: Media> Ring<M> {
    /// Brings each level below its share.
    pub(super) fn enforce(&mut self) {
        let mut level = 0;
        while level < LEVELS_MS.len() {
            let share = self.limits.quota * SHARES[level] / 16;
            let at = u8::try_from(level).unwrap_or(u8::MAX);
            if self.level_bytes(at) <= share || !self.shrink(at) {
                level += 1;
            }
        }
    }

    /// Makes a level smaller. False if nothing of it can go.
    fn shrink(&mut self, level: u8) -> bool {
        let ids = self.oldest(level);
        let Some(first) = ids.first().copied() else {
            return false;
        };
        if self.is_delivered(first) {
            self.drop_segment(first, GapReason::Delivered);
        } else if usize::from(level) + 1 == LEVELS_MS.len() {
            self.drop_segment(first, GapReason::Quota);
        } else {
            self.thin(&ids, level + 1);
        }
        true
    }

    /// The oldest segments of a level, together about as large as one may be; none of them was
    /// acknowledged whole, unless it is the only one.
    fn oldest(&mut self, level: u8) -> Vec<u32> {
        let of_level = self.segments.iter().filter(|(_, s)| s.level == level);
        let mut ids: Vec<(Option<Range>, u32, u64)> = of_level
            .map(|(id, s)| (s.entries.first().map(|e| e.range), *id, s.bytes))
            .collect();
        ids.sort_unstable();
        let mut left = self.segment_bytes();
        let mut chosen = Vec::new();
        for (_, id, bytes) in ids {
            if !chosen.is_empty() && (bytes > left || self.is_delivered(id)) {
                break;
            }
            left = left.saturating_sub(bytes);
            chosen.push(id);
            if self.is_delivered(id) {
                break;
            }
        }
        if self.open.is_some_and(|open| chosen.contains(&open)) {
            self.open = None;
        }
        chosen
    }

    fn is_delivered(&self, id: u32) -> bool {
        let segment = self.segments.get(&id);
        segment.is_none_or(|segment| {
            let mut ranges = segment.entries.iter().map(|entry| &entry.range);
            ranges.all(|range| self.sending.known.covers(range))
        })
    }

    /// Declares what a segment holds as gone, then removes it.
    fn drop_segment(&mut self, id: u32, reason: GapReason) {
        let Some(segment) = self.segments.remove(&id) else {
            return;
        };
        if self.open == Some(id) {
            self.open = None;
        }
        for entry in segment.entries {
            let delivered = self.sending.known.covers(&entry.range);
            let reason = if delivered {
                GapReason::Delivered
            } else {
                reason
            };
            self.declare(entry.range, reason);
        }
        self.save_gaps();
        self.forget(id);
    }

    /// A file that cannot go now is a segment again at the next start; what it holds counts then.
    fn forget(&mut self, id: u32) {
        let _ = self.media.remove(id);
    }

    /// Drops what is missed least when the disk is full: what the coordinator has, then the oldest.
    /// False if nothing is left.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let age = |segment: &Segment| segment.entries.first().map(|entry| entry.range);
        let delivered = self
            .segments
            .keys()
            .copied()
            .find(|id| self.is_delivered(*id));
        let oldest = self.segments.iter().min_by_key(|(_, s)| age(s));
        let id = delivered.or_else(|| oldest.map(|(id, _)| *id));
        if let Some(id) = id {
            self.drop_segment(id, GapReason::NoRoom);
        }
        id.is_some()
    }

    /// Puts points of `level` in place of what the segments hold.
    fn thin(&mut self, ids: &[u32], level: u8) {
        let mut thinner = Thinner::new(level);
        let mut lost = Vec::new();
        for id in ids {
            let entries = self.segments.get(id).map(|s| s.entries.clone());
            for entry in entries.unwrap_or_default() {
                if self.sending.known.covers(&entry.range) {
                    lost.push((entry.range, GapReason::Delivered));
                    thinner.end_block();
                } else if let Some(block) = self.read(*id, entry) {
                    thinner.add(&block);
                } else {
                    lost.push((entry.range, GapReason::Damaged));
                    thinner.end_block();
                }
            }
        }
        let blocks = thinner.finish();
        let (bytes, segment) = self.segment_of(level, ids, &blocks);
        let id = self.new_id();
        if let Err(error) = self.media.replace(id, &bytes) {
            let reason = if error.full {
                GapReason::NoRoom
            } else {
                GapReason::Damaged
            };
            for id in ids {
                self.drop_segment(*id, reason);
            }
            return;
        }
        for (range, reason) in lost {
            self.declare(range, reason);
        }
        self.save_gaps();
        self.segments.insert(id, segment);
        for id in ids {
            self.segments.remove(id);
            self.forget(*id);
        }
    }

    fn segment_of(&self, level: u8, replaces: &[u32], blocks: &[Block]) -> (Vec<u8>, Segment) {
        let mut bytes = self.header(level, replaces.to_vec());
        let mut segment = Segment {
            level,
            ..Segment::default()
        };
        for block in blocks {
            let offset = bytes.len() as u64;
            bytes.extend(framed(block));
            segment.entries.push(super::Entry {
                range: block.range(),
                offset,
                end: bytes.len() as u64,
            });
        }
        segment.entries.sort_by_key(|entry| entry.range.upto);
        segment.bytes = bytes.len() as u64;
        (bytes, segment)
    }
}

/// Sums points up into longer ones.
struct Thinner {
    level: u8,
    width: u64,
    done: Vec<Block>,
    block: Option<Block>,
}

impl Thinner {
    fn new(level: u8) -> Self {
        Self {
            level,
            width: LEVELS_MS[usize::from(level)],
            done: Vec::new(),
            block: None,
        }
    }

    /// Adds the points of the next block.
    fn add(&mut self, from: &Block) {
        let range = from.range();
        let follows = |block: &Block| {
            block.range().upto == range.after
                && block.boot_id == from.boot_id
                && block.points.len() < POINTS
        };
        if !self.block.as_ref().is_some_and(follows) {
            self.end_block();
        }
        let (level, width) = (self.level, self.width);
        let block = self
            .block
            .get_or_insert_with(|| Block::new(from.boot, from.boot_id, level, from.after));
        let columns: Vec<Option<usize>> = from.keys.iter().map(|key| block.column(key)).collect();
        let mut before = block.points.last().map(|point| point.ms);
        for point in &from.points {
            // Point n covers the milliseconds behind n × width up to and with (n + 1) × width.
            let slot = |ms: u64| (ms - 1) / width;
            let new = before.is_none_or(|ms| slot(ms) != slot(point.ms));
            if new {
                block.points.push(Point {
                    cells: vec![Cell::default(); block.keys.len()],
                    ..point.clone()
                });
            }
            before = Some(point.ms);
            let Some(into) = block.points.last_mut() else {
                continue;
            };
            (into.ms, into.wall, into.fact) = (point.ms, point.wall, point.fact);
            for (cell, column) in point.cells.iter().zip(&columns) {
                if let Some(column) = column {
                    into.cells[*column].add(cell);
                }
            }
        }
    }

    fn end_block(&mut self) {
        self.done
            .extend(self.block.take().map(parts).into_iter().flatten());
    }

    fn finish(mut self) -> Vec<Block> {
        self.end_block();
        self.done
    }
}
