//! The list of revocations beside the authority's keys: who was declared gone, which keys were
//! replaced. The store knows them, too; this file is there for a store that went back to an older
//! copy, which would let in again whom a person had shut out.
//!
//! One JSON object a line, only appended, each line durable before its revocation is confirmed. A
//! later line of the same key counts.

use crate::app::App;
use crate::clock;
use certs::Fingerprint;
use cloud_core::event::{Refused, Reply, Request};
use serde::{Deserialize, Serialize};
use shared::ids::NodeId;
use shared::state::NodeState;
use shared::time::Unix;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A file that nobody wrote in years of replacements is larger.
const BYTES: u64 = 64 * 1024 * 1024;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The node.
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// SHA-256 of the key in hexadecimal digits; absent where it was never seen.
    pub key: Option<String>,
    /// When.
    pub at: Unix,
    /// Why, for people.
    pub why: String,
    /// Who declared the node gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<String>,
    /// A person let the key in again: what was before is void.
    #[serde(default)]
    pub let_in: bool,
}

impl Entry {
    /// What the engine is told of it.
    #[must_use]
    pub fn request(self) -> Request {
        let key = self.key.and_then(|key| key.parse().ok());
        Request::Revoke {
            node: self.node,
            key: key.map(|Fingerprint(key)| key),
            at: self.at,
            why: self.why,
            gone: self.gone,
        }
    }
}

type Known = BTreeMap<(NodeId, Option<String>), Entry>;

/// The file.
#[derive(Debug)]
pub(crate) struct Revocations {
    path: PathBuf,
    known: Mutex<Known>,
}

impl Revocations {
    /// Reads the list in `dir`, the authority's directory. Lines that cannot be read (a last one
    /// that was cut) are told and left.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("revoked");
        let text = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Ok(meta) if meta.len() > BYTES => {
                let text = format!("{} is too large for a list of revocations", path.display());
                return Err(io::Error::other(text));
            }
            _ => std::fs::read(&path)?,
        };
        let (known, lost) = known(&text);
        if let Some((lines, error)) = lost {
            tracing::warn!(file = %path.display(), lines, %error, "revocations cannot be read; \
                the error is that of the first");
        }
        let known = Mutex::new(known);
        Ok(Self { path, known })
    }

    /// Keeps a revocation, durably.
    ///
    /// # Errors
    /// Of the file system; the store alone knows it then.
    fn keep(&self, entry: Entry) -> io::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        // behind a line that was cut a new one begins
        line.insert(0, b'\n');
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)?;
        file.write_all(&line)?;
        file.sync_all()?;
        fold(&mut known, entry);
        Ok(())
    }

    fn has(&self, node: NodeId, key: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains_key(&(node, Some(key.to_owned())))
    }

    fn shuts_out(&self, node: NodeId, key: &Option<String>) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains_key(&(node, key.clone()))
    }

    fn all(&self) -> Vec<Entry> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().cloned().collect()
    }
}

/// What a list holds that counts, in the order of nodes and keys; and of the lines that cannot be
/// read how many there are, and why the first cannot.
#[must_use]
pub fn read(text: &[u8]) -> (Vec<Entry>, Option<(u64, serde_json::Error)>) {
    let (known, lost) = known(text);
    (known.into_values().collect(), lost)
}

fn known(text: &[u8]) -> (Known, Option<(u64, serde_json::Error)>) {
    let (mut known, mut lost) = (Known::new(), None);
    for line in text.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
        match serde_json::from_slice::<Entry>(line) {
            Ok(entry) => fold(&mut known, entry),
            Err(error) => lost.get_or_insert((0, error)).0 += 1,
        }
    }
    (known, lost)
}

fn fold(known: &mut Known, entry: Entry) {
    let key = (entry.node, entry.key.clone());
    if entry.let_in {
        known.remove(&key);
    } else {
        known.insert(key, entry);
    }
}

/// Keeps a revocation that the store has committed, whoever waits for it goes away meanwhile or
/// not.
///
/// # Errors
/// Of the file system: a copy of the store from before would let the node in again. Also told to
/// the log; the next start keeps it of a node that was declared gone.
pub(crate) async fn keep(app: &Arc<App>, entry: Entry) -> io::Result<()> {
    let (app, name) = (app.clone(), entry.name.clone());
    let kept = tokio::task::spawn_blocking(move || app.revocations.keep(entry)).await;
    let kept = kept.unwrap_or_else(|ended| Err(io::Error::other(ended)));
    if let Err(error) = &kept {
        tracing::error!(node = name, %error, "a revocation stands in the store alone: a copy of the \
            store from before would let the node in again");
    }
    kept
}

/// A token let this key in: it is not revoked any more.
pub(crate) async fn let_in(app: &Arc<App>, node: NodeId, name: &str, key: [u8; 32], at: Unix) {
    let key = Fingerprint(key).to_string();
    if app.revocations.has(node, &key) {
        let entry = Entry {
            node,
            name: name.to_owned(),
            key: Some(key),
            at,
            why: "a token let it in again".to_owned(),
            gone: None,
            let_in: true,
        };
        // one that stays in the list shuts out a key that the store lets in: told to the log
        let _ = keep(app, entry).await;
    }
}

/// Keeps of nodes that were declared gone what the list lacks, since a disk was full or the process
/// ended between the two.
async fn complete(app: &Arc<App>) {
    let Ok(Reply::Nodes(nodes)) = app.engine.ask(Request::Nodes).await else {
        return;
    };
    for node in nodes {
        let key = node.certificate.map(|known| known.key);
        if node.state != NodeState::Forgotten.text() || app.revocations.shuts_out(node.id, &key) {
            continue;
        }
        let entry = Entry {
            node: node.id,
            name: node.name,
            key,
            at: clock::wall(),
            why: "the node was declared gone".to_owned(),
            gone: Some("the coordinator, from its store".to_owned()),
            let_in: false,
        };
        // told to the log
        let _ = keep(app, entry).await;
    }
}

/// Tells the engine, before anybody is served, whom the list shuts out, and completes the list.
pub(crate) async fn apply(app: &Arc<App>) {
    for entry in app.revocations.all() {
        let name = entry.name.clone();
        match app.engine.ask(entry.request()).await {
            // a store from before the node's enrolment
            Ok(Reply::Done | Reply::Refused(Refused::NotFound { .. })) => {}
            other => tracing::warn!(node = name, ?other, "a revocation was not applied"),
        }
    }
    complete(app).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, let_in: bool) -> Entry {
        Entry {
            node: NodeId([1; 16]),
            name: "gw-7".into(),
            key: Some(key.to_owned()),
            at: Unix(5),
            why: "stolen".into(),
            gone: Some("ada".into()),
            let_in,
        }
    }

    #[test]
    fn the_list_survives_a_restart_a_cut_line_and_a_key_that_is_let_in_again() {
        let dir = tempfile::tempdir().unwrap();
        let list = Revocations::open(dir.path()).unwrap();
        assert!(list.all().is_empty());
        list.keep(entry("aa", false)).unwrap();
        list.keep(entry("bb", false)).unwrap();
        let path = dir.path().join("revoked");
        let mut text = std::fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"node\":\"01");
        std::fs::write(&path, &text).unwrap();
        let list = Revocations::open(dir.path()).unwrap();
        assert_eq!(list.all(), [entry("aa", false), entry("bb", false)]);
        list.keep(entry("aa", true)).unwrap();
        let list = Revocations::open(dir.path()).unwrap();
        assert_eq!(list.all(), [entry("bb", false)]);
        assert!(list.has(NodeId([1; 16]), "bb") && !list.has(NodeId([1; 16]), "aa"));
    }
}
