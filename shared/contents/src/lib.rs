//! A directory of files named by their content: what tasks hand to tasks, on this node and on
//! others. Both sides keep one.
//!
//! `ab/cdef…` is a whole and verified file; `ab/cdef….part` one that is on its way, kept over
//! restarts so that its transfer goes on where it stopped; `aside/N` one whose content is not known
//! yet, gone with the process that wrote it.
//!
//! Invariant: a file without `.part` has the content that its name says, durably. The sum of all
//! files, with those on their way counted whole, stays within the budget.
//! All calls block on the disk.

mod taking;

use blake3::Hasher;
use shared::ids::Hash;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

const PART: &str = "part";
const BLOCK: usize = 256 * 1024;

/// Why a file cannot be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The operating system refused.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not here.
    #[error("no file with the content {0} is here")]
    Missing(Hash),
    /// Reading should begin behind its end.
    #[error("{hash} has {size} bytes; it cannot be read from {from} on")]
    Behind {
        /// The file.
        hash: Hash,
        /// Its bytes.
        size: u64,
        /// The position asked for.
        from: u64,
    },
    /// The budget is used up.
    #[error("no room for {needed} bytes: {used} of {budget} are in use")]
    NoRoom {
        /// Bytes wanted.
        needed: u64,
        /// Bytes in use.
        used: u64,
        /// Bytes allowed.
        budget: u64,
    },
    /// Another transfer of the same content is under way.
    #[error("{0} is being stored already")]
    Busy(Hash),
    /// More bytes came than were announced.
    #[error("more than the {size} bytes announced of {hash}")]
    TooLong {
        /// The file.
        hash: Hash,
        /// Bytes announced.
        size: u64,
    },
    /// Fewer bytes came than were announced.
    #[error("only {have} of {size} bytes of {hash} are here")]
    Incomplete {
        /// The file.
        hash: Hash,
        /// Bytes that are here.
        have: u64,
        /// Bytes announced.
        size: u64,
    },
    /// The content is not what its name says. What was stored of it is gone.
    #[error("the content of {wanted} is {found}: it was damaged, or changed while it was read")]
    Corrupt {
        /// The content wanted.
        wanted: Hash,
        /// The content found.
        found: Hash,
    },
}

impl From<FilesError> for io::Error {
    /// The kind says whether there was no room.
    fn from(error: FilesError) -> Self {
        let kind = match &error {
            FilesError::Io { source, .. } => source.kind(),
            FilesError::NoRoom { .. } => io::ErrorKind::StorageFull,
            FilesError::Missing(_) => io::ErrorKind::NotFound,
            _ => io::ErrorKind::Other,
        };
        let source = match error {
            FilesError::Io { source, .. } if source.raw_os_error().is_some() => return source,
            other => other,
        };
        Self::new(kind, source)
    }
}

/// Where in `root` the content `hash` lies, if it is there.
#[must_use]
pub fn place(root: &Path, hash: Hash) -> PathBuf {
    let digits = hash.hex();
    root.join(&digits[..2]).join(&digits[2..])
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FilesError + 'a {
    move |source| FilesError::Io {
        doing,
        path: path.to_path_buf(),
        source,
    }
}

/// The directory. Clones share it; one process may have it open.
#[derive(Clone, Debug)]
pub struct Dir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    budget: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    writing: BTreeSet<Hash>,
    /// Number of the next file whose content is not known yet.
    next: u64,
}

/// How storing begins.
#[derive(Debug)]
pub enum Begin {
    /// It is here already, whole.
    Complete,
    /// It is to be written from [`Writer::offset`] on.
    From(Box<Writer>),
}

impl Dir {
    /// Opens `root`, made if it does not exist, for at most `budget` bytes of content.
    ///
    /// # Errors
    /// [`FilesError::Io`].
    pub fn open(root: &Path, budget: u64) -> Result<Self, FilesError> {
        fs::create_dir_all(root).map_err(io_error("make directory", root))?;
        taking::clear(root)?;
        let state = Mutex::default();
        let dir = Self(Arc::new(Inner {
            root: root.to_path_buf(),
            budget,
            state,
        }));
        let mut used = 0;
        dir.walk(|_, size, _| used += size)?;
        dir.state().used = used;
        Ok(dir)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn walk(&self, mut each: impl FnMut(Hash, u64, bool)) -> Result<(), FilesError> {
        let list = |path: &Path| fs::read_dir(path).map_err(io_error("list", path));
        for shelf in list(&self.0.root)? {
            let shelf = shelf.map_err(io_error("list", &self.0.root))?.path();
            let Some(first) = shelf.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if first.len() != 2 || !shelf.is_dir() {
                continue;
            }
            for file in list(&shelf)? {
                let file = file.map_err(io_error("list", &shelf))?;
                let name = file.file_name();
                let name = name.to_str().unwrap_or_default();
                let (rest, part) = match name.strip_suffix(".part") {
                    Some(rest) => (rest, true),
                    None => (name, false),
                };
                if let Ok(hash) = format!("blake3:{first}{rest}").parse() {
                    let meta = file.metadata().map_err(io_error("look at", &file.path()))?;
                    each(hash, meta.len(), part);
                }
            }
        }
        Ok(())
    }

    fn at(&self, hash: Hash) -> PathBuf {
        place(&self.0.root, hash)
    }

    /// The whole files and their sizes.
    ///
    /// # Errors
    /// [`FilesError::Io`].
    pub fn list(&self) -> Result<Vec<(Hash, u64)>, FilesError> {
        let mut found = Vec::new();
        self.walk(|hash, size, part| {
            if !part {
                found.push((hash, size));
            }
        })?;
        found.sort();
        Ok(found)
    }

    /// Removes what is here of files whose transfers stopped more than `age` ago, but for those
    /// that are `wanted`: whose they were. One that comes after all begins anew.
    ///
    /// # Errors
    /// [`FilesError::Io`]
    pub fn drop_parts(
        &self,
        age: Duration,
        wanted: impl Fn(Hash) -> bool,
    ) -> Result<Vec<Hash>, FilesError> {
        let mut found = Vec::new();
        self.walk(|hash, _, part| {
            if part && !wanted(hash) {
                found.push(hash);
            }
        })?;
        let mut dropped = Vec::new();
        for hash in found {
            let path = self.at(hash).with_extension(PART);
            let mut state = self.state();
            let meta = fs::metadata(&path).ok();
            let is_old = |meta: &fs::Metadata| {
                let stopped = meta.modified().ok()?;
                SystemTime::now().duration_since(stopped).ok()
            };
            let Some(meta) = meta.filter(|meta| is_old(meta).is_some_and(|old| old >= age)) else {
                continue;
            };
            if state.writing.contains(&hash) {
                continue;
            }
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
            state.used = state.used.saturating_sub(meta.len());
            dropped.push(hash);
        }
        Ok(dropped)
    }

    /// Makes the directory that `path` lies in, durably.
    fn make_shelf(&self, path: &Path) -> Result<(), FilesError> {
        let shelf = path.parent().unwrap_or(&self.0.root);
        match fs::create_dir(shelf) {
            Ok(()) => sync_dir(&self.0.root),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(io_error("make directory", shelf)(error)),
        }
    }

    /// Bytes in use, with those that files on their way will need.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used
    }

    /// How many bytes too few are free to store a file of `size` bytes. None are for what is here,
    /// and for what is larger than the budget.
    #[must_use]
    pub fn lacks(&self, hash: Hash, size: u64) -> u64 {
        if self.find(hash).is_some() || size > self.0.budget {
            return 0;
        }
        let others = self.used().saturating_sub(self.partial(hash));
        others.saturating_add(size).saturating_sub(self.0.budget)
    }

    /// Where the file lies and its size, if it is here whole.
    #[must_use]
    pub fn find(&self, hash: Hash) -> Option<(PathBuf, u64)> {
        let path = self.at(hash);
        let meta = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        Some((path, meta.len()))
    }

    /// Bytes that are here of a file on its way.
    #[must_use]
    pub fn partial(&self, hash: Hash) -> u64 {
        fs::metadata(self.at(hash).with_extension(PART)).map_or(0, |meta| meta.len())
    }

    /// Opens the file for reading from `from` on.
    ///
    /// # Errors
    /// [`FilesError::Missing`], [`FilesError::Behind`] or [`FilesError::Io`].
    pub fn open_read(&self, hash: Hash, from: u64) -> Result<Reader, FilesError> {
        let path = self.at(hash);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FilesError::Missing(hash));
            }
            opened => opened.map_err(io_error("open", &path))?,
        };
        let size = file.metadata().map_err(io_error("look at", &path))?.len();
        if from > size {
            return Err(FilesError::Behind { hash, size, from });
        }
        file.seek(SeekFrom::Start(from))
            .map_err(io_error("seek in", &path))?;
        Ok(Reader { file, path, size })
    }

    /// Begins to store a file of `size` bytes, behind what is here of it. Its whole size is
    /// reserved.
    ///
    /// # Errors
    /// [`FilesError::NoRoom`], [`FilesError::Busy`] or [`FilesError::Io`].
    pub fn begin_write(&self, hash: Hash, size: u64) -> Result<Begin, FilesError> {
        let path = self.at(hash);
        let part = path.with_extension(PART);
        let mut state = self.state();
        if self.find(hash).is_some() {
            return Ok(Begin::Complete);
        }
        if state.writing.contains(&hash) {
            return Err(FilesError::Busy(hash));
        }
        let there = self.partial(hash);
        let others = state.used.saturating_sub(there);
        if others
            .checked_add(size)
            .is_none_or(|sum| sum > self.0.budget)
        {
            let (used, budget) = (others, self.0.budget);
            return Err(FilesError::NoRoom {
                needed: size,
                used,
                budget,
            });
        }
        state.used = others + size;
        state.writing.insert(hash);
        drop(state);
        // From here on the reservation is given back by the writer's drop.
        let mut writer = Writer {
            dir: self.clone(),
            hash,
            size,
            have: 0,
            hasher: Hasher::new(),
            file: None,
            part,
            path,
        };
        writer.open()?;
        Ok(Begin::From(Box::new(writer)))
    }

    /// Stores a copy of the file at `from`; its content and size.
    ///
    /// # Errors
    /// [`FilesError`]; [`FilesError::Corrupt`] when it changed meanwhile.
    pub fn insert(&self, from: &Path) -> Result<(Hash, u64), FilesError> {
        let open = || File::open(from).map_err(io_error("open", from));
        let (mut file, mut hasher, mut size) = (open()?, Hasher::new(), 0);
        let mut block = vec![0; BLOCK];
        loop {
            let n = file.read(&mut block).map_err(io_error("read", from))?;
            if n == 0 {
                break;
            }
            hasher.update(&block[..n]);
            size += n as u64;
        }
        let hash = Hash(*hasher.finalize().as_bytes());
        let Begin::From(mut writer) = self.begin_write(hash, size)? else {
            return Ok((hash, size));
        };
        let mut file = open()?;
        file.seek(SeekFrom::Start(writer.offset()))
            .map_err(io_error("seek in", from))?;
        loop {
            let n = file.read(&mut block).map_err(io_error("read", from))?;
            if n == 0 {
                break;
            }
            writer.append(&block[..n])?;
        }
        writer.finish()?;
        Ok((hash, size))
    }

    /// Stores `bytes`.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn insert_bytes(&self, bytes: &[u8]) -> Result<Hash, FilesError> {
        let hash = Hash::of(bytes);
        if let Begin::From(mut writer) = self.begin_write(hash, bytes.len() as u64)? {
            let here = writer.offset() as usize;
            writer.append(&bytes[here..])?;
            writer.finish()?;
        }
        Ok(hash)
    }

    /// Removes the file, and what is here of it if it is not being written. Not an error if it is
    /// not here.
    ///
    /// # Errors
    /// [`FilesError::Io`].
    pub fn remove(&self, hash: Hash) -> Result<(), FilesError> {
        let path = self.at(hash);
        let mut state = self.state();
        let part = path.with_extension(PART);
        let busy = state.writing.contains(&hash);
        for path in [path, part].iter().take(if busy { 1 } else { 2 }) {
            let Ok(meta) = fs::metadata(path) else {
                continue;
            };
            fs::remove_file(path).map_err(io_error("remove", path))?;
            state.used = state.used.saturating_sub(meta.len());
        }
        Ok(())
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct Reader {
    file: File,
    path: PathBuf,
    size: u64,
}

impl Reader {
    /// Bytes of the whole file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `block` as far as the file goes; the number of bytes read, 0 at the end.
    ///
    /// # Errors
    /// [`FilesError::Io`].
    pub fn read(&mut self, block: &mut [u8]) -> Result<usize, FilesError> {
        let mut filled = 0;
        while filled < block.len() {
            match self.file.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("read", &self.path)(error)),
            }
        }
        Ok(filled)
    }
}

/// A file that is being stored. Dropped before [`Writer::finish`] it keeps what is there for
/// another time.
#[derive(Debug)]
pub struct Writer {
    dir: Dir,
    hash: Hash,
    size: u64,
    have: u64,
    hasher: Hasher,
    file: Option<File>,
    part: PathBuf,
    path: PathBuf,
}

impl Writer {
    fn open(&mut self) -> Result<(), FilesError> {
        self.dir.make_shelf(&self.path)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.part)
            .map_err(io_error("open", &self.part))?;
        let mut block = vec![0; BLOCK];
        loop {
            let n = file
                .read(&mut block)
                .map_err(io_error("read", &self.part))?;
            if n == 0 {
                break;
            }
            self.hasher.update(&block[..n]);
            self.have += n as u64;
        }
        if self.have > self.size {
            self.have = 0;
            self.hasher.reset();
            file.set_len(0)
                .and_then(|()| file.rewind())
                .map_err(io_error("empty", &self.part))?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Bytes that are here: the content is wanted from this position on.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.have
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// [`FilesError::TooLong`], whereupon nothing of it was written; or [`FilesError::Io`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        if bytes.len() as u64 > self.size - self.have {
            return Err(FilesError::TooLong {
                hash: self.hash,
                size: self.size,
            });
        }
        let Some(file) = &mut self.file else {
            return Err(FilesError::Missing(self.hash));
        };
        if let Err(error) = file.write_all(bytes) {
            // A part of it may be there: cut it off, or the next resume would hash another content.
            let _ = file.set_len(self.have);
            return Err(io_error("write", &self.part)(error));
        }
        self.hasher.update(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    /// All bytes were added: verifies them and makes the file whole, durably.
    ///
    /// # Errors
    /// [`FilesError::Incomplete`] keeps what is there; [`FilesError::Corrupt`] removes it.
    pub fn finish(mut self) -> Result<(), FilesError> {
        if self.have < self.size {
            let (hash, have, size) = (self.hash, self.have, self.size);
            return Err(FilesError::Incomplete { hash, have, size });
        }
        let found = Hash(*self.hasher.finalize().as_bytes());
        let Some(file) = self.file.take() else {
            return Err(FilesError::Missing(self.hash));
        };
        if found != self.hash {
            fs::remove_file(&self.part).map_err(io_error("remove", &self.part))?;
            return Err(FilesError::Corrupt {
                wanted: self.hash,
                found,
            });
        }
        file.sync_all().map_err(io_error("sync", &self.part))?;
        fs::rename(&self.part, &self.path).map_err(io_error("rename to", &self.path))?;
        // Not before: a part that nobody may write could not go on after a crash.
        close_to_writers(&file).map_err(io_error("protect", &self.path))?;
        sync_dir(self.path.parent().unwrap_or(&self.dir.0.root))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.dir.state();
        state.writing.remove(&self.hash);
        let kept = match fs::metadata(&self.path) {
            Ok(meta) => meta.len(),
            Err(_) => self.dir.partial(self.hash),
        };
        state.used = (state.used + kept).saturating_sub(self.size);
    }
}

/// Contents are read-only for everybody.
fn close_to_writers(file: &File) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(0o444))
}

fn sync_dir(path: &Path) -> Result<(), FilesError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync directory", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(dir: &Dir, hash: Hash, size: u64) -> Box<Writer> {
        match dir.begin_write(hash, size).unwrap() {
            Begin::From(writer) => writer,
            Begin::Complete => panic!("it is not here yet"),
        }
    }

    #[test]
    fn an_interrupted_file_goes_on_and_the_budget_follows() {
        let home = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
        let hash = Hash::of(&content);
        let dir = Dir::open(home.path(), 1500).unwrap();
        let mut writer = begin(&dir, hash, 1000);
        writer.append(&content[..400]).unwrap();
        assert!(matches!(
            dir.begin_write(hash, 1000),
            Err(FilesError::Busy(_))
        ));
        assert_eq!(dir.used(), 1000, "the whole size is reserved");
        let other = dir.begin_write(Hash([1; 32]), 501);
        assert!(matches!(
            other,
            Err(FilesError::NoRoom {
                needed: 501,
                used: 1000,
                budget: 1500
            })
        ));
        drop(writer);
        assert_eq!((dir.used(), dir.partial(hash)), (400, 400));

        let dir = Dir::open(home.path(), 1500).unwrap();
        assert_eq!(dir.used(), 400, "counted again at the start");
        let day = Duration::from_secs(86_400);
        let drop = |age, wanted: bool| dir.drop_parts(age, |_| wanted).unwrap();
        assert!(drop(day, false).is_empty() && drop(Duration::ZERO, true).is_empty());
        let writer = begin(&dir, hash, 1000);
        assert!(
            drop(Duration::ZERO, false).is_empty(),
            "it is being written"
        );
        std::mem::drop(writer);
        let other = Hash::of(b"other");
        begin(&dir, other, 500).append(&[7; 300]).unwrap();
        assert_eq!(dir.used(), 700);
        let dropped = dir.drop_parts(Duration::ZERO, |wanted| wanted == hash);
        assert_eq!(dropped.unwrap(), [other]);
        assert_eq!((dir.used(), dir.partial(other)), (400, 0));
        let mut writer = begin(&dir, hash, 1000);
        assert_eq!(writer.offset(), 400);
        assert!(matches!(
            writer.append(&[0; 601]),
            Err(FilesError::TooLong { .. })
        ));
        writer.append(&content[400..]).unwrap();
        writer.finish().unwrap();
        assert_eq!((dir.used(), dir.partial(hash)), (1000, 0));
        assert_eq!(dir.list().unwrap(), [(hash, 1000)]);
        assert!(matches!(dir.begin_write(hash, 1000), Ok(Begin::Complete)));
        assert!(matches!(
            dir.open_read(hash, 1001),
            Err(FilesError::Behind { size: 1000, .. })
        ));
        let mut block = [0; 300];
        let mut reader = dir.open_read(hash, 900).unwrap();
        assert_eq!(
            (reader.read(&mut block).unwrap(), &block[..100]),
            (100, &content[900..])
        );
        dir.remove(hash).unwrap();
        assert_eq!(dir.used(), 0);
        assert!(matches!(
            dir.open_read(hash, 0),
            Err(FilesError::Missing(_))
        ));
    }

    #[test]
    fn what_is_not_what_its_name_says_is_never_kept() {
        let home = tempfile::tempdir().unwrap();
        let dir = Dir::open(home.path(), 10_000).unwrap();
        let hash = Hash::of(b"the truth");
        let mut writer = begin(&dir, hash, 9);
        writer.append(b"the l").unwrap();
        assert!(matches!(
            writer.finish(),
            Err(FilesError::Incomplete {
                have: 5,
                size: 9,
                ..
            })
        ));
        let mut writer = begin(&dir, hash, 9);
        writer.append(b"ies!").unwrap();
        assert!(matches!(writer.finish(), Err(FilesError::Corrupt { .. })));
        assert_eq!((dir.used(), dir.partial(hash)), (0, 0));
        // A part that is longer than the file (damage, or a lie about the size) begins anew.
        let mut writer = begin(&dir, hash, 20);
        writer
            .append(b"something much longer"[..20].as_ref())
            .unwrap();
        drop(writer);
        assert_eq!(begin(&dir, hash, 9).offset(), 0);
        assert_eq!(dir.insert_bytes(b"the truth").unwrap(), hash);
        assert_eq!(dir.used(), 9);
    }

    #[test]
    fn files_come_in_by_copy_whatever_their_size() {
        let home = tempfile::tempdir().unwrap();
        let dir = Dir::open(&home.path().join("files"), 10_000_000).unwrap();
        for size in [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let from = home.path().join("from");
            let content: Vec<u8> = (0..size).map(|n| (n / 7) as u8).collect();
            fs::write(&from, &content).unwrap();
            let (hash, stored) = dir.insert(&from).unwrap();
            assert_eq!((hash, stored), (Hash::of(&content), size as u64));
            assert_eq!(fs::read(dir.find(hash).unwrap().0).unwrap(), content);
        }
        let missing = dir.insert(&home.path().join("nothing"));
        assert!(matches!(missing, Err(FilesError::Io { doing: "open", .. })));
    }
}
