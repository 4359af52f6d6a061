//! `driftless completion`.

use crate::args::Cli;
use crate::exit::{Code, Failure};
use crate::output::Output;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print what a shell needs to complete commands and flags.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless completion bash > /etc/bash_completion.d/driftless
  driftless completion zsh > ~/.zfunc/_driftless
  driftless completion bash --agent > /etc/bash_completion.d/driftless-agent")]
pub(crate) struct Completion {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
    /// For the program driftless-agent
    #[arg(long)]
    agent: bool,
}

/// The program's command line with the agent's own commands, and without those that are hidden.
fn shown() -> clap::Command {
    let all = Cli::command();
    let commands = all.get_subcommands().filter(|one| !one.is_hide_set());
    let commands = commands.map(|one| match one.get_name() {
        "agent" => edge_agent::cli::command().name("agent"),
        _ => one.clone(),
    });
    clap::Command::new("driftless")
        .args(all.get_arguments())
        .subcommands(commands)
}

pub(super) fn run(args: &Completion, out: &mut Output) -> Result<Code, Failure> {
    let mut command = match args.agent {
        true => edge_agent::cli::command(),
        false => shown(),
    };
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Code::Done)
}
