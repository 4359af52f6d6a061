//! Facts, directives, and the two logs that carry them.
//!
//! A log stands for its hash chain: two logs with the same entries have the same hashes, so a
//! comparison of prefixes is the comparison of a number and a hash.

use std::fmt;

/// Most entries of a log; more than any history within the bounds writes.
const ENTRIES: usize = 12;

/// Fencing token of a slice: the generation of the coordinator and a number. Zero is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Epoch(u8);

impl Epoch {
    /// The token with this number, drawn in this generation.
    pub(crate) fn new(generation: u8, number: u8) -> Self {
        debug_assert!(generation < 8 && (1..8).contains(&number));
        Self(generation << 3 | number)
    }

    /// Its number within the run.
    pub(crate) fn number(self) -> u8 {
        self.0 & 7
    }

    /// A place among 64, for sets of epochs.
    pub(crate) fn index(self) -> u32 {
        u32::from(self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 3, self.0 & 7)
    }
}

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Fact: an attempt may have begun.
    Started,
    /// Fact: it ended well.
    Finished,
    /// Fact: it began, its end is not known, and it may not run twice.
    InDoubt,
    /// Fact: the slice is given back.
    Released,
    /// Directive: the slice is yours.
    Assign,
    /// Directive: give the slice back.
    Release,
    /// What a reader leaves that does not keep what it cannot read.
    Hole,
}

const KINDS: [Kind; 7] = [
    Kind::Started,
    Kind::Finished,
    Kind::InDoubt,
    Kind::Released,
    Kind::Assign,
    Kind::Release,
    Kind::Hole,
];

/// One entry, packed: kind, slice, epoch, what else tells its bytes from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Entry(u16);

impl Entry {
    /// `branch` stands for all that differs between two entries of the same meaning that two
    /// lives of one writer wrote (times, numbers of attempts): their hashes differ.
    pub(crate) fn new(kind: Kind, slice: usize, epoch: Epoch, branch: u8) -> Self {
        debug_assert!(slice < 2 && branch < 8);
        let kind = KINDS.iter().position(|k| *k == kind).unwrap_or(0) as u16;
        Self(kind << 13 | (slice as u16) << 12 | u16::from(branch) << 6 | u16::from(epoch.0))
    }

    /// The same entry, written while the wall clock was behind that of the entries before it.
    pub(crate) fn behind(self) -> Self {
        Self(self.0 | 1 << 9)
    }

    /// Whether the wall clock had gone back when it was written.
    pub(crate) fn is_behind(self) -> bool {
        self.0 & 1 << 9 != 0
    }

    /// What it says.
    pub(crate) fn kind(self) -> Kind {
        KINDS[usize::from(self.0 >> 13)]
    }

    /// Of which slice.
    pub(crate) fn slice(self) -> usize {
        usize::from(self.0 >> 12 & 1)
    }

    /// At which epoch.
    pub(crate) fn epoch(self) -> Epoch {
        Epoch((self.0 & 63) as u8)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slice = ["S0", "S1"][self.slice()];
        write!(f, "{:?} {slice} epoch {}", self.kind(), self.epoch())
    }
}

/// The entries of one direction, from number 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Log {
    len: u8,
    at: [u16; ENTRIES],
}

impl Log {
    /// Number of the last entry.
    pub(crate) fn len(&self) -> u8 {
        self.len
    }

    /// Whether nothing was written yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries in order.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = Entry> + '_ {
        self.raw().iter().map(|raw| Entry(*raw))
    }

    fn raw(&self) -> &[u16] {
        &self.at[..usize::from(self.len)]
    }

    /// Takes over what another log has behind this one's end, up to a number.
    pub(crate) fn extend(&mut self, other: &Self, until: u8) {
        for raw in &other.raw()[usize::from(self.len)..usize::from(until)] {
            self.push(Entry(*raw));
        }
    }

    /// Writes the next entry.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.at[usize::from(self.len)] = entry.0;
        self.len += 1;
    }

    /// Forgets what lies behind a number.
    pub(crate) fn truncate(&mut self, len: u8) {
        while self.len > len {
            self.len -= 1;
            self.at[usize::from(self.len)] = 0;
        }
    }

    /// Whether the other log continues this one: the hash at this log's end is known there.
    pub(crate) fn is_prefix_of(&self, other: &Self) -> bool {
        other.raw().starts_with(self.raw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_what_was_put_in() {
        for kind in KINDS {
            let entry = Entry::new(kind, 1, Epoch::new(3, 2), 5).behind();
            assert_eq!(
                (entry.kind(), entry.slice(), entry.epoch()),
                (kind, 1, Epoch::new(3, 2))
            );
            assert!(entry.is_behind());
            assert_ne!(entry, Entry::new(kind, 1, Epoch::new(3, 2), 4).behind());
        }
    }

    #[test]
    fn logs_are_compared_by_what_they_hold() {
        let (mut long, mut short) = (Log::default(), Log::default());
        for branch in [0, 1] {
            long.push(Entry::new(Kind::Started, 0, Epoch::new(0, 1), branch));
        }
        short.push(Entry::new(Kind::Started, 0, Epoch::new(0, 1), 0));
        assert!(short.is_prefix_of(&long) && !long.is_prefix_of(&short));
        short.push(Entry::new(Kind::Started, 0, Epoch::new(0, 1), 2));
        assert!(!short.is_prefix_of(&long));
        short.truncate(1);
        long.truncate(1);
        assert_eq!(short, long);
    }
}
