//! `driftless waits`.

use super::list::List;
use crate::args::Global;
use crate::client::Client;
use crate::exit::{Code, Failure};
use crate::output::{Output, or_dash, short};
use crate::table::Cell;
use crate::text::{Style, ago, now};
use clap::Subcommand;
use cloud_core::view::Wait;

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List everything that waits for a person, oldest first.
    #[command(after_help = "\
Examples:
  driftless waits list
  driftless waits list --json")]
    List,
}

pub(super) fn run(command: &Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let Command::List = command;
    let list = List {
        path: "/waits",
        header: ["SINCE", "RUN", "TASK", "NODE", "WAITS FOR", "ENDS WITH"],
        none: "nothing waits for a person",
    };
    list.print(&Client::new(global)?, out, row)?;
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
