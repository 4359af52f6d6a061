//! `driftless backup`.

use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::target::{by_api, data_dir};
use crate::text::{ago, bytes, now};
use clap::Subcommand;
use cloud::api::types::{BACKUP_ID, Backup, Placed};
use cloud::backup::{self, BackupError, Found, Placing, Progress, Summary};
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a backup, while the coordinator runs or of one that is stopped.
    #[command(after_help = "\
Examples:
  driftless backup create /backup/monday.backup
  driftless backup create monday.backup --api coordinator:4480
  driftless backup create monday.backup --data /var/lib/driftless/coordinator    also when it is stopped

It holds the state, the files that the state names, and the authority's keys: guard it like them. It is
consistent, is written beside PATH, read once whole, synced and then named PATH. Once a running
coordinator knows that, gateways may remove what it holds of theirs.")]
    Create {
        /// The file that is made
        path: PathBuf,
    },
    /// Check every hash of a backup, open its store, and say what is in it.
    #[command(after_help = "\
Example:
  driftless backup verify /backup/monday.backup

The store is made in a temporary directory (TMPDIR), which needs room for it.")]
    Verify {
        /// The backup
        path: PathBuf,
    },
    /// Make a data directory from a backup.
    #[command(after_help = "\
Examples:
  driftless backup restore /backup/monday.backup --data /var/lib/driftless/coordinator
  driftless backup restore monday.backup --data new --accept gw-7     gw-7 will not come back

The directory must be new or empty. The next `serve` on it begins a new generation: open tokens are void,
and old runs stand still until every node was heard, or is accepted as gone (here, or later by
`driftless node gone`). Nothing is deleted at the gateways; what they know better counts.")]
    Restore {
        /// The backup
        path: PathBuf,
        /// A node that will not come back: the hold does not wait for it (may be repeated)
        #[arg(long, value_name = "NODE")]
        accept: Vec<String>,
    },
    /// Show when the newest backup was finished.
    Status,
}

/// Time between two lines of progress.
const PAUSE: Duration = Duration::from_millis(250);
/// Nodes that are named; `--json` names all.
const NAMED: usize = 10;
/// Bytes that are taken at once.
const BLOCK: usize = 256 * 1024;

pub(super) fn run(command: &Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    match command {
        Command::Create { path } => create(path, global, out),
        Command::Verify { path } => {
            let found = backup::verify(path).map_err(|error| failure(path, &error))?;
            show(path, &found, "whole", out)
        }
        Command::Restore { path, accept } => {
            let dir = global.data.as_ref().ok_or_else(|| {
                let what = "a restore needs the directory that it fills";
                Failure::new(Code::Usage, what).hint("give a new or an empty one with --data DIR")
            })?;
            let found = backup::restore(path, dir, accept);
            let found = found.map_err(|error| failure(path, &error))?;
            show(path, &found, "restored", out)?;
            out.say(&format!(
                "start it with `driftless serve --data {}`: old runs stand still until all nodes \
                 were heard (`driftless waits list`)",
                dir.display()
            ));
            Ok(Code::Done)
        }
        Command::Status => status(global, out),
    }
}

fn failure(path: &Path, error: &BackupError) -> Failure {
    if let BackupError::Io(_, why) = error
        && why.kind() == ErrorKind::AlreadyExists
    {
        let what = format!("{} is there already", path.display());
        return Failure::new(Code::Refused, what).hint("name another file");
    }
    let code = match error {
        BackupError::NoNode(..) => Code::NotFound,
        BackupError::Io(_, error) if error.kind() == ErrorKind::NotFound => Code::NotFound,
        BackupError::NotEmpty { .. } | BackupError::OtherAuthority { .. } => Code::Refused,
        BackupError::Io(..) | BackupError::Store(_) | BackupError::Stopping => Code::Failed,
        _ => Code::Refused,
    };
    Failure::new(code, format!("{}: {error}", path.display()))
}

/// Shows how far a long piece of work has come, on a terminal.
struct Ticker {
    live: bool,
    last: Instant,
    shown: bool,
}

impl Ticker {
    fn new(out: &Output) -> Self {
        Self {
            live: out.live,
            last: Instant::now(),
            shown: false,
        }
    }

    fn tick(&mut self, text: impl FnOnce() -> String) {
        if self.live && self.last.elapsed() >= PAUSE {
            (self.last, self.shown) = (Instant::now(), true);
            // Nobody may look any more.
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", text());
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        if self.shown {
            // As above.
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn create(path: &Path, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let made = match Client::new(global).and_then(|client| of_running(&client, path, out)) {
        Err(why) if why.code == Code::Unreachable && !by_api(global) => {
            of_stopped(&data_dir(global), path, out).map_err(|error| match error {
                // it runs, and cannot be reached
                BackupError::Data(cloud::DataError::InUse(_)) | BackupError::Empty(_) => why,
                error => failure(path, &error),
            })?
        }
        made => made?,
    };
    let (found, how) = made;
    show(path, &found, how, out)
}

/// Takes the stream of a running coordinator, and tells it when the file is in its place.
fn of_running(
    client: &Client,
    path: &Path,
    out: &Output,
) -> Result<(Found, &'static str), Failure> {
    let answer = client.open(&format!("/backup?by={}", escape(&super::who())))?;
    let id = answer.headers().get(BACKUP_ID);
    let id = id.and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let id = id.ok_or_else(|| Failure::new(Code::Failed, "the answer names no backup"))?;
    let wrong = |error: BackupError| failure(path, &error);
    let mut placing = Placing::begin(path).map_err(wrong)?;
    let (mut ticker, mut taken) = (Ticker::new(out), 0);
    let mut input = answer.into_body().into_reader();
    let mut block = vec![0; BLOCK];
    loop {
        let broke = |error| {
            let what = format!("the backup broke off after {}: {error}", bytes(taken));
            Failure::new(Code::Failed, what).hint("the coordinator's log says why; try again")
        };
        let n = input.read(&mut block).map_err(broke)?;
        if n == 0 {
            break;
        }
        let written = placing.file().write_all(&block[..n]);
        written.map_err(|error| wrong(BackupError::Io("write the backup", error)))?;
        taken += n as u64;
        ticker.tick(|| format!("{} taken", bytes(taken)));
    }
    drop(ticker);
    let found = placing.finish().map_err(wrong)?;
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let place = format!("{} ({})", full.display(), super::who());
    let done = format!("/backup/{id}?by={}", escape(&super::who()));
    let counted: Backup = client.post(&done, &Placed { place })?;
    drop(counted);
    Ok((found, "made while it runs"))
}

fn of_stopped(dir: &Path, path: &Path, out: &Output) -> Result<(Found, &'static str), BackupError> {
    let mut ticker = Ticker::new(out);
    let found = backup::of_stopped(dir, path, &mut |progress: Progress| {
        ticker.tick(|| match progress.files_of {
            0 => format!("{} rows, {}", progress.rows, bytes(progress.bytes)),
            all => format!(
                "file {} of {all}, {}",
                progress.files,
                bytes(progress.bytes)
            ),
        });
    })?;
    Ok((found, "made while it is stopped"))
}

fn show(path: &Path, found: &Found, what: &str, out: &mut Output) -> Result<Code, Failure> {
    let (head, summary): (_, &Summary) = (&found.head, &found.summary);
    let size = std::fs::metadata(path).map_or(0, |meta| meta.len());
    if out.json {
        out.object(&json!({
            "backup": path.display().to_string(), "result": what, "size": size,
            "at": head.at, "version": head.version, "authority": head.authority,
            "generation": summary.generation, "nodes": summary.nodes, "names": found.nodes,
            "runs": summary.runs,
            "rows": summary.rows, "files": summary.files, "file_bytes": summary.file_bytes,
            "gone": summary.gone.len(),
        }))?;
        return Ok(Code::Done);
    }
    out.facts(&[
        ("backup", path.display().to_string().into()),
        ("result", what.into()),
        ("size", bytes(size).into()),
        (
            "as of",
            format!("{} ({})", head.at, ago(head.at, now())).into(),
        ),
        ("authority", head.authority.clone().into()),
        ("generation", summary.generation.0.to_string().into()),
        ("nodes", nodes(found).into()),
        ("runs", summary.runs.to_string().into()),
        ("rows", summary.rows.to_string().into()),
        (
            "files",
            format!("{} ({})", summary.files, bytes(summary.file_bytes)).into(),
        ),
    ])?;
    out.flush()?;
    Ok(Code::Done)
}

/// How many nodes, and the first of them.
fn nodes(found: &Found) -> String {
    let first: Vec<&str> = found.nodes.iter().take(NAMED).map(String::as_str).collect();
    match found.nodes.len() {
        0 => "0".to_owned(),
        all if all > NAMED => format!("{all} ({}, …)", first.join(", ")),
        all => format!("{all} ({})", first.join(", ")),
    }
}

fn status(global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let newest: Backup = Client::new(global)?.get("/backup/newest")?;
    if out.json {
        out.object(&newest)?;
        return Ok(Code::Done);
    }
    match newest.at.zip(newest.place) {
        Some((at, place)) => out.line(&format!("{at} ({}): {place}", ago(at, now())))?,
        None => out.line("no backup was made yet")?,
    }
    Ok(Code::Done)
}
