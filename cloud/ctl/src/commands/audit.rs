//! `driftless audit`.

use super::list::List;
use crate::args::Global;
use crate::client::Client;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::Cell;
use clap::Subcommand;
use cloud_core::view::Audited;

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List what operators did, oldest first: who, from where, what, when, and its result.
    #[command(after_help = "\
Examples:
  driftless audit list
  driftless audit list --after 1200
  driftless audit list --json > audit.jsonl         export it")]
    List {
        /// Only what came behind this number
        #[arg(long, value_name = "N", default_value_t = 0)]
        after: u64,
        /// At most so many; 0 for all
        #[arg(long, value_name = "N", default_value_t = 0)]
        limit: usize,
    },
}

pub(super) fn run(command: &Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let Command::List { after, limit } = command;
    let mut path = format!("/audit?after={after}");
    if *limit > 0 {
        path = format!("{path}&limit={limit}");
    }
    let list = List {
        path: &path,
        header: ["NUMBER", "WHEN", "WHO", "FROM", "WHAT", "ABOUT", "RESULT"],
        none: "nothing was done yet",
    };
    list.print(&Client::new(global)?, out, row)?;
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
