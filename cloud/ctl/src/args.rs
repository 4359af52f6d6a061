//! The command line: its commands, and what all of them understand. The arguments of a command
//! stand beside what it does, in `commands`.

use crate::commands::{
    access, answer, audit, authority, backup, cert, completion, config, conflicts, doctor, events,
    journal, man, node, plan, run, schedule, serve, spec, store, submit, support, task, telemetry,
    token, waits,
};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  driftless demo                                   see the main job done, on this machine alone
  driftless serve --data /var/lib/driftless/coordinator   run a coordinator
  driftless token create --name gw-7               let one gateway join
  driftless submit flow.yaml --param month=7 --wait
  driftless run list
  driftless events --follow                        what happens
  driftless task explain 4f1c clean                why a task runs where it runs, or does not

Where the coordinator is: --api or DRIFTLESS_API, else the directory in --data or DRIFTLESS_DATA, else
what /etc/driftless/coordinator.toml (or --config PATH) says.
Exit codes: 0 done · 1 failed · 2 usage · 3 not found · 4 cannot reach · 5 refused
            6 mistakes in the specification or the configuration · 7 not over in time";

/// Workflows on edge gateways that keep running when the network does not.
#[derive(Parser, Debug)]
#[command(name = "driftless", version, after_help = EXAMPLES, propagate_version = true)]
#[command(max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Global {
    /// The coordinator's API: HOST:PORT, http://HOST:PORT or https://HOST:PORT [env: DRIFTLESS_API]
    #[arg(long, global = true, value_name = "ADDR", help_heading = "Everywhere")]
    pub(crate) api: Option<String>,
    /// The coordinator's data directory [env: DRIFTLESS_DATA]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub(crate) data: Option<PathBuf>,
    /// The access token [env: DRIFTLESS_TOKEN, or DRIFTLESS_TOKEN_FILE for a file that holds it]
    #[arg(long, global = true, value_name = "TOKEN", help_heading = "Everywhere")]
    pub(crate) token: Option<String>,
    /// The certificates (PEM) that the API's must come from [env: DRIFTLESS_CA]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub(crate) ca: Option<PathBuf>,
    /// The coordinator's configuration file [env: DRIFTLESS_COORDINATOR_CONFIG]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Everywhere")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON: one object, or one a line where it is a list
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the coordinator.
    Serve(serve::Serve),
    /// Check the configuration; see and change settings of the fleet, of a label or of one node.
    #[command(subcommand)]
    Config(config::Command),
    /// Let nodes join.
    #[command(subcommand)]
    Token(token::Command),
    /// Decide who may use the API.
    #[command(subcommand)]
    Access(access::Command),
    /// Read what operators did.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Read what happened, and what happens.
    Events(events::Events),
    /// See where the tasks of a workflow would run, before it is submitted.
    Plan(plan::Plan),
    /// Rehearse a workflow on an imagined fleet, under the faults that you fear.
    Rehearse(Box<crate::rehearse::args::Rehearse>),
    /// Start a run of a workflow.
    Submit(submit::Submit),
    /// See and steer runs.
    #[command(subcommand)]
    Run(run::Command),
    /// See the tasks of a run.
    #[command(subcommand)]
    Task(task::Command),
    /// Answer a question of a task. The gateway decides which answer counts.
    Answer(answer::Answer),
    /// See the nodes.
    #[command(subcommand)]
    Node(node::Command),
    /// See what nodes measured of themselves.
    #[command(subcommand)]
    Telemetry(telemetry::Command),
    /// Check the coordinator: directory, disk, clock, authority, store, nodes, what waits.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor,
    /// Write what the coordinator knows of itself into a file without secrets, for whoever helps.
    SupportBundle(support::Support),
    /// See the certificates.
    #[command(subcommand)]
    Cert(cert::Command),
    /// See the fleet's authority, and exchange it.
    #[command(subcommand)]
    Authority(authority::Command),
    /// Make, see and change schedules.
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// See what waits for a person.
    #[command(subcommand)]
    Waits(waits::Command),
    /// Make, check and restore backups of the coordinator.
    #[command(subcommand)]
    Backup(backup::Command),
    /// See what was recorded and not applied.
    #[command(subcommand)]
    Conflicts(conflicts::Command),
    /// Read the logs of a coordinator (running, stopped, or in a backup), and verify their chains.
    #[command(subcommand)]
    Journal(journal::Command),
    /// Verify or compact the store of a stopped coordinator.
    #[command(subcommand)]
    Store(store::Command),
    /// Check a specification and print it with every default filled in.
    Lint(spec::Lint),
    /// Show the tasks of a specification and their edges.
    Graph(spec::Graph),
    /// See the main job done, on this machine alone.
    Demo(crate::demo::args::Demo),
    #[command(hide = true)]
    DemoRelay(crate::demo::args::Relay),
    #[command(hide = true)]
    DemoChild(crate::demo::args::Child),
    #[command(hide = true)]
    DemoFigures(crate::demo::args::Figures),
    /// Print what a shell needs to complete commands and flags.
    Completion(completion::Completion),
    /// Write a manual page for each command of both programs.
    Man(man::Man),
    /// The agent, as on a gateway (the same as the program driftless-agent).
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Agent {
        /// The agent's own command and flags; `driftless agent --help` lists them.
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGS"
        )]
        args: Vec<OsString>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_contract_is_understood() {
        for line in [
            "driftless serve --data D --listen 127.0.0.1:0 --api 127.0.0.1:0 --json",
            "driftless config check --config F --json",
            "driftless config get --node gw-7 max_retries",
            "driftless config set max_retries 5 --label site=a",
            "driftless config unset max_retries --node gw-7",
            "driftless token create",
            "driftless token create --name gw-7 --expires 1h --json",
            "driftless token create --replace gw-7",
            "driftless token list",
            "driftless token revoke 4f1c",
            "driftless access create --role operator --name ci --expires 90d",
            "driftless access list --json",
            "driftless access revoke ci",
            "driftless audit list --after 3 --limit 10 --json",
            "driftless events --after 7 --follow --limit 3 --json",
            "driftless run list --api https://h:1 --token T --ca ca.pem",
            "driftless submit flow.yaml --param month=7 --param a=b=c --file x=y --wait",
            "driftless submit - --idempotency-key K --wait --timeout 5m",
            "driftless run list --json",
            "driftless run get 4f --api 127.0.0.1:1",
            "driftless run watch 4f --data D",
            "driftless run wait 4f --timeout 1m30s",
            "driftless run cancel 4f --reason late",
            "driftless run pause 4f",
            "driftless run resume 4f",
            "driftless task list 4f --json",
            "driftless task get 4f clean",
            "driftless task logs 4f clean --stream stderr --attempt 2",
            "driftless task explain 4f clean",
            "driftless task output 4f clean out.txt --to x",
            "driftless answer 4f release yes --input batch=7",
            "driftless doctor --json",
            "driftless cert list --expiring-within 30d",
            "driftless authority show --pem",
            "driftless authority rotate status --json",
            "driftless authority rotate finish --force",
            "driftless run retry 4f --failed",
            "driftless run retry 4f --from train",
            "driftless run forget 4f",
            "driftless run logs 4f -f",
            "driftless run logs 4f train --json",
            "driftless task logs 4f train --follow",
            "driftless task history 4f clean",
            "driftless conflicts list --run 4f --json",
            "driftless node list",
            "driftless node get gw-7",
            "driftless node forget gw-7",
            "driftless node release gw-7",
            "driftless node gone gw-7",
            "driftless waits list",
            "driftless completion zsh --agent",
            "driftless man pages --json",
            "driftless backup create b --data D --json",
            "driftless backup verify b",
            "driftless backup restore b --data D --accept gw-1 --accept gw-2",
            "driftless backup status",
            "driftless journal export --json",
            "driftless journal verify b --data D",
            "driftless store check --data D",
            "driftless store compact --json",
            "driftless lint flow.yaml --param a=1",
            "driftless graph flow.yaml --format mermaid",
            "driftless --json --api h:1 run list",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn the_agent_gets_its_flags_untouched() {
        let cli = parse("driftless agent run --data D --json --help -x").unwrap();
        let Command::Agent { args } = cli.command else {
            panic!("not the agent")
        };
        assert_eq!(args, ["run", "--data", "D", "--json", "--help", "-x"]);
        assert_eq!(cli.global.data, None);
    }

    #[test]
    fn wrong_command_lines_are_usage_errors() {
        for (line, said) in [
            ("driftless submit f --param month", "NAME=VALUE"),
            ("driftless token create --expires 5", "unit"),
            ("driftless token create --replace", "NAME"),
            (
                "driftless token create --name a --replace b",
                "cannot be used with",
            ),
            ("driftless graph f --format png", "mermaid"),
            ("driftless run", "Usage"),
            ("driftless run list --state happy", "partly_lost"),
            ("driftless runs list", "run"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(said), "{line}: {error}");
        }
    }
}
