//! `driftless-agent schedule …`.

use crate::cli::Common;
use crate::commands::{Failure, compile, finish, items, one_value, order, unexpected};
use crate::control::{Answer, Client, Request, ScheduleAsk};
use clap::Subcommand;
use serde_json::Value;
use shared::schedule::view::{View, details, rows};
use shared::time::Unix;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  driftless-agent schedule create nightly.yaml       a workflow with a `schedule:`
  driftless-agent schedule next nightly 10           its next ten slots
  driftless-agent schedule backfill nightly --from 2026-11-01 --to 2026-11-08";

/// What is done with schedules.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Make a schedule of a workflow that has one; it fires here, with or without a link.
    Create {
        /// The specification; - reads it from standard input.
        file: PathBuf,
        /// A parameter.
        #[arg(long = "param", value_name = "NAME=VALUE")]
        params: Vec<String>,
        /// A file to send along.
        #[arg(long = "file", value_name = "NAME=PATH")]
        files: Vec<String>,
        /// Make it the next revision of the schedule with the same name.
        #[arg(long)]
        replace: bool,
    },
    /// Show the schedules that this node fires.
    List,
    /// Show one: its rules, its last slots, and why it waits.
    Get {
        /// Its name, or the unique beginning of its id.
        schedule: String,
    },
    /// Show its next slots.
    Next {
        /// Its name, or the unique beginning of its id.
        schedule: String,
        /// How many.
        #[arg(default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
    },
    /// Fire nothing until `resume`; what runs goes on.
    Pause {
        /// Its name, or the unique beginning of its id.
        schedule: String,
    },
    /// Fire again; slots that passed meanwhile do not.
    Resume {
        /// Its name, or the unique beginning of its id.
        schedule: String,
    },
    /// Run it once, now.
    Trigger {
        /// Its name, or the unique beginning of its id.
        schedule: String,
    },
    /// Run past slots, one after another; those that fired before do not run again.
    Backfill {
        /// Its name, or the unique beginning of its id.
        schedule: String,
        /// From this instant on: 2026-11-24T03:00:00Z, or a date.
        #[arg(long, value_parser = instant)]
        from: Unix,
        /// Up to this instant.
        #[arg(long, value_parser = instant)]
        to: Unix,
    },
    /// Take it away; its runs go on.
    Delete {
        /// Its name, or the unique beginning of its id.
        schedule: String,
    },
}

fn instant(text: &str) -> Result<Unix, String> {
    shared::schedule::instant(text).map_err(|error| error.to_string())
}

/// Does what the command line says.
pub(crate) fn run(common: &Common, command: Command) -> ExitCode {
    let ask = |schedule, ask, done| order(common, &Request::ScheduleAsk { schedule, ask }, done);
    match command {
        Command::Create {
            file,
            params,
            files,
            replace,
        } => finish(create(common, &file, &params, &files, replace)),
        Command::List => finish(list(common)),
        Command::Get { schedule } => finish(get(common, schedule)),
        Command::Next { schedule, count } => finish(next(common, schedule, count)),
        Command::Pause { schedule } => ask(schedule, ScheduleAsk::Pause, "paused here"),
        Command::Resume { schedule } => ask(schedule, ScheduleAsk::Resume, "goes on here"),
        Command::Trigger { schedule } => ask(schedule, ScheduleAsk::Trigger, "wanted now"),
        Command::Backfill { schedule, from, to } => {
            let done = "its past slots run one after another";
            ask(schedule, ScheduleAsk::Backfill { from, to }, done)
        }
        Command::Delete { schedule } => ask(schedule, ScheduleAsk::Delete, "deleted"),
    }
}

fn view(value: Value) -> Result<View, Failure> {
    serde_json::from_value(value)
        .map_err(|error| Failure(1, format!("the agent's answer cannot be read: {error}")))
}

fn create(
    common: &Common,
    file: &std::path::Path,
    params: &[String],
    files: &[String],
    replace: bool,
) -> Result<(), Failure> {
    let mut client = Client::connect(&common.data)?;
    // Deadlines count from the firing: what is compiled here counts from 1970.
    let workflow = compile(&mut client, file, params, files, Unix(0), common.json)?;
    if workflow.schedule.is_none() {
        let name = file.display();
        let text = format!(
            "{name} has no `schedule`; add one, or run it once with `driftless-agent submit {name}`"
        );
        return Err(Failure(2, text));
    }
    let (packed, _) = shared::codec::pack(&workflow);
    let size = packed.len() as u64;
    match client.ask(&Request::ScheduleCreate { size, replace }, &packed)? {
        Answer::Done => {}
        other => return Err(unexpected(&other)),
    }
    let schedule = workflow.name;
    let value = one_value(common, &Request::ScheduleGet { schedule })?;
    if common.json {
        return Ok(writeln!(io::stdout(), "{value}")?);
    }
    Ok(writeln!(io::stdout(), "{}", view(value)?.id)?)
}

fn list(common: &Common) -> Result<(), Failure> {
    let list = items(common, &Request::ScheduleList)?;
    let mut out = io::stdout().lock();
    if common.json {
        return Ok(list.iter().try_for_each(|item| writeln!(out, "{item}"))?);
    }
    if list.is_empty() {
        return Ok(writeln!(out, "no schedules")?);
    }
    let views = list.into_iter().map(view).collect::<Result<Vec<_>, _>>()?;
    let (head, rows) = rows(&views);
    Ok(write!(out, "{}", crate::commands::table(&head, &rows))?)
}

fn get(common: &Common, schedule: String) -> Result<(), Failure> {
    let value = one_value(common, &Request::ScheduleGet { schedule })?;
    let mut out = io::stdout().lock();
    if common.json {
        return Ok(writeln!(out, "{value}")?);
    }
    Ok(write!(out, "{}", details(&view(value)?))?)
}

fn next(common: &Common, schedule: String, count: u32) -> Result<(), Failure> {
    let list = items(common, &Request::ScheduleNext { schedule, count })?;
    let mut out = io::stdout().lock();
    for slot in list {
        match (common.json, slot["utc"].as_str()) {
            (false, Some(text)) => writeln!(out, "{text}")?,
            _ => writeln!(out, "{slot}")?,
        }
    }
    Ok(())
}
