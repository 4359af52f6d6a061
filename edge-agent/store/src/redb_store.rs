//! The store's tables and transactions.

use crate::open::{CACHE, FORMAT, Identity, MakeBackend, database};
use crate::prune::{drop_until, prune_directives, prune_facts};
use crate::reserve::{RESERVE, Reserve};
use crate::rows::{DETAILS, DIRECTIVES, FACTS, MARKS, META, Numbered, ROWS, SEGMENTS};
use crate::rows::{Gathered, check_keys, damaged, failed, gather, head_at, last_end, last_row};
use crate::rows::{missing, split};
use crate::segment::Segment;
use edge_core::store::{Commit, Loaded, Page, Store, StoreError};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use redb::{TableError, WriteTransaction};
use shared::codec;
use shared::ids::{Incarnation, NodeId};
use shared::limits::ENTRIES_PER_COMMIT;
use shared::log::{Batch, Direction, Head, LAST_NUMBER, PackedBatch};
use shared::planted::{self, Mistake};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
        check_keys(&database)?;
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
            .ok_or_else(|| StoreError::Failed("the store is not open".to_owned()))
    }

    fn write(&self, commit: &Commit) -> Result<(), StoreError> {
        let txn = begin(self.database()?)?;
        if !commit.facts.is_empty() {
            let head = commit
                .facts_head
                .ok_or_else(|| StoreError::Failed("facts without their head".to_owned()))?;
            append(&txn, FACTS, self.facts, &commit.facts, head)?;
        }
        if !commit.directives.is_empty() {
            let head = commit
                .directives_head
                .ok_or_else(|| StoreError::Failed("directives without a head".to_owned()))?;
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

fn append(
    txn: &WriteTransaction,
    table: Numbered,
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
        return Ok(Segment::read(first.value(), value.value())?.end());
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
        let Some(commits) = gather(&facts, before.number + 1, last)? else {
            return Ok(());
        };
        let Gathered {
            entries, ends, end, ..
        } = commits.behind(before)?;
        let segment = Segment::new(before, end.hash, ends, &entries);
        drop_until(&mut facts, end.number)?;
        let mut segments = txn.open_table(SEGMENTS).map_err(failed)?;
        segments
            .insert(segment.first(), segment.bytes().as_slice())
            .map_err(failed)?;
        before = end;
    }
    Ok(())
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
    if let Some(head) = last_row(&txn.open_table(FACTS).map_err(failed)?)? {
        return Ok(head);
    }
    let segments = txn.open_table(SEGMENTS).map_err(failed)?;
    if let Some((first, value)) = segments.last().map_err(failed)? {
        return Ok(Segment::read(first.value(), value.value())?.end());
    }
    pruned(database, origin)
}

fn last_directive(database: &Database, origin: Head) -> Result<Head, StoreError> {
    let txn = database.begin_read().map_err(failed)?;
    let last = last_row(&txn.open_table(DIRECTIVES).map_err(failed)?)?;
    Ok(last.unwrap_or(origin))
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
        let snapshot: (u64, u64) = match meta.get("snapshot").map_err(failed)? {
            Some(value) => codec::decode(value.value()).map_err(damaged)?,
            None => (0, 0),
        };
        let pruned = pruned(database, self.origin())?.number;
        let (facts, directives) = (self.facts.number, self.directives.number);
        if snapshot.0.max(pruned) > facts || snapshot.1 > directives {
            return Err(damaged(format!(
                "its logs end at {facts} and {directives}; the snapshot is of {} and {}, facts are \
                 gone up to {pruned}",
                snapshot.0, snapshot.1
            )));
        }
        Ok(Loaded {
            marks: texts(&txn, MARKS)?,
            snapshot,
            facts_first: pruned + 1,
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
        if after >= self.facts.number {
            return Ok(None);
        }
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
            let segment = Segment::read(first.value(), value.value())?;
            if segment.first() > after.max(start.number) + 1 {
                return Err(missing(after.max(start.number) + 1));
            }
            if after < segment.last() {
                return Ok(Some(segment.batch(after).map_err(damaged)?));
            }
            start = segment.end();
        }
        if start.number >= self.facts.number {
            // all of them have gone
            return Ok(None);
        }
        let facts = txn.open_table(FACTS).map_err(failed)?;
        let from = last_end(&facts, start.number + 1, after)?.unwrap_or(start);
        let found = gather(&facts, from.number + 1, LAST_NUMBER)?;
        let found = found.ok_or_else(|| missing(from.number + 1))?;
        Ok(Some(found.behind(from)?.into_batch(from)))
    }

    fn packed_after(&mut self, after: u64) -> Result<Option<PackedBatch>, StoreError> {
        if after >= self.facts.number {
            return Ok(None);
        }
        let txn = self.database()?.begin_read().map_err(failed)?;
        let segments = txn.open_table(SEGMENTS).map_err(failed)?;
        let Some(value) = segments.get(after + 1).map_err(failed)? else {
            return Ok(None);
        };
        Segment::read(after + 1, value.value()).map(|segment| Some(segment.into_packed()))
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
            let segment = Segment::read(first.value(), value.value())?;
            if number <= segment.last() {
                return segment.head_at(number).map(Some).map_err(damaged);
            }
            before = segment.end();
        }
        let facts = txn.open_table(FACTS).map_err(failed)?;
        head_at(&facts, before, number).map(Some)
    }

    fn each_fact(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), StoreError> {
        if after >= self.facts.number {
            return Ok(());
        }
        let txn = self.database()?.begin_read().map_err(failed)?;
        let segments = txn.open_table(SEGMENTS).map_err(failed)?;
        let from = segments.range(..=after + 1).map_err(failed)?.next_back();
        let from = from
            .transpose()
            .map_err(failed)?
            .map_or(0, |(first, _)| first.value());
        for item in segments.range(from..).map_err(failed)? {
            let (first, value) = item.map_err(failed)?;
            let segment = Segment::read(first.value(), value.value())?;
            let entries = segment.entries().map_err(damaged)?;
            for (number, bytes) in (segment.first()..).zip(entries.iter()) {
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
        if after >= self.directives.number {
            return Ok(());
        }
        let txn = self.database()?.begin_read().map_err(failed)?;
        let table = txn.open_table(DIRECTIVES).map_err(failed)?;
        for item in table.range(after + 1..).map_err(failed)? {
            let (number, value) = item.map_err(failed)?;
            each(number.value(), split(value.value())?.1);
        }
        Ok(())
    }

    fn directives_after(&mut self, after: u64) -> Result<Option<Page>, StoreError> {
        if after >= self.directives.number {
            return Ok(None);
        }
        let Identity { node, incarnation } = self.identity;
        let txn = self.database()?.begin_read().map_err(failed)?;
        let table = txn.open_table(DIRECTIVES).map_err(failed)?;
        let origin = Head::origin(node, incarnation, Direction::Down);
        let from = last_end(&table, 1, after)?.unwrap_or(origin);
        let found = gather(&table, from.number + 1, LAST_NUMBER)?;
        let mut page = found.ok_or_else(|| missing(from.number + 1))?;
        // what is before the oldest one that is there has gone, and its hash with it
        let known = from.number > 0 || page.first == 1;
        if known {
            page = page.behind(from)?;
        }
        Ok(Some(Page {
            first: page.first,
            before: known.then_some(from),
            end: page.end,
            entries: page.entries,
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
