//! The store's tables and transactions.

use crate::open::{CACHE, FORMAT, Identity, MakeBackend, database};
use crate::prune::{drop_until, prune_directives, prune_facts};
use crate::reserve::{RESERVE, Reserve};
use crate::segment::Segment;
use edge_core::store::{Commit, Loaded, Page, Store, StoreError};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use redb::{Table, TableError, WriteTransaction};
use shared::codec;
use shared::ids::{Incarnation, NodeId};
use shared::limits::{BYTES_PER_COMMIT, ENTRIES_PER_COMMIT};
use shared::log::{Batch, Direction, Head, PackedBatch};
use shared::planted::{self, Mistake};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// 0 and the bytes, or 1, the chain's hash and the bytes for the last one of a commit.
pub(crate) const FACTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("facts");
pub(crate) const SEGMENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("segments");
/// Like `FACTS`.
pub(crate) const DIRECTIVES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("directives");
const MARKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("marks");
const ROWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("rows");
pub(crate) const DETAILS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("details");

/// Details kept.
const DETAILS_KEPT: u64 = 10_000;
/// Segments packed in one commit.
const PACK: usize = 8;

/// The journal of one incarnation of a node, on redb.
pub struct RedbStore {
    make: MakeBackend,
    identity: Identity,
    cache: usize,
    database: Option<Database>,
    /// A write found no room.
    full: Arc<AtomicBool>,
    reserve: Option<Box<dyn Reserve>>,
    facts: Head,
    directives: Head,
}

impl std::fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbStore")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// A read or write that went wrong: after it the handle must not be used.
pub(crate) fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

pub(crate) fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(what.to_string())
}

impl RedbStore {
    /// Opens a store that exists.
    ///
    /// # Errors
    /// [`StoreError`]: empty, damaged, foreign, of a later format, or unreadable.
    pub fn open(make: MakeBackend, identity: Identity) -> Result<Self, StoreError> {
        Self::open_with(make, identity, CACHE)
    }

    /// Like [`Self::open`], with `cache` bytes for pages.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_with(
        make: MakeBackend,
        identity: Identity,
        cache: usize,
    ) -> Result<Self, StoreError> {
        let mut store = Self::blank(make, identity, cache);
        store.attach()?;
        Ok(store)
    }

    /// Makes a store on an empty backend.
    ///
    /// # Errors
    /// [`StoreError`]: it is not empty, or cannot be written.
    pub fn create(make: MakeBackend, identity: Identity) -> Result<Self, StoreError> {
        let mut store = Self::blank(make, identity, CACHE);
        let database = database((store.make)()?, CACHE, &store.full)?;
        if begin(&database)?
            .list_tables()
            .map_err(failed)?
            .next()
            .is_some()
        {
            return Err(damaged("a new store was to be made where one is already"));
        }
        let txn = begin(&database)?;
        {
            let mut meta = txn.open_table(META).map_err(failed)?;
            let whose = codec::encode(&(identity.node, identity.incarnation));
            meta.insert("format", FORMAT.to_le_bytes().as_slice())
                .map_err(failed)?;
            meta.insert("identity", whose.as_slice()).map_err(failed)?;
        }
        open_all(&txn)?;
        txn.commit().map_err(failed)?;
        store.database = Some(database);
        Ok(store)
    }

    fn blank(make: MakeBackend, identity: Identity, cache: usize) -> Self {
        let Identity { node, incarnation } = identity;
        Self {
            make,
            identity,
            cache,
            database: None,
            full: Arc::default(),
            reserve: None,
            facts: Head::origin(node, incarnation, Direction::Up),
            directives: Head::origin(node, incarnation, Direction::Down),
        }
    }

    /// Keeps room aside, now or as soon as there is some.
    #[must_use]
    pub fn with_reserve(mut self, reserve: Box<dyn Reserve>) -> Self {
        if !reserve.is_held() {
            reserve.take();
        }
        self.reserve = Some(reserve);
        self
    }

    /// A write ended without room: the store is opened again, which shows whether the commit is
    /// there. If it is not, it is tried once more in the room of the reserve.
    fn without_room(&mut self, commit: &Commit, error: StoreError) -> Result<(), StoreError> {
        let before = (self.facts, self.directives);
        let more = self.win_room();
        if self.attach().is_err() || (self.facts, self.directives) != before {
            return Err(error);
        }
        // Without entries it leaves no trace to tell by, and may be stored twice.
        let told = !commit.facts.is_empty() || !commit.directives.is_empty();
        match error {
            _ if more => self.write(commit),
            StoreError::Failed(text) if told => Err(StoreError::Full(text)),
            other => Err(other),
        }
    }

    /// Gives the reserve back. Whether that won room.
    fn win_room(&mut self) -> bool {
        if planted::on(Mistake::PruneBeforeReserve) {
            let prune_facts = Some(self.facts.number / 2);
            let less = Commit {
                prune_facts,
                ..Commit::default()
            };
            return self.attach().is_ok() && self.write(&less).is_ok();
        }
        let reserve = self.reserve.as_ref();
        reserve.is_some_and(|reserve| reserve.give_back())
    }

    fn attach(&mut self) -> Result<(), StoreError> {
        self.database = None;
        let backend = (self.make)()?;
        if backend.len().map_err(failed)? == 0 {
            return Err(damaged("its file is empty, though this node has a history"));
        }
        let database = database(backend, self.cache, &self.full)?;
        check_identity(&database, self.identity)?;
        let Identity { node, incarnation } = self.identity;
        let origin = Head::origin(node, incarnation, Direction::Up);
        self.facts = last_fact(&database, origin)?;
        let origin = Head::origin(node, incarnation, Direction::Down);
        self.directives = last_directive(&database, origin)?;
        self.database = Some(database);
        Ok(())
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.database
            .as_ref()
            .ok_or_else(|| failed("the store is not open"))
    }

    fn write(&self, commit: &Commit) -> Result<(), StoreError> {
        let txn = begin(self.database()?)?;
        if !commit.facts.is_empty() {
            let head = commit
                .facts_head
                .ok_or_else(|| failed("facts without their head"))?;
            append(&txn, FACTS, self.facts, &commit.facts, head)?;
        }
        if !commit.directives.is_empty() {
            let head = commit
                .directives_head
                .ok_or_else(|| failed("directives without a head"))?;
            append(&txn, DIRECTIVES, self.directives, &commit.directives, head)?;
        }
        if !commit.marks.is_empty() {
            let mut marks = txn.open_table(MARKS).map_err(failed)?;
            for (name, value) in &commit.marks {
                marks
                    .insert(name.as_str(), value.as_slice())
                    .map_err(failed)?;
            }
        }
        if !commit.details.is_empty() {
            write_details(&txn, &commit.details)?;
        }
        if let Some(after) = commit.snapshot {
            write_snapshot(&txn, after, &commit.rows)?;
            pack(&txn, self.origin(), after.0)?;
        }
        if let Some(last) = commit.prune_facts {
            prune_facts(&txn, self.origin(), last)?;
        }
        if let Some(last) = commit.prune_directives {
            prune_directives(&txn, last)?;
        }
        txn.commit().map_err(failed)
    }

    fn origin(&self) -> Head {
        let Identity { node, incarnation } = self.identity;
        Head::origin(node, incarnation, Direction::Up)
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut txn = database.begin_write().map_err(failed)?;
    txn.set_quick_repair(true);
    Ok(txn)
}

fn open_all(txn: &WriteTransaction) -> Result<(), StoreError> {
    for table in [FACTS, SEGMENTS, DIRECTIVES] {
        txn.open_table(table).map_err(failed)?;
    }
    for table in [MARKS, ROWS] {
        txn.open_table(table).map_err(failed)?;
    }
    txn.open_table(DETAILS).map_err(failed)?;
    Ok(())
}

fn check_identity(database: &Database, identity: Identity) -> Result<(), StoreError> {
    let txn = database.begin_read().map_err(failed)?;
    let meta = txn.open_table(META).map_err(|error| match error {
        TableError::Storage(error) => failed(error),
        _ => damaged("it is not a store of an agent"),
    })?;
    let format = meta.get("format").map_err(failed)?;
    let format = format.ok_or_else(|| damaged("it names no format"))?;
    let found = format
        .value()
        .try_into()
        .map(u32::from_le_bytes)
        .map_err(damaged)?;
    if found > FORMAT {
        return Err(StoreError::Newer {
            found,
            known: FORMAT,
        });
    }
    let whose = meta.get("identity").map_err(failed)?;
    let whose = whose.ok_or_else(|| damaged("it names no node"))?;
    let (node, incarnation): (NodeId, Incarnation) =
        codec::decode(whose.value()).map_err(damaged)?;
    if (node, incarnation) != (identity.node, identity.incarnation) {
        return Err(damaged(format!(
            "it belongs to node {node}, incarnation {incarnation}, not to node {}, incarnation {}",
            identity.node, identity.incarnation
        )));
    }
    Ok(())
}

/// Bytes of an entry, and the chain's hash if it is the last of a commit.
pub(crate) fn split(value: &[u8]) -> Result<(Option<shared::ids::Hash>, &[u8]), StoreError> {
    match value {
        [0, bytes @ ..] => Ok((None, bytes)),
        [1, rest @ ..] if rest.len() >= 32 => {
            let mut hash = [0; 32];
            hash.copy_from_slice(&rest[..32]);
            Ok((Some(shared::ids::Hash(hash)), &rest[32..]))
        }
        _ => Err(damaged("an entry has no flag")),
    }
}

fn append(
    txn: &WriteTransaction,
    table: TableDefinition<'_, u64, &'static [u8]>,
    after: Head,
    entries: &[Vec<u8>],
    head: Head,
) -> Result<(), StoreError> {
    let mut table = txn.open_table(table).map_err(failed)?;
    let mut value = Vec::new();
    for (n, bytes) in entries.iter().enumerate() {
        value.clear();
        if n + 1 == entries.len() {
            value.push(1);
            value.extend_from_slice(&head.hash.0);
        } else {
            value.push(0);
        }
        value.extend_from_slice(bytes);
        let number = after.number + 1 + n as u64;
        table.insert(number, value.as_slice()).map_err(failed)?;
    }
    Ok(())
}

fn write_details(txn: &WriteTransaction, details: &[(u64, Vec<u8>)]) -> Result<(), StoreError> {
    let mut table = txn.open_table(DETAILS).map_err(failed)?;
    for (n, (fact, bytes)) in details.iter().enumerate() {
        table
            .insert((*fact, n as u32), bytes.as_slice())
            .map_err(failed)?;
    }
    let mut extra = table.len().map_err(failed)?.saturating_sub(DETAILS_KEPT);
    while extra > 0 {
        table.pop_first().map_err(failed)?;
        extra -= 1;
    }
    Ok(())
}

fn write_snapshot(
    txn: &WriteTransaction,
    after: (u64, u64),
    rows: &[(String, Option<Vec<u8>>)],
) -> Result<(), StoreError> {
    let mut table = txn.open_table(ROWS).map_err(failed)?;
    for (name, row) in rows {
        match row {
            Some(bytes) => drop(
                table
                    .insert(name.as_str(), bytes.as_slice())
                    .map_err(failed)?,
            ),
            None => drop(table.remove(name.as_str()).map_err(failed)?),
        }
    }
    let mut meta = txn.open_table(META).map_err(failed)?;
    meta.insert("snapshot", codec::encode(&after).as_slice())
        .map_err(failed)?;
    Ok(())
}

/// The head before the first fact that is in `FACTS`.
fn before_rows(txn: &WriteTransaction, origin: Head) -> Result<Head, StoreError> {
    let segments = txn.open_table(SEGMENTS).map_err(failed)?;
    if let Some((first, value)) = segments.last().map_err(failed)? {
        let segment = Segment::read(value.value()).map_err(damaged)?;
        return Ok(segment.end(first.value()));
    }
    let meta = txn.open_table(META).map_err(failed)?;
    let pruned = meta.get("pruned").map_err(failed)?;
    pruned.map_or(Ok(origin), |value| {
        codec::decode(value.value()).map_err(damaged)
    })
}

/// Packs facts up to `last` into full segments.
fn pack(txn: &WriteTransaction, origin: Head, last: u64) -> Result<(), StoreError> {
    let mut before = before_rows(txn, origin)?;
    for _ in 0..PACK {
        if last.saturating_sub(before.number) < ENTRIES_PER_COMMIT as u64 {
            return Ok(());
        }
        let mut facts = txn.open_table(FACTS).map_err(failed)?;
        let Some((segment, end)) = gather(&facts, before, last)? else {
            return Ok(());
        };
        drop_until(&mut facts, end.number)?;
        let mut segments = txn.open_table(SEGMENTS).map_err(failed)?;
        segments
            .insert(before.number + 1, segment.bytes().as_slice())
            .map_err(failed)?;
        before = end;
    }
    Ok(())
}

/// Whole commits behind `before`, as many as one segment takes.
fn gather(
    facts: &Table<'_, u64, &'static [u8]>,
    before: Head,
    last: u64,
) -> Result<Option<(Segment, Head)>, StoreError> {
    let (mut entries, mut ends, mut bytes) = (Vec::new(), Vec::new(), 0);
    let (mut kept, mut end) = (0, before);
    for item in facts.range(before.number + 1..=last).map_err(failed)? {
        let (number, value) = item.map_err(failed)?;
        let (hash, data) = split(value.value())?;
        bytes += data.len();
        entries.push(data.to_vec());
        let Some(hash) = hash else { continue };
        let large = entries.len() > ENTRIES_PER_COMMIT || bytes > BYTES_PER_COMMIT;
        if large && kept > 0 {
            break;
        }
        kept = entries.len();
        ends.push(kept as u32);
        end = Head {
            number: number.value(),
            hash,
        };
    }
    entries.truncate(kept);
    let segment = Segment::new(before, end.hash, ends, &entries);
    Ok((kept > 0).then_some((segment, end)))
}

fn pruned(database: &Database, origin: Head) -> Result<Head, StoreError> {
    let txn = database.begin_read().map_err(failed)?;
    let meta = txn.open_table(META).map_err(failed)?;
    let value = meta.get("pruned").map_err(failed)?;
    value.map_or(Ok(origin), |value| {
        codec::decode(value.value()).map_err(damaged)
    })
}

fn last_fact(database: &Database, origin: Head) -> Result<Head, StoreError> {
    let txn = database.begin_read().map_err(failed)?;
    let facts = txn.open_table(FACTS).map_err(failed)?;
    if let Some((number, value)) = facts.last().map_err(failed)? {
        let hash = split(value.value())?
            .0
            .ok_or_else(|| damaged("a commit has no end"))?;
        return Ok(Head {
            number: number.value(),
            hash,
        });
    }
    let segments = txn.open_table(SEGMENTS).map_err(failed)?;
    if let Some((first, value)) = segments.last().map_err(failed)? {
        return Ok(Segment::read(value.value())
            .map_err(damaged)?
            .end(first.value()));
    }
    pruned(database, origin)
}

fn last_directive(database: &Database, origin: Head) -> Result<Head, StoreError> {
    let txn = database.begin_read().map_err(failed)?;
    let table = txn.open_table(DIRECTIVES).map_err(failed)?;
    let Some((number, value)) = table.last().map_err(failed)? else {
        return Ok(origin);
    };
    let hash = split(value.value())?
        .0
        .ok_or_else(|| damaged("a commit has no end"))?;
    Ok(Head {
        number: number.value(),
        hash,
    })
}

fn texts(
    txn: &redb::ReadTransaction,
    table: TableDefinition<'_, &'static str, &'static [u8]>,
) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let table = txn.open_table(table).map_err(failed)?;
    let mut out = Vec::new();
    for item in table.iter().map_err(failed)? {
        let (name, value) = item.map_err(failed)?;
        out.push((name.value().to_owned(), value.value().to_vec()));
    }
    Ok(out)
}

impl Store for RedbStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let database = self.database()?;
        let txn = database.begin_read().map_err(failed)?;
        let meta = txn.open_table(META).map_err(failed)?;
        let snapshot = match meta.get("snapshot").map_err(failed)? {
            Some(value) => codec::decode(value.value()).map_err(damaged)?,
            None => (0, 0),
        };
        Ok(Loaded {
            marks: texts(&txn, MARKS)?,
            snapshot,
            facts_first: pruned(database, self.origin())?.number + 1,
            facts: self.facts,
            directives: self.directives,
        })
    }

    fn each_row(
        &mut self,
        prefix: &str,
        each: &mut dyn FnMut(&str, &[u8]),
    ) -> Result<(), StoreError> {
        let txn = self.database()?.begin_read().map_err(failed)?;
        let table = txn.open_table(ROWS).map_err(failed)?;
        for item in table.range(prefix..).map_err(failed)? {
            let (name, value) = item.map_err(failed)?;
            if !name.value().starts_with(prefix) {
                break;
            }
            each(name.value(), value.value());
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.full.store(false, Ordering::Relaxed);
        if let Err(error) = self.write(commit) {
            if !self.full.load(Ordering::Relaxed) {
                return Err(error);
            }
            self.without_room(commit, error)?;
        }
        if !commit.facts.is_empty() {
            self.facts = commit.facts_head.unwrap_or(self.facts);
        }
        if !commit.directives.is_empty() {
            self.directives = commit.directives_head.unwrap_or(self.directives);
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.full.store(false, Ordering::Relaxed);
        match self.attach() {
            // Opening writes, too.
            Err(StoreError::Failed(_)) if self.full.load(Ordering::Relaxed) && self.win_room() => {
                self.attach()
            }
            other => other,
        }
    }

    fn facts_after(&mut self, after: u64) -> Result<Option<Batch>, StoreError> {
        let origin = self.origin();
        let database = self.database()?;
        let txn = database.begin_read().map_err(failed)?;
        let segments = txn.open_table(SEGMENTS).map_err(failed)?;
        let behind = segments.range(..=after + 1).map_err(failed)?.next_back();
        let mut start = pruned(database, origin)?;
        let found = match behind {
            Some(item) => Some(item.map_err(failed)?),
            None => segments.first().map_err(failed)?,
        };
        if let Some((first, value)) = found {
            let first = first.value();
            let segment = Segment::read(value.value()).map_err(damaged)?;
            if after < segment.last(first) {
                return Ok(Some(segment.batch(first, after).map_err(damaged)?));
            }
            start = segment.end(first);
        }
        read_batch(&txn.open_table(FACTS).map_err(failed)?, start, after)
    }

    fn packed_after(&mut self, after: u64) -> Result<Option<PackedBatch>, StoreError> {
        let txn = self.database()?.begin_read().map_err(failed)?;
        let segments = txn.open_table(SEGMENTS).map_err(failed)?;
        let Some(value) = segments.get(after + 1).map_err(failed)? else {
            return Ok(None);
        };
        let segment = Segment::read(value.value()).map_err(damaged)?;
        Ok(Some(segment.into_packed(after + 1)))
    }

    fn fact_hash(&mut self, number: u64) -> Result<Option<Head>, StoreError> {
        let start = pruned(self.database()?, self.origin())?;
        if number <= start.number {
            return Ok((number == start.number)
                .then_some(start)
                .or_else(|| (number == 0).then(|| self.origin())));
        }
        if number >= self.facts.number {
            return Ok((number == self.facts.number).then_some(self.facts));
        }
        let txn = self.database()?.begin_read().map_err(failed)?;
        let segments = txn.open_table(SEGMENTS).map_err(failed)?;
        let mut before = start;
        if let Some(item) = segments.range(..=number).map_err(failed)?.next_back() {
            let (first, value) = item.map_err(failed)?;
            let segment = Segment::read(value.value()).map_err(damaged)?;
            if number <= segment.last(first.value()) {
                return segment
                    .head_at(first.value(), number)
                    .map(Some)
                    .map_err(damaged);
            }
            before = segment.end(first.value());
        }
        let facts = txn.open_table(FACTS).map_err(failed)?;
        rows_head(&facts, before, number).map(Some)
    }

    fn each_fact(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), StoreError> {
        let txn = self.database()?.begin_read().map_err(failed)?;
        let segments = txn.open_table(SEGMENTS).map_err(failed)?;
        let from = segments.range(..=after + 1).map_err(failed)?.next_back();
        let from = from
            .transpose()
            .map_err(failed)?
            .map_or(0, |(first, _)| first.value());
        for item in segments.range(from..).map_err(failed)? {
            let (first, value) = item.map_err(failed)?;
            let segment = Segment::read(value.value()).map_err(damaged)?;
            for (n, bytes) in segment.entries().map_err(damaged)?.iter().enumerate() {
                let number = first.value() + n as u64;
                if number > after {
                    each(number, bytes);
                }
            }
        }
        let facts = txn.open_table(FACTS).map_err(failed)?;
        for item in facts.range(after + 1..).map_err(failed)? {
            let (number, value) = item.map_err(failed)?;
            each(number.value(), split(value.value())?.1);
        }
        Ok(())
    }

    fn each_directive(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), StoreError> {
        let txn = self.database()?.begin_read().map_err(failed)?;
        let table = txn.open_table(DIRECTIVES).map_err(failed)?;
        for item in table.range(after + 1..).map_err(failed)? {
            let (number, value) = item.map_err(failed)?;
            each(number.value(), split(value.value())?.1);
        }
        Ok(())
    }

    fn directives_after(&mut self, after: u64) -> Result<Option<Page>, StoreError> {
        let Identity { node, incarnation } = self.identity;
        let txn = self.database()?.begin_read().map_err(failed)?;
        let table = txn.open_table(DIRECTIVES).map_err(failed)?;
        let Some(oldest) = table.first().map_err(failed)? else {
            return Ok(None);
        };
        let whole = oldest.0.value() == 1;
        let start = Head::origin(node, incarnation, Direction::Down);
        let Some(batch) = read_batch(&table, start, after)? else {
            return Ok(None);
        };
        let first = batch.after.number.max(oldest.0.value() - 1) + 1;
        let known = whole || batch.after.number > 0;
        let number = first - 1 + batch.entries.len() as u64;
        Ok(Some(Page {
            first,
            before: known.then_some(batch.after),
            end: Head {
                number,
                hash: batch.hash,
            },
            entries: batch.entries,
        }))
    }

    fn room_needed(&self, entry_bytes: usize) -> u64 {
        // Copy on write: pages on the way to each entry and the allocator's state
        // (`examples/room_cost.rs`).
        4 * entry_bytes as u64 + 512 * 1024
    }

    fn note_room(&mut self, free: u64) {
        if let Some(reserve) = &self.reserve
            && !reserve.is_held()
            && free >= 4 * RESERVE
        {
            reserve.take();
        }
    }
}

/// Whole commits of rows behind the last commit that ends at or before `after`.
fn read_batch(
    rows: &impl ReadableTable<u64, &'static [u8]>,
    start: Head,
    after: u64,
) -> Result<Option<Batch>, StoreError> {
    let mut from = start;
    for item in rows
        .range(start.number + 1..=after.max(start.number))
        .map_err(failed)?
        .rev()
    {
        let (number, value) = item.map_err(failed)?;
        if let (Some(hash), _) = split(value.value())? {
            from = Head {
                number: number.value(),
                hash,
            };
            break;
        }
    }
    let (mut entries, mut bytes, mut kept, mut hash) = (Vec::new(), 0, 0, from.hash);
    for item in rows.range(from.number + 1..).map_err(failed)? {
        let (_, value) = item.map_err(failed)?;
        let (end, data) = split(value.value())?;
        bytes += data.len();
        entries.push(data.to_vec());
        let Some(end) = end else { continue };
        let large = entries.len() > ENTRIES_PER_COMMIT || bytes > BYTES_PER_COMMIT;
        if large && kept > 0 {
            break;
        }
        (kept, hash) = (entries.len(), end);
    }
    entries.truncate(kept);
    Ok((kept > 0).then_some(Batch {
        after: from,
        entries,
        hash,
    }))
}

/// The head after row `number`, from the nearest end of a commit before it.
fn rows_head(
    facts: &impl ReadableTable<u64, &'static [u8]>,
    before: Head,
    number: u64,
) -> Result<Head, StoreError> {
    let mut tail = Vec::new();
    let mut from = before;
    for item in facts
        .range(before.number + 1..=number)
        .map_err(failed)?
        .rev()
    {
        let (at, value) = item.map_err(failed)?;
        let (hash, data) = split(value.value())?;
        if let Some(hash) = hash {
            from = Head {
                number: at.value(),
                hash,
            };
            break;
        }
        tail.push(data.to_vec());
    }
    tail.reverse();
    Ok(from.then_all(&tail))
}
