//! The files below the ring.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Why the files could not be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct MediaError {
    /// There was no room on the disk.
    pub full: bool,
    /// What happened.
    pub text: String,
}

/// Numbered files. Whatever returns well is durable.
pub trait Media {
    /// Numbers and lengths of all files.
    ///
    /// # Errors
    /// [`MediaError`].
    fn list(&self) -> Result<Vec<(u32, u64)>, MediaError>;

    /// At most `length` bytes from `offset` on.
    ///
    /// # Errors
    /// [`MediaError`]: there is no such file, or it cannot be read.
    fn read(&self, id: u32, offset: u64, length: usize) -> Result<Vec<u8>, MediaError>;

    /// Appends to a file, making it if there is none. After an error or a crash any part of
    /// `bytes` may be there.
    ///
    /// # Errors
    /// [`MediaError`].
    fn append(&mut self, id: u32, bytes: &[u8]) -> Result<(), MediaError>;

    /// Makes a file whole, or leaves what was there.
    ///
    /// # Errors
    /// [`MediaError`].
    fn replace(&mut self, id: u32, bytes: &[u8]) -> Result<(), MediaError>;

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// [`MediaError`].
    fn remove(&mut self, id: u32) -> Result<(), MediaError>;
}

/// Files in memory, for tests and the simulator; clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryMedia(Rc<RefCell<Files>>);

#[derive(Debug, Default)]
struct Files {
    files: BTreeMap<u32, Vec<u8>>,
    /// Most bytes in all.
    room: Option<u64>,
    /// After so many bytes more nothing is written any longer: the machine is dead.
    alive_for: Option<u64>,
}

fn error(full: bool, text: &str) -> MediaError {
    MediaError {
        full,
        text: text.to_owned(),
    }
}

impl MemoryMedia {
    fn files(&self) -> RefMut<'_, Files> {
        self.0.borrow_mut()
    }

    /// At most so many bytes fit from now on.
    pub fn set_room(&self, room: Option<u64>) {
        self.files().room = room;
    }

    /// After `bytes` more every operation fails, until this is called with `None`; the write that
    /// crosses the limit is torn.
    pub fn die_after(&self, bytes: Option<u64>) {
        self.files().alive_for = bytes;
    }

    /// Cuts up to `bytes` off the end of the newest file, as a lost last write would.
    pub fn tear(&self, bytes: usize) {
        if let Some(mut last) = self.files().files.last_entry() {
            let left = last.get().len().saturating_sub(bytes);
            last.get_mut().truncate(left);
        }
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files().bytes()
    }
}

impl Files {
    fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.len() as u64).sum()
    }

    /// How many of `bytes` get written, and what comes of it.
    fn write(&mut self, bytes: u64, gone: u64) -> (u64, Result<(), MediaError>) {
        if let Some(left) = self.alive_for {
            self.alive_for = Some(left.saturating_sub(bytes));
            if bytes > left || left == 0 {
                return (left, Err(error(false, "the machine is dead")));
            }
        }
        let used = self.bytes() - gone;
        let room = self.room.map_or(bytes, |room| room.saturating_sub(used));
        if bytes > room {
            return (room, Err(error(true, "no room")));
        }
        (bytes, Ok(()))
    }
}

impl Media for MemoryMedia {
    fn list(&self) -> Result<Vec<(u32, u64)>, MediaError> {
        let files = self.files();
        let all = files.files.iter();
        Ok(all.map(|(id, file)| (*id, file.len() as u64)).collect())
    }

    fn read(&self, id: u32, offset: u64, length: usize) -> Result<Vec<u8>, MediaError> {
        let files = self.files();
        let file = files.files.get(&id);
        let file = file.ok_or_else(|| error(false, "no such file"))?;
        let rest = file
            .iter()
            .skip(usize::try_from(offset).unwrap_or(usize::MAX));
        Ok(rest.take(length).copied().collect())
    }

    fn append(&mut self, id: u32, bytes: &[u8]) -> Result<(), MediaError> {
        let mut files = self.files();
        let (written, result) = files.write(bytes.len() as u64, 0);
        let file = files.files.entry(id).or_default();
        file.extend(bytes.iter().take(usize::try_from(written).unwrap_or(0)));
        result
    }

    fn replace(&mut self, id: u32, bytes: &[u8]) -> Result<(), MediaError> {
        let mut files = self.files();
        let (_, result) = files.write(bytes.len() as u64, 0);
        result?;
        files.files.insert(id, bytes.to_vec());
        Ok(())
    }

    fn remove(&mut self, id: u32) -> Result<(), MediaError> {
        let mut files = self.files();
        files.write(0, 0).1?;
        files.files.remove(&id);
        Ok(())
    }
}
