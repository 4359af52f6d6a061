//! `driftless audit`.

use crate::args::{Audit as Command, Global};
use crate::client::Client;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use cloud_core::view::Audited;

pub(super) fn run(command: &Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let Command::List { after, limit } = command;
    let client = Client::new(global)?;
    let header = ["NUMBER", "WHEN", "WHO", "FROM", "WHAT", "ABOUT", "RESULT"];
    let mut table = Table::new(header, out.colour);
    let mut path = format!("/audit?after={after}");
    if *limit > 0 {
        path = format!("{path}&limit={limit}");
    }
    let mut empty = true;
    client.list(&path, |entry: Audited| {
        empty = false;
        if out.json {
            out.object(&entry)?;
        } else {
            out.row(&mut table, row(&entry))?;
        }
        Ok(true)
    })?;
    match (out.json, empty) {
        (true, _) => {}
        (false, false) => out.finish(table)?,
        (false, true) => out.say("nothing was done yet"),
    }
    Ok(Code::Done)
}

fn row(entry: &Audited) -> [Cell; 7] {
    // a name that nobody proved is marked as such
    let who = match entry.token {
        true => entry.who.clone(),
        false => format!("{} (local)", entry.who),
    };
    let result = match &entry.reason {
        Some(why) => format!("{}: {why}", entry.result),
        None => entry.result.clone(),
    };
    let about = match entry.detail.as_str() {
        "" => entry.about.clone(),
        detail => format!("{} ({detail})", entry.about),
    };
    [
        Cell::number(entry.number),
        entry.at.to_string().into(),
        who.into(),
        (&entry.from).into(),
        (&entry.what).into(),
        about.into(),
        result.into(),
    ]
}
