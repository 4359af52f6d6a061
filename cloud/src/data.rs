//! The data directory: the lock that keeps a second coordinator out, and where things lie.
//!
//! ```text
//! DIR/lock         held by the running coordinator (flock)
//! DIR/format       what this directory is, which version may read it; written last
//! DIR/authority/   keys and certificate of the fleet's authority, key of the seals
//! DIR/store.redb   the state; made whole as store.new, so this one is never unfinished
//! DIR/files/       contents by hash
//! DIR/telemetry/   what nodes measured of themselves, a file for each
//! DIR/restoring    a restore did not get to its end: nothing may start on it
//! DIR/quic.addr    where agents are expected, while the coordinator runs
//! DIR/api.addr     where the API is, while the coordinator runs
//! DIR/api.token    an access token of an admin, while the coordinator runs (not without tokens)
//! ```
//!
//! Invariant: a directory that was complete once and lacks a part now is refused; nothing is made
//! anew in it.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";
const FORMAT: &str = "format";
/// There from the beginning of a restore to its end.
pub(crate) const RESTORING: &str = "restoring";
const STORE: &str = "store.redb";
/// Without this file a new authority would be made.
const AUTHORITY: &str = "authority/authority.crt";
const NEW_STORE: &str = "store.new";
const QUIC: &str = "quic.addr";
const API: &str = "api.addr";
/// The API's access token of this start, for whoever can read the data directory.
pub const API_TOKEN: &str = "api.token";
const MAGIC: &str = "driftless coordinator ";
/// The layout that this version writes, and the newest that it reads.
const VERSION: u32 = 1;
/// Names that a first start may have left behind when it was interrupted.
const OURS: [&str; 11] = [
    LOCK,
    "format.new",
    "authority",
    STORE,
    NEW_STORE,
    "files",
    "telemetry",
    QUIC,
    API,
    API_TOKEN,
    "lost+found",
];

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It cannot be made, read or written.
    #[error("cannot {doing} the data directory {}", .dir.display())]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another coordinator holds it.
    #[error("another coordinator runs on {}", .0.display())]
    InUse(PathBuf),
    /// It holds something that no coordinator wrote.
    #[error("{} is not a coordinator's data directory: '{found}' is in it", .dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// What was found.
        found: String,
    },
    /// Written by a later version.
    #[error(
        "{} has layout {found}, this version knows up to {VERSION}: use the newer program",
        .dir.display()
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Layout found.
        found: u32,
    },
    /// A part is gone.
    #[error("{} is damaged: {what}; nothing was changed", .dir.display())]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl DataError {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unusable { .. } => {
                "give another directory with --data, or this one to the user that runs the coordinator"
            }
            Self::InUse(_) => "stop it first, or give this one another directory with --data",
            Self::Foreign { .. } => "give an empty or a new directory with --data",
            Self::Newer { .. } => "run the version that wrote it, or give another directory",
            Self::Damaged { .. } => {
                "put the missing part back from a backup; an empty directory begins a new fleet, \
                 whose nodes must all enrol again"
            }
        }
    }
}

/// A coordinator's data directory, locked while this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    complete: bool,
    _lock: File,
}

impl DataDir {
    /// Opens `path`, making it if it does not exist, and locks it.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let unusable = |doing| {
            let dir = path.to_path_buf();
            move |source| DataError::Unusable { dir, doing, source }
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(unusable("make"))?;
        let path = path.canonicalize().map_err(unusable("find"))?;
        let complete = recognise(&path)?;
        if !complete {
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&path, private).map_err(unusable("keep others out of"))?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(unusable("write"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(DataError::InUse(path));
        }
        let data = Self {
            path,
            complete,
            _lock: lock,
        };
        data.check_parts()?;
        Ok(data)
    }

    /// A store or an authority that is gone is never taken for "nothing to do": another authority
    /// would be foreign to every node.
    fn check_parts(&self) -> Result<(), DataError> {
        let damaged = |what: &str| DataError::Damaged {
            dir: self.path.clone(),
            what: what.into(),
        };
        let authority = self.path.join(AUTHORITY).try_exists();
        match fs::metadata(self.store()).map(|meta| meta.len()) {
            _ if self.complete && matches!(authority, Ok(false)) => {
                Err(damaged(&format!("{AUTHORITY} is missing")))
            }
            Err(_) if self.complete => Err(damaged("store.redb is missing")),
            Ok(0) => Err(damaged("store.redb is empty")),
            _ => Ok(()),
        }
    }

    /// Where it is, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Whether the state is to be made: this is a first start, or one that was interrupted before.
    #[must_use]
    pub fn needs_store(&self) -> bool {
        !self.complete && !self.store().exists()
    }

    /// Where the state is made; what an interrupted first start left there is gone.
    ///
    /// # Errors
    /// [`DataError::Unusable`].
    pub fn new_store(&self) -> Result<PathBuf, DataError> {
        let path = self.path.join(NEW_STORE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.unwritable(error)),
            _ => Ok(path),
        }
    }

    /// The state was made and is closed: from now on it is the state.
    ///
    /// # Errors
    /// [`DataError::Unusable`].
    pub fn place_store(&self) -> Result<(), DataError> {
        let new = self.path.join(NEW_STORE);
        let placed = File::open(&new)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&new, self.store()))
            .and_then(|()| File::open(&self.path)?.sync_all());
        placed.map_err(|error| self.unwritable(error))
    }

    fn unwritable(&self, source: io::Error) -> DataError {
        let (dir, doing) = (self.path.clone(), "write");
        DataError::Unusable { dir, doing, source }
    }

    /// The authority's secrets.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.path.join("authority")
    }

    /// Where the files of telemetry lie.
    #[must_use]
    pub fn telemetry(&self) -> PathBuf {
        self.path.join("telemetry")
    }

    /// The file store.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    /// All parts were made: from now on none of them may be missing.
    ///
    /// # Errors
    /// [`DataError::Unusable`].
    pub fn complete(&mut self) -> Result<(), DataError> {
        if self.complete {
            return Ok(());
        }
        self.write(FORMAT, &format!("{MAGIC}{VERSION}\n"))?;
        self.complete = true;
        Ok(())
    }

    /// Says where the coordinator listens.
    ///
    /// # Errors
    /// [`DataError::Unusable`].
    pub fn publish(
        &self,
        quic: SocketAddr,
        api: &str,
        token: Option<&str>,
    ) -> Result<(), DataError> {
        self.write(QUIC, &format!("{quic}\n"))?;
        if let Some(token) = token {
            self.write(API_TOKEN, &format!("{token}\n"))?;
        }
        self.write(API, &format!("{api}\n"))
    }

    /// Nobody listens any more.
    pub fn withdraw(&self) {
        for name in [QUIC, API, API_TOKEN] {
            // One that stays behind leads to "cannot reach", not to a wrong answer.
            let _ = fs::remove_file(self.path.join(name));
        }
    }

    /// Writes aside, syncs, renames, syncs the directory.
    fn write(&self, name: &str, text: &str) -> Result<(), DataError> {
        let aside = self.path.join(format!("{name}.new"));
        let written = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&aside)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
            })
            .and_then(|()| fs::rename(&aside, self.path.join(name)))
            .and_then(|()| File::open(&self.path)?.sync_all());
        written.map_err(|error| self.unwritable(error))
    }
}

/// Whether the directory was complete once; an error for one that is not ours or of a later
/// version.
fn recognise(path: &Path) -> Result<bool, DataError> {
    let dir = || path.to_path_buf();
    let unusable = |source| DataError::Unusable {
        dir: dir(),
        doing: "read",
        source,
    };
    if path.join(RESTORING).exists() {
        let what =
            "a restore into it was interrupted (`restoring` is there); empty it and restore again";
        let what = what.to_owned();
        return Err(DataError::Damaged { dir: dir(), what });
    }
    match fs::read(path.join(FORMAT)) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let version = text
                .strip_prefix(MAGIC)
                .and_then(|rest| rest.trim().parse().ok());
            match version {
                Some(VERSION) => Ok(true),
                Some(found) => Err(DataError::Newer { dir: dir(), found }),
                None => Err(DataError::Foreign {
                    dir: dir(),
                    found: FORMAT.into(),
                }),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for entry in fs::read_dir(path).map_err(unusable)? {
                let name = entry.map_err(unusable)?.file_name();
                let found = name.to_string_lossy().into_owned();
                if !OURS.contains(&found.as_str()) {
                    return Err(DataError::Foreign { dir: dir(), found });
                }
            }
            Ok(false)
        }
        Err(error) => Err(unusable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_private_and_taken_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        fs::create_dir_all(&path).unwrap();
        let data = DataDir::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(matches!(DataDir::open(&path), Err(DataError::InUse(_))));
        drop(data);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn foreign_newer_and_unwritable_directories_are_told_apart_and_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let dir = home.path().join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(
                dir.join(if text.is_empty() {
                    "photo.jpg"
                } else {
                    "format"
                }),
                text,
            )
            .unwrap();
            dir
        };
        let foreign = write("foreign", "");
        let error = DataDir::open(&foreign).unwrap_err();
        assert!(matches!(&error, DataError::Foreign { found, .. } if found == "photo.jpg"));
        assert_eq!(
            fs::read_dir(&foreign).unwrap().count(),
            1,
            "nothing was added"
        );
        let newer = write("newer", "driftless coordinator 2\n");
        assert!(matches!(
            DataDir::open(&newer),
            Err(DataError::Newer { found: 2, .. })
        ));
        let other = write("other", "something else");
        assert!(matches!(
            DataDir::open(&other),
            Err(DataError::Foreign { .. })
        ));
        let file = home.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(
            DataDir::open(&file),
            Err(DataError::Unusable { .. })
        ));
    }

    #[test]
    fn a_part_that_is_gone_or_empty_is_noticed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("d");
        let mut data = DataDir::open(&path).unwrap();
        fs::write(data.store(), "state").unwrap();
        fs::create_dir(data.authority()).unwrap();
        fs::write(path.join(AUTHORITY), "certificate").unwrap();
        data.complete().unwrap();
        drop(data);
        drop(DataDir::open(&path).unwrap());
        let aside = home.path().join("aside");
        fs::rename(path.join("authority"), &aside).unwrap();
        let gone = DataDir::open(&path).unwrap_err();
        let what = "authority/authority.crt is missing";
        assert!(gone.to_string().contains(what), "{gone}");
        fs::rename(&aside, path.join("authority")).unwrap();
        fs::write(path.join(STORE), "").unwrap();
        let empty = DataDir::open(&path).unwrap_err();
        assert!(empty.to_string().contains("store.redb is empty"), "{empty}");
        fs::remove_file(path.join(STORE)).unwrap();
        let gone = DataDir::open(&path).unwrap_err();
        assert!(gone.to_string().contains("store.redb is missing"), "{gone}");
        fs::remove_file(path.join(FORMAT)).unwrap();
        fs::write(path.join(STORE), "").unwrap();
        let empty = DataDir::open(&path).unwrap_err();
        assert!(empty.to_string().contains("store.redb is empty"), "{empty}");
    }

    #[test]
    fn a_state_that_was_made_in_part_is_made_anew_and_a_whole_one_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let data = DataDir::open(home.path()).unwrap();
        assert!(data.needs_store());
        fs::write(data.new_store().unwrap(), "hal").unwrap();
        drop(data);
        let data = DataDir::open(home.path()).unwrap();
        assert!(data.needs_store(), "a crash while it was made");
        let new = data.new_store().unwrap();
        assert!(!new.exists());
        fs::write(&new, "whole").unwrap();
        data.place_store().unwrap();
        drop(data);
        let data = DataDir::open(home.path()).unwrap();
        assert!(
            !data.needs_store(),
            "a crash before the directory was complete"
        );
        assert_eq!(fs::read_to_string(data.store()).unwrap(), "whole");
    }

    #[test]
    fn addresses_are_published_and_withdrawn() {
        let home = tempfile::tempdir().unwrap();
        let data = DataDir::open(home.path()).unwrap();
        let (quic, api) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2");
        data.publish(quic, api, None).unwrap();
        assert_eq!(
            fs::read_to_string(home.path().join(API)).unwrap(),
            "127.0.0.1:2\n"
        );
        data.withdraw();
        assert!(!home.path().join(API).exists());
    }
}
