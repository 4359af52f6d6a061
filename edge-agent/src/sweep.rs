//! Files that nobody names any more go: outputs and inputs of runs that were forgotten or released.

use contents::Dir;
use shared::ids::Hash;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Time between two sweeps.
const INTERVAL: Duration = Duration::from_secs(3600);
/// What came within this time may be about to be named: by a submission, or by a task's end.
const YOUNG: Duration = Duration::from_secs(3600);
/// So long a transfer that stopped may go on where it was.
const STOPPED: Duration = Duration::from_secs(24 * 3600);

/// Sweeps the content store now and then.
#[derive(Debug)]
pub struct Sweep {
    files: Dir,
    due: Instant,
}

impl Sweep {
    /// A sweep of `files`; the first one is due at once.
    #[must_use]
    pub fn new(files: Dir) -> Self {
        Self {
            files,
            due: Instant::now(),
        }
    }

    /// Whether it is time.
    #[must_use]
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// Removes what is not `named` and not young; says what went.
    pub fn run(&mut self, named: &BTreeSet<Hash>) -> BTreeSet<Hash> {
        self.due = Instant::now() + INTERVAL;
        let mut gone = BTreeSet::new();
        let found = match self.files.list() {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the file store cannot be swept");
                return gone;
            }
        };
        match self.files.drop_parts(STOPPED, |hash| named.contains(&hash)) {
            Ok(parts) if parts.is_empty() => {}
            Ok(parts) => tracing::info!(
                files = parts.len(),
                "removed parts of files that nobody names"
            ),
            Err(error) => tracing::warn!(%error, "a part of a file that nobody names stays"),
        }
        let unnamed = found.into_iter().filter(|(hash, _)| !named.contains(hash));
        for (hash, _) in unnamed {
            let path = self.files.find(hash).map(|(path, _)| path);
            if path.is_none_or(|path| is_young(&path)) {
                continue;
            }
            match self.files.remove(hash) {
                Ok(()) => drop(gone.insert(hash)),
                Err(error) => tracing::warn!(%error, "a file that nobody names stays"),
            }
        }
        if !gone.is_empty() {
            tracing::info!(files = gone.len(), "removed files that nobody names");
        }
        gone
    }
}

/// Whether a file came lately; one whose time cannot be told counts as young.
fn is_young(path: &Path) -> bool {
    let modified = path.metadata().and_then(|meta| meta.modified());
    let age = modified.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
    age.map_or(true, |age| age < YOUNG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn only_old_files_that_nobody_names_go() {
        let dir = tempfile::tempdir().unwrap();
        let files = Dir::open(dir.path(), 1 << 20).unwrap();
        let [named, young, old] =
            ["named", "young", "old"].map(|text| files.insert_bytes(text.as_bytes()).unwrap());
        for hash in [named, old] {
            let (path, _) = files.find(hash).unwrap();
            let before = SystemTime::now() - 2 * YOUNG;
            File::open(path).unwrap().set_modified(before).unwrap();
        }
        let mut sweep = Sweep::new(files.clone());
        assert!(sweep.is_due());
        assert_eq!(sweep.run(&BTreeSet::from([named])), BTreeSet::from([old]));
        assert!(!sweep.is_due());
        assert!(files.find(old).is_none());
        assert!(files.find(named).is_some() && files.find(young).is_some());
        assert_eq!(sweep.run(&BTreeSet::new()), BTreeSet::from([named]));
    }
}
