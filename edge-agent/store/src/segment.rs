//! A segment: consecutive whole commits of facts, compressed together. The unit of pruning, too.

use serde::{Deserialize, Serialize};
use shared::codec::{self, DecodeError};
use shared::ids::Hash;
use shared::log::{Batch, Entries, Head, PackedBatch};

/// A segment as stored; its key is the number of its first entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
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
            before: before.hash,
            after,
            ends,
            packed,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }

    /// Number of its last entry, when its first one is `first`.
    pub(crate) fn last(&self, first: u64) -> u64 {
        first - 1 + u64::from(self.ends.last().copied().unwrap_or(0))
    }

    /// The head before it.
    pub(crate) fn start(&self, first: u64) -> Head {
        Head {
            number: first - 1,
            hash: self.before,
        }
    }

    /// The head after it.
    pub(crate) fn end(&self, first: u64) -> Head {
        Head {
            number: self.last(first),
            hash: self.after,
        }
    }

    pub(crate) fn entries(&self) -> Result<Entries, DecodeError> {
        Entries::unpack(&self.packed)
    }

    /// The whole of it, as it is sent.
    pub(crate) fn into_packed(self, first: u64) -> PackedBatch {
        PackedBatch {
            after: self.start(first),
            head: self.end(first),
            entries: self.packed,
        }
    }

    /// The head after entry `number`.
    pub(crate) fn head_at(&self, first: u64, number: u64) -> Result<Head, DecodeError> {
        if number == self.last(first) {
            // what is acknowledged mostly ends with a segment: nothing needs to be unpacked
            return Ok(self.end(first));
        }
        let entries = self.entries()?;
        let count = entries
            .len()
            .min((number + 1).saturating_sub(first) as usize);
        Ok(self.start(first).then_all(entries.iter().take(count)))
    }

    /// Its entries behind the last commit that ends at or before `after`.
    pub(crate) fn batch(&self, first: u64, after: u64) -> Result<Batch, DecodeError> {
        let entries = self.entries()?;
        let passed = (after + 1).saturating_sub(first);
        let mut ends = self
            .ends
            .iter()
            .copied()
            .filter(|end| u64::from(*end) <= passed);
        let skip = entries.len().min(ends.next_back().unwrap_or(0) as usize);
        let from = self.start(first).then_all(entries.iter().take(skip));
        Ok(Batch {
            after: from,
            entries: entries.iter().skip(skip).map(<[u8]>::to_vec).collect(),
            hash: self.after,
        })
    }
}
