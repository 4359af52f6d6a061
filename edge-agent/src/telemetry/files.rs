//! The ring's files: `NUMBER.tel` below the data directory, synced before a call returns.

use edge_core::telemetry::{Media, MediaError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".tel";

/// A directory of segments.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
}

fn failed(error: &io::Error) -> MediaError {
    let full = matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    );
    MediaError {
        full,
        text: error.to_string(),
    }
}

impl Files {
    /// The files in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(dir)?.filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().ends_with(".new") {
                // Of a write that was interrupted; in the way of nobody.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    fn path(&self, id: u32) -> PathBuf {
        self.dir.join(format!("{id}{SUFFIX}"))
    }

    fn try_append(&self, id: u32, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(id);
        let is_new = !path.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        if is_new { self.sync_dir() } else { Ok(()) }
    }

    fn try_replace(&self, id: u32, bytes: &[u8]) -> io::Result<()> {
        let aside = self.dir.join(format!("{id}.new"));
        let written = File::create(&aside).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if let Err(error) = written.and_then(|()| fs::rename(&aside, self.path(id))) {
            // What is left of it goes with the next start at the latest.
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        self.sync_dir()
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

impl Media for Files {
    fn list(&self) -> Result<Vec<(u32, u64)>, MediaError> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|e| failed(&e))? {
            let entry = entry.map_err(|e| failed(&e))?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            if let Some(id) = id.and_then(|id| id.parse().ok()) {
                all.push((id, entry.metadata().map_err(|e| failed(&e))?.len()));
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    fn read(&self, id: u32, offset: u64, length: usize) -> Result<Vec<u8>, MediaError> {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.path(id))?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(length as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| failed(&error))
    }

    fn append(&mut self, id: u32, bytes: &[u8]) -> Result<(), MediaError> {
        self.try_append(id, bytes).map_err(|error| failed(&error))
    }

    fn replace(&mut self, id: u32, bytes: &[u8]) -> Result<(), MediaError> {
        self.try_replace(id, bytes).map_err(|error| failed(&error))
    }

    fn remove(&mut self, id: u32) -> Result<(), MediaError> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_numbered_appended_replaced_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("telemetry");
        let mut files = Files::open(&dir).unwrap();
        files.append(2, b"one").unwrap();
        files.append(2, b"two").unwrap();
        files.replace(0, b"gaps").unwrap();
        fs::write(dir.join("7.new"), b"half").unwrap();
        fs::write(dir.join("notes.txt"), b"mine").unwrap();
        let mut files = Files::open(&dir).unwrap();
        assert_eq!(files.list().unwrap(), [(0, 4), (2, 6)]);
        assert_eq!(files.read(2, 2, 3).unwrap(), b"etw");
        files.remove(2).unwrap();
        files.remove(2).unwrap();
        assert!(files.read(2, 0, 1).is_err());
        assert!(dir.join("notes.txt").exists() && !dir.join("7.new").exists());
    }
}
