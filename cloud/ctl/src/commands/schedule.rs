//! `driftless schedule`.

use super::spec::Source;
use super::submit::send_files;
use super::who;
use crate::args::{Global, NewSchedule, Schedule as Command, ScheduleName};
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use crate::text::safe;
use cloud::api::types::{Ask, NewBackfill};
use serde::Serialize;
use shared::codec;
use shared::schedule::view::{Slot, View, details, rows};
use shared::time::Unix;

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
