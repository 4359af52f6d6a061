//! A support bundle: what a program knows of itself and its machine, in one file that may be given
//! away. A tar archive, packed by zstd, readable by its owner alone.
//!
//! Invariant: no secret goes in. Parts are views that name what they hold, never copies of files;
//! whatever text they have is searched for tokens and private keys all the same.

mod machine;
mod scrub;

pub use machine::{machine, sizes};
pub use scrub::scrub;

use serde::Serialize;
use shared::time::Unix;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Most bytes of a log that are taken: its end.
const LOG_BYTES: u64 = 512 * 1024;
/// Most lines that are asked of the journal of the system.
const LOG_LINES: &str = "2000";
/// Level of zstd.
const LEVEL: i32 = 9;

/// What is in a bundle: its part `manifest.json`, and what the command prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// Version of the bundle's layout.
    pub format: u32,
    /// The program that made it.
    pub program: String,
    /// Its version.
    pub version: String,
    /// When.
    pub at: Unix,
    /// The other parts.
    pub parts: Vec<Part>,
    /// What could not be had.
    pub missing: Vec<Missing>,
}

/// A part of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name in the archive.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Tokens and keys that were taken out of its text.
    pub removed: u64,
}

/// A part that a bundle lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// Why it is not there.
    pub why: String,
}

/// A bundle that is being made.
#[derive(Debug)]
pub struct Bundle {
    manifest: Manifest,
    contents: Vec<String>,
}

impl Bundle {
    /// An empty one, by this program.
    #[must_use]
    pub fn new(program: &str, version: &str, at: Unix) -> Self {
        Self {
            manifest: Manifest {
                format: 1,
                program: program.to_owned(),
                version: version.to_owned(),
                at,
                parts: Vec::new(),
                missing: Vec::new(),
            },
            contents: Vec::new(),
        }
    }

    /// Adds text, without what is secret in it.
    pub fn text(&mut self, name: &str, text: &str) {
        let (text, removed) = scrub(text);
        self.manifest.parts.push(Part {
            name: name.to_owned(),
            bytes: text.len() as u64,
            removed,
        });
        self.contents.push(text);
    }

    /// Adds a value as JSON.
    pub fn json(&mut self, name: &str, value: &impl Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.text(name, &text),
            Err(error) => self.missing(name, &error.to_string()),
        }
    }

    /// Says why a part is not there.
    pub fn missing(&mut self, name: &str, why: &str) {
        self.manifest.missing.push(Missing {
            name: name.to_owned(),
            why: scrub(why).0,
        });
    }

    /// Adds a value, or why there is none.
    pub fn json_or<T: Serialize>(&mut self, name: &str, value: Result<T, String>) {
        match value {
            Ok(value) => self.json(name, &value),
            Err(why) => self.missing(name, &why),
        }
    }

    /// Adds the end of a log: of the file that is named, else of the unit in the system's journal.
    pub fn log(&mut self, file: Option<&Path>, unit: &str) {
        const NAME: &str = "log.txt";
        match file.map_or_else(|| journal(unit), tail) {
            Ok(text) => self.text(NAME, &text),
            Err(why) => self.missing(NAME, &why),
        }
    }

    /// Writes it to a new file.
    ///
    /// # Errors
    /// `AlreadyExists` if something of that name is there, else of the file system; nothing of that
    /// name is there then.
    pub fn write(self, path: &Path) -> io::Result<Manifest> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let written = self.pack(file);
        if written.is_err() {
            // The error is what is told; half a bundle is of no use.
            let _ = fs::remove_file(path);
        }
        written.map(|()| self.manifest)
    }

    fn pack(&self, file: fs::File) -> io::Result<()> {
        let manifest = serde_json::to_string_pretty(&self.manifest)?;
        let mut tar = tar::Builder::new(zstd::Encoder::new(file, LEVEL)?);
        let parts = self.manifest.parts.iter().map(|part| part.name.as_str());
        let named = parts.zip(self.contents.iter().map(String::as_str));
        for (name, text) in [("manifest.json", manifest.as_str())]
            .into_iter()
            .chain(named)
        {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(self.manifest.at.0 / 1000).unwrap_or(0));
            let name = format!("driftless-support/{name}");
            tar.append_data(&mut header, name, text.as_bytes())?;
        }
        let mut file = tar.into_inner()?.finish()?;
        file.flush()?;
        file.sync_all()
    }
}

/// The last lines of a file.
fn tail(path: &Path) -> Result<String, String> {
    let read = || {
        let mut file = fs::File::open(path)?;
        let size = file.metadata()?.len();
        let cut = size > LOG_BYTES;
        file.seek(SeekFrom::Start(size.saturating_sub(LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // half a line may be half a secret
        let begin = text.find('\n').map_or(text.len(), |end| end + 1);
        io::Result::Ok(text[if cut { begin } else { 0 }..].to_owned())
    };
    read().map_err(|error| format!("{}: {error}", path.display()))
}

/// The last lines of a unit in the system's journal.
fn journal(unit: &str) -> Result<String, String> {
    let mut command = Command::new("journalctl");
    command.args([
        "--unit",
        unit,
        "--lines",
        LOG_LINES,
        "--no-pager",
        "--quiet",
    ]);
    command.args(["--output", "short-iso"]).stdin(Stdio::null());
    let done = command
        .output()
        .map_err(|error| format!("journalctl cannot be started: {error}; name a file by --log"))?;
    if !done.status.success() || done.stdout.is_empty() {
        return Err(format!(
            "the system's journal has nothing of {unit}; name a file by --log"
        ));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests;
