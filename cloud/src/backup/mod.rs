//! Backups of a coordinator: one file that holds a committed state of the store, the files that it
//! names and the authority; made while the coordinator runs or while it is stopped.
//!
//! Invariants: a backup is written aside, read once whole, synced and renamed before it counts as
//! finished; only then what it holds becomes safe. A restore fills an empty directory only.

mod create;
mod format;
mod place;
mod restore;

pub use create::{Source, Written, write};
pub use format::{Head, Summary};
pub use place::{Periodic, Placing, newest, prune, sweep};
pub use restore::{Found, check, restore, rows, verify};

use crate::data::{DataDir, DataError};
use certs::{Authority, AuthorityError};
use cloud_core::store::StoreError;
use contents::{Dir, FilesError};
use std::io;
use std::path::{Path, PathBuf};

/// How far a backup has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Rows of the store.
    pub rows: u64,
    /// Files of the file store.
    pub files: u64,
    /// Of so many; 0 while the rows are read.
    pub files_of: u64,
    /// Bytes before compression.
    pub bytes: u64,
}

/// Why a backup could not be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system.
    #[error("cannot {0}: {1}")]
    Io(&'static str, #[source] io::Error),
    /// The store.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// The file store.
    #[error("the file store: {0}")]
    Files(#[from] FilesError),
    /// The data directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The authority.
    #[error("the authority in it cannot be used: {0}")]
    Authority(#[from] AuthorityError),
    /// It is something else.
    #[error("it is not a backup of a Driftless coordinator")]
    Foreign,
    /// A later version made it.
    #[error("it was made by a later version; use that one")]
    Newer,
    /// It ends early.
    #[error("it is truncated: it ends before its end; use another one")]
    Truncated,
    /// It contradicts itself.
    #[error("it is damaged: {0}; use another one")]
    Damaged(String),
    /// Something is in the way.
    #[error(
        "{} is not empty ('{found}' is in it): a restore needs a new or an empty directory",
        .dir.display()
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// What is in it.
        found: String,
    },
    /// Another fleet's coordinator is there.
    #[error(
        "{} belongs to another authority ({there}) than the backup ({here})",
        .dir.display()
    )]
    OtherAuthority {
        /// The directory.
        dir: PathBuf,
        /// Fingerprint of what is there.
        there: String,
        /// Fingerprint of the backup.
        here: String,
    },
    /// A node that shall not be waited for is not in it.
    #[error("no node {0} is in the backup, nothing was made; its nodes: {1}")]
    NoNode(String, String),
    /// The store has no state to read yet.
    #[error("{} was never started: there is nothing to back up", .0.display())]
    Empty(PathBuf),
    /// The coordinator ends.
    #[error("the coordinator is stopping")]
    Stopping,
    /// The coordinator does not count it.
    #[error("the backup is whole, but the coordinator does not count it: {0}")]
    NotCounted(String),
}

/// Makes a backup of the coordinator in `dir`, which does not run.
///
/// # Errors
/// [`BackupError`].
pub fn of_stopped(
    dir: &Path,
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Found, BackupError> {
    if !dir.join("format").exists() {
        return Err(BackupError::Empty(dir.to_owned()));
    }
    let data = DataDir::open(dir)?;
    let authority = Authority::open_or_create(&data.authority())?;
    let files = Dir::open(&data.files(), u64::MAX)?;
    let store = cloud_store::snapshot::stopped(&data.store())?;
    let mut placing = Placing::begin(path)?;
    let source = Source {
        snapshot: store.snapshot,
        files: &files,
        authority: &data.authority(),
        fingerprint: authority.fingerprint().to_string(),
        still: None,
        at: crate::clock::wall(),
    };
    write(source, placing.file(), progress)?;
    placing.finish()
}
