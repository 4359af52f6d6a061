//! `driftless waits`.

use crate::args::{Global, Waits};
use crate::client::Client;
use crate::exit::{Code, Failure};
use crate::output::{Output, or_dash, short};
use crate::table::{Cell, Table};
use crate::text::{Style, ago, now};
use cloud_core::view::Wait;

pub(super) fn run(command: &Waits, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let Waits::List = command;
    let client = Client::new(global)?;
    let mut table = Table::new(
        ["SINCE", "RUN", "TASK", "NODE", "WAITS FOR", "ENDS WITH"],
        out.colour,
    );
    let mut empty = true;
    client.list("/waits", |wait: Wait| {
        empty = false;
        if out.json {
            out.object(&wait)?;
        } else {
            out.row(&mut table, row(&wait))?;
        }
        Ok(true)
    })?;
    match (out.json, empty) {
        (true, _) => {}
        (false, true) => out.say("nothing waits for a person"),
        (false, false) => out.finish(table)?,
    }
    Ok(Code::Done)
}

fn row(wait: &Wait) -> [Cell; 6] {
    [
        ago(wait.since, now()).into(),
        wait.run
            .map_or_else(|| "-".into(), |run| short(&run))
            .into(),
        or_dash(wait.task.as_deref()).into(),
        or_dash(wait.node.as_deref()).into(),
        Cell::styled(&wait.what, Style::Odd),
        or_dash(wait.command.as_deref()).into(),
    ]
}
