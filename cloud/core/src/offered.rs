//! Facts as a node offers them, read: their chain computed and each fact decoded. It needs nothing
//! of the engine, so whoever receives them may do it on a thread of its own.

use shared::codec::DecodeError;
use shared::fact::Fact;
use shared::log::{Batch, Entries, Head, LAST_NUMBER, Offer, PackedBatch};
use shared::planted::{self, Mistake};

/// Facts read once: number and fact; those of kinds that this version does not know are absent.
pub type Decoded = Vec<(u64, Fact)>;

/// A batch of facts that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offered {
    /// The head that the first entry continues, as the node says.
    pub(crate) after: Head,
    /// Number and hash of the last entry, as the node says.
    claimed: Head,
    /// The same, computed.
    head: Head,
    /// The entries' bytes.
    pub(crate) entries: Entries,
    /// The same as they came.
    pub(crate) packed: Option<Vec<u8>>,
    /// What they say.
    pub(crate) facts: Decoded,
}

impl Offered {
    /// Reads facts that came packed.
    ///
    /// # Errors
    /// [`DecodeError`]: what was packed is no list of entries, or too large.
    pub fn unpack(batch: PackedBatch) -> Result<Self, DecodeError> {
        let entries = Entries::unpack(&batch.entries)?;
        let packed = Some(batch.entries);
        Ok(Self::read(batch.after, batch.head, entries, packed))
    }

    fn read(after: Head, claimed: Head, entries: Entries, packed: Option<Vec<u8>>) -> Self {
        let mut head = after;
        let mut facts = Vec::with_capacity(entries.len());
        for bytes in entries.iter() {
            head = head.then(bytes);
            facts.extend(Fact::decode(head.number, bytes).map(|fact| (head.number, fact)));
        }
        Self {
            after,
            claimed,
            head,
            entries,
            packed,
            facts,
        }
    }

    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        // what a fact holds besides lies about as large in its entry
        let entries = 2 * self.entries.bytes() + self.packed.as_ref().map_or(0, Vec::len);
        entries + self.facts.len() * size_of::<(u64, Fact)>()
    }

    /// Number of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.head.number
    }

    /// Judges it against a reader whose last entry is `known`, like `Batch::offer`.
    #[must_use]
    pub(crate) fn offer(&self, known: Head) -> Offer {
        if self.after.number > known.number {
            return Offer::Gap(known.number + 1);
        }
        if self.head.number > LAST_NUMBER {
            return Offer::Fork(self.head.number);
        }
        let passed = known.number.min(self.head.number) - self.after.number;
        let passed = usize::try_from(passed).unwrap_or(usize::MAX);
        let there = self.after.then_all(self.entries.iter().take(passed));
        let by_number = planted::on(Mistake::CursorsByNumber);
        if there.number == known.number && there.hash != known.hash && !by_number {
            Offer::Fork(known.number)
        } else if self.head != self.claimed && !by_number {
            Offer::Fork(self.head.number)
        } else if self.head.number <= known.number {
            Offer::Duplicate
        } else {
            Offer::New(passed, self.head)
        }
    }
}

impl From<Batch> for Offered {
    fn from(batch: Batch) -> Self {
        let entries = batch.entries.iter().collect();
        Self::read(batch.after, batch.head(), entries, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::{Hash, Incarnation, NodeId};
    use shared::log::Direction;

    #[test]
    fn it_is_judged_as_the_batch_would_be() {
        let origin = Head::origin(NodeId([1; 16]), Incarnation([2; 16]), Direction::Up);
        let entries: Vec<Vec<u8>> = (0u8..5).map(|n| vec![n; 3]).collect();
        let heads: Vec<Head> = (0..=5).map(|n| origin.then_all(&entries[..n])).collect();
        let other = origin.then(b"another history").then(b"of").then(b"three");
        let last = Head {
            number: LAST_NUMBER,
            ..origin
        };
        let mut batches = vec![Batch::new(last, entries.clone())];
        for from in 0..5 {
            for to in from..=5 {
                let good = Batch::new(heads[from], entries[from..to].to_vec());
                let mut lie = good.clone();
                lie.hash = Hash([9; 32]);
                batches.extend([good, lie]);
            }
        }
        for batch in batches {
            for known in heads.iter().chain([&other, &last]) {
                let packed = PackedBatch::new(batch.after, batch.head(), &batch.entries);
                let offered = Offered::unpack(packed).unwrap();
                assert_eq!(offered.offer(*known), batch.offer(*known), "{batch:?}");
                let plain = Offered::from(batch.clone());
                assert_eq!(plain.offer(*known), batch.offer(*known));
            }
        }
    }
}
