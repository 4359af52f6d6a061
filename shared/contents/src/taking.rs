//! Taking in what has no name yet: it is copied aside while it is hashed, made durable, and renamed
//! when it is whole.

use crate::{Dir, FilesError, close_to_writers, io_error, sync_dir};
use blake3::Hasher;
use shared::ids::Hash;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const ASIDE: &str = "aside";
/// Bytes copied at once.
const CHUNK: usize = 128 * 1024;

/// Removes what an earlier process left half taken.
pub(crate) fn clear(root: &Path) -> Result<(), FilesError> {
    let aside = root.join(ASIDE);
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("clear", &aside)(error))
        }
        _ => Ok(()),
    }
}

impl Dir {
    /// Takes everything that `from` gives: its content and size. Its name is durable after
    /// [`Dir::sync`].
    ///
    /// # Errors
    /// [`FilesError::NoRoom`], or [`FilesError::Io`] with what reading or writing said; nothing is
    /// left then.
    pub fn add(&self, from: &mut dyn Read) -> Result<(Hash, u64), FilesError> {
        let mut taking = self.begin_taking()?;
        let hash = taking.copy(from)?;
        let size = taking.size;
        taking.keep(hash)?;
        Ok((hash, size))
    }

    /// Makes the names of `hashes` durable.
    ///
    /// # Errors
    /// [`FilesError::Io`]: the files may be gone after a power loss then.
    pub fn sync(&self, hashes: impl IntoIterator<Item = Hash>) -> Result<(), FilesError> {
        let shelf = |hash| self.at(hash).parent().map(Path::to_owned);
        let shelves: BTreeSet<PathBuf> = hashes.into_iter().filter_map(shelf).collect();
        shelves.iter().try_for_each(|shelf| sync_dir(shelf))
    }

    fn begin_taking(&self) -> Result<Taking<'_>, FilesError> {
        let number = {
            let mut state = self.state();
            state.next += 1;
            state.next
        };
        let aside = self.0.root.join(ASIDE);
        let path = aside.join(number.to_string());
        let file = match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&aside).and_then(|()| File::create_new(&path))
            }
            made => made,
        };
        Ok(Taking {
            dir: self,
            file: file.map_err(io_error("create", &path))?,
            path,
            size: 0,
            reserved: 0,
        })
    }
}

/// A file whose content is not known yet. Dropped before it is kept, it leaves nothing.
struct Taking<'a> {
    dir: &'a Dir,
    file: File,
    path: PathBuf,
    size: u64,
    reserved: u64,
}

impl Taking<'_> {
    fn copy(&mut self, from: &mut dyn Read) -> Result<Hash, FilesError> {
        let (mut hasher, mut buffer) = (Hasher::new(), vec![0; CHUNK]);
        loop {
            let len = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(io_error("read what goes to", &self.path)(error)),
            };
            self.reserve(len as u64)?;
            hasher.update(&buffer[..len]);
            self.file
                .write_all(&buffer[..len])
                .map_err(io_error("write", &self.path))?;
            self.size += len as u64;
        }
        Ok(Hash(*hasher.finalize().as_bytes()))
    }

    fn reserve(&mut self, more: u64) -> Result<(), FilesError> {
        let mut state = self.dir.state();
        let budget = self.dir.0.budget;
        match state.used.checked_add(more).filter(|sum| *sum <= budget) {
            Some(sum) => state.used = sum,
            None => {
                return Err(FilesError::NoRoom {
                    needed: self.size + more,
                    used: state.used - self.reserved,
                    budget,
                });
            }
        }
        self.reserved += more;
        Ok(())
    }

    /// Gives it its name, unless its content is here already.
    fn keep(mut self, hash: Hash) -> Result<(), FilesError> {
        if self.dir.find(hash).is_some() {
            return Ok(());
        }
        close_to_writers(&self.file)
            .and_then(|()| self.file.sync_all())
            .map_err(io_error("sync", &self.path))?;
        let path = self.dir.at(hash);
        self.dir.make_shelf(&path)?;
        let state = self.dir.state();
        if self.dir.find(hash).is_some() {
            drop(state);
            return Ok(());
        }
        fs::rename(&self.path, &path).map_err(io_error("rename to", &path))?;
        // A transfer of the same content that is under way counts it.
        let counted = state.writing.contains(&hash);
        drop(state);
        if !counted {
            self.reserved = 0;
        }
        Ok(())
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        let mut state = self.dir.state();
        state.used = state.used.saturating_sub(self.reserved);
        drop(state);
        // It is not there any more if it was given its name.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Begin;

    fn left_aside(root: &Path) -> usize {
        fs::read_dir(root.join(ASIDE)).map_or(0, Iterator::count)
    }

    #[test]
    fn content_is_found_by_its_hash_and_kept_and_counted_once() {
        let home = tempfile::tempdir().unwrap();
        let dir = Dir::open(home.path(), 100).unwrap();
        let (hash, size) = dir.add(&mut &b"hello"[..]).unwrap();
        assert_eq!((hash, size), (Hash::of(b"hello"), 5));
        assert_eq!(dir.add(&mut &b"hello"[..]).unwrap(), (hash, 5));
        dir.sync([hash]).unwrap();
        let (path, _) = dir.find(hash).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hello");
        assert_eq!(path, crate::place(home.path(), hash));
        assert!(fs::metadata(&path).unwrap().permissions().readonly());
        assert_eq!((dir.used(), left_aside(home.path())), (5, 0));
        assert_eq!(Dir::open(home.path(), 100).unwrap().used(), 5);
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_and_an_interrupted_process_neither() {
        let home = tempfile::tempdir().unwrap();
        let dir = Dir::open(home.path(), 100).unwrap();
        dir.add(&mut &[1; 60][..]).unwrap();
        let refused = dir.add(&mut &[2; 41][..]).unwrap_err();
        let said = matches!(
            refused,
            FilesError::NoRoom {
                needed: 41,
                used: 60,
                budget: 100
            }
        );
        assert!(said, "{refused}");
        let as_io = io::Error::from(refused);
        assert_eq!(as_io.kind(), io::ErrorKind::StorageFull);
        assert_eq!((dir.used(), left_aside(home.path())), (60, 0));
        assert!(dir.add(&mut Broken).is_err());
        assert_eq!((dir.used(), left_aside(home.path())), (60, 0));
        dir.add(&mut &[2; 40][..]).unwrap();
        assert_eq!(dir.used(), 100);
        fs::create_dir_all(home.path().join(ASIDE)).unwrap();
        fs::write(home.path().join(ASIDE).join("7"), "half").unwrap();
        assert_eq!(Dir::open(home.path(), 100).unwrap().used(), 100);
        assert_eq!(left_aside(home.path()), 0);
    }

    #[test]
    fn a_transfer_of_the_same_content_counts_once() {
        let home = tempfile::tempdir().unwrap();
        for finished in [true, false] {
            let dir = Dir::open(&home.path().join(finished.to_string()), 100).unwrap();
            let hash = Hash::of(&[3; 30]);
            let Begin::From(mut writer) = dir.begin_write(hash, 30).unwrap() else {
                panic!("it is not here yet")
            };
            writer.append(&[3; 10]).unwrap();
            dir.add(&mut &[3; 30][..]).unwrap();
            assert_eq!(dir.used(), 30);
            if finished {
                writer.append(&[3; 20]).unwrap();
                writer.finish().unwrap();
            } else {
                drop(writer);
            }
            assert_eq!(dir.used(), 30, "finished: {finished}");
            assert!(dir.find(hash).is_some());
        }
    }

    /// A source that fails after a few bytes.
    struct Broken;

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match buffer.len() {
                0..10 => Ok(0),
                _ if buffer[0] == 9 => Err(io::Error::other("told to fail")),
                _ => {
                    buffer[..10].fill(9);
                    Ok(10)
                }
            }
        }
    }
}
