//! `journal`: reads the journal of a stopped agent, shows it, and recomputes its chains.

use crate::begin::store_identity;
use crate::cli::Common;
use crate::data::{DataDir, DataError};
use edge_core::store::{Store, StoreError};
use serde_json::{Value, json};
use shared::directive::Directive;
use shared::fact::Fact;
use shared::log::{Direction, Head};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// Why the journal could not be shown.
#[derive(Debug, thiserror::Error)]
enum JournalError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wrong(String),
}

/// One log as it was read: its chain is recomputed from the first entry that is there.
struct Chain {
    name: &'static str,
    first: u64,
    head: Option<Head>,
    unreadable: u64,
}

impl Chain {
    fn new(name: &'static str, before: Option<Head>) -> Self {
        Self {
            name,
            first: 0,
            head: before,
            unreadable: 0,
        }
    }

    fn add(&mut self, number: u64, bytes: &[u8]) {
        if self.first == 0 {
            self.first = number;
            // what was before it is gone, and with it the hash that it continues
            self.head = self.head.filter(|head| head.number + 1 == number);
        }
        self.head = self.head.map(|head| head.then(bytes));
    }

    fn judge(&self, stored: Head) -> Result<Value, JournalError> {
        if let Some(head) = self.head.filter(|head| *head != stored) {
            let (name, got, want) = (self.name, head.number, stored.number);
            return Err(JournalError::Wrong(format!(
                "the chain of {name}s is broken: recomputed up to {got}, the journal says {want} with another hash"
            )));
        }
        Ok(json!({
            "log": self.name, "first": self.first, "last": stored.number,
            "hash": stored.hash.hex(), "unreadable": self.unreadable,
            "checked": self.head.is_some(),
        }))
    }
}

/// `journal export` (every entry, a line each) and `journal verify` (a line a log).
pub(crate) fn run(common: &Common, export: bool) -> ExitCode {
    match read(common, export) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(1)
        }
    }
}

fn read(common: &Common, export: bool) -> Result<(), JournalError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let judged = walk(&common.data, &mut |line| {
        if export && written.is_ok() {
            written = writeln!(out, "{}", line());
        }
    })?;
    written?;
    for line in judged.iter().filter(|_| !export) {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

/// First and last entries of both logs of a stopped agent, with their recomputed hashes.
///
/// # Errors
/// Why there are none, for people.
pub(crate) fn heads(dir: &Path) -> Result<[Value; 2], String> {
    walk(dir, &mut |_| {}).map_err(|error| error.to_string())
}

/// Reads both logs, hands each entry to `show`, and judges the chains.
fn walk(dir: &Path, show: &mut dyn FnMut(&dyn Fn() -> Value)) -> Result<[Value; 2], JournalError> {
    let data = DataDir::open(dir)?;
    let empty = || DataError::Empty(data.path().display().to_string());
    let identity = store_identity(&data.identity()?.ok_or_else(empty)?);
    let mut store = edge_store::open_file(&data.store(), identity)?;
    let loaded = store.load()?;
    let mut facts = Chain::new("fact", store.fact_hash(loaded.facts_first - 1)?);
    store.each_fact(0, &mut |number, bytes| {
        facts.add(number, bytes);
        let fact = Fact::decode(number, bytes).ok();
        facts.unreadable += u64::from(fact.is_none());
        let hash = facts.head.map(|head| head.hash.hex());
        show(&|| json!({"log": "fact", "number": number, "hash": hash, "entry": fact}));
    })?;
    let origin = Head::origin(identity.node, identity.incarnation, Direction::Down);
    let mut directives = Chain::new("directive", Some(origin));
    store.each_directive(0, &mut |number, bytes| {
        directives.add(number, bytes);
        let wish = Directive::decode(number, bytes).ok();
        directives.unreadable += u64::from(wish.is_none());
        let hash = directives.head.map(|head| head.hash.hex());
        show(&|| json!({"log": "directive", "number": number, "hash": hash, "entry": wish}));
    })?;
    Ok([
        facts.judge(loaded.facts)?,
        directives.judge(loaded.directives)?,
    ])
}
