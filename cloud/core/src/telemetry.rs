//! The telemetry of one node: a bounded file of pieces outside the store, what of the node's time
//! is known, and what to acknowledge. Deterministic; the shell brings pieces, the clock and a
//! [`Journal`].
//!
//! Invariant: a receipt names only what a sync made durable, or what was durable once and has been
//! dropped since because it grew old.

mod compact;
mod journal;

pub use journal::{Journal, JournalError, MemoryJournal};

use serde::{Deserialize, Serialize};
use shared::codec;
use shared::ids::{BootId, Incarnation};
use shared::telemetry::{
    At, Block, Content, Gap, Key, PIECE_BYTES, Piece, RANGES_PER_ACK, Range, RangeSet, Receipt,
    Report, frame, merge_gaps,
};
use shared::time::{Span, Unix};
use std::collections::BTreeMap;

/// Gaps kept of an incarnation; more are merged.
const GAPS: usize = 256;
/// Incarnations of a node whose telemetry is kept; the oldest go.
const INCARNATIONS: usize = 8;
/// So many bytes that are not synced yet are synced without waiting.
const SYNC_BYTES: u64 = 32 * 1024;

/// How much is kept of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// Bytes of its file; a piece more for a moment.
    pub bytes: u64,
    /// Age, by the coordinator's clock since a piece arrived.
    pub age: Span,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            bytes: 8 << 20,
            age: Span::secs(7 * 86_400),
        }
    }
}

/// Why a piece was not taken. The agent sends it again later.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It is not what it says.
    #[error("malformed telemetry: {0}")]
    Malformed(String),
    /// Too many ranges are known already with holes between them.
    #[error("telemetry with more than {RANGES_PER_ACK} holes")]
    Holes,
    /// The file.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The newest sample of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Newest {
    /// When, by the node's boot clock.
    pub at: At,
    /// The kernel's boot.
    pub boot_id: BootId,
    /// When, as the node's wall clock had it.
    pub wall: Unix,
    /// When it arrived, by the coordinator's clock.
    pub received: Unix,
    /// The node's last fact then.
    pub fact: u64,
    /// Values by series.
    pub values: Vec<(Key, i64)>,
}

/// What is known of an incarnation's time.
#[derive(Clone, Debug, Default)]
struct Line {
    /// Received, or declared as a gap.
    known: RangeSet,
    /// Whose points are in the file.
    held: RangeSet,
    gaps: Vec<Gap>,
}

/// Frames of the file.
#[derive(Serialize, Deserialize)]
enum Frame {
    /// 0: what was known when the file was written anew, oldest incarnation first.
    Known {
        format: u32,
        lines: Vec<(Incarnation, Vec<Range>, Vec<Gap>)>,
        newest: Option<Newest>,
    },
    /// 1: a piece.
    Piece {
        incarnation: Incarnation,
        received: Unix,
        piece: Piece,
    },
}

const FORMAT: u32 = 1;

/// Where a piece is missing, or why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Missing {
    /// The life of the data directory.
    pub incarnation: Incarnation,
    /// Where.
    pub range: Range,
    /// A [`shared::telemetry::GapReason`], `not_received` or `expired`.
    pub reason: String,
}

/// See the module.
#[derive(Debug)]
pub struct Book<J> {
    journal: J,
    keep: Keep,
    /// The newest incarnation is last.
    lines: Vec<(Incarnation, Line)>,
    newest: Option<Newest>,
    /// End of what is whole.
    end: u64,
    /// When its oldest piece came.
    oldest: Option<Unix>,
    unsynced: u64,
    /// Somebody waits for a receipt of something.
    owed: bool,
}

impl<J: Journal> Book<J> {
    /// Reads what is there; what was torn at the end is written over.
    ///
    /// # Errors
    /// [`JournalError`]: it cannot be read, or was written by a later version.
    pub fn open(journal: J, keep: Keep) -> Result<Self, JournalError> {
        let bytes = journal.read()?;
        let mut book = Self {
            journal,
            keep,
            lines: Vec::new(),
            newest: None,
            end: 0,
            oldest: None,
            // What a process that was killed wrote may be in memory only.
            unsynced: u64::from(!bytes.is_empty()),
            owed: false,
        };
        for found in frame::scan(&bytes) {
            match codec::decode(found.body) {
                Ok(Frame::Known { format, .. }) if format > FORMAT => {
                    return Err(JournalError::newer(format, FORMAT));
                }
                Ok(Frame::Known { lines, newest, .. }) => book.recall(lines, newest),
                Ok(Frame::Piece {
                    incarnation,
                    received,
                    piece,
                }) => book.learn(incarnation, received, &piece, None),
                // A frame of a later version that is whole: kept, not understood.
                Err(_) => {}
            }
            book.end = found.end as u64;
        }
        Ok(book)
    }

    fn recall(&mut self, lines: Vec<(Incarnation, Vec<Range>, Vec<Gap>)>, newest: Option<Newest>) {
        for (incarnation, known, gaps) in lines {
            let line = self.line(incarnation);
            line.known = RangeSet::of(known);
            line.gaps = gaps;
        }
        self.newest = newest;
    }

    /// `block` is what the piece holds, where that was read already.
    fn learn(
        &mut self,
        incarnation: Incarnation,
        received: Unix,
        piece: &Piece,
        block: Option<Block>,
    ) {
        self.oldest = Some(self.oldest.map_or(received, |oldest| oldest.min(received)));
        let is_last = self
            .lines
            .last()
            .is_none_or(|(last, _)| *last == incarnation);
        let line = self.line(incarnation);
        line.known.insert(piece.range);
        match &piece.content {
            Content::Gap(reason) => {
                line.gaps.push(Gap {
                    range: piece.range,
                    reason: *reason,
                });
                merge_gaps(&mut line.gaps, GAPS);
            }
            Content::Block(packed) => {
                line.held.insert(piece.range);
                let newer = self.newest.as_ref().is_none_or(|n| n.at < piece.range.upto);
                if newer || !is_last {
                    let block = block.or_else(|| Block::unpack(packed).ok());
                    if let Some(newest) = block.and_then(|block| newest(received, block)) {
                        self.newest = Some(newest);
                    }
                }
            }
        }
    }

    /// The line of an incarnation, which is the newest one from now on.
    fn line(&mut self, incarnation: Incarnation) -> &mut Line {
        let known = self
            .lines
            .iter()
            .position(|(known, _)| *known == incarnation);
        let entry = match known {
            Some(at) => self.lines.remove(at),
            None => (incarnation, Line::default()),
        };
        if self.lines.len() == INCARNATIONS {
            self.lines.remove(0);
        }
        self.lines.push(entry);
        let last = self.lines.len() - 1;
        &mut self.lines[last].1
    }

    /// Takes a piece over. It is durable after the next [`Self::sync`].
    ///
    /// # Errors
    /// [`Refused`]: nothing was changed.
    pub fn take(&mut self, report: Report, now: Unix) -> Result<(), Refused> {
        let Report { incarnation, piece } = report;
        let block = check(&piece)?;
        let found = self.lines.iter().find(|(known, _)| *known == incarnation);
        if let Some((_, line)) = found {
            if line.known.covers(&piece.range) {
                self.owed = true;
                return Ok(());
            }
            if line.known.ranges().len() >= RANGES_PER_ACK {
                return Err(Refused::Holes);
            }
        }
        let bytes = frame::encode(&codec::encode(&Frame::Piece {
            incarnation,
            received: now,
            piece: piece.clone(),
        }));
        self.bound(now)?;
        self.journal.write_at(self.end, &bytes)?;
        self.end += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        self.owed = true;
        self.learn(incarnation, now, &piece, block);
        Ok(())
    }

    /// Whether a receipt is owed and should not wait any longer for company.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.unsynced >= SYNC_BYTES
    }

    /// Whether anything waits for [`Self::sync`].
    #[must_use]
    pub fn is_owed(&self) -> bool {
        self.owed
    }

    /// Makes everything durable. After an error the book must be opened again.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if self.unsynced > 0 {
            self.journal.sync()?;
        }
        self.synced();
        Ok(())
    }

    /// Everything was made durable together with other files.
    pub fn synced(&mut self) {
        (self.unsynced, self.owed) = (0, false);
    }

    /// A receipt is owed even if nothing new comes.
    pub fn owe(&mut self) {
        self.owed = true;
    }

    /// What is known of an incarnation; only right behind [`Self::sync`].
    #[must_use]
    pub fn receipt(&self, incarnation: Incarnation) -> Receipt {
        let found = self.lines.iter().find(|(known, _)| *known == incarnation);
        let ranges = found.map_or(&[][..], |(_, line)| line.known.ranges());
        let from = ranges.len().saturating_sub(RANGES_PER_ACK);
        Receipt {
            incarnation,
            ranges: ranges[from..].to_vec(),
        }
    }

    /// The newest sample.
    #[must_use]
    pub fn newest(&self) -> Option<&Newest> {
        self.newest.as_ref()
    }

    /// Bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// What is missing, with the reason where one was declared, newest incarnation last.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let lines = self.lines.iter();
        lines.flat_map(|(who, line)| line.missing(*who)).collect()
    }

    /// Shows all blocks, in the order of the file. What cannot be read is left out.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn visit(&self, mut visit: impl FnMut(Incarnation, &Block)) -> Result<(), JournalError> {
        let bytes = self.journal.read()?;
        for found in frame::scan(&bytes) {
            if let Ok(Frame::Piece {
                incarnation, piece, ..
            }) = codec::decode(found.body)
                && let Content::Block(packed) = &piece.content
                && let Ok(block) = Block::unpack(packed)
            {
                visit(incarnation, &block);
            }
        }
        Ok(())
    }
}

impl Line {
    fn missing(&self, incarnation: Incarnation) -> Vec<Missing> {
        let known = self.known.ranges();
        let (Some(first), Some(last)) = (known.first(), known.last()) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        let mut add = |range, reason: &str| {
            all.push(Missing {
                incarnation,
                range,
                reason: reason.to_owned(),
            });
        };
        for gap in &self.gaps {
            for range in self.held.missing(gap.range) {
                add(range, gap.reason.text());
            }
        }
        let whole = Range::new(first.after, last.upto);
        for range in self.known.missing(whole) {
            add(range, "not_received");
        }
        let gaps = self.gaps.iter().map(|gap| gap.range);
        let shown = RangeSet::of(self.held.ranges().iter().copied().chain(gaps));
        for range in shown.missing(whole) {
            for range in self.known.missing(range).into_iter().fold(vec![range], cut) {
                add(range, "expired");
            }
        }
        all.sort_by_key(|missing| missing.range);
        all
    }
}

/// Takes `out` out of each of `ranges`.
fn cut(ranges: Vec<Range>, out: Range) -> Vec<Range> {
    let out = RangeSet::of([out]);
    ranges
        .into_iter()
        .flat_map(|range| out.missing(range))
        .collect()
}

/// The last point of a block.
fn newest(received: Unix, block: Block) -> Option<Newest> {
    let (at, boot_id) = (block.range().upto, block.boot_id);
    let point = block.points.last()?;
    let cells = block.keys.into_iter().zip(&point.cells);
    Some(Newest {
        at,
        boot_id,
        wall: point.wall,
        received,
        fact: point.fact,
        values: cells
            .filter_map(|(key, cell)| Some((key, cell.mean()?)))
            .collect(),
    })
}

/// What a piece holds, if it is points.
fn check(piece: &Piece) -> Result<Option<Block>, Refused> {
    let bad = |what: &str| Err(Refused::Malformed(what.to_owned()));
    if piece.range.is_empty() {
        return bad("a piece without time");
    }
    if let Content::Block(packed) = &piece.content {
        if packed.len() > PIECE_BYTES {
            return bad("a piece that is too large");
        }
        let block = Block::unpack(packed).map_err(|e| Refused::Malformed(e.to_string()))?;
        if block.range() != piece.range {
            return bad("a piece whose points are not those of its range");
        }
        return Ok(Some(block));
    }
    Ok(None)
}

/// A copy of what is known, for the head of a new file.
fn known(lines: &[(Incarnation, Line)], newest: Option<&Newest>) -> Vec<u8> {
    let lines = lines.iter().map(|(who, line)| {
        let known = line.known.ranges().to_vec();
        (*who, known, line.gaps.clone())
    });
    frame::encode(&codec::encode(&Frame::Known {
        format: FORMAT,
        lines: lines.collect(),
        newest: newest.cloned(),
    }))
}

/// Blocks of one incarnation that belong together, by the end of their range.
type Blocks = BTreeMap<(usize, At), (Unix, Piece)>;
