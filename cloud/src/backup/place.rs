//! Puts backups in their places: aside first, then read, synced, renamed. Backups that are made by
//! themselves have names by time, and the oldest go.

use super::{BackupError, Found, check};
use shared::time::{Span, Unix};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const BEGIN: &str = "driftless-";
const END: &str = ".backup";

/// Backups that are made by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Periodic {
    /// Where they go.
    pub dir: PathBuf,
    /// How often.
    pub every: Span,
    /// So many of them are kept.
    pub keep: usize,
}

impl Periodic {
    /// The place of a backup that is made now.
    #[must_use]
    pub fn path(&self, at: Unix) -> PathBuf {
        let name: String = at.to_string();
        let digits = name.chars().filter(char::is_ascii_digit);
        let stamp: String = digits.take(14).collect();
        self.dir.join(format!("{BEGIN}{stamp}{END}"))
    }
}

/// Backups in a directory, oldest first. Their names sort by time.
fn all(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let ours = |path: &PathBuf| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with(BEGIN) && name.ends_with(END))
    };
    let entries = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = entries.filter(ours).collect();
    found.sort();
    Ok(found)
}

/// When the newest backup in a directory was finished.
#[must_use]
pub fn newest(dir: &Path) -> Option<SystemTime> {
    let newest = all(dir).ok()?.pop()?;
    fs::metadata(newest).ok()?.modified().ok()
}

/// Removes all but the `keep` newest (one at least) backups of a directory.
///
/// # Errors
/// Of the file system.
pub fn prune(dir: &Path, keep: usize) -> io::Result<()> {
    let all = all(dir)?;
    let old = all.len().saturating_sub(keep.max(1));
    all[..old].iter().try_for_each(fs::remove_file)
}

/// A backup that is being written beside its place.
#[derive(Debug)]
pub struct Placing {
    path: PathBuf,
    aside: PathBuf,
    file: File,
    done: bool,
}

impl Placing {
    /// Begins a file for its owner alone, beside `path`.
    ///
    /// # Errors
    /// [`BackupError::Io`], also when something is at `path`.
    pub fn begin(path: &Path) -> Result<Self, BackupError> {
        if path.exists() {
            let error = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(BackupError::Io("make the backup", error));
        }
        let mut aside = path.as_os_str().to_owned();
        aside.push(".part");
        let aside = PathBuf::from(aside);
        // What an interrupted one left is worth nothing.
        let _ = fs::remove_file(&aside);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&aside);
        Ok(Self {
            path: path.to_owned(),
            aside,
            file: file.map_err(|error| BackupError::Io("make the backup", error))?,
            done: false,
        })
    }

    /// Where to write.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// All is written: it is synced, read once whole, and takes its place.
    ///
    /// # Errors
    /// [`BackupError`]; nothing is in its place then.
    pub fn finish(mut self) -> Result<Found, BackupError> {
        let failed = |error| BackupError::Io("put the backup in its place", error);
        self.file.sync_all().map_err(failed)?;
        let found = check(&self.aside)?;
        fs::rename(&self.aside, &self.path).map_err(failed)?;
        self.done = true;
        let parent = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(parent.unwrap_or_else(|| Path::new(".")))
            .and_then(|dir| dir.sync_all())
            .map_err(failed)?;
        Ok(found)
    }
}

impl Drop for Placing {
    fn drop(&mut self) {
        if !self.done {
            // It is worth nothing; if it stays, the next backup removes it.
            let _ = fs::remove_file(&self.aside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_others_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let periodic = Periodic {
            dir: dir.path().to_owned(),
            every: Span::secs(1),
            keep: 2,
        };
        for second in 1..=4 {
            fs::write(periodic.path(Unix(second * 1000)), "x").unwrap();
        }
        fs::write(dir.path().join("letter"), "x").unwrap();
        prune(dir.path(), 2).unwrap();
        let left = all(dir.path()).unwrap();
        assert_eq!(left, [periodic.path(Unix(3000)), periodic.path(Unix(4000))]);
        assert!(dir.path().join("letter").exists());
        assert!(newest(dir.path()).is_some());
    }

    #[test]
    fn what_was_not_finished_leaves_nothing_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        let mut placing = Placing::begin(&path).unwrap();
        io::Write::write_all(placing.file(), b"half").unwrap();
        assert!(placing.finish().is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(&path, "mine").unwrap();
        assert!(Placing::begin(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
