//! An inventory in parts: what a node has, run by run, for a coordinator that lost part of its
//! store.
//!
//! Items, each behind its length (`u32`, little endian), make one stream of bytes that is cut into
//! parts anywhere. So neither side holds more of it than one part and one item.

use crate::codec::{self, DecodeError};
use crate::directive::Directive;
use crate::fact::SliceState;
use crate::ids::RunId;
use crate::limits::{INVENTORY_ITEM_BYTES, INVENTORY_PART_BYTES};
use serde::{Deserialize, Serialize};

const LENGTH: usize = 4;

/// A part of a node's inventory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InventoryPart {
    /// The session whose welcome asked for it.
    pub session: u64,
    /// Counts from 0.
    pub part: u32,
    /// Nothing follows.
    pub last: bool,
    /// The next bytes of the stream of items.
    #[serde(with = "codec::raw")]
    pub bytes: Vec<u8>,
}

/// What an inventory is made of. Variants are numbered by position and may only be appended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Item {
    /// 0: `codec::pack` of the workflow of the runs that follow, up to the next workflow.
    Workflow(#[serde(with = "codec::raw")] Vec<u8>),
    /// 1: a run, each once.
    Run(RunState),
}

/// What a node has of a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunState {
    /// The run.
    pub run: RunId,
    /// Its slices here, with all their tasks but without the outputs of those: facts tell them.
    pub slices: Vec<SliceState>,
    /// Every cancel and pause of it that is still there.
    pub directives: Vec<Directive>,
}

impl Item {
    /// Puts it behind `stream`.
    pub fn put(&self, stream: &mut Vec<u8>) {
        let bytes = codec::encode(self);
        // what is too long for its length is too long for every reader
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        stream.extend_from_slice(&length.to_le_bytes());
        stream.extend_from_slice(&bytes);
    }
}

/// Why a part is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PartError {
    /// Nothing was asked, or all that was asked for is here.
    #[error("part {0} comes unasked, or behind the last one")]
    Unasked(u32),
    /// Of another session's inventory.
    #[error("a part of the inventory of session {found} in session {wanted}")]
    Session {
        /// Session in the part.
        found: u64,
        /// The session that it came in.
        wanted: u64,
    },
    /// Another one than the next.
    #[error("part {found} where part {wanted} is due")]
    Order {
        /// Number of the part.
        found: u32,
        /// Number that is due.
        wanted: u32,
    },
    /// Too many bytes, or none though more is to follow.
    #[error("a part of {0} bytes; 1 to {INVENTORY_PART_BYTES} are allowed")]
    Size(usize),
    /// An item is larger than any can be.
    #[error("an item of {0} bytes; {INVENTORY_ITEM_BYTES} are allowed")]
    Item(usize),
    /// The last part ends within an item.
    #[error("the last part ends within an item, behind {0} bytes of it")]
    Cut(usize),
    /// An item cannot be read.
    #[error("an item cannot be read: {0}")]
    Malformed(DecodeError),
    /// A run is told twice, or with a slice of another one.
    #[error("run {0} is told twice, or with a slice of another run")]
    Run(RunId),
}

/// Joins the parts of one inventory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reader {
    session: u64,
    next: u32,
    /// The beginning of an item that is not whole yet.
    rest: Vec<u8>,
}

impl Reader {
    /// For the inventory that the welcome of this session asks for.
    #[must_use]
    pub fn new(session: u64) -> Self {
        Self {
            session,
            next: 0,
            rest: Vec::new(),
        }
    }

    /// Whether a part was taken.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.next > 0
    }

    /// The items that are whole with this part.
    ///
    /// # Errors
    /// [`PartError`]: nothing of the part counts, and nothing can follow.
    pub fn take(&mut self, part: &InventoryPart) -> Result<Vec<Item>, PartError> {
        let size = part.bytes.len();
        if part.session != self.session {
            return Err(PartError::Session {
                found: part.session,
                wanted: self.session,
            });
        }
        if part.part != self.next {
            return Err(PartError::Order {
                found: part.part,
                wanted: self.next,
            });
        }
        if size > INVENTORY_PART_BYTES || size == 0 && !part.last {
            return Err(PartError::Size(size));
        }
        self.next += 1;
        self.rest.extend_from_slice(&part.bytes);
        let mut items = Vec::new();
        let mut from = 0;
        while let Some((length, behind)) = self.rest[from..].split_first_chunk::<LENGTH>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length > INVENTORY_ITEM_BYTES {
                return Err(PartError::Item(length));
            }
            let Some(bytes) = behind.get(..length) else {
                break;
            };
            items.push(codec::decode(bytes).map_err(PartError::Malformed)?);
            from += LENGTH + length;
        }
        self.rest.drain(..from);
        match self.rest.len() {
            left if left > 0 && part.last => Err(PartError::Cut(left)),
            _ => Ok(items),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::TaskStatus;
    use crate::ids::{Epoch, Hash, SliceRef, TaskIdx};
    use crate::state::TaskState;

    fn items() -> Vec<Item> {
        let run = |n: u8| {
            let run = RunId([n; 16]);
            let status = |task| TaskStatus {
                task: TaskIdx(task),
                state: TaskState::Ready,
                attempts: 1,
                outputs: Vec::new(),
            };
            let slices = vec![SliceState {
                slice: SliceRef {
                    run,
                    slice: 0,
                    epoch: Epoch(4),
                },
                workflow: Hash([n; 32]),
                tasks: (0..u32::from(n) * 40).map(status).collect(),
            }];
            let directives = Vec::new();
            Item::Run(RunState {
                run,
                slices,
                directives,
            })
        };
        vec![Item::Workflow(vec![9; 300]), run(1), run(2), run(3)]
    }

    fn parts(size: usize) -> Vec<InventoryPart> {
        let mut stream = Vec::new();
        items().iter().for_each(|item| item.put(&mut stream));
        let pieces: Vec<&[u8]> = stream.chunks(size).collect();
        let numbered = (0u32..).zip(&pieces);
        let part = |(part, bytes): (u32, &&[u8])| InventoryPart {
            session: 7,
            part,
            last: part as usize + 1 == pieces.len(),
            bytes: bytes.to_vec(),
        };
        numbered.map(part).collect()
    }

    #[test]
    fn items_that_are_cut_anywhere_are_joined_again() {
        for size in [1, 3, 64, 299, 1 << 20] {
            let mut reader = Reader::new(7);
            let mut found = Vec::new();
            for part in parts(size) {
                found.extend(reader.take(&part).unwrap());
            }
            assert_eq!(found, items());
        }
        let none = InventoryPart {
            session: 7,
            part: 0,
            last: true,
            bytes: Vec::new(),
        };
        assert_eq!(Reader::new(7).take(&none), Ok(Vec::new()));
    }

    #[test]
    fn each_part_that_does_not_belong_here_is_named() {
        let all = parts(200);
        let bad = |change: &dyn Fn(&mut InventoryPart)| {
            let mut reader = Reader::new(7);
            drop(reader.take(&all[0]).unwrap());
            let mut part = all[1].clone();
            change(&mut part);
            reader.take(&part).unwrap_err()
        };
        assert_eq!(
            bad(&|part| part.session = 6),
            PartError::Session {
                found: 6,
                wanted: 7
            }
        );
        let order = |found| PartError::Order { found, wanted: 1 };
        assert_eq!(bad(&|part| part.part = 0), order(0));
        assert_eq!(bad(&|part| part.part = 2), order(2));
        assert_eq!(bad(&|part| part.bytes.clear()), PartError::Size(0));
        let large = INVENTORY_PART_BYTES + 1;
        assert_eq!(
            bad(&|part| part.bytes = vec![0; large]),
            PartError::Size(large)
        );
        assert!(matches!(bad(&|part| part.last = true), PartError::Cut(_)));
        let first = |bytes: Vec<u8>| {
            let mut part = all[0].clone();
            part.bytes = bytes;
            Reader::new(7).take(&part).unwrap_err()
        };
        let claimed = INVENTORY_ITEM_BYTES + 1;
        let claim = (claimed as u32).to_le_bytes().to_vec();
        assert_eq!(first(claim), PartError::Item(claimed));
        assert!(matches!(
            first(vec![1, 0, 0, 0, 77]),
            PartError::Malformed(_)
        ));
    }
}
