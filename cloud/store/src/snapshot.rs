//! The whole store as it was at one moment, read while the engine goes on, and a store that is
//! filled with what was read.
//!
//! Invariant: a snapshot never keeps a store from being opened again after a failure: it ends early
//! with an error, and its reader is told.

use crate::open::{RedbStore, begin, look, open_file, unknown};
use crate::{AGGREGATES, DIRECTIVES, EVENTS, FACTS, INBOXES, META, ROWS, damaged, row_key};
use cloud_core::fleet::Fleet;
use cloud_core::node::Node;
use cloud_core::store::{AggregateId, RESTORED, RESTORED_WITHOUT, StoreError};
use redb::{Database, ReadTransaction, ReadableDatabase};
use shared::ids::{Generation, Hash, NodeId};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// All tables, in the order in which a backup holds them; numbered by position.
const TABLES: [crate::Table; 7] = [META, AGGREGATES, ROWS, INBOXES, EVENTS, FACTS, DIRECTIVES];
/// Bytes that are put into a new store in one commit.
const COMMIT: usize = 8 << 20;
/// Pause between two looks whether the last snapshot has ended.
const PAUSE: Duration = Duration::from_millis(1);

/// Called with a table's number, a key and a value; its error ends the reading.
pub type EachRow<'a, E> = dyn FnMut(u8, &[u8], &[u8]) -> Result<(), E> + 'a;

#[derive(Default)]
struct Slot {
    database: Option<Arc<Database>>,
    /// Set for the snapshots of this database when it is to be closed.
    closing: Arc<AtomicBool>,
    /// One more owner for each snapshot.
    alive: Arc<()>,
}

/// Gives snapshots of a store that another thread works on.
#[derive(Clone, Default)]
pub struct Snapshots(Arc<Mutex<Slot>>);

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshots")
    }
}

impl Snapshots {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn opened(&self, database: &Arc<Database>) {
        let mut slot = self.slot();
        slot.database = Some(Arc::clone(database));
        slot.closing = Arc::default();
    }

    /// The store is to be closed: waits until no snapshot holds its file.
    pub(crate) fn close(&self) {
        let mut slot = self.slot();
        slot.database = None;
        slot.closing.store(true, Ordering::Relaxed);
        while Arc::strong_count(&slot.alive) > 1 {
            std::thread::sleep(PAUSE);
        }
    }

    /// The last committed state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn take(&self) -> Result<Snapshot, StoreError> {
        let slot = self.slot();
        let closed = || StoreError::Unknown("it is closed after a failure".to_owned());
        let database = slot.database.as_ref().ok_or_else(closed)?;
        Ok(Snapshot {
            tx: database.begin_read().map_err(|e| unknown(&e))?,
            closing: Arc::clone(&slot.closing),
            _alive: Arc::clone(&slot.alive),
        })
    }
}

/// Whether a store is to be closed, which waits for its snapshots.
#[derive(Clone, Debug)]
pub struct Closing(Arc<AtomicBool>);

impl Closing {
    /// Whether it is.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A committed state of the store.
pub struct Snapshot {
    tx: ReadTransaction,
    closing: Arc<AtomicBool>,
    _alive: Arc<()>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot {
    /// Whether the store is to be closed. Whoever may wait for somebody else while a snapshot is
    /// held looks at it meanwhile.
    #[must_use]
    pub fn closing(&self) -> Closing {
        Closing(Arc::clone(&self.closing))
    }

    /// Calls `each` with every row.
    ///
    /// # Errors
    /// Of the store, or those of `each`.
    pub fn each<E: From<StoreError>>(&self, each: &mut EachRow<'_, E>) -> Result<(), E> {
        for (number, table) in (0u8..).zip(TABLES) {
            let table = self.tx.open_table(table).map_err(|e| unknown(&e))?;
            for row in table.range::<&[u8]>(..).map_err(|e| unknown(&e))? {
                let (key, value) = row.map_err(|e| unknown(&e))?;
                if self.closing.load(Ordering::Relaxed) {
                    let text = "it failed while it was read".to_owned();
                    return Err(StoreError::Unknown(text).into());
                }
                each(number, key.value(), value.value())?;
            }
        }
        Ok(())
    }
}

/// What a store holds, as far as a backup has to know it.
#[derive(Debug, Default)]
pub struct Contents {
    /// Life of the store.
    pub generation: Generation,
    /// Its nodes.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Runs, forgotten ones not counted.
    pub runs: u64,
    /// Files of the file store, by content, with their sizes.
    pub files: BTreeMap<Hash, u64>,
    /// Rows of all tables.
    pub rows: u64,
}

impl Contents {
    /// Takes a row into account.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for a row that cannot be read.
    pub fn note(&mut self, table: u8, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.rows += 1;
        let files = row_key(AggregateId::Fleet, "f");
        if table == 1 {
            let bad = || damaged("an aggregate cannot be read");
            let id = AggregateId::from_key(key).ok_or_else(bad)?;
            self.aggregate(id, value.get(8..).ok_or_else(bad)?)
                .map_err(|_| bad())?;
        } else if table == 2
            && let Some(name) = key.strip_prefix(files.as_slice())
            && let Some(hash) = std::str::from_utf8(name).ok().and_then(|n| n.parse().ok())
            && let Ok(size) = shared::codec::decode(value)
        {
            self.files.insert(hash, size);
        }
        Ok(())
    }

    fn aggregate(
        &mut self,
        id: AggregateId,
        head: &[u8],
    ) -> Result<(), shared::codec::DecodeError> {
        use shared::codec::decode_extended;
        match id {
            AggregateId::Fleet => self.generation = decode_extended::<Fleet>(head)?.generation,
            AggregateId::Node(node) => {
                self.nodes.insert(node, decode_extended(head)?);
            }
            AggregateId::Record => {}
            AggregateId::Schedule(_) => {
                let _: cloud_core::schedule::Schedule = decode_extended(head)?;
            }
            AggregateId::Run(_) => {
                let head: cloud_core::run::RunHead = decode_extended(head)?;
                self.runs += u64::from(head.gone.is_none());
            }
        }
        Ok(())
    }
}

/// A new store that is filled row by row.
#[derive(Debug)]
pub struct Filling {
    store: RedbStore,
    waiting: Vec<(u8, Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

/// Makes a store in a file that does not exist.
///
/// # Errors
/// [`StoreError`].
pub fn fill(path: &Path) -> Result<Filling, StoreError> {
    Ok(Filling {
        store: open_file(path, true)?,
        waiting: Vec::new(),
        bytes: 0,
    })
}

impl Filling {
    /// Adds a row.
    ///
    /// # Errors
    /// [`StoreError`]: a table that this version does not know, or the disk.
    pub fn row(&mut self, table: u8, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.bytes += key.len() + value.len();
        self.waiting.push((table, key, value));
        match self.bytes < COMMIT {
            true => Ok(()),
            false => self.commit(),
        }
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let tx = begin(self.store.database()?)?;
        for (number, key, value) in self.waiting.drain(..) {
            let table = TABLES.get(usize::from(number));
            let table = *table.ok_or_else(|| damaged("a row of an unknown table"))?;
            let mut table = tx.open_table(table).map_err(|e| unknown(&e))?;
            let put = table.insert(key.as_slice(), value.as_slice());
            drop(put.map_err(|e| unknown(&e))?);
        }
        self.bytes = 0;
        tx.commit().map_err(|e| unknown(&e))
    }

    /// Says that the store was restored, so that its next start holds what is old, but for these
    /// nodes; and forgets files that are not there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn mark_restored(
        &mut self,
        why: &str,
        without: &[NodeId],
        missing: &[Hash],
    ) -> Result<(), StoreError> {
        let row = |name: &str, value: Vec<u8>| (2, row_key(AggregateId::Fleet, name), value);
        self.waiting.push(row(RESTORED, why.into()));
        let without = shared::codec::encode(without);
        self.waiting.push(row(RESTORED_WITHOUT, without));
        self.commit()?;
        let tx = begin(self.store.database()?)?;
        {
            let mut rows = tx.open_table(ROWS).map_err(|e| unknown(&e))?;
            for hash in missing {
                let key = row_key(AggregateId::Fleet, &format!("f{hash}"));
                drop(rows.remove(key.as_slice()).map_err(|e| unknown(&e))?);
            }
        }
        tx.commit().map_err(|e| unknown(&e))
    }

    /// Closes the store and opens it as any other, which checks it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn finish(mut self, path: &Path) -> Result<(), StoreError> {
        self.commit()?;
        drop(self);
        open_file(path, false).map(drop)
    }
}

/// The state of a store that nobody works on.
#[derive(Debug)]
pub struct Stopped {
    /// The state; it goes before the store does.
    pub snapshot: Snapshot,
    _store: RedbStore,
}

/// Opens the store in a file whose coordinator is stopped, to look at it: nothing is written to the
/// file.
///
/// # Errors
/// [`StoreError`].
pub fn looked(path: &Path) -> Result<Stopped, StoreError> {
    let store = look(path)?;
    Ok(Stopped {
        snapshot: store.snapshots().take()?,
        _store: store,
    })
}

/// Opens the store in a file whose coordinator is stopped.
///
/// # Errors
/// [`StoreError`].
pub fn stopped(path: &Path) -> Result<Stopped, StoreError> {
    let store = open_file(path, false)?;
    Ok(Stopped {
        snapshot: store.snapshots().take()?,
        _store: store,
    })
}
