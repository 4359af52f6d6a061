//! Room on the device that is kept aside, so that what must be recorded still can be when the disk
//! is full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes kept aside: several of the largest commits, and less than what the start of a task asks
/// for, so that giving it back starts nothing.
pub const RESERVE: u64 = 4 << 20;

/// Room of [`RESERVE`] bytes that is kept aside on the device of a store.
pub trait Reserve: std::fmt::Debug + Send {
    /// Whether it holds its room.
    fn is_held(&self) -> bool;

    /// Takes the room, or none of it.
    fn take(&self);

    /// Gives the room back. Whether there was any.
    fn give_back(&self) -> bool;
}

/// Gives back the room that is kept aside beside the store at `store`. Whether there was any.
#[must_use]
pub fn give_back(store: &Path) -> bool {
    ReserveFile::beside(store).give_back()
}

/// A file beside the store that only occupies room.
#[derive(Debug)]
pub(crate) struct ReserveFile {
    path: PathBuf,
}

impl ReserveFile {
    pub(crate) fn beside(store: &Path) -> Self {
        let path = store.with_file_name("reserve");
        Self { path }
    }
}

impl Reserve for ReserveFile {
    fn is_held(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|meta| meta.len() >= RESERVE)
    }

    fn take(&self) {
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.path);
        // The agent starts nothing without room: that it has no reserve yet does no harm.
        let taken = file.and_then(|file| fill(&file));
        if taken.is_err() {
            self.give_back();
        }
    }

    fn give_back(&self) -> bool {
        let held = fs::metadata(&self.path).is_ok_and(|meta| meta.len() > 0);
        let file = OpenOptions::new().write(true).open(&self.path);
        held && file.and_then(|file| file.set_len(0)).is_ok()
    }
}

/// Written, not only sized: a file with holes occupies nothing.
fn fill(mut file: &File) -> io::Result<()> {
    let zeros = vec![0; 64 * 1024];
    for _ in 0..RESERVE / zeros.len() as u64 {
        file.write_all(&zeros)?;
    }
    file.sync_data()
}
