//! The file of a store while nobody uses it: look at it without changing it, verify it, make it
//! small. Both sides keep their state in such a file; what the tables mean is not known here.
//!
//! Invariants: looking never writes to the file; a file is replaced only by a whole and verified
//! one, by a rename, so a crash at any moment leaves the old or the new one.

mod compact;
mod overlay;

pub use compact::{ASIDE, CompactError, Compacted, Progress, compact};
pub use overlay::Overlay;

use redb::{Database, DatabaseError, StorageBackend, StorageError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Size of the page cache while a file is verified.
const CACHE: usize = 16 * 1024 * 1024;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is not what was written.
    #[error("{0}")]
    Broken(String),
}

/// What a verification found in a file that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Bytes of the file.
    pub size: u64,
    /// It was not closed in order: the next opening repairs what it needs for writing. Nothing is
    /// lost by that.
    pub unclean: bool,
}

/// Verifies the checksum of every page that is reached, without changing the file.
///
/// # Errors
/// [`Damage`].
pub fn verify(path: &Path) -> Result<Checked, Damage> {
    let overlay = Overlay::of(path)?;
    let size = overlay.size();
    let unclean = !verify_pages(overlay)?;
    Ok(Checked { size, unclean })
}

/// Verifies what lies on `backend`, which may be written to: whether it was closed in order.
///
/// # Errors
/// [`Damage`].
pub fn verify_pages(backend: impl StorageBackend) -> Result<bool, Damage> {
    if backend.len()? == 0 {
        return Err(Damage::Broken("it is empty".to_owned()));
    }
    let look = || -> Result<bool, DatabaseError> {
        let mut database = Database::builder()
            .set_cache_size(CACHE)
            .create_with_backend(backend)?;
        database.check_integrity()
    };
    match quietly(look) {
        Some(Ok(clean)) => Ok(clean),
        Some(Err(DatabaseError::Storage(StorageError::Io(error))))
            if error.kind() != io::ErrorKind::InvalidData
                && error.kind() != io::ErrorKind::UnexpectedEof =>
        {
            Err(Damage::Unreadable(error))
        }
        Some(Err(error)) => Err(Damage::Broken(error.to_string())),
        None => Err(Damage::Broken("its pages contradict each other".to_owned())),
    }
}

/// Runs what may trip an assertion of redb on a damaged file: that is damage like any other.
pub fn quietly<T>(look: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(look)).ok()
}
