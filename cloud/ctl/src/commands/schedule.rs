//! `driftless schedule`.

use super::spec::Given;
use super::spec::Source;
use super::submit::send_files;
use super::who;
use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use crate::text::safe;
use clap::{Args, Subcommand};
use cloud::api::types::{Ask, NewBackfill};
use serde::Serialize;
use shared::codec;
use shared::schedule::view::{Slot, View, details, rows};
use shared::time::Unix;
use std::path::PathBuf;

/// Schedules: workflows that run by themselves.
#[derive(Subcommand, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Make a schedule of a workflow that has one. It is fired by the node that may run all its
    /// tasks, also without a link; else by the coordinator.
    Create(NewSchedule),
    /// List the schedules.
    List,
    /// Show one: its rules, its last slots, and why it waits.
    Get(ScheduleName),
    /// Show its next slots.
    Next {
        #[command(flatten)]
        name: ScheduleName,
        /// How many
        #[arg(default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
    },
    /// Fire nothing until `resume`; what runs goes on.
    Pause(ScheduleName),
    /// Fire again; slots that passed meanwhile do not.
    Resume(ScheduleName),
    /// Run it once, now.
    Trigger(ScheduleName),
    /// Run past slots, one after another; those that fired before do not run again.
    Backfill {
        #[command(flatten)]
        name: ScheduleName,
        /// From this instant on: 2026-11-24T03:00:00Z, or a date
        #[arg(long, value_parser = instant)]
        from: Unix,
        /// Up to this instant
        #[arg(long, value_parser = instant)]
        to: Unix,
    },
    /// Take it away; its runs go on.
    Delete(ScheduleName),
}

const EXAMPLES: &str = "\
Examples:
  driftless schedule create nightly.yaml --node gw-7
  driftless schedule next nightly 10
  driftless schedule backfill nightly --from 2026-11-01 --to 2026-11-08";

/// Which schedule.
#[derive(Args, Debug)]
pub(crate) struct ScheduleName {
    /// Its name, or a beginning of its id that only one has
    pub(crate) schedule: String,
}

/// A schedule to make.
#[derive(Args, Debug)]
pub(crate) struct NewSchedule {
    /// The specification, or - for standard input
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) given: Given,
    /// The node that fires it
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Make it the next revision of the schedule with the same name
    #[arg(long)]
    pub(crate) replace: bool,
}

fn instant(text: &str) -> Result<Unix, String> {
    shared::schedule::instant(text).map_err(|error| error.to_string())
}

pub(super) fn run(command: Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    match command {
        Command::Create(new) => create(&new, global, out)?,
        Command::List => list(&Client::new(global)?, out)?,
        Command::Get(name) => {
            let view: View = Client::new(global)?.get(&path(&name, ""))?;
            if out.json {
                out.object(&view)?;
            } else {
                for line in details(&view).lines() {
                    out.line(&safe(line))?;
                }
            }
        }
        Command::Next { name, count } => {
            let path = format!("{}?count={count}", path(&name, "/next"));
            Client::new(global)?.list(&path, |slot: Slot| {
                if out.json {
                    out.object(&slot)?;
                } else {
                    out.line(&slot.utc)?;
                }
                Ok(true)
            })?;
        }
        Command::Pause(name) => ask(&name, "/pause", "fires no more", global, out)?,
        Command::Resume(name) => ask(&name, "/resume", "fires again", global, out)?,
        Command::Trigger(name) => ask(&name, "/trigger", "is wanted now", global, out)?,
        Command::Delete(name) => ask(&name, "/delete", "goes; its runs go on", global, out)?,
        Command::Backfill { name, from, to } => {
            let by = who();
            let new = NewBackfill { by, from, to };
            let done = "runs its past slots one after another";
            tell(&name, "/backfill", &new, done, global, out)?;
        }
    }
    Ok(Code::Done)
}

fn path(name: &ScheduleName, what: &str) -> String {
    format!("/schedules/{}{what}", escape(&name.schedule))
}

fn ask(
    name: &ScheduleName,
    what: &str,
    done: &str,
    global: &Global,
    out: &mut Output,
) -> Result<(), Failure> {
    let (by, why) = (who(), String::new());
    tell(name, what, &Ask { by, why }, done, global, out)
}

fn tell(
    name: &ScheduleName,
    what: &str,
    body: &impl Serialize,
    done: &str,
    global: &Global,
    out: &mut Output,
) -> Result<(), Failure> {
    let view: View = Client::new(global)?.post(&path(name, what), body)?;
    if out.json {
        return out.object(&view);
    }
    out.say(&format!("{} {done}", safe(&view.name)));
    if let Some(why) = &view.why {
        out.say(&safe(why));
    }
    Ok(())
}

fn create(new: &NewSchedule, global: &Global, out: &mut Output) -> Result<(), Failure> {
    let source = Source::read(&new.file, &new.given, out)?;
    // Deadlines count from the firing: what is compiled here counts from 1970.
    let workflow = source.compile_at(Unix(0), out)?;
    if workflow.schedule.is_none() {
        let file = new.file.display();
        let what = format!("{file} has no `schedule`");
        let hint = format!("add one, or run it once with `driftless submit {file}`");
        return Err(Failure::new(Code::Usage, what).hint(hint));
    }
    let (packed, _) = codec::pack(&workflow);
    let client = Client::new(global)?;
    send_files(&client, &source, out)?;
    let mut path = format!("/schedules?by={}&replace={}", escape(&who()), new.replace);
    if let Some(node) = &new.node {
        path.push_str("&node=");
        path.push_str(&escape(node));
    }
    let view: View = client.post_bytes(&path, &[], &packed)?;
    if out.json {
        return out.object(&view);
    }
    out.line(&view.id.to_string())?;
    let by = safe(&view.owner);
    out.say(&format!(
        "fired by {by}; its next slots: driftless schedule next {}",
        view.name
    ));
    Ok(())
}

fn list(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let mut views: Vec<View> = Vec::new();
    client.list("/schedules", |view: View| {
        if out.json {
            out.object(&view)?;
        } else {
            views.push(view);
        }
        Ok(true)
    })?;
    if out.json {
        return Ok(());
    }
    if views.is_empty() {
        out.say("no schedules");
        return Ok(());
    }
    let (head, rows) = rows(&views);
    let head: [&str; 8] = head.try_into().unwrap_or([""; 8]);
    let mut table = Table::new(head, out.colour);
    for row in rows {
        let cells: Vec<Cell> = row.iter().map(Cell::from).collect();
        if let Ok(cells) = <[Cell; 8]>::try_from(cells) {
            out.row(&mut table, cells)?;
        }
    }
    out.finish(table)
}
