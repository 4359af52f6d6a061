//! `driftless store`: looks at the store of a stopped coordinator without changing it, and makes it
//! small.

use crate::args::Global;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::target::data_dir;
use crate::text::bytes;
use clap::Subcommand;
use cloud::{DataDir, DataError};
use cloud_core::store::StoreError;
use cloud_store::journal::Walk;
use cloud_store::snapshot::{Contents, looked};
use contents::Dir;
use serde_json::json;
use shared::finding::{Finding, Judgement, worst};
use tablefile::{CompactError, Progress, quietly};

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Verify it: pages, rows, the chains of all nodes' logs, the files that it names.
    #[command(after_help = "\
Examples:
  driftless store check --data /var/lib/driftless/coordinator
  driftless store check --json

The coordinator must be stopped; nothing is changed. Exit codes: 0 whole, 1 damaged (each line says what
to do), 3 no store there, 5 the coordinator runs")]
    Check,
    /// Make its file small: room that pruning has freed goes back to the file system.
    #[command(after_help = "\
Example:
  driftless store compact --data /var/lib/driftless/coordinator

The coordinator must be stopped. It works on a copy, which is put in place when it is whole: it needs as
much free room as the store has, and can be killed at any moment. Exit codes: 0 done, 1 damaged, 3 no
store there, 5 the coordinator runs, or there is no room")]
    Compact,
}

const MEND: &str = "restore a backup into a new directory (`driftless backup restore`); the gateways \
                    bring back what they know better";

pub(super) fn run(command: &Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let dir = data_dir(global);
    if !dir.join("format").exists() {
        let what = format!("{} holds no coordinator's store", dir.display());
        return Err(Failure::new(Code::NotFound, what).hint("name its directory with --data"));
    }
    let data = DataDir::open(&dir).map_err(|error| {
        let code = match error {
            DataError::InUse(_) => Code::Refused,
            _ => Code::Failed,
        };
        let hint = match error {
            DataError::InUse(_) => "stop it first; `driftless doctor` looks at a running one",
            _ => error.hint(),
        };
        Failure::new(code, error.to_string()).hint(hint)
    })?;
    // A damaged page may trip an assertion of the storage engine, which is told as damage.
    std::panic::set_hook(Box::new(|_| {}));
    match command {
        Command::Check => check(&data, out),
        Command::Compact => compact(&data, out),
    }
}

fn check(data: &DataDir, out: &mut Output) -> Result<Code, Failure> {
    let mut found = vec![file(data)];
    match quietly(|| rows(data)) {
        Some(Ok(findings)) => found.extend(findings),
        Some(Err(error)) => found.push(Finding::error("rows", error.to_string(), MEND)),
        None => found.push(Finding::error(
            "rows",
            "its pages contradict each other",
            MEND,
        )),
    }
    for finding in &found {
        match out.json {
            true => out.object(finding)?,
            false => out.line(&finding.to_string())?,
        }
    }
    Ok(match worst(&found) {
        Judgement::Error => Code::Failed,
        _ => Code::Done,
    })
}

fn file(data: &DataDir) -> Finding {
    match tablefile::verify(&data.store()) {
        Ok(whole) => {
            let unclean = match whole.unclean {
                true => "; it was not closed in order, which the next start puts right",
                false => "",
            };
            let size = bytes(whole.size);
            Finding::ok(
                "file",
                format!("{size}, every page is as it was written{unclean}"),
            )
        }
        Err(damage) => {
            let path = data.store();
            Finding::error("file", format!("{}: {damage}", path.display()), MEND)
        }
    }
}

/// Reads every row once: what it says, and the chains.
fn rows(data: &DataDir) -> Result<Vec<Finding>, StoreError> {
    let store = looked(&data.store())?;
    let (mut contents, mut walk) = (Contents::default(), Walk::default());
    store
        .snapshot
        .each::<StoreError>(&mut |table, key, value| {
            contents.note(table, key, value)?;
            walk.row(table, key, value, &mut |_| Ok(()))
        })?;
    let mut found = vec![Finding::ok(
        "rows",
        format!(
            "{} rows: {} nodes, {} runs, generation {}",
            contents.rows,
            contents.nodes.len(),
            contents.runs,
            contents.generation.0
        ),
    )];
    let verdicts = walk.finish();
    let broken = verdicts.iter().filter_map(|one| {
        let what = one.broken.as_ref()?;
        let name = one.whose.as_ref().map_or("", |(_, name)| name.as_str());
        let text = format!("{}s of {name}: {what}", one.log);
        Some(Finding::error("logs", text, MEND))
    });
    found.extend(broken);
    if found.len() == 1 {
        let text = format!("the chains and numbers of {} logs hold", verdicts.len());
        found.push(Finding::ok("logs", text));
    }
    found.push(files(data, &contents));
    Ok(found)
}

/// Whether the files that the store names are there.
fn files(data: &DataDir, contents: &Contents) -> Finding {
    const NAME: &str = "files";
    let dir = match Dir::open(&data.files(), u64::MAX) {
        Ok(dir) => dir,
        Err(error) => return Finding::error(NAME, error.to_string(), MEND),
    };
    let lacks = |(hash, size): &(&shared::ids::Hash, &u64)| {
        dir.find(**hash).is_none_or(|(_, found)| found != **size)
    };
    let missing: Vec<_> = contents.files.iter().filter(lacks).collect();
    match missing.first() {
        None => Finding::ok(NAME, format!("all {} are there", contents.files.len())),
        Some((hash, _)) => Finding::warning(
            NAME,
            format!(
                "{} of {} are missing or cut, as {hash}",
                missing.len(),
                contents.files.len()
            ),
            "gateways that have them bring them again; else put them back from a backup",
        ),
    }
}

fn compact(data: &DataDir, out: &mut Output) -> Result<Code, Failure> {
    let mut shown = String::new();
    let live = out.live;
    let done = {
        let say = |text: &str| out.say(text);
        tablefile::compact(&data.store(), &mut |step| {
            let line = match step {
                Progress::Verifying => "verifying the store".to_owned(),
                Progress::Copying(done, of) => format!("copying: {} %", done * 100 / of.max(1)),
                Progress::Compacting => "compacting the copy".to_owned(),
                Progress::VerifyingCopy => "verifying the copy".to_owned(),
            };
            if line != shown && (live || !matches!(step, Progress::Copying(1.., _))) {
                say(&line);
                shown = line;
            }
        })
    };
    let done = done.map_err(|error| {
        let code = match error {
            CompactError::NoRoom { .. } => Code::Refused,
            _ => Code::Failed,
        };
        Failure::new(code, error.to_string()).hint("`driftless store check` says more")
    })?;
    match out.json {
        true => out.object(&json!({"before": done.before, "after": done.after}))?,
        false => out.line(&format!(
            "{} before, {} now",
            bytes(done.before),
            bytes(done.after)
        ))?,
    }
    Ok(Code::Done)
}
