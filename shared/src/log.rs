//! The hash chain that both logs are: an entry's hash covers its number, its bytes and the hash
//! before it.
//!
//! A reader accepts exactly `last + 1` on the hash of `last`; anything at or below is a duplicate,
//! anything above is a gap, and another hash is a fork, which is never applied
//! (`docs/protocol.md`).

use crate::codec::{self, DecodeError};
use crate::ids::{Hash, Incarnation, NodeId};
use crate::limits::{BYTES_PER_COMMIT, ENTRIES_PER_COMMIT, ENTRY_BYTES};
use crate::planted::{self, Mistake};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::ops::Range;

/// Bound of what a packed batch decompresses to: the largest batch, with its framing.
const UNPACKED: usize = BYTES_PER_COMMIT + ENTRIES_PER_COMMIT * 16 + 2 * ENTRY_BYTES;

/// Bytes before those of the entry in what its hash covers: the hash before it and its number.
const PREFIX: usize = 32 + 8;
/// Bytes that are hashed in one piece.
const SMALL: usize = 256;

/// Which of a node's two logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Direction {
    /// Facts, agent → coordinator.
    Up,
    /// Directives, coordinator → agent.
    Down,
}

/// The last number that an entry can have. Who reads a larger one reads no log, so that nobody who
/// counts on from what a peer says comes to the end of the numbers.
pub const LAST_NUMBER: u64 = u64::MAX >> 2;

/// Number and chained hash of an entry; number 0 is the origin, before the first entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Head {
    /// Entries are numbered from 1.
    #[serde(deserialize_with = "number")]
    pub number: u64,
    /// Hash of the chain up to and with that entry.
    pub hash: Hash,
}

/// Reads a number from which somebody counts on: at most [`LAST_NUMBER`]. For
/// `#[serde(deserialize_with = "log::number")]`.
///
/// # Errors
/// Those of the deserializer, and for a larger one.
pub fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(from)?;
    match number <= LAST_NUMBER {
        true => Ok(number),
        false => Err(D::Error::custom("no entry has such a number")),
    }
}

impl Head {
    /// The head of an empty log.
    #[must_use]
    pub fn origin(node: NodeId, incarnation: Incarnation, direction: Direction) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"driftless log 1");
        hasher
            .update(&node.0)
            .update(&incarnation.0)
            .update(&[direction as u8]);
        Self {
            number: 0,
            hash: Hash(*hasher.finalize().as_bytes()),
        }
    }

    /// The head after one more entry with these bytes: BLAKE3(previous hash ‖ number LE ‖ bytes).
    #[must_use]
    pub fn then(&self, bytes: &[u8]) -> Self {
        let number = self.number + 1;
        let mut piece = [0; SMALL];
        let end = PREFIX + bytes.len();
        if end <= SMALL {
            // nearly all entries: in one piece, without the state of a longer hash
            piece[..32].copy_from_slice(&self.hash.0);
            piece[32..PREFIX].copy_from_slice(&number.to_le_bytes());
            piece[PREFIX..end].copy_from_slice(bytes);
            let hash = Hash(*blake3::hash(&piece[..end]).as_bytes());
            return Self { number, hash };
        }
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&self.hash.0)
            .update(&number.to_le_bytes())
            .update(bytes);
        Self {
            number,
            hash: Hash(*hasher.finalize().as_bytes()),
        }
    }

    /// The head after all of `entries`.
    #[must_use]
    pub fn then_all<B: AsRef<[u8]>>(&self, entries: impl IntoIterator<Item = B>) -> Self {
        entries
            .into_iter()
            .fold(*self, |head, entry| head.then(entry.as_ref()))
    }
}

/// Consecutive entries of one log, ending at the end of a commit of its writer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// The head that the first entry continues.
    pub after: Head,
    /// The entries' bytes, in order; their numbers are `after.number + 1 …`.
    pub entries: Vec<Vec<u8>>,
    /// Hash of the chain after the last entry.
    pub hash: Hash,
}

/// A batch whose entries are compressed together: how they lie on both sides' disks and travel, so
/// that nobody packs them twice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PackedBatch {
    /// The head that the first entry continues.
    pub after: Head,
    /// Number and hash of the last entry, as its writer says.
    pub head: Head,
    /// zstd of the postcard encoding of the entries.
    #[serde(with = "codec::raw")]
    pub entries: Vec<u8>,
}

impl PackedBatch {
    /// Packs `entries`, which lead from `after` to `head`.
    #[must_use]
    pub fn new(after: Head, head: Head, entries: &[Vec<u8>]) -> Self {
        Self {
            after,
            head,
            entries: codec::compress(&codec::encode(entries)),
        }
    }
}

/// The bytes of consecutive entries, in one piece.
#[derive(Clone, Eq, Debug, Default)]
pub struct Entries {
    bytes: Vec<u8>,
    spans: Vec<Range<usize>>,
}

impl Entries {
    /// Reads packed entries.
    ///
    /// # Errors
    /// [`DecodeError`]: not packed entries, too many of them, or too many bytes.
    pub fn unpack(packed: &[u8]) -> Result<Self, DecodeError> {
        let bytes = codec::decompress(packed, UNPACKED)?;
        let spans = spans(&bytes)?;
        Ok(Self { bytes, spans })
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of each, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.spans.iter().map(|span| &self.bytes[span.clone()])
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<B: AsRef<[u8]>> FromIterator<B> for Entries {
    fn from_iter<I: IntoIterator<Item = B>>(entries: I) -> Self {
        let mut all = Self::default();
        for entry in entries {
            let start = all.bytes.len();
            all.bytes.extend_from_slice(entry.as_ref());
            all.spans.push(start..all.bytes.len());
        }
        all
    }
}

/// Where the entries lie in their postcard encoding: a count, then each with its length before it.
fn spans(bytes: &[u8]) -> Result<Vec<Range<usize>>, DecodeError> {
    let malformed = |error: postcard::Error| DecodeError::Malformed(error.to_string());
    let (count, mut rest) = postcard::take_from_bytes::<u64>(bytes).map_err(malformed)?;
    if count > ENTRIES_PER_COMMIT as u64 {
        let text = format!("{count} entries, where {ENTRIES_PER_COMMIT} are allowed");
        return Err(DecodeError::Malformed(text));
    }
    let mut spans = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (entry, behind) = postcard::take_from_bytes::<&[u8]>(rest).map_err(malformed)?;
        let end = bytes.len() - behind.len();
        spans.push(end - entry.len()..end);
        rest = behind;
    }
    match rest {
        [] => Ok(spans),
        _ => Err(DecodeError::Trailing(rest.len())),
    }
}

/// What a reader makes of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Offer {
    /// Entries from this position of the batch on are new and continue the chain; the head after
    /// them.
    New(usize, Head),
    /// Nothing new.
    Duplicate,
    /// The reader wants the entry with this number first.
    Gap(u64),
    /// The entry with this number has another hash than the one known: never applied.
    Fork(u64),
}

impl Batch {
    /// A batch of `entries` behind `after`.
    #[must_use]
    pub fn new(after: Head, entries: Vec<Vec<u8>>) -> Self {
        let hash = after.then_all(&entries).hash;
        Self {
            after,
            entries,
            hash,
        }
    }

    /// Number and hash of the last entry.
    #[must_use]
    pub fn head(&self) -> Head {
        Head {
            number: self.after.number + self.entries.len() as u64,
            hash: self.hash,
        }
    }

    /// Judges the batch against a reader whose last entry is `known`. The claimed hash is
    /// recomputed.
    #[must_use]
    pub fn offer(&self, known: Head) -> Offer {
        let end = self.after.number + self.entries.len() as u64;
        if self.after.number > known.number {
            return Offer::Gap(known.number + 1);
        }
        if end > LAST_NUMBER {
            return Offer::Fork(end);
        }
        let mut head = self.after;
        let mut position = 0;
        while head.number < known.number.min(end) {
            head = head.then(&self.entries[position]);
            position += 1;
        }
        if head.number == known.number && head.hash != known.hash && !by_number() {
            return Offer::Fork(known.number);
        }
        let last = head.then_all(&self.entries[position..]);
        if last.hash != self.hash && !by_number() {
            return Offer::Fork(end);
        }
        if end <= known.number {
            Offer::Duplicate
        } else {
            Offer::New(position, last)
        }
    }
}

fn by_number() -> bool {
    planted::on(Mistake::CursorsByNumber)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Head {
        Head::origin(NodeId([1; 16]), Incarnation([2; 16]), Direction::Up)
    }

    #[test]
    fn an_entry_is_hashed_alike_however_large_it_is() {
        let before = origin();
        for length in [0, 1, SMALL - PREFIX, SMALL - PREFIX + 1, 5000] {
            let entry = vec![7; length];
            let whole = [&before.hash.0[..], &1_u64.to_le_bytes(), &entry].concat();
            let hash = Hash(*blake3::hash(&whole).as_bytes());
            assert_eq!(before.then(&entry), Head { number: 1, hash });
        }
    }

    /// Numbers near the end of `u64` made the sum of number and entries overflow.
    #[test]
    fn no_reader_counts_beyond_the_last_number() {
        let at = |number| Head { number, ..origin() };
        let read = |head: Head| codec::decode::<Head>(&codec::encode(&head));
        assert_eq!(read(at(LAST_NUMBER)), Ok(at(LAST_NUMBER)));
        for number in [LAST_NUMBER + 1, u64::MAX - 1, u64::MAX] {
            assert!(matches!(read(at(number)), Err(DecodeError::Malformed(_))));
        }
        let last = Batch::new(at(LAST_NUMBER - 1), vec![vec![1]]);
        assert_eq!(last.offer(last.after), Offer::New(0, last.head()));
        let over = Batch::new(at(LAST_NUMBER), vec![vec![1]]);
        assert_eq!(over.offer(over.after), Offer::Fork(LAST_NUMBER + 1));
    }

    #[test]
    fn a_reader_tells_new_old_missing_and_forked_entries_apart() {
        let entries: Vec<Vec<u8>> = (0u8..5).map(|n| vec![n; 3]).collect();
        let whole = Batch::new(origin(), entries.clone());
        assert_eq!(whole.offer(origin()), Offer::New(0, whole.head()));
        let three = origin().then_all(&entries[..3]);
        let packed = PackedBatch::new(three, whole.head(), &entries[3..]);
        let read = Entries::unpack(&packed.entries).unwrap();
        assert!(read.iter().eq(entries[3..].iter()));
        assert_eq!(three.then_all(read.iter()), whole.head());
        let cut = codec::compress(&codec::encode(&entries)[..9]);
        assert!(matches!(
            Entries::unpack(&cut),
            Err(DecodeError::Malformed(_))
        ));
        assert_eq!(whole.offer(three), Offer::New(3, whole.head()));
        assert_eq!(whole.offer(whole.head()), Offer::Duplicate);
        let tail = Batch::new(three, entries[3..].to_vec());
        assert_eq!(tail.offer(origin()), Offer::Gap(1));
        let other = origin().then(b"another history").then(b"of").then(b"three");
        assert_eq!(whole.offer(other), Offer::Fork(3));
        assert_eq!(tail.offer(other), Offer::Fork(3));
        let mut lie = whole;
        lie.hash = Hash([9; 32]);
        assert_eq!(lie.offer(origin()), Offer::Fork(5));
    }
}
