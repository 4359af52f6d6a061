//! A segment: consecutive whole commits of facts, compressed together. The unit of pruning, too.

use crate::rows::{damaged, numbered};
use edge_core::store::StoreError;
use serde::{Deserialize, Serialize};
use shared::codec::{self, DecodeError};
use shared::ids::Hash;
use shared::log::{Batch, Entries, Head, PackedBatch};

/// A segment as stored; its key is the number of its first entry.
///
/// Invariant: it has a commit at least, each commit has an entry at least, and all entries have
/// numbers that entries can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    /// Number of its first entry.
    #[serde(skip)]
    first: u64,
    /// Hash of the chain before it.
    before: Hash,
    /// Hash of the chain after it.
    after: Hash,
    /// Ends of commits, as entries from the beginning of the segment.
    ends: Vec<u32>,
    /// The entries, compressed.
    #[serde(with = "codec::raw")]
    packed: Vec<u8>,
}

impl Segment {
    /// A segment of `entries` behind `before`.
    pub(crate) fn new(before: Head, after: Hash, ends: Vec<u32>, entries: &[Vec<u8>]) -> Self {
        let packed = codec::compress(&codec::encode(entries));
        Self {
            first: before.number + 1,
            before: before.hash,
            after,
            ends,
            packed,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the row with the key `first`.
    pub(crate) fn read(first: u64, bytes: &[u8]) -> Result<Self, StoreError> {
        let bad = |why: &str| damaged(format!("the facts from {first} on cannot be read: {why}"));
        let mut segment: Self = codec::decode(bytes).map_err(|error| bad(&error.to_string()))?;
        segment.first = numbered(first)?;
        let ascend = |last: u32, end: &u32| (*end > last).then_some(*end);
        let count = segment.ends.iter().try_fold(0, ascend).filter(|n| *n > 0);
        let count = count.ok_or_else(|| bad("their commits do not follow each other"))?;
        numbered(first - 1 + u64::from(count))?;
        Ok(segment)
    }

    fn count(&self) -> u32 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Number of its first entry.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Number of its last entry.
    pub(crate) fn last(&self) -> u64 {
        self.first - 1 + u64::from(self.count())
    }

    /// The head before it.
    fn start(&self) -> Head {
        Head {
            number: self.first - 1,
            hash: self.before,
        }
    }

    /// The head after it.
    pub(crate) fn end(&self) -> Head {
        Head {
            number: self.last(),
            hash: self.after,
        }
    }

    pub(crate) fn entries(&self) -> Result<Entries, DecodeError> {
        let entries = Entries::unpack(&self.packed)?;
        match entries.len() == self.count() as usize {
            true => Ok(entries),
            false => Err(DecodeError::Malformed(format!(
                "{} entries where {} were packed",
                entries.len(),
                self.count()
            ))),
        }
    }

    /// The whole of it, as it is sent.
    pub(crate) fn into_packed(self) -> PackedBatch {
        PackedBatch {
            after: self.start(),
            head: self.end(),
            entries: self.packed,
        }
    }

    /// The head after entry `number`.
    pub(crate) fn head_at(&self, number: u64) -> Result<Head, DecodeError> {
        if number == self.last() {
            // what is acknowledged mostly ends with a segment: nothing needs to be unpacked
            return Ok(self.end());
        }
        let entries = self.entries()?;
        let count = (number + 1).saturating_sub(self.first) as usize;
        Ok(self.start().then_all(entries.iter().take(count)))
    }

    /// Its entries behind the last commit that ends at or before `after`.
    pub(crate) fn batch(&self, after: u64) -> Result<Batch, DecodeError> {
        let entries = self.entries()?;
        let passed = (after + 1).saturating_sub(self.first);
        let mut ends = self
            .ends
            .iter()
            .copied()
            .filter(|end| u64::from(*end) <= passed);
        let skip = ends.next_back().unwrap_or(0) as usize;
        let from = self.start().then_all(entries.iter().take(skip));
        Ok(Batch {
            after: from,
            entries: entries.iter().skip(skip).map(<[u8]>::to_vec).collect(),
            hash: self.after,
        })
    }
}
