//! The data directory: who the agent is, the lock that keeps a second agent out, and where things
//! lie.
//!
//! ```text
//! DIR/agent.lock      held by the running agent (flock)
//! DIR/identity.json   node, name, incarnation; without a store beside it the directory is damaged
//! DIR/identity.next   the same while it comes into being, with store.new (see `begin`)
//! DIR/pki/            key, certificate, the authority's certificate
//! DIR/store.redb      the journal of the current incarnation
//! DIR/old/            journals of earlier incarnations
//! DIR/work,files,logs attempts' directories, contents by hash, captured output
//! DIR/telemetry/      what the gateway measured of itself
//! DIR/reserve         room for what must be recorded on a full disk
//! DIR/agent.sock      local commands
//! DIR/token           where an installation puts the enrolment token
//! ```

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use shared::ids::{Incarnation, NodeId};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It cannot be made or written.
    #[error(
        "the data directory {dir} cannot be used: {source}; give another one with --data, or its owner and mode"
    )]
    Unusable {
        /// The directory.
        dir: String,
        /// What failed.
        source: io::Error,
    },
    /// Another agent holds it.
    #[error("another agent runs on {0}; stop it first, or give another directory with --data")]
    InUse(String),
    /// It holds something that no agent wrote.
    #[error(
        "{dir} is not an agent's data directory ({found} is in it); give an empty or a new one with --data"
    )]
    Foreign {
        /// The directory.
        dir: String,
        /// What was found.
        found: String,
    },
    /// The identity is there and the store is not, or the other way round.
    #[error(
        "{dir} is damaged: {what}. Nothing was changed. Put the missing file back, or move the directory away and enrol anew with a token made by `driftless token create --replace NAME`"
    )]
    Damaged {
        /// The directory.
        dir: String,
        /// What is missing or unreadable.
        what: String,
    },
    /// A later version wrote it.
    #[error(
        "{dir} was written by a newer agent: identity.json has format {found}, this version knows up to {FORMAT}. Nothing was changed; install that version again, or a later one"
    )]
    Newer {
        /// The directory.
        dir: String,
        /// Its format.
        found: u64,
    },
    /// Nothing is there.
    #[error(
        "there is no agent in {0}; `driftless-agent run --data {0} --coordinator HOST:PORT --token T --name NAME` starts one"
    )]
    Empty(String),
}

/// Who the agent is: the content of `identity.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Version of this file.
    pub format: u32,
    /// The node's identity, also in its certificate.
    pub node: String,
    /// The node's name.
    pub name: String,
    /// The life of this data directory, as 32 hexadecimal digits.
    pub incarnation: String,
    /// The incarnation before, when a fork made the agent take this one.
    pub succeeds: Option<String>,
    /// Where the coordinator is, `HOST:PORT`; absent for a gateway without one.
    pub coordinator: Option<String>,
    /// Labels given at enrolment.
    pub labels: BTreeMap<String, String>,
    /// Further addresses of the coordinator. Absent where there are none: the agents before this
    /// field refuse what they do not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_coordinators: Vec<String>,
}

/// How long the lock of an agent that was killed may be held by what it left.
const LEFT_BEHIND: Duration = Duration::from_secs(1);
const FORMAT: u32 = 1;
const IDENTITY: &str = "identity.json";
const NEXT: &str = "identity.next";

impl Identity {
    /// A new one.
    #[must_use]
    pub fn new(
        node: NodeId,
        name: &str,
        incarnation: Incarnation,
        coordinators: Vec<String>,
        labels: BTreeMap<String, String>,
    ) -> Self {
        let mut identity = Self {
            format: FORMAT,
            node: node.to_string(),
            name: name.to_owned(),
            incarnation: incarnation.to_string(),
            succeeds: None,
            coordinator: None,
            labels,
            more_coordinators: Vec::new(),
        };
        identity.set_coordinators(coordinators);
        identity
    }

    /// All addresses of the coordinator, in the order in which they are tried.
    #[must_use]
    pub fn coordinators(&self) -> Vec<String> {
        let first = self.coordinator.iter();
        first.chain(&self.more_coordinators).cloned().collect()
    }

    /// Changes them.
    pub fn set_coordinators(&mut self, coordinators: Vec<String>) {
        let mut all = coordinators.into_iter();
        self.coordinator = all.next();
        self.more_coordinators = all.collect();
    }

    /// The node's identity.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node.parse().unwrap_or_default()
    }

    /// The life of this data directory.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation.parse().unwrap_or_default()
    }

    fn is_sound(&self) -> bool {
        self.format == FORMAT
            && self.node.parse::<NodeId>().is_ok()
            && self.incarnation.parse::<Incarnation>().is_ok()
    }
}

/// An agent's data directory, locked while this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens `path`, making it if it does not exist, and locks it.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let unusable = |source| DataError::Unusable {
            dir: path.display().to_string(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(path)
            .map_err(unusable)?;
        let path = path.canonicalize().map_err(unusable)?;
        refuse_foreign(&path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("agent.lock"))
            .map_err(unusable)?;
        if !take(&lock) {
            return Err(DataError::InUse(path.display().to_string()));
        }
        Ok(Self { path, _lock: lock })
    }

    /// Where it is, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The journal of the current incarnation.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    /// Key and certificates.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.path.join("pki")
    }

    /// Who the agent is; none if it was never enrolled. Identity and store must go together: a
    /// missing one is a damaged directory and never "nothing to do". A store that was cut to
    /// nothing ([`Self::store_is_cut`]) keeps its identity: nothing can be read from it any more,
    /// so its incarnation ends.
    ///
    /// # Errors
    /// [`DataError::Damaged`].
    pub fn identity(&self) -> Result<Option<Identity>, DataError> {
        let damaged = |what: &str| DataError::Damaged {
            dir: self.path.display().to_string(),
            what: what.to_owned(),
        };
        let identity = self.current_identity()?;
        let store = fs::metadata(self.store()).ok().map(|meta| meta.len());
        match (identity, store) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(damaged("store.redb is there, identity.json is missing")),
            (Some(_), None) => Err(damaged("identity.json is there, store.redb is missing")),
            (identity, Some(_)) => Ok(identity),
        }
    }

    /// The store is there and has no byte, as some file systems leave a file after a power cut. One
    /// that lacks a part of its bytes is damage instead: a person may still save something of it.
    #[must_use]
    pub fn store_is_cut(&self) -> bool {
        fs::metadata(self.store()).is_ok_and(|meta| meta.len() == 0)
    }

    /// What `identity.json` says, whatever is beside it.
    pub(crate) fn current_identity(&self) -> Result<Option<Identity>, DataError> {
        self.read(IDENTITY)
    }

    /// Who is coming into being.
    pub(crate) fn next_identity(&self) -> Result<Option<Identity>, DataError> {
        self.read(NEXT)
    }

    fn read(&self, name: &str) -> Result<Option<Identity>, DataError> {
        read_identity(&self.path, name)
    }

    /// Makes `identity` durable. The store must have been made before.
    ///
    /// # Errors
    /// Of the file system.
    pub fn save(&self, identity: &Identity) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(identity)?;
        write_durably(&self.path.join(IDENTITY), &text)
    }

    /// Makes durable who is coming into being.
    pub(crate) fn announce(&self, next: &Identity) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(next)?;
        write_durably(&self.path.join(NEXT), &text)
    }

    /// Who was coming into being is there now.
    pub(crate) fn confirm(&self) -> io::Result<()> {
        fs::rename(self.path.join(NEXT), self.path.join(IDENTITY))?;
        File::open(&self.path)?.sync_all()
    }
}

/// Who the agent in `dir` is, for those who only look: nothing is locked or made.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn identity_at(dir: &Path) -> Result<Option<Identity>, String> {
    read_identity(dir, IDENTITY).map_err(|error| error.to_string())
}

fn read_identity(path: &Path, name: &str) -> Result<Option<Identity>, DataError> {
    let dir = || path.display().to_string();
    let damaged = |what: String| DataError::Damaged { dir: dir(), what };
    let bytes = match fs::read(path.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| damaged(format!("{name} cannot be read: {error}")))?,
    };
    if let Some(found) = newer(&bytes) {
        return Err(DataError::Newer { dir: dir(), found });
    }
    let identity: Identity =
        serde_json::from_slice(&bytes).map_err(|error| damaged(format!("{name}: {error}")))?;
    match identity.is_sound() {
        true => Ok(Some(identity)),
        false => Err(damaged(format!("{name} holds no sound identity"))),
    }
}

/// Removes a file; not an error if it is not there.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes the lock. An agent that was killed may leave it for a moment to a child that has not
/// executed its program yet; behind the lock every such child is a process that can be recognised.
fn take(lock: &File) -> bool {
    let until = Instant::now() + LEFT_BEHIND;
    while flock(lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The format of an identity that is later than ours. Its other fields may be others, too.
fn newer(identity: &[u8]) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(identity).ok()?;
    value["format"]
        .as_u64()
        .filter(|found| *found > u64::from(FORMAT))
}

/// Names that an agent makes in its directory.
const OURS: &[&str] = &[
    "agent.lock",
    IDENTITY,
    "identity.json.new",
    NEXT,
    "pki",
    "store.redb",
    "store.new",
    "old",
    "work",
    "files",
    "logs",
    "agent.sock",
    "reserve",
    "token",
    "lost+found",
];

fn refuse_foreign(path: &Path) -> Result<(), DataError> {
    let dir = path.display().to_string();
    let entries = fs::read_dir(path)
        .map_err(|source| DataError::Unusable {
            dir: dir.clone(),
            source,
        })?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: Vec<String> = entries.collect();
    if names.iter().any(|name| name == "agent.lock") {
        return Ok(());
    }
    match names
        .into_iter()
        .find(|name| !OURS.contains(&name.as_str()))
    {
        Some(found) => Err(DataError::Foreign { dir, found }),
        None => Ok(()),
    }
}

/// Writes aside, syncs, renames, syncs the directory.
///
/// # Errors
/// Of the file system.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("json.new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    let parent = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(parent)?.sync_all()
}

/// 16 random bytes from the kernel.
///
/// # Errors
/// Where the kernel gives none.
pub fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_a_foreign_and_a_damaged_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gw");
        let data = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataError::InUse(_))));
        assert_eq!(data.identity().unwrap(), None);
        let identity = Identity::new(
            NodeId([1; 16]),
            "gw-7",
            Incarnation([2; 16]),
            vec!["a:1".to_owned(), "b:2".to_owned()],
            BTreeMap::new(),
        );
        fs::write(data.store(), b"store").unwrap();
        assert!(matches!(data.identity(), Err(DataError::Damaged { .. })));
        data.save(&identity).unwrap();
        assert_eq!(identity.coordinators(), ["a:1", "b:2"]);
        assert_eq!(data.identity().unwrap(), Some(identity));
        assert!(!data.store_is_cut());
        fs::write(data.store(), b"").unwrap();
        assert!(data.store_is_cut() && data.identity().unwrap().is_some());
        fs::remove_file(data.store()).unwrap();
        assert!(matches!(data.identity(), Err(DataError::Damaged { .. })));
        let foreign = dir.path().join("home");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("photos"), b"").unwrap();
        assert!(matches!(
            DataDir::open(&foreign),
            Err(DataError::Foreign { .. })
        ));
    }

    #[test]
    fn a_lock_that_a_killed_agent_left_to_a_child_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        let child = File::options()
            .write(true)
            .open(dir.path().join("agent.lock"))
            .unwrap();
        flock(&child, FlockOperation::NonBlockingLockExclusive).unwrap();
        let executes = std::thread::spawn(move || drop(child));
        DataDir::open(dir.path()).unwrap();
        executes.join().unwrap();
    }
}
