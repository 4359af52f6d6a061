//! `driftless-agent store …`: looks at the store of a stopped agent without changing it, and makes
//! it small.

use crate::begin::store_identity;
use crate::check::print;
use crate::cli::Common;
use crate::commands::{FAILED, Failure, NOT_FOUND, REFUSED, finish};
use crate::data::{self, DataDir, DataError, Identity};
use crate::journal;
use crate::reading;
use clap::Subcommand;
use edge_core::driver::Driver;
use edge_core::event::Config;
use edge_core::store::Store;
use edge_store::RedbStore;
use serde_json::{Value, json};
use shared::config::scheduler::Scheduler;
use shared::finding::{Finding, Judgement, worst};
use shared::time::Span;
use shared::workflow::Resources;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use tablefile::{CompactError, Progress, quietly};

const EXAMPLES: &str = "\
Examples:
  driftless-agent store check          is every page, chain and row of it as it was written
  driftless-agent store compact        give room back that pruning has freed

The agent must be stopped. `check` changes nothing, and tells what to do about what it finds.
`compact` works on a copy and puts it in place when it is whole: it needs as much free room as the
store has, and can be killed at any moment.

Exit codes: 0 whole (or done), 1 damaged, 3 no store there, 5 refused: the agent runs, or no room";

/// What is done with the store of a stopped agent.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Verify it: pages, chains of both logs, the state that a start would come to.
    Check,
    /// Make its file small.
    Compact,
}

pub(crate) fn run(common: &Common, command: Command) -> ExitCode {
    let (data, identity) = match open(common) {
        Ok(opened) => opened,
        Err(failure) => return finish(Err(failure)),
    };
    // A damaged page may trip an assertion of the storage engine, which is told as damage.
    std::panic::set_hook(Box::new(|_| {}));
    match command {
        Command::Check => check(common, &data, &identity),
        Command::Compact => finish(compact(common, &data)),
    }
}

/// The data directory, locked, and whose it is.
fn open(common: &Common) -> Result<(DataDir, Identity), Failure> {
    let identity = match data::identity_at(&common.data) {
        Ok(Some(identity)) => identity,
        Ok(None) => {
            let dir = common.data.display();
            return Err(Failure(NOT_FOUND, format!("no agent was started on {dir}")));
        }
        Err(why) => return Err(Failure(FAILED, why)),
    };
    let data = DataDir::open(&common.data).map_err(|error| match &error {
        DataError::InUse(dir) => Failure(
            REFUSED,
            format!("an agent runs on {dir}: stop it first; nothing was changed"),
        ),
        _ => Failure(FAILED, error.to_string()),
    })?;
    Ok((data, identity))
}

fn check(common: &Common, data: &DataDir, identity: &Identity) -> ExitCode {
    let findings = findings(data, identity);
    match print(&findings, common.json) {
        Ok(()) if worst(&findings) < Judgement::Error => ExitCode::SUCCESS,
        _ => ExitCode::from(FAILED),
    }
}

fn findings(data: &DataDir, identity: &Identity) -> Vec<Finding> {
    let mend = format!(
        "put a copy of {} from before back, or go on as a new incarnation: move the directory \
         aside, `driftless token create --replace {}`, start the agent with that token",
        data.path().display(),
        identity.name
    );
    let mut found = vec![file(data, &mend)];
    let broken = |name: &str, why: String| Finding::error(name, why, &mend);
    let torn = || "its pages contradict each other".to_owned();
    match quietly(|| chains(data, identity)) {
        Some(Ok(logs)) => found.extend(logs.iter().map(chain)),
        Some(Err(why)) => found.push(broken("logs", why)),
        None => found.push(broken("logs", torn())),
    }
    found.push(match quietly(|| state(data, identity)) {
        Some(Ok(text)) => Finding::ok("state", text),
        Some(Err(why)) => broken("state", why),
        None => broken("state", torn()),
    });
    found
}

fn file(data: &DataDir, mend: &str) -> Finding {
    const NAME: &str = "file";
    let path = data.store();
    match tablefile::verify(&path) {
        Ok(whole) if whole.unclean => Finding::ok(
            NAME,
            format!(
                "{} bytes, every page is as it was written; it was not closed in order, which the \
                 next start puts right",
                whole.size
            ),
        ),
        Ok(whole) => Finding::ok(
            NAME,
            format!("{} bytes, every page is as it was written", whole.size),
        ),
        Err(damage) => Finding::error(NAME, format!("{}: {damage}", path.display()), mend),
    }
}

fn look(data: &DataDir, identity: &Identity) -> Result<RedbStore, String> {
    edge_store::look(&data.store(), store_identity(identity)).map_err(|error| error.to_string())
}

/// Recomputes the chains of both logs.
fn chains(data: &DataDir, identity: &Identity) -> Result<Vec<Value>, String> {
    let mut store = look(data, identity)?;
    let mut pages =
        |log, after| reading::page(&mut store, log, after).map_err(|error| error.to_string());
    let mut logs = Vec::new();
    let mut show = |line| {
        logs.push(line);
        Ok(())
    };
    let whose = (identity.node(), identity.incarnation());
    journal::walk(whose, true, &mut pages, &mut show).map_err(|error| error.to_string())?;
    Ok(logs)
}

fn chain(log: &Value) -> Finding {
    let name = log["log"].as_str().unwrap_or("log");
    let number = |field: &str| log[field].as_u64().unwrap_or(0);
    let mut text = match number("first") {
        0 => "none are there".to_owned(),
        first => format!("{first} to {}, their chain holds", number("last")),
    };
    if number("unreadable") > 0 {
        let count = number("unreadable");
        text = format!("{text}; {count} are of kinds that a later version wrote");
    }
    Finding::ok(&format!("{name}s"), text)
}

/// Comes to the state that a start would come to.
fn state(data: &DataDir, identity: &Identity) -> Result<String, String> {
    let mut driver =
        Driver::open(look(data, identity)?, config(identity)).map_err(|error| error.to_string())?;
    let loaded = driver.store().load().map_err(|error| error.to_string())?;
    let state = driver.agent().state();
    state.sanity_check()?;
    let tasks: usize = state.slices.values().map(|slice| slice.slots.len()).sum();
    let status = driver.agent().status();
    Ok(format!(
        "{} runs with {tasks} tasks here, {} attempts open, {} schedules; snapshot at fact {} of {}; \
         {} facts are not known to the coordinator",
        state.runs.len(),
        state.running.len(),
        state.schedules.len(),
        loaded.snapshot.0,
        loaded.facts.number,
        if identity.coordinators().is_empty() {
            0
        } else {
            status.behind
        },
    ))
}

/// Enough to read the store; nothing is decided by it.
fn config(identity: &Identity) -> Config {
    Config {
        node: identity.node(),
        incarnation: identity.incarnation(),
        succeeds: None,
        name: identity.name.clone(),
        labels: identity.labels.clone(),
        capacity: Resources::default(),
        slots: 1,
        redial: (Span::secs(1), Span::secs(1)),
        snapshot_interval: Span::secs(10),
        fact_window: Span::secs(86_400),
        inventory_part: shared::limits::INVENTORY_PART_BYTES,
        has_coordinator: !identity.coordinators().is_empty(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        scheduler: Scheduler::default(),
    }
}

fn compact(common: &Common, data: &DataDir) -> Result<(), Failure> {
    let mut shown = String::new();
    let live = io::stderr().is_terminal();
    let mut progress = |step: Progress| {
        let line = match step {
            Progress::Verifying => "verifying the store".to_owned(),
            Progress::Copying(done, of) => format!("copying: {} %", done * 100 / of.max(1)),
            Progress::Compacting => "compacting the copy".to_owned(),
            Progress::VerifyingCopy => "verifying the copy".to_owned(),
        };
        if line != shown && (live || !matches!(step, Progress::Copying(1.., _))) {
            // Nobody may look any more.
            let _ = writeln!(io::stderr(), "{line}");
            shown = line;
        }
    };
    let done = tablefile::compact(&data.store(), &mut progress).map_err(|error| {
        let code = match error {
            CompactError::NoRoom { .. } => REFUSED,
            _ => FAILED,
        };
        let hint = match error {
            CompactError::Damaged(_) => "; `driftless-agent store check` says more",
            _ => "",
        };
        Failure(code, format!("{error}{hint}"))
    })?;
    let mut out = io::stdout().lock();
    if common.json {
        let line = json!({"before": done.before, "after": done.after});
        return Ok(writeln!(out, "{line}")?);
    }
    let (before, after) = (done.before, done.after);
    Ok(writeln!(out, "{before} bytes before, {after} bytes now")?)
}
