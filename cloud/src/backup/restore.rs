//! Reads backups: checks one, and makes a data directory of it.

use super::BackupError;
use super::format::{Head, Item, Kind, Reader, Summary};
use crate::clock;
use crate::data::{DataDir, RESTORING};
use certs::Authority;
use cloud_store::snapshot::{Contents, EachRow, Filling, fill};
use contents::{Begin, Dir, Writer};
use shared::ids::{Hash, NodeId};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// Nodes that are named where one is not found.
const NAMED: usize = 50;

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it says at its beginning.
    pub head: Head,
    /// What it says at its end.
    pub summary: Summary,
    /// Names of its nodes.
    pub nodes: Vec<String>,
}

/// Where what is read goes.
trait Target {
    fn begin(&mut self, kind: Kind, name: &str, size: u64) -> Result<(), BackupError>;
    fn piece(&mut self, bytes: &[u8]) -> Result<(), BackupError>;
    fn end(&mut self) -> Result<(), BackupError>;
    fn row(&mut self, table: u8, key: Vec<u8>, value: Vec<u8>) -> Result<(), BackupError>;
    /// What the rows held so far.
    fn contents(&self) -> &Contents;
}

fn read_through(input: impl Read, target: &mut dyn Target) -> Result<Found, BackupError> {
    let (mut reader, head) = Reader::new(input)?;
    loop {
        match reader.next()? {
            Item::Part { kind, name, size } => target.begin(kind, &name, size)?,
            Item::Piece(bytes) => target.piece(&bytes)?,
            Item::PartEnd(_) => target.end()?,
            Item::Row { table, key, value } => target.row(table, key, value)?,
            Item::End { summary, .. } => {
                let nodes = target.contents().nodes.values();
                let mut nodes: Vec<String> = nodes.map(|node| node.name.clone()).collect();
                nodes.sort();
                return Ok(Found {
                    head,
                    summary,
                    nodes,
                });
            }
            Item::Head(_) | Item::RowsEnd { .. } => {}
        }
    }
}

/// Keeps nothing but what there is: the reader checks the hashes.
#[derive(Default)]
struct Survey(Contents);

impl Target for Survey {
    fn begin(&mut self, _: Kind, _: &str, _: u64) -> Result<(), BackupError> {
        Ok(())
    }
    fn piece(&mut self, _: &[u8]) -> Result<(), BackupError> {
        Ok(())
    }
    fn end(&mut self) -> Result<(), BackupError> {
        Ok(())
    }
    fn row(&mut self, table: u8, key: Vec<u8>, value: Vec<u8>) -> Result<(), BackupError> {
        Ok(self.0.note(table, &key, &value)?)
    }
    fn contents(&self) -> &Contents {
        &self.0
    }
}

fn open(path: &Path) -> Result<File, BackupError> {
    File::open(path).map_err(|error| BackupError::Io("open the backup", error))
}

/// Checks every hash of a backup, and that it is whole.
///
/// # Errors
/// [`BackupError`].
pub fn check(path: &Path) -> Result<Found, BackupError> {
    read_through(open(path)?, &mut Survey::default())
}

/// Gives the rows of the store in a backup, and checks their hash; what follows them is not read.
///
/// # Errors
/// [`BackupError`], or those of `each`.
pub fn rows<E: From<BackupError>>(input: impl Read, each: &mut EachRow<'_, E>) -> Result<(), E> {
    let (mut reader, _) = Reader::new(input)?;
    loop {
        match reader.next()? {
            Item::Row { table, key, value } => each(table, &key, &value)?,
            Item::RowsEnd { .. } => return Ok(()),
            Item::End { .. } => {
                let text = "it holds no store".to_owned();
                return Err(BackupError::Damaged(text).into());
            }
            _ => {}
        }
    }
}

/// Makes the store alone.
struct StoreOnly {
    filling: Filling,
    contents: Contents,
    files: u64,
}

impl Target for StoreOnly {
    fn begin(&mut self, kind: Kind, name: &str, _: u64) -> Result<(), BackupError> {
        if kind == Kind::Content {
            self.files += 1;
            name.parse::<Hash>()
                .map_err(|_| BackupError::Damaged(format!("{name} names no content")))?;
        }
        Ok(())
    }
    fn piece(&mut self, _: &[u8]) -> Result<(), BackupError> {
        Ok(())
    }
    fn end(&mut self) -> Result<(), BackupError> {
        Ok(())
    }
    fn row(&mut self, table: u8, key: Vec<u8>, value: Vec<u8>) -> Result<(), BackupError> {
        self.contents.note(table, &key, &value)?;
        Ok(self.filling.row(table, key, value)?)
    }
    fn contents(&self) -> &Contents {
        &self.contents
    }
}

/// Checks every hash of a backup, makes its store in a temporary directory, opens it and counts
/// what is in it.
///
/// # Errors
/// [`BackupError`].
pub fn verify(path: &Path) -> Result<Found, BackupError> {
    // Not by the id of this process: one that was killed leaves its directory, and in a container
    // the next one has the same id.
    let suffix = u128::from_le_bytes(clock::random());
    let name = format!("driftless-verify-{suffix:032x}");
    let dir = std::env::temp_dir().join(name);
    let made = DirBuilder::new().mode(0o700).create(&dir);
    made.map_err(|error| BackupError::Io("make a temporary directory", error))?;
    let found = verify_in(path, &dir.join("store"));
    // It is in the temporary directory, whatever becomes of it.
    let _ = fs::remove_dir_all(&dir);
    found
}

fn verify_in(path: &Path, store: &Path) -> Result<Found, BackupError> {
    let mut target = StoreOnly {
        filling: fill(store)?,
        contents: Contents::default(),
        files: 0,
    };
    let found = read_through(open(path)?, &mut target)?;
    let (contents, said) = (&target.contents, &found.summary);
    let counted = (
        contents.rows,
        contents.runs,
        contents.nodes.len() as u64,
        target.files,
    );
    if counted != (said.rows, said.runs, said.nodes, said.files) {
        let text = format!("it holds {counted:?} rows, runs, nodes and files, and says otherwise");
        return Err(BackupError::Damaged(text));
    }
    target.filling.finish(store)?;
    Ok(found)
}

/// Makes a data directory.
struct Directory {
    filling: Filling,
    contents: Contents,
    authority: PathBuf,
    files: Dir,
    open: Option<Open>,
}

enum Open {
    Secret(File),
    Content(Option<Box<Writer>>),
}

impl Target for Directory {
    fn begin(&mut self, kind: Kind, name: &str, size: u64) -> Result<(), BackupError> {
        self.open = Some(match kind {
            Kind::Authority => Open::Secret(secret(&self.authority, name)?),
            Kind::Content => {
                let bad = |_| BackupError::Damaged(format!("{name} names no content"));
                let hash: Hash = name.parse().map_err(bad)?;
                match self.files.begin_write(hash, size)? {
                    Begin::Complete => Open::Content(None),
                    Begin::From(writer) => Open::Content(Some(writer)),
                }
            }
        });
        Ok(())
    }

    fn piece(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        match &mut self.open {
            Some(Open::Secret(file)) => file.write_all(bytes).map_err(unwritten)?,
            Some(Open::Content(Some(writer))) => writer.append(bytes)?,
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), BackupError> {
        match self.open.take() {
            Some(Open::Secret(file)) => file.sync_all().map_err(unwritten)?,
            Some(Open::Content(Some(writer))) => writer.finish()?,
            _ => {}
        }
        Ok(())
    }

    fn row(&mut self, table: u8, key: Vec<u8>, value: Vec<u8>) -> Result<(), BackupError> {
        self.contents.note(table, &key, &value)?;
        Ok(self.filling.row(table, key, value)?)
    }

    fn contents(&self) -> &Contents {
        &self.contents
    }
}

fn unwritten(error: io::Error) -> BackupError {
    BackupError::Io("write the data directory", error)
}

/// A new file of the authority. Its name must stay below its directory.
fn secret(root: &Path, name: &str) -> Result<File, BackupError> {
    let path = Path::new(name);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    if !plain || name.is_empty() {
        return Err(BackupError::Damaged(format!(
            "'{name}' is no name of a key"
        )));
    }
    let path = root.join(path);
    if let Some(parent) = path.parent() {
        let mut dir = DirBuilder::new();
        dir.recursive(true).mode(0o700);
        dir.create(parent).map_err(unwritten)?;
    }
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    options.open(path).map_err(unwritten)
}

/// Makes the data directory `dir` from a backup. Its next start begins a new generation, and old
/// runs stand still until their nodes were heard, but for the nodes named in `without`.
///
/// # Errors
/// [`BackupError`]; a directory that was begun is refused by every start and by another restore.
pub fn restore(path: &Path, dir: &Path, without: &[String]) -> Result<Found, BackupError> {
    // before anything is made: a backup that is not whole leaves no trace
    let mut survey = Survey::default();
    let checked = read_through(open(path)?, &mut survey)?;
    let without = nodes_named(&survey.0, without)?;
    refuse_used(dir, &checked.head.authority)?;
    let mut data = DataDir::open(dir)?;
    let mark = data.path().join(RESTORING);
    File::create(&mark)
        .and_then(|file| file.sync_all())
        .and_then(|()| File::open(data.path())?.sync_all())
        .map_err(unwritten)?;
    let new = data.new_store()?;
    let mut target = Directory {
        filling: fill(&new)?,
        contents: Contents::default(),
        authority: data.authority(),
        files: Dir::open(&data.files(), u64::MAX)?,
        open: None,
    };
    let found = read_through(open(path)?, &mut target)?;
    let why = format!(
        "restored at {} from the backup of {} (generation {})",
        clock::wall(),
        found.head.at,
        found.summary.generation.0
    );
    let gone = &found.summary.gone;
    target.filling.mark_restored(&why, &without, gone)?;
    target.filling.finish(&new)?;
    data.place_store()?;
    let authority = Authority::open_or_create(&data.authority())?;
    let fingerprint = authority.fingerprint().to_string();
    if fingerprint != found.head.authority {
        let text = format!("its keys are those of {fingerprint}");
        return Err(BackupError::Damaged(text));
    }
    data.complete()?;
    fs::remove_file(&mark)
        .and_then(|()| File::open(data.path())?.sync_all())
        .map_err(unwritten)?;
    Ok(found)
}

fn nodes_named(contents: &Contents, names: &[String]) -> Result<Vec<NodeId>, BackupError> {
    let find = |name: &String| {
        let mut nodes = contents.nodes.iter();
        let node = nodes.find(|(id, node)| node.name == *name || id.to_string() == *name);
        node.map(|(id, _)| *id).ok_or_else(|| {
            let all = contents.nodes.values().take(NAMED);
            let all: Vec<&str> = all.map(|node| node.name.as_str()).collect();
            BackupError::NoNode(name.clone(), all.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// Only a new or an empty directory is filled.
fn refuse_used(dir: &Path, authority: &str) -> Result<(), BackupError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(unwritten)?,
    };
    let names = entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()));
    let Some(found) = names.into_iter().find(|name| name != "lost+found") else {
        return Ok(());
    };
    let dir = dir.to_owned();
    if dir.join("authority").join("authority.crt").exists()
        && let Ok(there) = Authority::look(&dir.join("authority"))
        && there.fingerprint().to_string() != authority
    {
        let there = there.fingerprint().to_string();
        let here = authority.to_owned();
        return Err(BackupError::OtherAuthority { dir, there, here });
    }
    Err(BackupError::NotEmpty { dir, found })
}
