//! The content store (`files/XX/REST` named by BLAKE3) and the safe ways in and out of an attempt's
//! directory.
//!
//! Files come in by being copied aside while they are hashed, made durable, and renamed when
//! complete, so what a hash names is always that content and whole. They are read-only for
//! everybody.

use crate::model::Error;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fchmod, openat, openat2};
use rustix::io::Errno;
use shared::fact::OutputFile;
use shared::ids::Hash;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes copied at once.
const CHUNK: usize = 128 * 1024;

/// Files by the hash of their content.
#[derive(Debug)]
pub struct FileStore {
    dir: PathBuf,
    next: AtomicU64,
}

impl FileStore {
    /// Opens the store below the data directory and clears what an earlier agent left half done.
    ///
    /// # Errors
    /// [`Error::Path`] if its directories cannot be made.
    pub fn open(data: &Path) -> Result<Self, Error> {
        let dir = data.join("files");
        let aside = dir.join("aside");
        if let Err(source) = fs::remove_dir_all(&aside)
            && source.kind() != io::ErrorKind::NotFound
        {
            return Err(Error::Path {
                what: "clear",
                path: aside,
                source,
            });
        }
        fs::create_dir_all(&aside).map_err(|source| Error::Path {
            what: "create",
            path: aside,
            source,
        })?;
        Ok(Self {
            dir,
            next: AtomicU64::new(0),
        })
    }

    /// Where the content `hash` is, if it is there.
    #[must_use]
    pub fn path(&self, hash: &Hash) -> PathBuf {
        let hex = hash.hex();
        self.dir.join(&hex[..2]).join(&hex[2..])
    }

    /// Takes everything `from` gives into the store. It is durable after [`FileStore::sync`].
    ///
    /// # Errors
    /// What reading or writing said; nothing is left then.
    pub fn add(&self, from: &mut dyn Read) -> io::Result<OutputFile> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let aside = self.dir.join("aside").join(number.to_string());
        let added = self.copy_in(from, &aside);
        if added.is_err() {
            let _ = fs::remove_file(&aside);
        }
        added
    }

    fn copy_in(&self, from: &mut dyn Read, aside: &Path) -> io::Result<OutputFile> {
        let mut file = File::create_new(aside)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        let mut size = 0;
        loop {
            let len = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&buffer[..len]);
            file.write_all(&buffer[..len])?;
            size += len as u64;
        }
        let hash = Hash(*hasher.finalize().as_bytes());
        let path = self.path(&hash);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() == size) {
            fs::remove_file(aside)?;
            return Ok(OutputFile { hash, size });
        }
        fchmod(&file, Mode::from_raw_mode(0o444))?;
        file.sync_all()?;
        let parent = path.parent().expect("paths of the store have a parent");
        match fs::create_dir(parent) {
            Ok(()) => File::open(&self.dir)?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        fs::rename(aside, &path)?;
        Ok(OutputFile { hash, size })
    }

    /// Makes the names of `files` durable.
    ///
    /// # Errors
    /// What the system said; the files may be gone after a power loss then.
    pub fn sync(&self, files: &[OutputFile]) -> io::Result<()> {
        let dirs: BTreeSet<PathBuf> = files
            .iter()
            .filter_map(|f| Some(self.path(&f.hash).parent()?.to_owned()))
            .collect();
        dirs.iter().try_for_each(|dir| File::open(dir)?.sync_all())
    }
}

/// Opens `path` below `dir`, never through a symbolic link and never out of `dir`.
pub(crate) fn open_below(dir: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(&dir, path, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => walk(dir, path, flags),
        other => Ok(other?),
    }
}

/// The same on kernels (or in containers) without `openat2`: one component at a time.
fn walk(dir: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let step = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let mut parts = path
        .components()
        .filter(|c| *c != Component::CurDir)
        .peekable();
    let mut at = openat(dir, ".", step, Mode::empty())?;
    while let Some(Component::Normal(part)) = parts.next() {
        if parts.peek().is_none() {
            return Ok(openat(&at, part, flags, Mode::empty())?);
        }
        at = openat(&at, part, step, Mode::empty())?;
    }
    Err(io::Error::from(io::ErrorKind::InvalidInput))
}

/// Opens a directory by an absolute path.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Opens the regular file `path` below `dir` for reading; waits for nothing (a pipe, a device).
pub(crate) fn open_regular(dir: impl AsFd, path: &Path) -> io::Result<File> {
    let file = File::from(open_below(dir, path, OFlags::RDONLY | OFlags::NONBLOCK)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// Opens a file of the node that is allowed as an input: a regular one below one of `roots`.
pub(crate) fn open_node_file(path: &str, roots: &[PathBuf]) -> Result<File, String> {
    let shown = path.escape_default();
    let real = fs::canonicalize(path).map_err(|e| format!("cannot read {shown}: {e}"))?;
    for root in roots {
        let Ok(root) = fs::canonicalize(root) else {
            continue;
        };
        if let Ok(rest) = real.strip_prefix(&root)
            && !rest.as_os_str().is_empty()
        {
            let opened = open_dir(&root).and_then(|dir| open_regular(dir, rest));
            return opened.map_err(|e| format!("cannot read {shown}: {e}"));
        }
    }
    Err(format!(
        "this node does not allow {shown} as an input; its read roots must name a directory above it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_found_by_its_hash_and_kept_once() {
        let data = tempfile::tempdir().unwrap();
        let store = FileStore::open(data.path()).unwrap();
        let added = store.add(&mut &b"hello"[..]).unwrap();
        assert_eq!(
            added,
            OutputFile {
                hash: Hash::of(b"hello"),
                size: 5
            }
        );
        assert_eq!(store.add(&mut &b"hello"[..]).unwrap(), added);
        store.sync(&[added]).unwrap();
        assert_eq!(fs::read(store.path(&added.hash)).unwrap(), b"hello");
        assert_eq!(
            fs::read_dir(data.path().join("files/aside"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn both_ways_of_opening_refuse_links_and_escapes() {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("d");
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(data.path().join("secret"), "s").unwrap();
        fs::write(dir.join("sub/plain"), "p").unwrap();
        std::os::unix::fs::symlink("../secret", dir.join("link")).unwrap();
        std::os::unix::fs::symlink("..", dir.join("up")).unwrap();
        let fd = open_dir(&dir).unwrap();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        assert!(open_below(&fd, Path::new("sub/plain"), OFlags::RDONLY).is_ok());
        assert!(walk(&fd, Path::new("sub/plain"), flags).is_ok());
        for bad in ["link", "up/secret", "../secret", "sub/none"] {
            assert!(
                open_below(&fd, Path::new(bad), OFlags::RDONLY).is_err(),
                "{bad}"
            );
            assert!(walk(&fd, Path::new(bad), flags).is_err(), "{bad}");
        }
    }
}
