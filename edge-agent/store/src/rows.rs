//! Rows of the tables as they are read back. What no store of ours wrote is damage: it is told, and
//! nobody counts on from it.
//!
//! Invariant: once [`check_keys`] has passed, no number of an entry is the last of `u64` or near
//! it, and none is 0.

use edge_core::store::StoreError;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use shared::ids::Hash;
use shared::limits::{BYTES_PER_COMMIT, ENTRIES_PER_COMMIT};
use shared::log::{Batch, Head, LAST_NUMBER};

pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// 0 and the bytes, or 1, the chain's hash and the bytes for the last one of a commit.
pub(crate) const FACTS: Numbered = TableDefinition::new("facts");
pub(crate) const SEGMENTS: Numbered = TableDefinition::new("segments");
/// Like `FACTS`.
pub(crate) const DIRECTIVES: Numbered = TableDefinition::new("directives");
pub(crate) const MARKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("marks");
pub(crate) const ROWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("rows");
pub(crate) const DETAILS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("details");

/// A commit that is so many times larger than commits are has no end: one entry may be larger than
/// a commit, 32 times.
const ENDLESS: usize = 256;

/// A table whose keys number entries.
pub(crate) type Numbered = TableDefinition<'static, u64, &'static [u8]>;

/// What redb says of a read or write that went wrong: after it the handle must not be used.
pub(crate) fn failed(error: impl Into<redb::Error>) -> StoreError {
    use redb::Error;
    match error.into() {
        error @ (Error::Corrupted(_)
        | Error::TableDoesNotExist(_)
        | Error::TableIsMultimap(_)
        | Error::TableTypeMismatch { .. }
        | Error::TypeDefinitionChanged { .. }) => damaged(error),
        error => StoreError::Failed(error.to_string()),
    }
}

pub(crate) fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(what.to_string())
}

/// The number of an entry, if it is one that entries can have.
pub(crate) fn numbered(number: u64) -> Result<u64, StoreError> {
    match (1..=LAST_NUMBER).contains(&number) {
        true => Ok(number),
        false => Err(damaged(format!("no entry has the number {number}"))),
    }
}

/// Looks whether all that is read is there, and whether keys that number entries do: they are
/// sorted, so that the first and the last one stand for all.
pub(crate) fn check_keys(database: &Database) -> Result<(), StoreError> {
    let txn = database.begin_read().map_err(failed)?;
    for table in [FACTS, SEGMENTS, DIRECTIVES] {
        let table = txn.open_table(table).map_err(failed)?;
        for row in [table.first(), table.last()] {
            if let Some((number, _)) = row.map_err(failed)? {
                numbered(number.value())?;
            }
        }
    }
    for table in [MARKS, ROWS] {
        txn.open_table(table).map_err(failed)?;
    }
    Ok(())
}

/// Bytes of an entry, and the chain's hash if it is the last of a commit.
pub(crate) fn split(value: &[u8]) -> Result<(Option<Hash>, &[u8]), StoreError> {
    match value {
        [0, bytes @ ..] => Ok((None, bytes)),
        [1, rest @ ..] => {
            let (hash, bytes) = rest
                .split_first_chunk()
                .ok_or_else(|| damaged("an entry has no hash"))?;
            Ok((Some(Hash(*hash)), bytes))
        }
        _ => Err(damaged("an entry has no flag")),
    }
}

/// The head at the last row; none if there is no row.
pub(crate) fn last_row(
    rows: &impl ReadableTable<u64, &'static [u8]>,
) -> Result<Option<Head>, StoreError> {
    let Some((number, value)) = rows.last().map_err(failed)? else {
        return Ok(None);
    };
    let (hash, _) = split(value.value())?;
    Ok(Some(Head {
        number: number.value(),
        hash: hash.ok_or_else(|| damaged("a commit has no end"))?,
    }))
}

/// The last end of a commit among the rows from `first` to `last`.
pub(crate) fn last_end(
    rows: &impl ReadableTable<u64, &'static [u8]>,
    first: u64,
    last: u64,
) -> Result<Option<Head>, StoreError> {
    if last < first {
        return Ok(None);
    }
    for row in rows.range(first..=last).map_err(failed)?.rev() {
        let (number, value) = row.map_err(failed)?;
        if let (Some(hash), _) = split(value.value())? {
            let number = number.value();
            return Ok(Some(Head { number, hash }));
        }
    }
    Ok(None)
}

/// Whole commits from one place on: as many as one batch or one segment takes.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Number of the first entry.
    pub(crate) first: u64,
    /// The entries.
    pub(crate) entries: Vec<Vec<u8>>,
    /// Ends of commits, as entries from the first one.
    pub(crate) ends: Vec<u32>,
    /// The head after them.
    pub(crate) end: Head,
}

/// Whole commits of the rows from `first` to `last`; none if there are none.
pub(crate) fn gather(
    rows: &impl ReadableTable<u64, &'static [u8]>,
    first: u64,
    last: u64,
) -> Result<Option<Gathered>, StoreError> {
    let mut all: Option<Gathered> = None;
    let (mut kept, mut bytes) = (0, 0);
    for row in rows.range(first..=last).map_err(failed)? {
        let (number, value) = row.map_err(failed)?;
        let number = number.value();
        let (hash, data) = split(value.value())?;
        let all = all.get_or_insert_with(|| Gathered {
            first: number,
            entries: Vec::new(),
            ends: Vec::new(),
            end: Head::default(),
        });
        let next = all.first + all.entries.len() as u64;
        if number != next {
            return Err(missing(next));
        }
        bytes += data.len();
        let large = all.entries.len() >= ENTRIES_PER_COMMIT || bytes > BYTES_PER_COMMIT;
        if large && kept > 0 {
            break;
        }
        if all.entries.len() >= ENDLESS * ENTRIES_PER_COMMIT || bytes > ENDLESS * BYTES_PER_COMMIT {
            return Err(damaged(format!(
                "the commit from {} on has no end",
                all.first
            )));
        }
        all.entries.push(data.to_vec());
        if let Some(hash) = hash {
            kept = all.entries.len();
            all.ends.push(kept as u32);
            all.end = Head { number, hash };
        }
    }
    Ok(all.filter(|_| kept > 0).map(|mut all| {
        all.entries.truncate(kept);
        all
    }))
}

/// Entry `number` should be there.
pub(crate) fn missing(number: u64) -> StoreError {
    damaged(format!("entry {number} is missing"))
}

impl Gathered {
    /// The same, if its entries are the next ones behind `before`.
    pub(crate) fn behind(self, before: Head) -> Result<Self, StoreError> {
        match self.first == before.number + 1 {
            true => Ok(self),
            false => Err(missing(before.number + 1)),
        }
    }

    pub(crate) fn into_batch(self, after: Head) -> Batch {
        Batch {
            after,
            entries: self.entries,
            hash: self.end.hash,
        }
    }
}

/// The head after row `number`, from the nearest end of a commit before it.
pub(crate) fn head_at(
    rows: &impl ReadableTable<u64, &'static [u8]>,
    before: Head,
    number: u64,
) -> Result<Head, StoreError> {
    let mut head = last_end(rows, before.number + 1, number)?.unwrap_or(before);
    for row in rows.range(head.number + 1..=number).map_err(failed)? {
        let (next, value) = row.map_err(failed)?;
        if next.value() != head.number + 1 {
            return Err(missing(head.number + 1));
        }
        head = head.then(split(value.value())?.1);
    }
    match head.number == number {
        true => Ok(head),
        false => Err(missing(head.number + 1)),
    }
}
