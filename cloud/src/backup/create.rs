//! Makes a backup: one committed state of the store, the authority's files, and the contents that
//! this state names.

use super::format::{Head, Item, Kind, PIECE, Summary, Writer};
use super::{BackupError, Progress};
use cloud_core::event::Cursor;
use cloud_store::snapshot::{Contents, Snapshot};
use contents::{Dir, FilesError};
use shared::ids::Hash;
use shared::time::Unix;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::MutexGuard;

/// Where a backup comes from.
#[derive(Debug)]
pub struct Source<'a> {
    /// A committed state. It is let go as soon as it was read: contents are in no store, and while
    /// one is held a store that failed cannot be opened again.
    pub snapshot: Snapshot,
    /// The file store.
    pub files: &'a Dir,
    /// The authority's directory.
    pub authority: &'a Path,
    /// The authority's fingerprint.
    pub fingerprint: String,
    /// Keeps the authority's files as they are until they are read, so that one moment's keys and
    /// certificates come into the backup.
    pub still: Option<MutexGuard<'a, ()>>,
    /// Now.
    pub at: Unix,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// When its content was read.
    pub at: Unix,
    /// What it holds of each node's facts.
    pub cursors: Vec<Cursor>,
    /// What is in it.
    pub summary: Summary,
}

/// Writes a backup to `out`, which is given back to be synced.
///
/// # Errors
/// [`BackupError`]; what was written is worth nothing then.
pub fn write<W: Write>(
    mut source: Source<'_>,
    out: W,
    progress: &mut dyn FnMut(Progress),
) -> Result<(W, Written), BackupError> {
    let head = Head {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        at: source.at,
        authority: source.fingerprint.clone(),
    };
    let mut to = Writer::new(out, head)?;
    authority(source.authority, source.authority, &mut to)?;
    drop(source.still.take());
    let contents = rows(&source.snapshot, &mut to, progress)?;
    drop(source.snapshot);
    let mut summary = Summary {
        generation: contents.generation,
        nodes: contents.nodes.len() as u64,
        runs: contents.runs,
        rows: contents.rows,
        files: 0,
        file_bytes: 0,
        gone: Vec::new(),
    };
    for hash in contents.files.keys() {
        match content(source.files, *hash, &mut to)? {
            Some(size) => {
                summary.files += 1;
                summary.file_bytes += size;
            }
            None => summary.gone.push(*hash),
        }
        progress(Progress {
            rows: summary.rows,
            files: summary.files,
            files_of: contents.files.len() as u64,
            bytes: to.bytes,
        });
    }
    let cursor = |(id, node): (_, &cloud_core::node::Node)| {
        Some(Cursor {
            node: id,
            incarnation: node.incarnation?,
            facts: node.facts.number,
        })
    };
    let cursors = contents.nodes.iter().map(|(id, node)| (*id, node));
    let written = Written {
        at: source.at,
        cursors: cursors.filter_map(cursor).collect(),
        summary: summary.clone(),
    };
    Ok((to.end(summary)?, written))
}

fn rows<W: Write>(
    snapshot: &Snapshot,
    to: &mut Writer<W>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Contents, BackupError> {
    let (mut contents, mut hasher) = (Contents::default(), Hash::hasher());
    snapshot.each(&mut |table, key, value| {
        contents.note(table, key, value)?;
        hasher.update(key);
        hasher.update(value);
        if contents.rows % 1024 == 0 {
            progress(Progress {
                rows: contents.rows,
                bytes: to.bytes,
                ..Progress::default()
            });
        }
        to.put(&Item::Row {
            table,
            key: key.to_vec(),
            value: value.to_vec(),
        })
    })?;
    let rows = contents.rows;
    let hash = hasher.finish();
    to.put(&Item::RowsEnd { rows, hash })?;
    Ok(contents)
}

/// The authority's files, with their names below its directory.
fn authority<W: Write>(root: &Path, dir: &Path, to: &mut Writer<W>) -> Result<(), BackupError> {
    let failed = |error| BackupError::Io("read the authority's files", error);
    let entries = std::fs::read_dir(dir).map_err(failed)?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root).unwrap_or(&path);
        let name = name.display().to_string();
        let kind = std::fs::symlink_metadata(&path).map_err(failed)?;
        // what a write left that was interrupted begins with a dot
        let hidden = path
            .file_name()
            .is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
        if kind.is_dir() {
            authority(root, &path, to)?;
        } else if kind.is_file() && !hidden {
            let size = kind.len();
            // lists of it may grow meanwhile
            let mut file = File::open(&path).map_err(failed)?.take(size);
            part(Kind::Authority, name, size, to, |block| {
                file.read(block).map_err(failed)
            })?;
        }
    }
    Ok(())
}

/// A content; nothing for one that went since the state was read.
fn content<W: Write>(
    files: &Dir,
    hash: Hash,
    to: &mut Writer<W>,
) -> Result<Option<u64>, BackupError> {
    let mut reader = match files.open_read(hash, 0) {
        Err(FilesError::Missing(_)) => return Ok(None),
        reader => reader?,
    };
    let size = reader.size();
    part(Kind::Content, hash.to_string(), size, to, |block| {
        Ok(reader.read(block)?)
    })?;
    Ok(Some(size))
}

fn part<W: Write>(
    kind: Kind,
    name: String,
    size: u64,
    to: &mut Writer<W>,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, BackupError>,
) -> Result<(), BackupError> {
    let shown = name.clone();
    to.put(&Item::Part { kind, name, size })?;
    let (mut hasher, mut left) = (Hash::hasher(), size);
    let mut block = vec![0; PIECE];
    loop {
        let n = read(&mut block)?;
        if n == 0 {
            break;
        }
        left = left.saturating_sub(n as u64);
        hasher.update(&block[..n]);
        to.put(&Item::Piece(block[..n].to_vec()))?;
    }
    if left > 0 {
        return Err(BackupError::Damaged(format!(
            "{shown} became shorter meanwhile"
        )));
    }
    to.put(&Item::PartEnd(hasher.finish()))
}
