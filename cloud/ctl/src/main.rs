//! `driftless`: the coordinator, the operator's commands, the demo and the agent in one program.
//!
//! Standard output carries data, standard error carries talk; exit codes are those of
//! [`exit::Code`].

mod args;
mod client;
mod commands;
mod config;
mod demo;
mod exit;
mod output;
mod progress;
mod rehearse;
mod table;
mod target;
mod text;

use clap::Parser;
use exit::Code;
use output::Output;
use std::process::ExitCode;
use text::Style;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    if let args::Command::Agent { args } = cli.command {
        let args = std::iter::once("driftless agent".into()).chain(args);
        return edge_agent::cli::run(args);
    }
    let mut out = Output::standard(cli.global.json);
    match commands::execute(cli, &mut out) {
        Ok(code) => code.into(),
        Err(failure) if failure.code == Code::Done => Code::Done.into(),
        Err(failure) => {
            let label = Style::Bad.paint("error:", out.live);
            out.say(&format!("{label} {failure}"));
            failure.code.into()
        }
    }
}
