//! `journal`: shows both logs of this gateway and recomputes their chains. A running agent reads
//! them itself, a page at a time; the journal of a stopped one is opened here.

use crate::begin::store_identity;
use crate::cli::Common;
use crate::commands::{FAILED, Failure, NOT_FOUND, REFUSED, finish, unexpected};
use crate::control::{Answer, AskError, Client, Request};
use crate::data::{DataDir, DataError};
use crate::reading;
use edge_core::store::{Page, StoreError};
use serde_json::{Value, json};
use shared::directive::Directive;
use shared::fact::Fact;
use shared::ids::{Incarnation, NodeId};
use shared::log::{Direction, Head};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// Why the journal could not be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wrong(String),
}

/// Where a page comes from: a log, and the entry before the page.
type Pages<'a> = dyn FnMut(Direction, u64) -> Result<Option<Page>, String> + 'a;
/// Where a line goes.
type Show<'a> = dyn FnMut(Value) -> io::Result<()> + 'a;

/// `journal export` (every entry, a line each) and `journal verify` (a line a log).
pub(crate) fn run(common: &Common, export: bool) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut show = |line: Value| match export || common.json {
        true => writeln!(out, "{line}"),
        false => writeln!(out, "{}", told(&line)),
    };
    let read = match Client::connect(&common.data) {
        Ok(client) => ask(client, !export, &mut show),
        Err(AskError::NotRunning { .. }) => {
            stopped(&common.data, !export, &mut show).map_err(fails)
        }
        Err(other) => Err(other.into()),
    };
    finish(read.and_then(|()| Ok(out.flush()?)))
}

/// What was verified of a log, for people.
fn told(verdict: &Value) -> String {
    let log = verdict["log"].as_str().unwrap_or_default();
    let (first, last) = (&verdict["first"], &verdict["last"]);
    let unreadable = match verdict["unreadable"].as_u64() {
        None | Some(0) => String::new(),
        Some(n) => format!("; {n} of kinds that a later version wrote"),
    };
    let checked = match verdict["checked"].as_bool() {
        Some(false) => "; the hash before the first is gone, so a part could not be compared",
        _ => "",
    };
    format!("{log}s {first} to {last}: as written{unreadable}{checked}")
}

fn fails(error: JournalError) -> Failure {
    let code = match error {
        JournalError::Data(DataError::Empty(_)) => NOT_FOUND,
        JournalError::Data(DataError::InUse(_)) => REFUSED,
        _ => FAILED,
    };
    Failure(code, error.to_string())
}

/// The running agent reads it.
fn ask(mut client: Client, verify: bool, show: &mut Show<'_>) -> Result<(), Failure> {
    client.send(&Request::Journal { verify }, &[])?;
    loop {
        match client.next_answer()? {
            Answer::Item { value } => show(value)?,
            Answer::Done => return Ok(()),
            Answer::Refused { why } => return Err(Failure(FAILED, why)),
            other => return Err(unexpected(&other)),
        }
    }
}

/// First and last entries of both logs of a stopped agent, with their recomputed hashes.
///
/// # Errors
/// Why there are none, for people.
pub(crate) fn heads(dir: &Path) -> Result<[Value; 2], String> {
    let mut lines = Vec::new();
    let mut show = |line| {
        lines.push(line);
        Ok(())
    };
    stopped(dir, true, &mut show).map_err(|error| error.to_string())?;
    let both = <[Value; 2]>::try_from(lines);
    both.map_err(|_| "the journal holds other logs than it should".to_owned())
}

/// No agent runs: the store is opened here.
fn stopped(dir: &Path, verify: bool, show: &mut Show<'_>) -> Result<(), JournalError> {
    let empty = || DataError::Empty(dir.display().to_string());
    // opening makes what is not there
    if !["identity.json", "store.redb"]
        .iter()
        .any(|name| dir.join(name).exists())
    {
        return Err(empty().into());
    }
    let data = DataDir::open(dir)?;
    let identity = store_identity(&data.identity()?.ok_or_else(empty)?);
    let mut store = edge_store::open_file(&data.store(), identity)?;
    let mut pages =
        |log, after| reading::page(&mut store, log, after).map_err(|error| error.to_string());
    let whose = (identity.node, identity.incarnation);
    walk(whose, verify, &mut pages, show)
}

/// Walks both logs of a node's incarnation from their first entries that are there.
pub(crate) fn walk(
    (node, incarnation): (NodeId, Incarnation),
    verify: bool,
    pages: &mut Pages<'_>,
    show: &mut Show<'_>,
) -> Result<(), JournalError> {
    for log in [Direction::Up, Direction::Down] {
        let mut chain = Chain {
            log,
            verify,
            first: 0,
            head: None,
            last: Head::origin(node, incarnation, log),
            unchecked: 0,
            unreadable: 0,
        };
        while let Some(page) = pages(log, chain.last.number).map_err(JournalError::Wrong)? {
            chain.page(&page, show)?;
        }
        if verify {
            show(chain.verdict())?;
        }
    }
    Ok(())
}

/// One log as it is read: its chain is recomputed from the first entry that is there.
struct Chain {
    log: Direction,
    verify: bool,
    /// Number of the first entry.
    first: u64,
    /// As recomputed; none while the hash before the next entry is not known.
    head: Option<Head>,
    /// As stored.
    last: Head,
    /// Entries whose hash could not be compared: that of those before them is gone.
    unchecked: u64,
    /// Entries that this version cannot read.
    unreadable: u64,
}

impl Chain {
    fn name(&self) -> &'static str {
        match self.log {
            Direction::Up => "fact",
            Direction::Down => "directive",
        }
    }

    fn page(&mut self, page: &Page, show: &mut Show<'_>) -> Result<(), JournalError> {
        if self.first == 0 {
            self.first = page.first;
            self.head = page.before;
        } else if page.first != self.last.number + 1 {
            return Err(self.broken(&format!(
                "{} is followed by {}",
                self.last.number, page.first
            )));
        } else if let (Some(head), Some(before)) = (self.head, page.before)
            && head != before
        {
            return Err(self.broken(&format!(
                "{} and {} do not belong together: another hash stands between them",
                head.number, page.first
            )));
        }
        for (number, bytes) in (page.first..).zip(&page.entries) {
            self.head = self.head.map(|head| head.then(bytes));
            let entry = match self.log {
                Direction::Up => Fact::decode(number, bytes).ok().map(|fact| json!(fact)),
                Direction::Down => Directive::decode(number, bytes)
                    .ok()
                    .map(|wish| json!(wish)),
            };
            self.unreadable += u64::from(entry.is_none());
            if !self.verify {
                let hash = self.head.map(|head| head.hash.hex());
                show(json!({"log": self.name(), "number": number, "hash": hash, "entry": entry}))?;
            }
        }
        match self.head {
            Some(head) if self.verify && head != page.end => {
                let (first, last) = (page.first, page.end.number);
                return Err(self.broken(&match first == last {
                    true => format!("{first} is not the one that was written"),
                    false => format!("one of {first} to {last} is not the one that was written"),
                }));
            }
            Some(_) => {}
            None => {
                self.unchecked += page.entries.len() as u64;
                // The hash at the end of a commit is stored with it.
                self.head = Some(page.end);
            }
        }
        self.last = page.end;
        Ok(())
    }

    fn broken(&self, what: &str) -> JournalError {
        let name = self.name();
        JournalError::Wrong(format!(
            "the chain of {name}s is broken: {name} {what}; stop the agent and run `store check`"
        ))
    }

    fn verdict(&self) -> Value {
        json!({
            "log": self.name(), "first": self.first, "last": self.last.number,
            "hash": self.last.hash.hex(), "unreadable": self.unreadable,
            "checked": self.unchecked == 0,
        })
    }
}
