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
/// Digits of the time in the name of one that is made by itself.
const STAMP: usize = 14;
/// Ending of one that is being written.
const ASIDE: &str = ".part";

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
        let stamp: String = digits.take(STAMP).collect();
        self.dir.join(format!("{BEGIN}{stamp}{END}"))
    }
}

/// Files of a directory whose names begin as backups do and end so, with the times at which they
/// were finished, oldest first. (The names tell when they were begun, by a clock that may have been
/// wrong; so may the times have been, which is why nobody relies on one of them alone.)
fn all(dir: &Path, end: &str) -> io::Result<Vec<(SystemTime, PathBuf)>> {
    let ours = |path: &PathBuf| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with(BEGIN) && name.ends_with(end))
    };
    let entries = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    let timed = |path: PathBuf| Some((fs::metadata(&path).ok()?.modified().ok()?, path));
    let mut found: Vec<_> = entries.filter(ours).filter_map(timed).collect();
    found.sort();
    Ok(found)
}

/// When the newest backup in a directory was finished; of one that lies ahead only if there is no
/// other.
#[must_use]
pub fn newest(dir: &Path) -> Option<SystemTime> {
    let (all, now) = (all(dir, END).ok()?, SystemTime::now());
    let past = all.iter().rev().find(|(at, _)| *at <= now);
    past.or_else(|| all.last()).map(|(at, _)| *at)
}

/// Removes all but the `keep` newest (one at least) backups of a directory, and never `made`, which
/// was finished just now.
///
/// # Errors
/// Of the file system.
pub fn prune(dir: &Path, keep: usize, made: &Path) -> io::Result<()> {
    let mut all = all(dir, END)?;
    all.retain(|(_, path)| path != made);
    let old = all.len().saturating_sub(keep.max(1) - 1);
    all[..old]
        .iter()
        .try_for_each(|(_, path)| fs::remove_file(path))
}

/// Removes what earlier backups that were made by themselves left when they were cut off.
///
/// # Errors
/// Of the file system.
pub fn sweep(dir: &Path) -> io::Result<()> {
    let length = BEGIN.len() + STAMP + END.len() + ASIDE.len();
    let parts = all(dir, &format!("{END}{ASIDE}"))?.into_iter();
    let mut ours =
        parts.filter(|(_, path)| path.file_name().is_some_and(|name| name.len() == length));
    ours.try_for_each(|(_, path)| fs::remove_file(path))
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
        aside.push(ASIDE);
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
            // It is worth nothing; if it stays, the next backup of this name removes it.
            let _ = fs::remove_file(&self.aside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
        prune(dir.path(), 2, &periodic.path(Unix(4000))).unwrap();
        let left = left(dir.path());
        assert_eq!(left, [periodic.path(Unix(3000)), periodic.path(Unix(4000))]);
        assert!(dir.path().join("letter").exists());
        assert!(newest(dir.path()).is_some());
    }

    fn left(dir: &Path) -> Vec<PathBuf> {
        let all = all(dir, END).unwrap().into_iter();
        let mut left: Vec<PathBuf> = all.map(|(_, path)| path).collect();
        left.sort();
        left
    }

    #[test]
    fn one_that_was_made_under_a_clock_that_was_ahead_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(format!("driftless-{name}.backup"));
        let day = Duration::from_secs(86_400);
        let (ahead, old, made) = (path("20990101000000"), path("2"), path("3"));
        for (path, at) in [
            (&ahead, SystemTime::now() + 365 * day),
            (&old, SystemTime::now() - 2 * day),
            (&made, SystemTime::now() - day),
        ] {
            let file = File::create(path).unwrap();
            file.set_modified(at).unwrap();
        }
        let age = newest(dir.path()).unwrap().elapsed().unwrap();
        assert!(age >= day && age < 2 * day, "it is not made too late");
        prune(dir.path(), 2, &made).unwrap();
        assert_eq!(left(dir.path()), [ahead, made.clone()]);
        prune(dir.path(), 1, &made).unwrap();
        assert_eq!(left(dir.path()), [made]);
    }

    #[test]
    fn what_was_cut_off_is_swept_away_and_nothing_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mine = path("driftless-20261124030000.backup.part");
        let others = [path("driftless-monday.backup.part"), path("x.part")];
        for file in others.iter().chain([&mine]) {
            fs::write(file, "half").unwrap();
        }
        sweep(dir.path()).unwrap();
        assert!(!mine.exists() && others.iter().all(|path| path.exists()));
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
