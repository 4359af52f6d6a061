//! How a start finds the ring again, whatever was torn or half done.

use super::send::Sending;
use super::{
    Entry, FORMAT, GAPS, GAPS_FILE, Header, Limits, Media, MediaError, Ring, Segment, merge_gaps,
};
use shared::codec;
use shared::ids::Incarnation;
use shared::telemetry::{At, Content, Gap, GapReason, Piece, Range, RangeSet, frame};
use std::collections::{BTreeMap, BTreeSet};

impl<M: Media> Ring<M> {
    /// Opens the ring of `incarnation`. Files of another incarnation, of a later format, or whose
    /// beginning is damaged are removed; holes are declared as gaps.
    ///
    /// # Errors
    /// [`MediaError`]: the files cannot be listed.
    pub fn open(
        mut media: M,
        incarnation: Incarnation,
        limits: Limits,
    ) -> Result<Self, MediaError> {
        let mut segments = BTreeMap::new();
        let mut gaps = Vec::new();
        let mut replaced = BTreeSet::new();
        let mut gone = BTreeSet::new();
        let files = media.list()?;
        for (id, length) in &files {
            let length = usize::try_from(*length).unwrap_or(usize::MAX);
            // What cannot be read counts as damaged.
            let bytes = media.read(*id, 0, length).unwrap_or_default();
            if *id == GAPS_FILE {
                gaps = read_gaps(&bytes, incarnation);
            } else if let Some((header, segment)) = read_segment(&bytes, incarnation) {
                replaced.extend(header.replaces);
                segments.insert(*id, segment);
            } else {
                gone.insert(*id);
            }
        }
        gone.extend(replaced.iter().filter(|id| segments.contains_key(id)));
        for id in gone {
            segments.remove(&id);
            // A file that does not go now is met again by the next start.
            let _ = media.remove(id);
        }
        let next_id = files.iter().map(|(id, _)| id + 1).max().unwrap_or(1).max(1);
        let mut ring = Self {
            media,
            incarnation,
            limits,
            segments,
            open: None,
            next_id,
            gaps,
            gaps_dirty: false,
            tail: None,
            last: At::default(),
            fresh: true,
            off: false,
            sending: Sending::new(limits),
        };
        ring.find_holes();
        Ok(ring)
    }

    fn find_holes(&mut self) {
        let gaps = self.gaps.iter().map(|gap| gap.range);
        let cut = RangeSet::of(self.held().ranges().iter().copied().chain(gaps));
        let last = cut
            .ranges()
            .last()
            .map_or_else(At::default, |range| range.upto);
        for hole in cut.missing(Range::new(At::default(), last)) {
            let reason = GapReason::Damaged;
            self.gaps.push(Gap {
                range: hole,
                reason,
            });
            self.gaps_dirty = true;
        }
        merge_gaps(&mut self.gaps, GAPS);
        self.last = last;
    }
}

fn read_gaps(bytes: &[u8], incarnation: Incarnation) -> Vec<Gap> {
    let found = frame::scan(bytes).next();
    let read = found.and_then(|f| codec::decode::<(u32, Incarnation, Vec<Gap>)>(f.body).ok());
    match read {
        Some((FORMAT, owner, gaps)) if owner == incarnation => gaps,
        _ => Vec::new(),
    }
}

fn read_segment(bytes: &[u8], incarnation: Incarnation) -> Option<(Header, Segment)> {
    let mut frames = frame::scan(bytes);
    let first = frames.next()?;
    let header: Header = codec::decode(first.body).ok()?;
    if header.format != FORMAT || header.incarnation != incarnation {
        return None;
    }
    let mut segment = Segment {
        level: header.level.min(3),
        bytes: bytes.len() as u64,
        entries: Vec::new(),
    };
    for found in frames {
        let piece = codec::decode::<Piece>(found.body).ok();
        if let Some(piece) = piece
            && matches!(piece.content, Content::Block(_))
            && !piece.range.is_empty()
        {
            segment.entries.push(Entry {
                range: piece.range,
                offset: found.offset as u64,
                end: found.end as u64,
            });
        }
    }
    segment.entries.sort_by_key(|entry| entry.range.upto);
    Some((header, segment))
}
