//! The hash chain that both logs are: an entry's hash covers its number, its bytes and the hash
//! before it.
//!
//! A reader accepts exactly `last + 1` on the hash of `last`; anything at or below is a duplicate,
//! anything above is a gap, and another hash is a fork, which is never applied
//! (`docs/protocol.md`).

use crate::ids::{Hash, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

/// Which of a node's two logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Direction {
    /// Facts, agent → coordinator.
    Up,
    /// Directives, coordinator → agent.
    Down,
}

/// Number and chained hash of an entry; number 0 is the origin, before the first entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Head {
    /// Entries are numbered from 1.
    pub number: u64,
    /// Hash of the chain up to and with that entry.
    pub hash: Hash,
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
    pub fn then_all<B: AsRef<[u8]>>(&self, entries: &[B]) -> Self {
        entries
            .iter()
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
        let mut head = self.after;
        let mut position = 0;
        while head.number < known.number.min(end) {
            head = head.then(&self.entries[position]);
            position += 1;
        }
        if head.number == known.number && head.hash != known.hash {
            return Offer::Fork(known.number);
        }
        let last = head.then_all(&self.entries[position..]);
        if last.hash != self.hash {
            return Offer::Fork(end);
        }
        if end <= known.number {
            Offer::Duplicate
        } else {
            Offer::New(position, last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Head {
        Head::origin(NodeId([1; 16]), Incarnation([2; 16]), Direction::Up)
    }

    #[test]
    fn a_reader_tells_new_old_missing_and_forked_entries_apart() {
        let entries: Vec<Vec<u8>> = (0u8..5).map(|n| vec![n; 3]).collect();
        let whole = Batch::new(origin(), entries.clone());
        assert_eq!(whole.offer(origin()), Offer::New(0, whole.head()));
        let three = origin().then_all(&entries[..3]);
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
