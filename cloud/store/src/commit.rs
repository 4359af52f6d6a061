//! The store's operations on redb tables.

use crate::open::{RedbStore, begin, unknown};
use crate::{
    AGGREGATES, DIRECTIVES, EVENTS, FACTS, INBOXES, ROWS, damaged, head, inbox_key, is_number,
    log_key, number_be, number_le, row_key, segment, split_hash, split_version,
};
use cloud_core::store::{
    AggregateId, EachEntry, EachMessage, Entry, EventId, Outcome, Prune, Store, StoreError,
    Transaction, request_event,
};
use redb::{ReadOnlyTable, ReadableDatabase, ReadableTable, Table, WriteTransaction};
use shared::ids::{Generation, Hash};
use shared::log::LAST_NUMBER;
use shared::wire::LogId;

type Bytes = &'static [u8];
type Read = ReadOnlyTable<Bytes, Bytes>;

impl RedbStore {
    pub(crate) fn table(&self, table: crate::Table) -> Result<Read, StoreError> {
        let tx = self.database()?.begin_read().map_err(|e| unknown(&e))?;
        tx.open_table(table).map_err(|e| unknown(&e))
    }
}

/// Called with a row; says whether it wants the next one.
pub(crate) type EachRow<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'a;

/// Calls `each` with the rows from `from` on until it says that it has enough.
pub(crate) fn scan(table: &Read, from: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
    for row in table.range(from..).map_err(|e| unknown(&e))? {
        let (key, value) = row.map_err(|e| unknown(&e))?;
        if !each(key.value(), value.value())? {
            break;
        }
    }
    Ok(())
}

impl Store for RedbStore {
    fn aggregates(
        &mut self,
        each: &mut dyn FnMut(AggregateId, u64, &[u8]),
    ) -> Result<(), StoreError> {
        scan(&self.table(AGGREGATES)?, &[], &mut |key, value| {
            let bad = || damaged("an aggregate's row cannot be read");
            let id = AggregateId::from_key(key).ok_or_else(bad)?;
            let (version, state) = split_version(value)?;
            each(id, version, state);
            Ok(true)
        })
    }

    fn row(&mut self, id: AggregateId, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self.table(ROWS)?;
        let row = rows.get(row_key(id, name).as_slice());
        Ok(row.map_err(|e| unknown(&e))?.map(|v| v.value().to_vec()))
    }

    fn rows(
        &mut self,
        id: AggregateId,
        prefix: &str,
        each: &mut dyn FnMut(&str, &[u8]),
    ) -> Result<(), StoreError> {
        let from = row_key(id, prefix);
        scan(&self.table(ROWS)?, &from, &mut |key, value| {
            if !key.starts_with(&from) {
                return Ok(false);
            }
            let name = std::str::from_utf8(&key[17..]);
            each(name.map_err(|_| damaged("a row has no name"))?, value);
            Ok(true)
        })
    }

    fn inboxes(&mut self, each: &mut EachMessage<'_>) -> Result<(), StoreError> {
        scan(&self.table(INBOXES)?, &[], &mut |key, value| {
            let read = || {
                let to = AggregateId::from_key(key.get(..17)?)?;
                let from = AggregateId::from_key(key.get(17..34)?)?;
                Some((to, from, number_be(key.get(34..)?)?))
            };
            let (to, from, number) = read().ok_or_else(|| damaged("a message has no address"))?;
            each(to, from, number, value);
            Ok(true)
        })
    }

    fn event(&mut self, id: &EventId) -> Result<Option<(AggregateId, u64)>, StoreError> {
        let events = self.table(EVENTS)?;
        let Some(row) = events.get(&id[..]).map_err(|e| unknown(&e))? else {
            return Ok(None);
        };
        let read = |bytes: &[u8]| {
            let (id, version) = bytes.split_at_checked(17)?;
            Some((AggregateId::from_key(id)?, number_le(version)?))
        };
        let found = read(row.value()).ok_or_else(|| damaged("an event cannot be read"))?;
        Ok(Some(found))
    }

    fn facts(
        &mut self,
        log: LogId,
        from: u64,
        to: u64,
        each: &mut EachEntry<'_>,
    ) -> Result<(), StoreError> {
        let facts = self.table(FACTS)?;
        let low = log_key(log, 0);
        let first = facts
            .range(&low[..]..=&log_key(log, from)[..])
            .map_err(|e| unknown(&e))?
            .next_back()
            .transpose()
            .map_err(|e| unknown(&e))?
            .map_or_else(|| low.to_vec(), |(key, _)| key.value().to_vec());
        scan(&facts, &first, &mut |key, value| {
            if key > &log_key(log, to)[..] {
                return Ok(false);
            }
            let segment = segment::decode(value)?;
            for (number, bytes) in (segment.after.number + 1..).zip(segment.entries.iter()) {
                if (from..=to).contains(&number) {
                    each(number, bytes);
                }
            }
            Ok(true)
        })
    }

    fn directives(
        &mut self,
        log: LogId,
        after: u64,
        entries: usize,
        bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let (mut out, mut size) = (Vec::<Entry>::new(), 0);
        if after >= LAST_NUMBER {
            return Ok(out);
        }
        let from = log_key(log, after + 1);
        scan(&self.table(DIRECTIVES)?, &from, &mut |key, value| {
            let bad = || damaged("a directive cannot be read");
            let Some(number) = key.strip_prefix(&from[..32]) else {
                return Ok(false);
            };
            let number = number_be(number).filter(|n| is_number(*n));
            let (hash, body) = split_hash(value).ok_or_else(bad)?;
            size += body.len();
            if out.len() >= entries || (!out.is_empty() && size > bytes) {
                return Ok(false);
            }
            out.push(Entry {
                head: head(number.ok_or_else(bad)?, hash),
                bytes: body.to_vec(),
            });
            Ok(true)
        })?;
        Ok(out)
    }

    fn directive_hash(&mut self, log: LogId, number: u64) -> Result<Option<Hash>, StoreError> {
        let directives = self.table(DIRECTIVES)?;
        let row = directives.get(&log_key(log, number)[..]);
        let row = row.map_err(|e| unknown(&e))?;
        Ok(row.and_then(|r| split_hash(r.value()).map(|(hash, _)| hash)))
    }

    fn commit(&mut self, transactions: &[Transaction]) -> Result<Vec<Outcome>, StoreError> {
        let done = self.database().and_then(|database| {
            let tx = begin(database)?;
            let mut outcomes = Vec::with_capacity(transactions.len());
            for transaction in transactions {
                outcomes.push(apply(&tx, transaction)?);
            }
            tx.commit().map_err(|e| unknown(&e))?;
            Ok(outcomes)
        });
        if done.is_err() {
            self.close();
        }
        done
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.open_again()
    }
}

fn put(table: &mut Table<'_, Bytes, Bytes>, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    table.insert(key, value).map_err(|e| unknown(&e))?;
    Ok(())
}

fn remove_range(
    table: &mut Table<'_, Bytes, Bytes>,
    from: &[u8],
    to: &[u8],
) -> Result<(), StoreError> {
    table
        .retain_in(from..=to, |_, _| false)
        .map_err(|e| unknown(&e))
}

fn apply(tx: &WriteTransaction, change: &Transaction) -> Result<Outcome, StoreError> {
    let open = |table| tx.open_table(table).map_err(|e| unknown(&e));
    let key = change.aggregate.key();
    let mut aggregates = open(AGGREGATES)?;
    let stored = aggregates.get(&key[..]).map_err(|e| unknown(&e))?;
    let stored = stored.map(|row| split_version(row.value()).map(|(version, _)| version));
    let version = stored.transpose()?.unwrap_or(0);
    if version != change.expected {
        return Ok(Outcome::Conflict { version });
    }
    let next = (version + 1).to_le_bytes();
    put(&mut aggregates, &key, &[&next[..], &change.head].concat())?;
    drop(aggregates);
    if !change.events.is_empty() {
        let mut events = open(EVENTS)?;
        for event in &change.events {
            put(&mut events, event, &[&key[..], &next].concat())?;
        }
    }
    if !change.rows.is_empty() {
        let mut rows = open(ROWS)?;
        for (name, value) in &change.rows {
            let key = row_key(change.aggregate, name);
            match value {
                Some(value) => put(&mut rows, &key, value)?,
                None => drop(rows.remove(key.as_slice()).map_err(|e| unknown(&e))?),
            }
        }
    }
    apply_messages(tx, change)?;
    apply_logs(tx, change)?;
    change
        .prune
        .iter()
        .try_for_each(|prune| apply_prune(tx, change.aggregate, prune))?;
    Ok(Outcome::Done)
}

fn apply_messages(tx: &WriteTransaction, change: &Transaction) -> Result<(), StoreError> {
    if change.drained.is_empty() && change.sends.is_empty() {
        return Ok(());
    }
    let own = change.aggregate;
    let mut inboxes = tx.open_table(INBOXES).map_err(|e| unknown(&e))?;
    for (from, upto) in &change.drained {
        let (low, high) = (inbox_key(own, *from, 0), inbox_key(own, *from, *upto));
        remove_range(&mut inboxes, &low, &high)?;
    }
    for (to, number, bytes) in &change.sends {
        put(&mut inboxes, &inbox_key(*to, own, *number), bytes)?;
    }
    Ok(())
}

fn apply_logs(tx: &WriteTransaction, change: &Transaction) -> Result<(), StoreError> {
    if !change.facts.is_empty() {
        let mut facts = tx.open_table(FACTS).map_err(|e| unknown(&e))?;
        for segment in &change.facts {
            let key = log_key(segment.log, segment.after.number + 1);
            put(&mut facts, &key, &segment::encode(segment))?;
        }
    }
    if change.truncate.is_some() || !change.directives.is_empty() {
        let mut log = tx.open_table(DIRECTIVES).map_err(|e| unknown(&e))?;
        if let Some((id, above)) = change.truncate {
            let low = log_key(id, above.saturating_add(1));
            remove_range(&mut log, &low, &log_key(id, u64::MAX))?;
        }
        for (id, entry) in &change.directives {
            let key = log_key(*id, entry.head.number);
            put(
                &mut log,
                &key,
                &[&entry.head.hash.0[..], &entry.bytes].concat(),
            )?;
        }
    }
    Ok(())
}

fn apply_prune(tx: &WriteTransaction, own: AggregateId, prune: &Prune) -> Result<(), StoreError> {
    match *prune {
        Prune::Event(id) => {
            let mut events = tx.open_table(EVENTS).map_err(|e| unknown(&e))?;
            events.remove(&id[..]).map_err(|e| unknown(&e))?;
            Ok(())
        }
        Prune::Requests(generation) => {
            let mut events = tx.open_table(EVENTS).map_err(|e| unknown(&e))?;
            let (low, high) = (
                request_event(Generation(0), 0),
                request_event(generation, 0),
            );
            events
                .retain_in(&low[..]..&high[..], |_, _| false)
                .map_err(|e| unknown(&e))
        }
        Prune::Aggregate => apply_end(tx, own),
        Prune::Directives(log, upto) => {
            let mut table = tx.open_table(DIRECTIVES).map_err(|e| unknown(&e))?;
            remove_range(&mut table, &log_key(log, 0), &log_key(log, upto))
        }
        Prune::Facts(log, upto) => {
            let mut facts = tx.open_table(FACTS).map_err(|e| unknown(&e))?;
            let (low, high) = (log_key(log, 0), log_key(log, upto));
            let last = facts
                .range(&low[..]..=&high[..])
                .map_err(|e| unknown(&e))?
                .next_back()
                .transpose()
                .map_err(|e| unknown(&e))?
                .map(|(key, value)| Ok((key.value().to_vec(), segment::decode(value.value())?)))
                .transpose()?;
            let Some((key, segment)) = last else {
                return Ok(());
            };
            let whole = segment.head.number <= upto;
            facts
                .retain_in(&low[..]..=&high[..], |k, _| !whole && k == key)
                .map_err(|e| unknown(&e))
        }
    }
}

/// An aggregate goes with all that is kept for it.
fn apply_end(tx: &WriteTransaction, id: AggregateId) -> Result<(), StoreError> {
    let key = id.key();
    let mut aggregates = tx.open_table(AGGREGATES).map_err(|e| unknown(&e))?;
    drop(aggregates.remove(&key[..]).map_err(|e| unknown(&e))?);
    for table in [ROWS, INBOXES] {
        let mut table = tx.open_table(table).map_err(|e| unknown(&e))?;
        let of_it = |k: &[u8], _: &[u8]| !k.starts_with(&key);
        let end = [&key[..], &[u8::MAX; 64]].concat();
        table
            .retain_in(&key[..]..=&end[..], of_it)
            .map_err(|e| unknown(&e))?;
    }
    Ok(())
}
