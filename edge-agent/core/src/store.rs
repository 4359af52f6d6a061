//! What the driver needs of a store: durable commits, the state to start from, and the facts to
//! send.

use shared::log::{Batch, Head, PackedBatch};

/// Why the store could not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Surely not done: there is no room.
    #[error("no room in the store: {0}")]
    Full(String),
    /// It may be done or not. The handle must be dropped and the store opened again.
    #[error("the store failed: {0}")]
    Failed(String),
    /// What is stored contradicts itself.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Written by a later version.
    #[error("the store is of format {found}, this version knows up to {known}")]
    Newer {
        /// Format found.
        found: u32,
        /// Newest format known.
        known: u32,
    },
}

/// What one step group makes durable, all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Encoded facts, behind the last one; the last of them ends a commit on the wire.
    pub facts: Vec<Vec<u8>>,
    /// Head of the fact log after them.
    pub facts_head: Option<Head>,
    /// Encoded directives, behind the last one.
    pub directives: Vec<Vec<u8>>,
    /// Head of the directive log after them.
    pub directives_head: Option<Head>,
    /// Small values by name: acknowledgements, reserved session numbers, counters.
    pub marks: Vec<(String, Vec<u8>)>,
    /// Rows of the snapshot by name that changed (none: the row goes).
    pub rows: Vec<(String, Option<Vec<u8>>)>,
    /// The rows now describe the state after these numbers of (facts, directives).
    pub snapshot: Option<(u64, u64)>,
    /// Facts up to this number may go.
    pub prune_facts: Option<u64>,
    /// Directives up to this number may go.
    pub prune_directives: Option<u64>,
    /// Details (thinnable evidence): number of the fact they hang on, bytes.
    pub details: Vec<(u64, Vec<u8>)>,
}

/// What is stored, to start from: the snapshot is read with `each_row`, what came after it with
/// `each_fact` and `each_directive`.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Small values by name.
    pub marks: Vec<(String, Vec<u8>)>,
    /// The rows of the snapshot describe the state after these numbers of (facts, directives).
    pub snapshot: (u64, u64),
    /// First fact that is still there (head + 1 if none).
    pub facts_first: u64,
    /// Last fact.
    pub facts: Head,
    /// Last directive.
    pub directives: Head,
}

/// Consecutive whole commits of one log, to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Number of the first entry.
    pub first: u64,
    /// The stored head that it continues; none where the entries before it are gone, and their hash
    /// with them.
    pub before: Option<Head>,
    /// The entries' bytes.
    pub entries: Vec<Vec<u8>>,
    /// The head after them, as it is stored.
    pub end: Head,
}

/// A node's journal.
pub trait Store {
    /// What is stored.
    ///
    /// # Errors
    /// [`StoreError`].
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Calls `each` with name and bytes of every row of the snapshot whose name begins with
    /// `prefix`, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    fn each_row(
        &mut self,
        prefix: &str,
        each: &mut dyn FnMut(&str, &[u8]),
    ) -> Result<(), StoreError>;

    /// Makes `commit` durable.
    ///
    /// # Errors
    /// [`StoreError::Full`] if surely nothing was stored, else [`StoreError::Failed`].
    fn commit(&mut self, commit: &Commit) -> Result<(), StoreError>;

    /// Drops the handle and opens the store again, after a failed commit.
    ///
    /// # Errors
    /// [`StoreError`].
    fn reopen(&mut self) -> Result<(), StoreError>;

    /// Facts behind `after` up to a commit's end, about `limits::BYTES_PER_COMMIT` at most; none if
    /// there are none. `after` must be the end of a commit.
    ///
    /// # Errors
    /// [`StoreError`].
    fn facts_after(&mut self, after: u64) -> Result<Option<Batch>, StoreError>;

    /// The facts right behind `after`, if they are packed already.
    ///
    /// # Errors
    /// [`StoreError`].
    fn packed_after(&mut self, _after: u64) -> Result<Option<PackedBatch>, StoreError> {
        Ok(None)
    }

    /// The chained hash at fact `number`, if it is still there (0 is the origin).
    ///
    /// # Errors
    /// [`StoreError`].
    fn fact_hash(&mut self, number: u64) -> Result<Option<Head>, StoreError>;

    /// Calls `each` with number and bytes of every fact behind `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn each_fact(&mut self, after: u64, each: &mut dyn FnMut(u64, &[u8]))
    -> Result<(), StoreError>;

    /// Calls `each` with number and bytes of every directive behind `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn each_directive(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), StoreError>;

    /// Directives behind `after`, as [`Self::facts_after`] gives facts; none if nothing follows.
    ///
    /// # Errors
    /// [`StoreError`].
    fn directives_after(&mut self, after: u64) -> Result<Option<Page>, StoreError>;

    /// Bytes that a commit (given in bytes of entries) may need on the device at most.
    fn room_needed(&self, entry_bytes: usize) -> u64;

    /// So many bytes are free on the device: a store that gave a reserve back may take it again.
    fn note_room(&mut self, _free: u64) {}
}
