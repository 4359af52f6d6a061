//! How a node's file stays bounded: written anew without what is too old or too much, with small
//! pieces that follow each other as one.

use super::{Blocks, Book, Frame, Journal, JournalError, known};
use shared::codec;
use shared::ids::Incarnation;
use shared::telemetry::{Block, Content, PIECE_BYTES, Piece, RangeSet, frame};
use shared::time::Unix;

/// A file written anew takes so many eighths of its bound.
const EIGHTHS: u64 = 6;
/// Points of a piece made of several.
const POINTS: usize = 120;
/// Pieces that grew old are looked for when the oldest one is a 16th over age.
const PATIENCE: i64 = 16;

impl<J: Journal> Book<J> {
    /// Begins the file if there is none; writes it anew if it is too large, or what is in it too
    /// old.
    pub(super) fn bound(&mut self, now: Unix) -> Result<(), JournalError> {
        if self.end == 0 {
            // Nothing is there that a crash in the middle could lose.
            let head = known(&self.lines, self.newest.as_ref());
            self.journal.write_at(0, &head)?;
            self.end = head.len() as u64;
            self.unsynced = self.end;
            return Ok(());
        }
        let age = i64::try_from(self.keep.age.0).unwrap_or(i64::MAX);
        let late = age.saturating_add(age / PATIENCE);
        let old = self
            .oldest
            .is_some_and(|oldest| now.0.saturating_sub(oldest.0) > late);
        if self.end > self.keep.bytes || old {
            self.write_anew(now)?;
        }
        Ok(())
    }

    /// Writes the file anew; it is durable then.
    pub(super) fn write_anew(&mut self, now: Unix) -> Result<(), JournalError> {
        let bytes = self.journal.read()?;
        let age = i64::try_from(self.keep.age.0).unwrap_or(i64::MAX);
        let mut blocks = Blocks::new();
        for found in frame::scan(&bytes) {
            let Ok(Frame::Piece {
                incarnation,
                received,
                piece,
            }) = codec::decode(found.body)
            else {
                continue;
            };
            let line = self.lines.iter().position(|(who, _)| *who == incarnation);
            let keeps = now.0.saturating_sub(received.0) <= age;
            if let Some(line) = line.filter(|_| keeps)
                && matches!(piece.content, Content::Block(_))
            {
                blocks.insert((line, piece.range.upto), (received, piece));
            }
        }
        drop(bytes);
        self.put(&joined(blocks))
    }

    /// Makes a file of the newest of `blocks` that fit.
    fn put(&mut self, blocks: &Blocks) -> Result<(), JournalError> {
        let mut out = known(&self.lines, self.newest.as_ref());
        let room = (self.keep.bytes * EIGHTHS / 8).saturating_sub(out.len() as u64);
        let mut frames = Vec::new();
        let mut held = vec![RangeSet::default(); self.lines.len()];
        let (mut used, mut oldest) = (0, None::<Unix>);
        for ((line, _), (received, piece)) in blocks.iter().rev() {
            let incarnation = self.lines[*line].0;
            let bytes = framed(incarnation, *received, piece);
            used += bytes.len() as u64;
            if used > room {
                break;
            }
            held[*line].insert(piece.range);
            oldest = Some(oldest.map_or(*received, |oldest| oldest.min(*received)));
            frames.push(bytes);
        }
        for bytes in frames.iter().rev() {
            out.extend_from_slice(bytes);
        }
        self.journal.replace(&out)?;
        for ((_, line), held) in self.lines.iter_mut().zip(held) {
            line.held = held;
        }
        self.end = out.len() as u64;
        self.oldest = oldest;
        self.unsynced = 0;
        Ok(())
    }
}

fn framed(incarnation: Incarnation, received: Unix, piece: &Piece) -> Vec<u8> {
    frame::encode(&codec::encode(&Frame::Piece {
        incarnation,
        received,
        piece: piece.clone(),
    }))
}

/// Joins pieces of single samples that follow each other.
fn joined(blocks: Blocks) -> Blocks {
    let mut out = Blocks::new();
    let mut open: Option<(usize, Unix, Block)> = None;
    for ((line, upto), (received, piece)) in blocks {
        let Content::Block(packed) = &piece.content else {
            continue;
        };
        let Ok(block) = Block::unpack(packed) else {
            continue;
        };
        let small = block.level == 0 && block.points.len() < POINTS;
        if small
            && let Some((at, _, before)) = &mut open
            && *at == line
            && follows(before, &block)
        {
            append(before, block);
            continue;
        }
        close(open.take(), &mut out);
        if small {
            open = Some((line, received, block));
        } else {
            out.insert((line, upto), (received, piece));
        }
    }
    close(open, &mut out);
    out
}

fn follows(before: &Block, block: &Block) -> bool {
    before.boot_id == block.boot_id
        && before.range().upto == block.range().after
        && before.points.len() + block.points.len() <= POINTS
        && before.pack().len() + block.pack().len() <= PIECE_BYTES
}

fn append(into: &mut Block, from: Block) {
    let columns: Vec<Option<usize>> = from.keys.iter().map(|key| into.column(key)).collect();
    for mut point in from.points {
        let mut cells = vec![shared::telemetry::Cell::default(); into.keys.len()];
        for (cell, column) in point.cells.iter().zip(&columns) {
            if let Some(column) = column {
                cells[*column] = *cell;
            }
        }
        point.cells = cells;
        into.points.push(point);
    }
}

fn close(open: Option<(usize, Unix, Block)>, out: &mut Blocks) {
    if let Some((line, received, block)) = open {
        let range = block.range();
        let content = Content::Block(block.pack());
        out.insert((line, range.upto), (received, Piece { range, content }));
    }
}
