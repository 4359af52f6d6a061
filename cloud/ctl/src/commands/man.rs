//! `driftless man`.

use crate::args::Cli;
use crate::exit::{Code, Failure};
use crate::output::Output;
use clap::{Args, CommandFactory};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// Write a manual page for each command of both programs.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless man /usr/local/share/man/man1
  driftless man pages && man pages/driftless-run-list.1")]
pub(crate) struct Man {
    /// The directory; made if it is not there. Pages of the same names are written anew
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// What was written, as `--json` prints it.
#[derive(Serialize)]
struct Written<'a> {
    dir: &'a Path,
}

pub(super) fn run(args: &Man, out: &mut Output) -> Result<Code, Failure> {
    let dir = args.dir.as_path();
    let failed = |error: std::io::Error| {
        let what = format!("cannot write manual pages to {}: {error}", dir.display());
        Failure::new(Code::Failed, what)
    };
    fs::create_dir_all(dir).map_err(failed)?;
    // The agent's own pages take the place of that of `driftless agent`, which is the same.
    for command in [Cli::command(), edge_agent::cli::command()] {
        clap_mangen::generate_to(command, dir).map_err(failed)?;
    }
    if out.json {
        out.object(&Written { dir })?;
    } else {
        out.say(&format!("the manual pages are in {}", dir.display()));
    }
    Ok(Code::Done)
}
