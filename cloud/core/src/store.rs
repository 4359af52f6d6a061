//! What the engine needs of a store: aggregates with versions, inboxes, event ids, facts and
//! directive logs.
//!
//! A transaction changes one aggregate against its version and appends to the inboxes of others.
//! One commit holds many transactions, applied in order: each is checked by itself, all become
//! durable at once.

use serde::{Deserialize, Serialize};
use shared::ids::{Generation, Hash, NodeId, RunId, ScheduleId};
use shared::log::{Entries, Head};
use shared::wire::LogId;

/// The row of the fleet by which `backup restore` says that the store went back; its text says why.
pub const RESTORED: &str = "restored";

/// The row of the fleet with the nodes (encoded, a list) that a restore does not wait for.
pub const RESTORED_WITHOUT: &str = "restored_without";

/// Which aggregate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum AggregateId {
    /// Generation, hold, tokens, names, files. There is one.
    Fleet,
    /// A node: claim, cursors, directives.
    Node(NodeId),
    /// A run: its slices and tasks.
    Run(RunId),
    /// What happened: events and the audit record. There is one.
    Record,
    /// A schedule: its owner, and what became of its slots.
    Schedule(ScheduleId),
}

impl AggregateId {
    /// Sorts like the value: a kind, then 16 bytes.
    #[must_use]
    pub fn key(self) -> [u8; 17] {
        let (kind, id) = match self {
            Self::Fleet => (0, [0; 16]),
            Self::Node(node) => (1, node.0),
            Self::Run(run) => (2, run.0),
            Self::Record => (3, [0; 16]),
            Self::Schedule(id) => (4, id.0),
        };
        let mut key = [kind; 17];
        key[1..].copy_from_slice(&id);
        key
    }

    /// The aggregate with this key.
    #[must_use]
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (kind, id) = key.split_first()?;
        let id: [u8; 16] = id.try_into().ok()?;
        match kind {
            0 => Some(Self::Fleet),
            1 => Some(Self::Node(NodeId(id))),
            2 => Some(Self::Run(RunId(id))),
            3 => Some(Self::Record),
            4 => Some(Self::Schedule(ScheduleId(id))),
            _ => None,
        }
    }
}

/// Id of the event that a transaction answers: looked for after a commit whose end is not known.
pub type EventId = [u8; 16];

/// What ids of requests begin with that nobody repeats under the same id.
pub const REQUEST: [u8; 8] = *b"request\0";

/// Id of the request `number` of a life of the store.
#[must_use]
pub fn request_event(generation: Generation, number: u32) -> EventId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&REQUEST);
    let life = u32::try_from(generation.0).unwrap_or(u32::MAX);
    id[8..12].copy_from_slice(&life.to_be_bytes());
    id[12..].copy_from_slice(&number.to_be_bytes());
    id
}

/// Consecutive facts of one node as they were received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Whose.
    pub log: LogId,
    /// Head before the first.
    pub after: Head,
    /// Head after the last.
    pub head: Head,
    /// Their bytes.
    pub entries: Entries,
    /// The same as `PackedBatch` carries them, if all of such a batch is in it.
    pub packed: Option<Vec<u8>>,
}

/// An entry of a node's directive log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Number and chained hash.
    pub head: Head,
    /// The entry's bytes.
    pub bytes: Vec<u8>,
}

/// Old entries that nobody needs any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prune {
    /// Segments of facts that end at or below this number.
    Facts(LogId, u64),
    /// Directives at or below this number.
    Directives(LogId, u64),
    /// The id of an event.
    Event(EventId),
    /// The ids of requests of earlier lives of the store.
    Requests(Generation),
    /// The transaction's own aggregate, with its rows and the messages to it.
    Aggregate,
}

/// One aggregate's change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Which aggregate.
    pub aggregate: AggregateId,
    /// The version it must have (0: it does not exist); it becomes one more.
    pub expected: u64,
    /// The events it answers.
    pub events: Vec<EventId>,
    /// Its state apart from `rows`.
    pub head: Vec<u8>,
    /// Further rows by name (none: the row goes).
    pub rows: Vec<(String, Option<Vec<u8>>)>,
    /// Messages to others: receiver, the sender's number, bytes.
    pub sends: Vec<(AggregateId, u64, Vec<u8>)>,
    /// Messages folded: sender, up to which number of it.
    pub drained: Vec<(AggregateId, u64)>,
    /// Facts received (of a node).
    pub facts: Vec<Segment>,
    /// Entries of this directive log above this number go, before `directives` are added.
    pub truncate: Option<(LogId, u64)>,
    /// New directives (of a node).
    pub directives: Vec<(LogId, Entry)>,
    /// What goes, after all of the above.
    pub prune: Vec<Prune>,
}

impl Transaction {
    /// A change of an aggregate's head, and nothing else.
    #[must_use]
    pub fn of(aggregate: AggregateId, expected: u64, head: Vec<u8>) -> Self {
        Self {
            aggregate,
            expected,
            events: Vec::new(),
            head,
            rows: Vec::new(),
            sends: Vec::new(),
            drained: Vec::new(),
            facts: Vec::new(),
            truncate: None,
            directives: Vec::new(),
            prune: Vec::new(),
        }
    }
}

/// What became of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Durable.
    Done,
    /// The aggregate has another version; nothing of the transaction is stored.
    Conflict {
        /// The version it has.
        version: u64,
    },
}

/// Why the store could not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Surely nothing was stored.
    #[error("the store refused: {0}; nothing was stored")]
    NotDone(String),
    /// It may be done or not; the store must be opened again.
    #[error("the store failed: {0}; it must be opened again")]
    Unknown(String),
    /// What is stored contradicts itself.
    #[error("the store is damaged: {0}; restore it from a backup")]
    Damaged(String),
    /// Not a store of this program.
    #[error("this is not a coordinator's store: {0}")]
    Foreign(String),
    /// Written by a later version.
    #[error(
        "the store has format {found}, this version knows up to {known}; use the newer program"
    )]
    Newer {
        /// Format found.
        found: u32,
        /// Newest format known.
        known: u32,
    },
}

/// Called with an entry's number and bytes.
pub type EachEntry<'a> = dyn FnMut(u64, &[u8]) + 'a;

/// Called with receiver, sender, number and bytes of a message.
pub type EachMessage<'a> = dyn FnMut(AggregateId, AggregateId, u64, &[u8]) + 'a;

/// The coordinator's store.
pub trait Store {
    /// Calls `each` with id, version and head of every aggregate.
    ///
    /// # Errors
    /// [`StoreError`].
    fn aggregates(
        &mut self,
        each: &mut dyn FnMut(AggregateId, u64, &[u8]),
    ) -> Result<(), StoreError>;

    /// A row of an aggregate.
    ///
    /// # Errors
    /// [`StoreError`].
    fn row(&mut self, id: AggregateId, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Calls `each` with the rows of an aggregate whose names begin with `prefix`, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    fn rows(
        &mut self,
        id: AggregateId,
        prefix: &str,
        each: &mut dyn FnMut(&str, &[u8]),
    ) -> Result<(), StoreError>;

    /// Calls `each` with (receiver, sender, number, bytes) of every message that is not folded yet.
    ///
    /// # Errors
    /// [`StoreError`].
    fn inboxes(&mut self, each: &mut EachMessage<'_>) -> Result<(), StoreError>;

    /// The aggregate and its version that answered this event, if one did.
    ///
    /// # Errors
    /// [`StoreError`].
    fn event(&mut self, id: &EventId) -> Result<Option<(AggregateId, u64)>, StoreError>;

    /// Calls `each` with the stored facts numbered `from..=to` of a log.
    ///
    /// # Errors
    /// [`StoreError`].
    fn facts(
        &mut self,
        log: LogId,
        from: u64,
        to: u64,
        each: &mut EachEntry<'_>,
    ) -> Result<(), StoreError>;

    /// Directives behind `after`, at most `entries` of them and about `bytes`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn directives(
        &mut self,
        log: LogId,
        after: u64,
        entries: usize,
        bytes: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// The chained hash at directive `number`, if it is stored.
    ///
    /// # Errors
    /// [`StoreError`].
    fn directive_hash(&mut self, log: LogId, number: u64) -> Result<Option<Hash>, StoreError>;

    /// Applies the transactions in order and makes those without a conflict durable, at once.
    ///
    /// # Errors
    /// [`StoreError::NotDone`] if surely nothing was stored, else [`StoreError::Unknown`].
    fn commit(&mut self, transactions: &[Transaction]) -> Result<Vec<Outcome>, StoreError>;

    /// Drops the handle and opens the store again.
    ///
    /// # Errors
    /// [`StoreError`].
    fn reopen(&mut self) -> Result<(), StoreError>;
}
