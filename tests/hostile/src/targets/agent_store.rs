//! The agent's store as it lies on a disk: rows of a good one are changed, then the real store is
//! opened, read, and worked on by an agent.

use super::cores::{self, Agent};
use crate::samples::{self, LIFE, NODE};
use crate::target::{Bound, Form, Target, Verdict, class};
use edge_core::driver::Driver;
use edge_core::store::{Store, StoreError};
use edge_store::{Identity, MakeBackend, RedbStore};
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use shared::codec;
use shared::ids::Hash;
use shared::log::{Batch, Direction, Head, LAST_NUMBER, PackedBatch};
use shared::time::Span;
use shared::wire::Down;
use std::io::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) const TARGETS: &[Target] = &[Target {
    name: "agent-store",
    fed_by: "the agent's disk: rows and segments of store.redb",
    form: Form::Bytes,
    bound: Bound::new(64, 64 << 10).within(5),
    cost: 10,
    words: &[],
    seeds: rows,
    check,
}];

type Numbered = TableDefinition<'static, u64, &'static [u8]>;
type Named = TableDefinition<'static, &'static str, &'static [u8]>;

const NUMBERED: [Numbered; 3] = [
    TableDefinition::new("facts"),
    TableDefinition::new("segments"),
    TableDefinition::new("directives"),
];
const NAMED: [Named; 3] = [
    TableDefinition::new("meta"),
    TableDefinition::new("marks"),
    TableDefinition::new("rows"),
];
const FACTS: u8 = 0;
const SEGMENTS: u8 = 1;
/// Size of the page cache.
const CACHE: usize = 256 << 10;
/// One input in so many is worked on by an agent as well, which takes longer than all else.
const WORKED_ON: u8 = 8;

/// Length of the value of a row that goes.
const GONE: u16 = u16::MAX;

/// A row as it is put: table, key, and value (none: the row goes).
#[derive(Clone, Debug)]
enum Row {
    Numbered(u8, u64, Option<Vec<u8>>),
    Named(u8, String, Option<Vec<u8>>),
}

impl Row {
    fn put_into(&self, out: &mut Vec<u8>) {
        let value = match self {
            Self::Numbered(table, key, value) => {
                out.push(*table);
                out.extend(codec::encode(key));
                value
            }
            Self::Named(table, key, value) => {
                out.extend([table + NUMBERED.len() as u8, key.len() as u8]);
                out.extend_from_slice(key.as_bytes());
                value
            }
        };
        let length = value.as_ref().map_or(GONE, |value| value.len() as u16);
        out.extend(length.to_le_bytes());
        out.extend_from_slice(value.as_deref().unwrap_or_default());
    }

    /// Takes the next row off `input`. Any bytes are rows, so that no input is lost before a store.
    fn take_from(input: &mut &[u8]) -> Option<Self> {
        let (table, rest) = input.split_first()?;
        *input = rest;
        let place = table % (NUMBERED.len() + NAMED.len()) as u8;
        let named = place.checked_sub(NUMBERED.len() as u8);
        let name = named.map(|table| {
            let length = take(input, 1).first().copied().unwrap_or(0);
            let name = take(input, usize::from(length));
            (table, String::from_utf8_lossy(name).into_owned())
        });
        let number = match &name {
            Some(_) => 0,
            None => codec::decode_first::<u64>(input).map_or(0, |(number, rest)| {
                *input = rest;
                number
            }),
        };
        let length = take(input, 2).try_into().map_or(0, u16::from_le_bytes);
        let value = (length != GONE).then(|| take(input, usize::from(length)).to_vec());
        Some(match name {
            Some((table, name)) => Self::Named(table, name, value),
            None => Self::Numbered(place, number, value),
        })
    }
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = input.split_at(count.min(input.len()));
    *input = rest;
    front
}

/// A disk in memory.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> MakeBackend {
        let disk = self.clone();
        Box::new(move || Ok(Box::new(disk.clone())))
    }

    fn database(&self) -> Result<Database, redb::Error> {
        let mut builder = Database::builder();
        let opened = builder.set_cache_size(CACHE);
        Ok(opened.create_with_backend(self.clone())?)
    }
}

impl StorageBackend for Memory {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let (bytes, from) = (self.bytes(), offset as usize);
        let found = bytes.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.bytes().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let (mut bytes, from) = (self.bytes(), offset as usize);
        let place = bytes.get_mut(from..from + data.len());
        let place = place.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        place.copy_from_slice(data);
        Ok(())
    }
}

fn put(disk: &Memory, rows: &[Row]) -> Result<(), redb::Error> {
    let database = disk.database()?;
    let txn = database.begin_write()?;
    for row in rows {
        match row {
            Row::Numbered(table, key, value) => {
                let place = usize::from(*table) % NUMBERED.len();
                let mut table = txn.open_table(NUMBERED[place])?;
                match value {
                    Some(value) => drop(table.insert(key, value.as_slice())?),
                    None => drop(table.remove(key)?),
                }
            }
            Row::Named(table, key, value) => {
                let mut table = txn.open_table(NAMED[usize::from(*table) % NAMED.len()])?;
                match value {
                    Some(value) => drop(table.insert(key.as_str(), value.as_slice())?),
                    None => drop(table.remove(key.as_str())?),
                }
            }
        }
    }
    Ok(txn.commit()?)
}

fn all(disk: &Memory) -> Result<Vec<Row>, redb::Error> {
    let database = disk.database()?;
    let txn = database.begin_read()?;
    let mut rows = Vec::new();
    for (n, table) in (0_u8..).zip(NUMBERED) {
        for row in txn.open_table(table)?.iter()? {
            let (key, value) = row?;
            rows.push(Row::Numbered(n, key.value(), Some(value.value().to_vec())));
        }
    }
    for (n, table) in (0_u8..).zip(NAMED) {
        for row in txn.open_table(table)?.iter()? {
            let (key, value) = row?;
            let key = key.value().to_owned();
            rows.push(Row::Named(n, key, Some(value.value().to_vec())));
        }
    }
    Ok(rows)
}

const WHO: Identity = Identity {
    node: NODE,
    incarnation: LIFE,
};

/// The store of an agent that was assigned slices; its first commits are put into two segments,
/// which takes a thousand facts otherwise.
fn written() -> Result<Memory, String> {
    let disk = Memory::default();
    let store = RedbStore::create(disk.make(), WHO).map_err(|error| error.to_string())?;
    let driver = Driver::open(store, cores::agent_config()).map_err(|error| error.to_string())?;
    let mut agent = Agent::boot(driver)?;
    agent.join()?;
    let mut head = Head::origin(NODE, LIFE, Direction::Down);
    for entries in samples::directives().chunks(2) {
        let batch = Batch::new(head, entries.to_vec());
        head = batch.head();
        agent.hear(Down::Directives(batch))?;
        agent.pass(Span::secs(1))?;
    }
    agent.pass(Span::secs(60))?;
    drop(agent);
    let packed = all(&disk).map_err(|error| error.to_string())?;
    let packed = segments(&packed).ok_or("there are too few facts to pack")?;
    put(&disk, &packed).map_err(|error| error.to_string())?;
    Ok(disk)
}

/// Changes that put the first half of all facts into two segments.
fn segments(rows: &[Row]) -> Option<Vec<Row>> {
    let facts = rows.iter().filter_map(|row| match row {
        Row::Numbered(FACTS, key, Some(value)) => Some((*key, value.as_slice())),
        _ => None,
    });
    let facts: Vec<_> = facts.collect();
    let (mut changes, mut entries, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let (mut before, mut made) = (Head::origin(NODE, LIFE, Direction::Up), 0);
    for (number, value) in &facts {
        let (flag, rest) = value.split_first()?;
        changes.push(Row::Numbered(FACTS, *number, None));
        if *flag == 0 {
            entries.push(rest.to_vec());
            continue;
        }
        let (hash, data) = rest.split_first_chunk()?;
        entries.push(data.to_vec());
        ends.push(entries.len() as u32);
        if entries.len() < facts.len() / 4 {
            continue;
        }
        let after = Hash(*hash);
        let packed = PackedBatch::new(before, before, &entries).entries;
        let segment = codec::encode(&(before.hash, after, &ends, packed));
        changes.push(Row::Numbered(SEGMENTS, before.number + 1, Some(segment)));
        before = Head {
            number: *number,
            hash: after,
        };
        made += 1;
        if made == 2 {
            return Some(changes);
        }
        entries.clear();
        ends.clear();
    }
    None
}

thread_local! {
    static GOOD: Memory = written().expect("what a working agent wrote can be read");
}

/// Each row alone, as it is and taken away, and all.
fn rows() -> Vec<Vec<u8>> {
    let rows = GOOD.with(all).expect("a good store can be read");
    let gone = rows.iter().map(|row| match row {
        Row::Numbered(table, key, _) => Row::Numbered(*table, *key, None),
        Row::Named(table, key, _) => Row::Named(*table, key.clone(), None),
    });
    let each = rows.iter().cloned().chain(gone);
    let mut seeds: Vec<Vec<u8>> = each.map(|row| encoded(&[row])).collect();
    seeds.push(encoded(&rows));
    seeds
}

fn encoded(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    rows.iter().for_each(|row| row.put_into(&mut out));
    out
}

/// Why a store was read no further.
enum Stop {
    Store(StoreError),
    Broken(String),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Stop {
    /// What no store of ours wrote is told as damage, or as the format of a later version.
    fn verdict(self) -> Verdict {
        match self {
            Self::Store(StoreError::Damaged(text)) if text.contains("belongs to node") => {
                // names of nodes would be new outcomes for ever
                Ok("of another node".to_owned())
            }
            Self::Store(error @ (StoreError::Damaged(_) | StoreError::Newer { .. })) => {
                Ok(class(&error))
            }
            Self::Store(error) => Err(format!("not told as damage: {error}")),
            Self::Broken(text) => Err(text),
        }
    }
}

fn check(input: &[u8]) -> Verdict {
    let mut rest = input;
    let rows: Vec<Row> = std::iter::from_fn(|| Row::take_from(&mut rest)).collect();
    let disk = GOOD.with(|good| Memory(Arc::new(Mutex::new(good.bytes().clone()))));
    put(&disk, &rows).map_err(|error| error.to_string())?;
    let read = || -> Result<_, Stop> {
        let mut store = RedbStore::open_with(disk.make(), WHO, CACHE)?;
        let read = look(&mut store)?;
        Ok((read, Driver::open(store, cores::agent_config())?))
    };
    let (read, driver) = match read() {
        Ok(read) => read,
        Err(stop) => return stop.verdict(),
    };
    if let Err(why) = driver.agent().state().sanity_check() {
        return Ok(format!("contradicts itself: {}", class(&why)));
    }
    match Hash::of(input).0[0] % WORKED_ON {
        0 => Ok(format!("ok {read:?} {}", work(driver))),
        _ => Ok(format!("ok {read:?}")),
    }
}

/// Reads what a start, a session, `journal` and `store check` read. How many rows, by powers of
/// two.
fn look(store: &mut RedbStore) -> Result<Option<u32>, Stop> {
    let loaded = store.load()?;
    let (mut count, last) = (0_u32, loaded.facts.number);
    store.each_row("", &mut |_, _| count += 1)?;
    store.each_fact(0, &mut |_, _| count += 1)?;
    store.each_directive(0, &mut |_, _| count += 1)?;
    for number in [
        0,
        1,
        2,
        last / 2,
        last - last.min(1),
        last,
        LAST_NUMBER,
        u64::MAX,
    ] {
        store.fact_hash(number)?;
        store.packed_after(number)?;
        store.facts_after(number)?;
        store.directives_after(number)?;
    }
    let mut after = loaded.facts_first - 1;
    while let Some(batch) = store.facts_after(after)? {
        after = next(after, batch.head().number)?;
    }
    let mut after = loaded.facts_first - 1;
    while let Some(batch) = store.packed_after(after)? {
        after = next(after, batch.head.number)?;
    }
    let mut after = 0;
    while let Some(page) = store.directives_after(after)? {
        after = next(after, page.end.number)?;
    }
    Ok(count.checked_ilog2())
}

/// Who reads on from `after` must come to an end.
fn next(after: u64, end: u64) -> Result<u64, Stop> {
    match end > after {
        true => Ok(end),
        false => Err(Stop::Broken(format!("behind {after} comes {end}"))),
    }
}

/// An agent starts, tells all it has to a coordinator that knows nothing, and goes on for a minute.
fn work(driver: Driver<RedbStore>) -> String {
    let worked = Agent::boot(driver).and_then(|mut agent| {
        agent.join()?;
        let _ = agent.driver.backlog(0);
        agent.pass(Span::secs(60))?;
        Ok(agent.driver.agent().ps(true).len())
    });
    match worked {
        Ok(tasks) => format!("{:?}", tasks.checked_ilog2()),
        Err(why) => class(&why),
    }
}
