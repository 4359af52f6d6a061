//! The ring: what the gateway measured of itself, bounded on the disk, thinned where it grows too
//! large, and sent newest first as the link allows. Deterministic; the shell brings samples, the
//! clock, the link and a [`Media`] of files.
//!
//! Invariant: the line of moments from its beginning to the newest sample is cut without a hole
//! into points (in the tail in memory, or in segments) and gaps with their reason.
//!
//! Segments are files of frames, one level of thinning each. A new one is whole and durable before
//! those that it replaces go; a start that finds both goes on from there.

mod keep;
mod media;
mod open;
mod send;

pub use media::{Media, MediaError, MemoryMedia};
pub use send::Next;

use send::Sending;
use serde::{Deserialize, Serialize};
use shared::codec;
use shared::ids::{BootId, Incarnation};
use shared::telemetry::{
    At, Block, Content, Gap, GapReason, PIECE_BYTES, POINTS_PER_BLOCK, Piece, Range, RangeSet,
    Sample, frame, merge_gaps,
};
use std::collections::BTreeMap;

/// Gaps that are kept; more are merged.
const GAPS: usize = 128;
/// Number of the file that holds the gaps; segments are numbered from 1.
const GAPS_FILE: u32 = 0;
/// Levels of thinning: single samples, then points of so many milliseconds.
pub const LEVELS_MS: [u64; 4] = [0, 60_000, 15 * 60_000, 3_600_000];
/// What each level may take of the quota, in 16ths.
const SHARES: [u64; 4] = [8, 4, 2, 2];
/// So many missing samples in a row are a gap.
const MISSED: u64 = 3;

/// What the ring may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes on the disk, all levels together; a segment more for a moment.
    pub quota: u64,
    /// Longest time that points wait in memory, milliseconds.
    pub save_ms: u64,
    /// Shortest time between two reports of the newest samples, milliseconds.
    pub live_ms: u64,
    /// Bytes a second on the link, on average.
    pub rate: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            quota: 8 << 20,
            save_ms: shared::limits::IDLE_COMMIT_MS,
            live_ms: 15_000,
            rate: 16 << 10,
        }
    }
}

/// First frame of a segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    incarnation: Incarnation,
    level: u8,
    /// Segments whose contents are in this one.
    replaces: Vec<u32>,
}

/// Version of the files.
const FORMAT: u32 = 1;

/// Where a block lies in its segment.
#[derive(Clone, Copy, Debug)]
struct Entry {
    range: Range,
    offset: u64,
    end: u64,
}

#[derive(Debug, Default)]
struct Segment {
    level: u8,
    bytes: u64,
    /// Disjoint, oldest first.
    entries: Vec<Entry>,
}

/// What a person sees of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RingStatus {
    /// Bytes of its segments.
    pub bytes: u64,
    /// Most bytes.
    pub quota: u64,
    /// Bytes by level: samples, minutes, quarters, hours.
    pub levels: [u64; 4],
    /// Blocks that the coordinator has not acknowledged.
    pub unsent_blocks: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Ring<M> {
    media: M,
    incarnation: Incarnation,
    limits: Limits,
    segments: BTreeMap<u32, Segment>,
    /// The segment that is appended to.
    open: Option<u32>,
    next_id: u32,
    gaps: Vec<Gap>,
    gaps_dirty: bool,
    tail: Option<Block>,
    /// The newest moment that is cut.
    last: At,
    /// No sample came since the start.
    fresh: bool,
    off: bool,
    sending: Sending,
}

impl<M: Media> Ring<M> {
    /// Takes a sample of boot `boot`; `every` is the interval of measuring, milliseconds. Saves
    /// what waited long enough.
    pub fn record(&mut self, boot: u32, boot_id: BootId, every: u64, sample: &Sample) {
        let at = At {
            boot,
            ms: sample.ms.max(1),
        };
        let last = self.last;
        if last >= at {
            return;
        }
        let before = At {
            boot,
            ms: at.ms - 1,
        };
        let follows = !self.fresh && last.boot == boot && at.ms - last.ms <= MISSED * every;
        let after = if follows { last } else { before };
        if !follows {
            self.save();
            let reason = if self.fresh {
                GapReason::NotRunning
            } else if self.off {
                GapReason::Off
            } else {
                GapReason::Stalled
            };
            self.declare(Range::new(last, before), reason);
        }
        (self.fresh, self.off, self.last) = (false, false, at);
        let tail = self
            .tail
            .get_or_insert_with(|| Block::new(boot, boot_id, 0, after.ms));
        tail.push(sample);
        let full = tail.points.len() >= POINTS_PER_BLOCK;
        if full || at.ms - tail.after >= self.limits.save_ms {
            self.save();
        }
    }

    /// Measuring is switched off: the time until the next sample is a gap with that reason.
    pub fn switch_off(&mut self) {
        self.save();
        self.off = true;
    }

    /// Writes what is in memory only, and brings the ring below its quota.
    pub fn save(&mut self) {
        if let Some(tail) = self.tail.take() {
            for block in parts(tail) {
                self.store(&block);
            }
        }
        self.save_gaps();
        self.enforce();
    }

    /// Changes the quota; what is above it is thinned or dropped at once.
    pub fn set_quota(&mut self, quota: u64) {
        self.limits.quota = quota;
        self.open = None;
        self.enforce();
    }

    /// The ring's files, when it is no longer needed.
    pub fn into_media(self) -> M {
        self.media
    }

    /// How full it is.
    pub fn status(&self) -> RingStatus {
        let entries = self.segments.values().flat_map(|s| &s.entries);
        let unsent = entries.filter(|entry| !self.sending.known.covers(&entry.range));
        RingStatus {
            bytes: self.segments.values().map(|segment| segment.bytes).sum(),
            quota: self.limits.quota,
            levels: [0, 1, 2, 3].map(|level| self.level_bytes(level)),
            unsent_blocks: unsent.count(),
        }
    }

    /// Whose ring it is.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Gaps that are declared here, oldest first.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Which ranges hold points, in memory or on the disk.
    pub fn held(&self) -> RangeSet {
        let entries = self.segments.values().flat_map(|s| &s.entries);
        let tail = self.tail.iter().map(Block::range);
        RangeSet::of(entries.map(|entry| entry.range).chain(tail))
    }

    /// Shows all blocks, newest first, until `visit` says false. What cannot be read is left out.
    pub fn visit(&self, mut visit: impl FnMut(&Block) -> bool) {
        if let Some(tail) = &self.tail
            && !visit(tail)
        {
            return;
        }
        let segments = self.segments.iter();
        let mut all: Vec<(Entry, u32)> = segments
            .flat_map(|(id, segment)| segment.entries.iter().map(|entry| (*entry, *id)))
            .collect();
        all.sort_by_key(|(entry, _)| std::cmp::Reverse(entry.range.upto));
        for (entry, id) in all {
            if let Some(block) = self.read(id, entry)
                && !visit(&block)
            {
                return;
            }
        }
    }

    fn read(&self, id: u32, entry: Entry) -> Option<Block> {
        let length = usize::try_from(entry.end - entry.offset).ok()?;
        let bytes = self.media.read(id, entry.offset, length).ok()?;
        let found = frame::scan(&bytes).next()?;
        match codec::decode::<Piece>(found.body).ok()?.content {
            Content::Block(packed) => Block::unpack(&packed).ok(),
            Content::Gap(_) => None,
        }
    }

    fn store(&mut self, block: &Block) {
        let bytes = framed(block);
        loop {
            let Err(error) = self.append(block.range(), &bytes) else {
                return;
            };
            // What was torn is never appended to.
            self.open = None;
            if !error.full || !self.drop_oldest() {
                let reason = if error.full {
                    GapReason::NoRoom
                } else {
                    GapReason::Damaged
                };
                return self.declare(block.range(), reason);
            }
        }
    }

    fn append(&mut self, range: Range, bytes: &[u8]) -> Result<(), MediaError> {
        let room = self.segment_bytes();
        let open = self.open.filter(|id| {
            let segment = self.segments.get(id);
            segment.is_some_and(|segment| segment.bytes + bytes.len() as u64 <= room)
        });
        let (id, written) = match open {
            Some(id) => {
                self.media.append(id, bytes)?;
                (id, 0)
            }
            None => {
                let id = self.new_id();
                let mut head = self.header(0, Vec::new());
                let written = head.len() as u64;
                head.extend_from_slice(bytes);
                if let Err(error) = self.media.append(id, &head) {
                    // A file that cannot go now is found torn by the next start.
                    let _ = self.media.remove(id);
                    return Err(error);
                }
                self.open = Some(id);
                (id, written)
            }
        };
        let segment = self.segments.entry(id).or_default();
        let offset = segment.bytes + written;
        segment.bytes = offset + bytes.len() as u64;
        segment.entries.push(Entry {
            range,
            offset,
            end: segment.bytes,
        });
        Ok(())
    }

    fn new_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn header(&self, level: u8, replaces: Vec<u32>) -> Vec<u8> {
        frame::encode(&codec::encode(&Header {
            format: FORMAT,
            incarnation: self.incarnation,
            level,
            replaces,
        }))
    }

    fn segment_bytes(&self) -> u64 {
        (self.limits.quota / 32).clamp(2 << 10, 256 << 10)
    }

    fn level_bytes(&self, level: u8) -> u64 {
        let segments = self.segments.values();
        let of_level = segments.filter(|segment| segment.level == level);
        of_level.map(|segment| segment.bytes).sum()
    }

    fn declare(&mut self, range: Range, reason: GapReason) {
        if range.is_empty() {
            return;
        }
        let gap = Gap { range, reason };
        self.sending.declare(gap);
        self.gaps.push(gap);
        merge_gaps(&mut self.gaps, GAPS);
        self.gaps_dirty = true;
    }

    /// Gaps that could not be written are known again as holes by the next start.
    fn save_gaps(&mut self) {
        if !self.gaps_dirty {
            return;
        }
        let bytes = frame::encode(&codec::encode(&(FORMAT, self.incarnation, &self.gaps)));
        self.gaps_dirty = self.media.replace(GAPS_FILE, &bytes).is_err();
    }
}

/// The frame of a piece that holds `block`.
fn framed(block: &Block) -> Vec<u8> {
    frame::encode(&codec::encode(&piece(block)))
}

fn piece(block: &Block) -> Piece {
    Piece {
        range: block.range(),
        content: Content::Block(block.pack()),
    }
}

/// `block` in as few parts as are needed for each to fit into one message.
fn parts(block: Block) -> Vec<Block> {
    // Some bytes of the message are not the block's.
    let fits = block.points.len() < 2 || block.pack().len() + 64 <= PIECE_BYTES;
    if fits {
        return vec![block];
    }
    let middle = At {
        boot: block.boot,
        ms: block.points[block.points.len() / 2 - 1].ms,
    };
    let whole = block.range();
    let halves = [
        Range::new(whole.after, middle),
        Range::new(middle, whole.upto),
    ];
    halves.map(|half| parts(block.cut(half))).concat()
}
