//! Opening: what is there is checked before anything is believed; nothing is taken for an empty
//! store.

use crate::snapshot::Snapshots;
use crate::{AGGREGATES, DIRECTIVES, EVENTS, FACTS, INBOXES, META, ROWS, damaged};
use cloud_core::store::StoreError;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, StorageBackend, TableError, WriteTransaction};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Version of the tables.
const FORMAT: u32 = 2;
/// What stands before the format.
const MAGIC: &[u8] = b"driftless coordinator";
/// Size of redb's page cache.
const CACHE: usize = 64 * 1024 * 1024;

/// Gives the backend to open, again after each failure.
pub type MakeBackend = Box<dyn FnMut() -> Result<Box<dyn StorageBackend>, StoreError> + Send>;

/// The coordinator's store on redb.
pub struct RedbStore {
    make: MakeBackend,
    database: Option<Arc<Database>>,
    snapshots: Snapshots,
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore")
            .field("open", &self.database.is_some())
            .finish_non_exhaustive()
    }
}

/// Opens the store in a file; with `create` the file must not hold anything yet.
///
/// # Errors
/// [`StoreError`]: missing, in use, not empty, empty, damaged, foreign, of a later format.
pub fn open_file(path: &Path, create: bool) -> Result<RedbStore, StoreError> {
    let length = std::fs::metadata(path).map_or(0, |m| m.len());
    let name = path.display();
    match (create, path.exists(), length) {
        (true, _, 1..) => {
            return Err(StoreError::Foreign(format!(
                "{name} exists already; give another directory or start without making a new store"
            )));
        }
        (false, false, _) => return Err(damaged(&format!("{name} is missing"))),
        (false, true, 0) => return Err(damaged(&format!("{name} is empty"))),
        _ => {}
    }
    let path = path.to_owned();
    let mut first = create;
    RedbStore::open(Box::new(move || {
        open_backend(&path, std::mem::take(&mut first))
    }))
}

/// Opens the store in a file that nobody uses; what is written is forgotten with it.
pub(crate) fn look(path: &Path) -> Result<RedbStore, StoreError> {
    let name = path.display().to_string();
    let length = std::fs::metadata(path).map(|meta| meta.len());
    match length {
        Err(_) => return Err(damaged(&format!("{name} is missing"))),
        Ok(0) => return Err(damaged(&format!("{name} is empty"))),
        Ok(_) => {}
    }
    let path = path.to_owned();
    RedbStore::open(Box::new(move || {
        let overlay = tablefile::Overlay::of(&path);
        let overlay = overlay.map_err(|error| unknown(&format!("{name}: {error}")))?;
        Ok(Box::new(overlay) as Box<dyn StorageBackend>)
    }))
}

fn open_backend(path: &PathBuf, create: bool) -> Result<Box<dyn StorageBackend>, StoreError> {
    let name = path.display();
    let failed = |e: std::io::Error| StoreError::NotDone(format!("{name} cannot be opened: {e}"));
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .open(path)
        .map_err(failed)?;
    if create && let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        // The file's name must be as durable as what is in it.
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(failed)?;
    }
    // The lock lives as long as the file is open; redb itself locks only backends that it knows.
    file.try_lock().map_err(|error| {
        StoreError::NotDone(format!("{name} is in use by another process: {error}"))
    })?;
    let backend = FileBackend::new(file).map_err(|error| damaged(&error.to_string()))?;
    Ok(Box::new(backend))
}

/// A boxed backend as a backend.
#[derive(Debug)]
struct Boxed(Box<dyn StorageBackend>);

impl StorageBackend for Boxed {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.0.write(offset, data)
    }
    fn close(&self) -> Result<(), std::io::Error> {
        self.0.close()
    }
}

pub(crate) fn unknown(error: &dyn fmt::Display) -> StoreError {
    StoreError::Unknown(error.to_string())
}

fn open_database(make: &mut MakeBackend) -> Result<Database, StoreError> {
    let backend = Boxed(make()?);
    let open = || {
        Database::builder()
            .set_cache_size(CACHE)
            .create_with_backend(backend)
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(database)) => check(database),
        Ok(Err(redb::DatabaseError::Storage(redb::StorageError::Io(error)))) => {
            match error.kind() {
                std::io::ErrorKind::InvalidData => Err(StoreError::Foreign(error.to_string())),
                _ => Err(unknown(&error)),
            }
        }
        Ok(Err(error)) => Err(damaged(&error.to_string())),
        Err(_) => Err(damaged("its pages contradict each other")),
    }
}

/// Makes the tables of a new store; refuses what is not ours or newer.
fn check(database: Database) -> Result<Database, StoreError> {
    let tx = database.begin_read().map_err(|e| unknown(&e))?;
    let names: Vec<String> = tx
        .list_tables()
        .map_err(|e| unknown(&e))?
        .map(|t| redb::TableHandle::name(&t).to_owned())
        .collect();
    if names.is_empty() {
        drop(tx);
        create_tables(&database)?;
        return Ok(database);
    }
    let meta = tx.open_table(META).map_err(|error| match error {
        TableError::Storage(error) => unknown(&error),
        _ => StoreError::Foreign("it has other tables than a coordinator's store".to_owned()),
    })?;
    let format = meta.get(&b"format"[..]).map_err(|e| unknown(&e))?;
    let format = format.map(|f| f.value().to_vec()).unwrap_or_default();
    drop((meta, tx));
    let number = format.strip_prefix(MAGIC).and_then(|n| n.try_into().ok());
    match number.map(u32::from_le_bytes) {
        Some(FORMAT) => Ok(database),
        // What is read of the first format is written in this one: the older program must not come
        // back to it.
        Some(1) => {
            let tx = begin(&database)?;
            write_format(&tx)?;
            tx.commit().map_err(|e| unknown(&e))?;
            Ok(database)
        }
        Some(found) if found > FORMAT => Err(StoreError::Newer {
            found,
            known: FORMAT,
        }),
        _ => Err(StoreError::Foreign(
            "it carries no format of ours".to_owned(),
        )),
    }
}

fn create_tables(database: &Database) -> Result<(), StoreError> {
    let tx = begin(database)?;
    for table in [META, AGGREGATES, ROWS, INBOXES, EVENTS, FACTS, DIRECTIVES] {
        tx.open_table(table).map_err(|e| unknown(&e))?;
    }
    write_format(&tx)?;
    tx.commit().map_err(|e| unknown(&e))
}

fn write_format(tx: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = tx.open_table(META).map_err(|e| unknown(&e))?;
    let value = [MAGIC, &FORMAT.to_le_bytes()].concat();
    let old = meta.insert(&b"format"[..], value.as_slice());
    old.map(drop).map_err(|e| unknown(&e))
}

pub(crate) fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut tx = database.begin_write().map_err(|e| unknown(&e))?;
    tx.set_quick_repair(true);
    Ok(tx)
}

impl RedbStore {
    /// Opens what the backend holds; an empty backend becomes an empty store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(mut make: MakeBackend) -> Result<Self, StoreError> {
        let database = Arc::new(open_database(&mut make)?);
        let snapshots = Snapshots::default();
        snapshots.opened(&database);
        Ok(Self {
            make,
            database: Some(database),
            snapshots,
        })
    }

    /// Whence other threads take snapshots.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    pub(crate) fn database(&self) -> Result<&Database, StoreError> {
        self.database
            .as_deref()
            .ok_or_else(|| StoreError::Unknown("it is closed after a failure".to_owned()))
    }

    /// Drops the handle: nothing is believed until the store was opened again.
    pub(crate) fn close(&mut self) {
        self.snapshots.close();
        self.database = None;
    }

    pub(crate) fn open_again(&mut self) -> Result<(), StoreError> {
        self.close();
        let database = Arc::new(open_database(&mut self.make)?);
        self.snapshots.opened(&database);
        self.database = Some(database);
        Ok(())
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.close();
    }
}
