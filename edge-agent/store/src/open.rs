//! Opening and making a store: whose it is, which format it has, and whether it is whole.

use crate::redb_store::RedbStore;
use crate::reserve::{Reserve, ReserveFile};
use edge_core::store::StoreError;
use redb::backends::FileBackend;
use redb::{BackendError, Database, DatabaseError, StorageBackend, StorageError};
use shared::ids::{Incarnation, NodeId};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Version of the tables.
pub(crate) const FORMAT: u32 = 1;
/// Mode of a store's file: it holds what workflows give to tasks, and the directory above may be
/// searched by everybody.
const MODE: u32 = 0o600;
/// Default size of redb's page cache.
pub const CACHE: usize = 1024 * 1024;

/// Whose store it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
}

/// Makes the storage backend; called again when the store is opened again after a failure.
pub type MakeBackend = Box<dyn FnMut() -> Result<Box<dyn StorageBackend>, StoreError> + Send>;

/// Opens the store in a file that exists.
///
/// # Errors
/// [`StoreError`]: missing, in use, empty, damaged, foreign, of a later format.
pub fn open_file(path: &Path, identity: Identity) -> Result<RedbStore, StoreError> {
    let make = || from_file(path.to_owned(), false);
    open_beside(&make, identity, Box::new(ReserveFile::beside(path)))
}

/// Opens the store that lies on what `make` makes, beside its reserve.
///
/// # Errors
/// [`StoreError`]: empty, damaged, foreign, of a later format, or unreadable.
pub fn open_beside(
    make: &dyn Fn() -> MakeBackend,
    identity: Identity,
    reserve: Box<dyn Reserve>,
) -> Result<RedbStore, StoreError> {
    let open = || RedbStore::open(make(), identity);
    let store = match open() {
        // Opening writes, too.
        Err(StoreError::Failed(_)) if reserve.give_back() => open(),
        other => other,
    };
    Ok(store?.with_reserve(reserve))
}

/// Opens the store in a file that nobody uses, to look at it: nothing is written to the file, and
/// what is committed is forgotten with the store.
///
/// # Errors
/// [`StoreError`]: missing, empty, damaged, foreign, of a later format.
pub fn look(path: &Path, identity: Identity) -> Result<RedbStore, StoreError> {
    let path = path.to_owned();
    let make = move || match tablefile::Overlay::of(&path) {
        Ok(overlay) => Ok(Box::new(overlay) as Box<dyn StorageBackend>),
        Err(error) => {
            let name = path.display();
            Err(StoreError::Damaged(format!(
                "{name} cannot be read: {error}"
            )))
        }
    };
    RedbStore::open(Box::new(make), identity)
}

/// Makes a store in a file that does not exist, or is empty.
///
/// # Errors
/// [`StoreError`]: cannot be written, or holds something already.
pub fn create_file(path: &Path, identity: Identity) -> Result<RedbStore, StoreError> {
    let store = RedbStore::create(from_file(path.to_owned(), true), identity)?;
    Ok(store.with_reserve(Box::new(ReserveFile::beside(path))))
}

fn from_file(path: PathBuf, mut create: bool) -> MakeBackend {
    Box::new(move || {
        let backend = open_backend(&path, create)?;
        create = false;
        Ok(backend)
    })
}

fn open_backend(path: &Path, create: bool) -> Result<Box<dyn StorageBackend>, StoreError> {
    let name = path.display();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::Damaged(format!("{name} is missing")),
        _ => StoreError::Failed(format!("{name} cannot be opened: {error}")),
    };
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(create)
        .mode(MODE)
        .open(path)
        .map_err(failed)?;
    // Stores of the first release could be read by everybody. Only their owner can change that.
    let open = |meta: fs::Metadata| meta.permissions().mode() & !MODE & 0o777 != 0;
    if file.metadata().is_ok_and(open) {
        let _ = file.set_permissions(Permissions::from_mode(MODE));
    }
    if create && let Some(parent) = path.parent() {
        // The file's name must be as durable as what is in it.
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(failed)?;
    }
    let backend = FileBackend::new(file).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => {
            StoreError::Failed(format!("{name} is in use by another process"))
        }
        other => broken(&other),
    })?;
    Ok(Box::new(backend))
}

/// What redb says about a file that cannot be used.
pub(crate) fn broken(error: &DatabaseError) -> StoreError {
    match error {
        DatabaseError::Storage(StorageError::Io(io))
            if io.kind() != io::ErrorKind::InvalidData
                && io.kind() != io::ErrorKind::UnexpectedEof =>
        {
            StoreError::Failed(io.to_string())
        }
        other => StoreError::Damaged(other.to_string()),
    }
}

/// Opens the database on a backend. A file whose header was overwritten may trip an assertion in
/// redb: that is damage like any other.
pub(crate) fn database(
    backend: Box<dyn StorageBackend>,
    cache: usize,
    full: &Arc<AtomicBool>,
) -> Result<Database, StoreError> {
    let open = || {
        Database::builder()
            .set_cache_size(cache)
            .create_with_backend(Shim {
                backend,
                full: Arc::clone(full),
            })
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(StoreError::Failed(
            "it is in use by another process".to_owned(),
        )),
        Ok(Err(error)) => Err(broken(&error)),
        Err(_) => Err(StoreError::Damaged(
            "its pages contradict each other".to_owned(),
        )),
    }
}

/// A boxed backend as a backend. It notes when there was no room: what redb answers later does not
/// say.
#[derive(Debug)]
struct Shim {
    backend: Box<dyn StorageBackend>,
    full: Arc<AtomicBool>,
}

impl Shim {
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge
            )
        {
            self.full.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl StorageBackend for Shim {
    fn len(&self) -> Result<u64, io::Error> {
        self.backend.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.backend.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.note(self.backend.set_len(len))
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.note(self.backend.sync_data())
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.note(self.backend.write(offset, data))
    }
    fn close(&self) -> Result<(), io::Error> {
        self.backend.close()
    }
    fn try_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(from, to)
    }
    fn try_lock_shared_range(
        &self,
        from: Bound<u64>,
        to: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(from, to)
    }
    fn lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(from, to)
    }
    fn lock_shared_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(from, to)
    }
    fn unlock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(from, to)
    }
    fn query_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(from, to)
    }
}
