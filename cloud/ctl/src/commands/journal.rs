//! `driftless journal`: the logs that a coordinator holds, read from a running one, a stopped one,
//! or a backup.

use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use crate::target::{by_api, data_dir};
use clap::Subcommand;
use cloud::backup::{self, BackupError};
use cloud::{DataDir, DataError};
use cloud_core::store::StoreError;
use cloud_store::journal::{Entry, Verdict, Walk};
use cloud_store::snapshot::EachRow;
use serde_json::{Value, json};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Print every fact, directive, event and audit entry that is there as a JSON line.
    #[command(after_help = "\
Examples:
  driftless journal export > journal.jsonl                  of the running coordinator
  driftless journal export --data /var/lib/driftless/coordinator   of a stopped one
  driftless journal export monday.backup | grep '\"log\":\"audit\"'

Each line has `log` (fact, directive, event, audit), `number` and `entry`; facts and directives also
`node`, `incarnation` and `hash`, the chained hash up to them.")]
    Export {
        /// A backup, or a data directory whose coordinator is stopped
        path: Option<PathBuf>,
    },
    /// Recompute the chains of all nodes' logs, and say the first entry that does not fit.
    #[command(after_help = "\
Examples:
  driftless journal verify
  driftless journal verify monday.backup --json

The chains of facts and directives are recomputed from the first entry that is still there and compared
with the hashes stored with them and with the state of the node. Events and audit entries are not
chained: their numbers must have no gap. Exit codes: 0 all is as it was written, 1 something is not")]
    Verify {
        /// A backup, or a data directory whose coordinator is stopped
        path: Option<PathBuf>,
    },
}

/// Why the reading ended.
enum Ended {
    Backup(BackupError),
    Out(Failure),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Backup(error.into())
    }
}

impl From<BackupError> for Ended {
    fn from(error: BackupError) -> Self {
        Self::Backup(error)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Out(failure)
    }
}

/// Takes the rows of a store.
type Rows<'a> = EachRow<'a, Ended>;

pub(super) fn run(command: &Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let mut walk = Walk::default();
    match command {
        Command::Export { path } => {
            let read = read(path.as_deref(), global, &mut |table, key, value| {
                walk.row(
                    table,
                    key,
                    value,
                    &mut |entry| Ok(out.object(&line(entry))?),
                )
            });
            read?;
            Ok(Code::Done)
        }
        Command::Verify { path } => {
            read(path.as_deref(), global, &mut |table, key, value| {
                walk.row(table, key, value, &mut |_| Ok(()))
            })?;
            verdicts(&walk.finish(), out)
        }
    }
}

/// Reads the rows from where the command line says.
fn read(path: Option<&Path>, global: &Global, rows: &mut Rows<'_>) -> Result<(), Failure> {
    if let Some(path) = path {
        let read = match path.is_dir() {
            true => stopped(path, rows),
            false => File::open(path)
                .map_err(|error| BackupError::Io("open the backup", error).into())
                .and_then(|file| backup::rows(file, rows)),
        };
        return read.map_err(|ended| failure(path, ended));
    }
    let all = format!("/backup?by={}", escape(&super::who()));
    let why = match Client::new(global).and_then(|client| client.open(&all)) {
        Ok(answer) => {
            let input = answer.into_body().into_reader();
            // What follows the rows is not read: nobody counts this as a backup.
            return backup::rows(input, rows).map_err(|ended| match ended {
                Ended::Out(failure) => failure,
                Ended::Backup(error) => {
                    Failure::new(Code::Failed, format!("what the coordinator sends: {error}"))
                }
            });
        }
        Err(why) => why,
    };
    if why.code != Code::Unreachable || by_api(global) {
        return Err(why);
    }
    let dir = data_dir(global);
    stopped(&dir, rows).map_err(|ended| match ended {
        // It runs, and cannot be reached; or there is nothing at all.
        Ended::Backup(BackupError::Data(DataError::InUse(_)) | BackupError::Empty(_)) => why,
        ended => failure(&dir, ended),
    })
}

fn failure(path: &Path, ended: Ended) -> Failure {
    match ended {
        Ended::Out(failure) => failure,
        Ended::Backup(error) => {
            let code = match error {
                BackupError::Data(DataError::InUse(_))
                | BackupError::Foreign
                | BackupError::Newer => Code::Refused,
                BackupError::Empty(_) => Code::NotFound,
                BackupError::Io(_, ref why) if why.kind() == ErrorKind::NotFound => Code::NotFound,
                _ => Code::Failed,
            };
            Failure::new(code, format!("{}: {error}", path.display()))
        }
    }
}

/// The rows of the store in `dir`, whose coordinator is stopped; nothing in it is changed.
fn stopped(dir: &Path, rows: &mut Rows<'_>) -> Result<(), Ended> {
    if !dir.join("format").exists() {
        return Err(BackupError::Empty(dir.to_owned()).into());
    }
    let data = DataDir::open(dir).map_err(BackupError::from)?;
    let store = cloud_store::snapshot::looked(&data.store())?;
    store.snapshot.each(rows)
}

fn line(entry: Entry) -> Value {
    match entry {
        Entry::Fact(log, head, fact) => json!({
            "log": "fact", "node": log.node.to_string(), "incarnation": log.incarnation.to_string(),
            "number": head.number, "hash": head.hash.hex(), "entry": fact,
        }),
        Entry::Directive(log, head, wish) => json!({
            "log": "directive", "node": log.node.to_string(),
            "incarnation": log.incarnation.to_string(),
            "number": head.number, "hash": head.hash.hex(), "entry": wish,
        }),
        Entry::Event(number, event) => {
            json!({"log": "event", "number": number, "entry": event})
        }
        Entry::Audit(number, entry) => {
            json!({"log": "audit", "number": number, "entry": entry})
        }
    }
}

fn verdicts(verdicts: &[Verdict], out: &mut Output) -> Result<Code, Failure> {
    let mut table = Table::new(["LOG", "NODE", "FROM", "TO", "JUDGEMENT"], out.colour);
    for one in verdicts {
        let name = one.whose.as_ref().map(|(_, name)| name.as_str());
        if out.json {
            let log = one.whose.as_ref().map(|(log, _)| *log);
            out.object(&json!({
                "log": one.log,
                "node": log.map(|log| log.node.to_string()),
                "incarnation": log.map(|log| log.incarnation.to_string()),
                "name": name,
                "first": one.first,
                "last": one.last,
                "hash": one.hash.map(|hash| hash.hex()),
                "unreadable": one.unreadable,
                "broken": one.broken,
            }))?;
            continue;
        }
        let judgement = match (&one.broken, one.unreadable) {
            (Some(what), _) => format!("broken: {what}"),
            (None, 0) => "as written".to_owned(),
            (None, n) => format!("as written; {n} of kinds that a later version wrote"),
        };
        let cells: [Cell; 5] = [
            one.log.into(),
            name.unwrap_or("-").into(),
            one.first.to_string().into(),
            one.last.to_string().into(),
            judgement.into(),
        ];
        out.row(&mut table, cells)?;
    }
    if !out.json {
        out.finish(table)?;
    }
    match verdicts.iter().any(|one| one.broken.is_some()) {
        true => Ok(Code::Failed),
        false => Ok(Code::Done),
    }
}
