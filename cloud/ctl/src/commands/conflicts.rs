//! `driftless conflicts`.

use super::list::List;
use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::{Output, or_dash, short};
use crate::table::Cell;
use crate::text::Style;
use clap::Subcommand;
use cloud_core::view::Conflict;

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List facts that were recorded and changed nothing, newest first: at most the last 64 a run.
    #[command(after_help = "\
Examples:
  driftless conflicts list
  driftless conflicts list --run 4f1c --json")]
    List {
        /// Only those of this run
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
        /// At most so many; 0 for all
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
}

pub(super) fn run(command: &Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let Command::List { run, limit } = command;
    let mut query = Vec::new();
    query.extend(run.as_ref().map(|run| format!("run={}", escape(run))));
    query.extend((*limit > 0).then(|| format!("limit={limit}")));
    let list = List {
        path: &format!("/conflicts?{}", query.join("&")),
        header: [
            "AT", "RUN", "TASK", "NODE", "EPOCH", "ATTEMPT", "FACT", "WHY",
        ],
        none: "all that was recorded was applied",
    };
    list.print(&Client::new(global)?, out, row)?;
    Ok(Code::Done)
}

fn row(one: &Conflict) -> [Cell; 8] {
    let number = |n: Option<String>| Cell::number(n.unwrap_or_else(|| "-".to_owned()));
    [
        one.at.to_string().into(),
        one.run.map_or_else(|| "-".into(), |run| short(&run)).into(),
        or_dash(one.task.as_deref()).into(),
        (&one.node).into(),
        number(one.epoch.map(|n| n.to_string())),
        number(one.number.map(|n| n.to_string())),
        Cell::number(one.fact),
        Cell::styled(&one.reason, Style::Odd),
    ]
}
