//! The file of a backup: a line that says what it is, then a zstd stream of items, each a length
//! (u32 LE) and postcard bytes. Every part carries its hash; the last item carries that of all
//! before it, so that a file that ends early is never taken for a whole one.

use super::BackupError;
use serde::{Deserialize, Serialize};
use shared::ids::{Generation, Hash, Hasher};
use shared::limits::WORKFLOW_BYTES;
use shared::time::Unix;
use std::io::{self, Read, Write};

/// What a backup begins with; the number is that of its format.
const MAGIC: &[u8] = b"driftless backup 1\n";
/// Longest item: a row with the largest workflow.
const ITEM_BYTES: usize = WORKFLOW_BYTES + (1 << 20);
/// Content is cut into pieces of this size.
pub(super) const PIECE: usize = 256 * 1024;

/// What a backup says of itself at its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of the program that made it.
    pub version: String,
    /// When its content was read.
    pub at: Unix,
    /// Fingerprint of the fleet's authority.
    pub authority: String,
}

/// What a backup says of itself at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Life of the store.
    pub generation: Generation,
    /// Nodes.
    pub nodes: u64,
    /// Runs.
    pub runs: u64,
    /// Rows of the store.
    pub rows: u64,
    /// Files of the file store.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Files that went while the backup was made; no run needs them.
    pub gone: Vec<Hash>,
}

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// A file of the authority, by its name.
    Authority,
    /// A content of the file store, by its hash.
    Content,
}

/// Variants are numbered by position and may only be appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Item {
    Head(Head),
    Part {
        kind: Kind,
        name: String,
        size: u64,
    },
    Piece(Vec<u8>),
    PartEnd(Hash),
    Row {
        table: u8,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    RowsEnd {
        rows: u64,
        hash: Hash,
    },
    End {
        summary: Summary,
        hash: Hash,
    },
}

fn broken(error: io::Error) -> BackupError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::Truncated,
        io::ErrorKind::InvalidData | io::ErrorKind::Other => {
            BackupError::Damaged(format!("it cannot be decompressed ({error})"))
        }
        _ => BackupError::Io("read the backup", error),
    }
}

/// Writes a backup.
pub(super) struct Writer<W: Write> {
    out: zstd::stream::write::Encoder<'static, W>,
    all: Hasher,
    /// Bytes of items so far.
    pub(super) bytes: u64,
}

fn unwritten(error: io::Error) -> BackupError {
    BackupError::Io("write the backup", error)
}

impl<W: Write> Writer<W> {
    pub(super) fn new(mut out: W, head: Head) -> Result<Self, BackupError> {
        out.write_all(MAGIC).map_err(unwritten)?;
        let out = zstd::stream::write::Encoder::new(out, 1).map_err(unwritten)?;
        let all = Hash::hasher();
        let mut writer = Self { out, all, bytes: 0 };
        writer.put(&Item::Head(head))?;
        Ok(writer)
    }

    pub(super) fn put(&mut self, item: &Item) -> Result<(), BackupError> {
        let bytes = shared::codec::encode(item);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if bytes.len() > ITEM_BYTES {
            return Err(BackupError::Damaged(format!("a row of {length} bytes")));
        }
        let written = self.out.write_all(&length.to_le_bytes());
        written
            .and_then(|()| self.out.write_all(&bytes))
            .map_err(unwritten)?;
        self.bytes += 4 + u64::from(length);
        self.all.update(&bytes);
        Ok(())
    }

    pub(super) fn end(mut self, summary: Summary) -> Result<W, BackupError> {
        let hash = self.all.finish();
        self.put(&Item::End { summary, hash })?;
        let mut out = self.out.finish().map_err(unwritten)?;
        out.flush().map_err(unwritten)?;
        Ok(out)
    }
}

/// Reads a backup and checks its hashes as it goes.
pub(super) struct Reader<R: Read> {
    input: zstd::stream::read::Decoder<'static, io::BufReader<R>>,
    all: Hasher,
    part: Option<(Hasher, u64)>,
    rows: (Hasher, u64),
    name: String,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(mut input: R) -> Result<(Self, Head), BackupError> {
        let mut magic = Vec::new();
        let begin = (&mut input).take(MAGIC.len() as u64);
        io::BufReader::with_capacity(1, begin)
            .read_to_end(&mut magic)
            .map_err(broken)?;
        match (magic == MAGIC, magic.starts_with(b"driftless backup ")) {
            (true, _) => {}
            (false, true) => return Err(BackupError::Newer),
            (false, false) if !magic.is_empty() && MAGIC.starts_with(&magic) => {
                return Err(BackupError::Truncated);
            }
            _ => return Err(BackupError::Foreign),
        }
        let mut reader = Self {
            input: zstd::stream::read::Decoder::new(input).map_err(broken)?,
            all: Hash::hasher(),
            part: None,
            rows: (Hash::hasher(), 0),
            name: "its head".to_owned(),
        };
        match reader.next()? {
            Item::Head(head) => Ok((reader, head)),
            _ => Err(BackupError::Damaged(
                "it does not begin with its head".to_owned(),
            )),
        }
    }

    fn item(&mut self) -> Result<Vec<u8>, BackupError> {
        let mut length = [0; 4];
        self.input.read_exact(&mut length).map_err(broken)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > ITEM_BYTES {
            let text = format!("an item of {length} bytes behind {}", self.name);
            return Err(BackupError::Damaged(text));
        }
        let mut bytes = Vec::new();
        let mut limited = (&mut self.input).take(length as u64);
        limited.read_to_end(&mut bytes).map_err(broken)?;
        match bytes.len() == length {
            true => Ok(bytes),
            false => Err(BackupError::Truncated),
        }
    }

    /// The next item; `End` is the last one.
    pub(super) fn next(&mut self) -> Result<Item, BackupError> {
        let bytes = self.item()?;
        let bad = |what: &str, name: &str| BackupError::Damaged(format!("{name}: {what}"));
        let item = shared::codec::decode::<Item>(&bytes)
            .map_err(|_| bad("what follows cannot be read", &self.name))?;
        if !matches!(item, Item::End { .. }) {
            self.all.update(&bytes);
        }
        match &item {
            Item::Part { name, size, .. } => {
                self.name = format!("the file {name}");
                self.part = Some((Hash::hasher(), *size));
            }
            Item::Piece(piece) => {
                let lies = || bad("a piece too many", &self.name);
                let (hasher, left) = self.part.as_mut().ok_or_else(lies)?;
                *left = left.checked_sub(piece.len() as u64).ok_or_else(lies)?;
                hasher.update(piece);
            }
            Item::PartEnd(hash) => {
                let part = self.part.take();
                let whole =
                    part.is_some_and(|(hasher, left)| left == 0 && hasher.finish() == *hash);
                if !whole {
                    return Err(bad(
                        "its content has another hash than it should",
                        &self.name,
                    ));
                }
            }
            Item::Row { key, value, .. } => {
                self.name = "the store's rows".to_owned();
                self.rows.0.update(key);
                self.rows.0.update(value);
                self.rows.1 += 1;
            }
            Item::RowsEnd { rows, hash } => {
                let (hasher, read) = std::mem::replace(&mut self.rows, (Hash::hasher(), 0));
                if hasher.finish() != *hash || read != *rows {
                    return Err(bad("they have another hash than they should", &self.name));
                }
            }
            Item::End { hash, .. } => self.ended(*hash)?,
            Item::Head(_) => {}
        }
        Ok(item)
    }

    fn ended(&mut self, hash: Hash) -> Result<(), BackupError> {
        let all = std::mem::replace(&mut self.all, Hash::hasher());
        if all.finish() != hash {
            let text = "its end does not belong to what is before it".to_owned();
            return Err(BackupError::Damaged(text));
        }
        match self.input.read(&mut [0]).map_err(broken)? {
            0 => Ok(()),
            _ => Err(BackupError::Damaged("something follows its end".to_owned())),
        }
    }
}
