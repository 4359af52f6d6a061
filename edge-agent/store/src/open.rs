//! Opening and making a store: whose it is, which format it has, and whether it is whole.

use crate::redb_store::RedbStore;
use edge_core::store::StoreError;
use redb::backends::FileBackend;
use redb::{BackendError, Database, DatabaseError, StorageBackend, StorageError};
use shared::ids::{Incarnation, NodeId};
use std::fs::{File, OpenOptions};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Version of the tables.
pub(crate) const FORMAT: u32 = 1;
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
    RedbStore::open(from_file(path.to_owned(), false), identity)
}

/// Makes a store in a file that does not exist, or is empty.
///
/// # Errors
/// [`StoreError`]: cannot be written, or holds something already.
pub fn create_file(path: &Path, identity: Identity) -> Result<RedbStore, StoreError> {
    RedbStore::create(from_file(path.to_owned(), true), identity)
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
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => StoreError::Damaged(format!("{name} is missing")),
        _ => StoreError::Failed(format!("{name} cannot be opened: {error}")),
    };
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(create)
        .open(path)
        .map_err(failed)?;
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
            if io.kind() != std::io::ErrorKind::InvalidData
                && io.kind() != std::io::ErrorKind::UnexpectedEof =>
        {
            StoreError::Failed(io.to_string())
        }
        other => StoreError::Damaged(other.to_string()),
    }
}

/// Opens the database on a backend. A file whose header was overwritten may trip an assertion in redb: that is
/// damage like any other.
pub(crate) fn database(
    backend: Box<dyn StorageBackend>,
    cache: usize,
) -> Result<Database, StoreError> {
    let open = || {
        Database::builder()
            .set_cache_size(cache)
            .create_with_backend(Shim(backend))
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

/// A boxed backend as a backend.
#[derive(Debug)]
struct Shim(Box<dyn StorageBackend>);

impl StorageBackend for Shim {
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
    fn try_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(from, to)
    }
    fn try_lock_shared_range(
        &self,
        from: Bound<u64>,
        to: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(from, to)
    }
    fn lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(from, to)
    }
    fn lock_shared_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(from, to)
    }
    fn unlock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(from, to)
    }
    fn query_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(from, to)
    }
}
