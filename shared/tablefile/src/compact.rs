//! Makes a file small: a copy of it is compacted, verified and put in its place. The file that is
//! there stays as it is until the rename.

use crate::{Damage, quietly, verify};
use redb::{CompactionError, Database, DatabaseError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// Ending of the copy's name. One that is left behind by a crash means nothing and may be removed.
pub const ASIDE: &str = "compact";
/// Bytes that are copied at once.
const CHUNK: usize = 1024 * 1024;
/// Room that must be left beside the copy.
const SPARE: u64 = 16 * 1024 * 1024;
/// Size of the page cache.
const CACHE: usize = 16 * 1024 * 1024;
/// Passes at most; each moves pages that the one before made room for.
const PASSES: usize = 8;

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The file is verified.
    Verifying,
    /// So many bytes are copied, of so many.
    Copying(u64, u64),
    /// The copy is made small.
    Compacting,
    /// The copy is verified.
    VerifyingCopy,
}

/// What became of it, in bytes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Before.
    pub before: u64,
    /// Afterwards.
    pub after: u64,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// It is damaged.
    #[error("the store is damaged and stays as it is: {0}")]
    Damaged(Damage),
    /// There is no room for the copy.
    #[error(
        "there is no room for the copy that is made: {needed} bytes are needed, {free} are free"
    )]
    NoRoom {
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// The copy is not good.
    #[error("the copy cannot be used, the store stays as it is: {0}")]
    BadCopy(String),
    /// The file system.
    #[error("cannot {0}; the store stays as it is: {1}")]
    Io(&'static str, #[source] io::Error),
}

/// Makes the store in `path` small. Nobody may use it meanwhile.
///
/// # Errors
/// [`CompactError`]: nothing was changed.
pub fn compact(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Compacted, CompactError> {
    let aside = path.with_extension(ASIDE);
    remove(&aside).map_err(|error| CompactError::Io("remove an older copy", error))?;
    progress(Progress::Verifying);
    let before = verify(path).map_err(CompactError::Damaged)?.size;
    let free = free_room(path).map_err(|error| CompactError::Io("measure the free room", error))?;
    let needed = before.saturating_add(SPARE);
    if free < needed {
        return Err(CompactError::NoRoom { needed, free });
    }
    let made = make(path, &aside, before, progress);
    if made.is_err() {
        // The next try removes it, too.
        let _ = remove(&aside);
    }
    made
}

fn make(
    path: &Path,
    aside: &PathBuf,
    before: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Compacted, CompactError> {
    copy(path, aside, before, progress).map_err(|error| CompactError::Io("copy it", error))?;
    progress(Progress::Compacting);
    match quietly(|| shrink(aside)) {
        Some(Ok(())) => {}
        Some(Err(why)) => return Err(CompactError::BadCopy(why)),
        None => {
            return Err(CompactError::BadCopy(
                "its pages contradict each other".into(),
            ));
        }
    }
    progress(Progress::VerifyingCopy);
    let after = verify(aside)
        .map_err(|error| CompactError::BadCopy(error.to_string()))?
        .size;
    let place = || -> io::Result<()> {
        File::open(aside)?.sync_all()?;
        fs::rename(aside, path)?;
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
    };
    place().map_err(|error| CompactError::Io("put the small one in its place", error))?;
    Ok(Compacted { before, after })
}

fn copy(from: &Path, to: &Path, size: u64, progress: &mut dyn FnMut(Progress)) -> io::Result<()> {
    let mut input = File::open(from)?;
    let meta = input.metadata()?;
    let mut output = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    belong(&output, &meta)?;
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    loop {
        progress(Progress::Copying(done, size));
        let count = input.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        output.write_all(&chunk[..count])?;
        done += count as u64;
    }
    output.sync_all()
}

/// Gives a file the owner and the mode of another one: whoever makes the store small may be root,
/// and the program that goes on with it is not.
fn belong(file: &File, like: &fs::Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(like.permissions())
}

/// Moves pages to the front and cuts the rest off.
fn shrink(path: &Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let open = || -> Result<Database, DatabaseError> {
        Database::builder().set_cache_size(CACHE).open(path)
    };
    let mut database = open().map_err(|error| text(&error))?;
    for _ in 0..PASSES {
        let more: Result<bool, CompactionError> = database.compact();
        if !more.map_err(|error| text(&error))? {
            break;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes that may be written beside `path`.
fn free_room(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
