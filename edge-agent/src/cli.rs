//! The agent's command line: `driftless-agent …`, the same as `driftless agent …`.

use crate::check;
use crate::commands;
use crate::config;
use crate::run::{self, RunArgs};
use crate::schedule_commands;
use crate::store_commands;
use crate::support;
use crate::sync_commands;
use clap::{Args, CommandFactory, Parser, Subcommand};
use shared::time::Span;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

const LONG: &str = "\
The agent of one gateway. It runs its share of workflows from its own disk, whether or not the coordinator can \
be reached, and brings outcomes back when it can. All commands but `run` talk to the running agent over a local \
socket and need no network.";

const EXAMPLES: &str = "\
Examples:
  driftless-agent run --coordinator cloud.example:4433 --token TOKEN --name gw-7 --label site=plant-3
  driftless-agent config check        what is set, where, and all mistakes
  driftless-agent run                 a gateway that is enrolled already (or after a reboot)
  driftless-agent ps --all            what ran here, also what has ended
  driftless-agent explain RUN TASK    why it runs or does not run yet
  driftless-agent submit flow.yaml    run a workflow here, without any coordinator

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing of that name, 4 the agent does not answer, 5 refused,
            6 mistakes in the specification or the configuration";

const ANSWER_EXAMPLES: &str = "\
Examples:
  driftless-agent waits                               what is asked, and by which task
  driftless-agent answer 4f1c release yes
  driftless-agent answer 4f1c release yes --input batch=7
  driftless-agent answer 4f1c release no

One answer counts: the one that this gateway records first, whether it was given here or came from the
coordinator. The other is kept and shown with who gave it and when.";

const CHECK_EXAMPLES: &str = "\
Examples:
  driftless-agent check
  driftless-agent check --json --data /var/lib/driftless-agent

Each line is ok, warning or error, with the mend. It works without a network and without a running
agent. Exit codes: 0 no error, 1 an error";

const JOURNAL_EXAMPLES: &str = "\
Examples:
  driftless-agent journal verify
  driftless-agent journal export > journal.jsonl";

/// The agent's commands.
#[derive(Debug, Parser)]
#[command(name = "driftless-agent", version, about = "Runs workflows on this gateway", long_about = LONG, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    given: Given,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Given {
    /// Directory of the agent's state [env: DRIFTLESS_AGENT_DATA] [default: as configured, else
    /// /var/lib/driftless-agent]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The configuration file [env: DRIFTLESS_AGENT_CONFIG] [default: /etc/driftless/agent.toml, if
    /// it is there]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    pub json: bool,
}

impl Given {
    /// As flags that set keys of the configuration.
    pub(crate) fn flags(&self) -> Vec<shared::config::Flag> {
        config::data_flag(self.data.as_deref())
    }

    pub(crate) fn common(&self) -> Common {
        Common {
            data: config::data_dir(self.config.as_deref(), self.flags()),
            json: self.json,
        }
    }
}

/// What every command that asks the running agent needs.
#[derive(Debug, Clone)]
pub struct Common {
    /// Directory of the agent's state.
    pub data: PathBuf,
    /// Print JSON, one object a line.
    pub json: bool,
}

/// What to show of what was measured.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  driftless-agent telemetry                              the newest sample, and how full the ring is
  driftless-agent telemetry --since 1h --metric cpu,io   a line a series
  driftless-agent telemetry --gaps                       where values are missing, and why")]
pub(crate) struct TelemetryArgs {
    /// Show values since so long ago instead of the newest sample.
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub(crate) since: Option<Span>,
    /// Values of so long a time become one.
    #[arg(long, value_name = "DURATION", value_parser = parse_span, requires = "since")]
    pub(crate) step: Option<Span>,
    /// A series, or the beginning of a metric's name; all if absent.
    #[arg(long = "metric", value_name = "NAME", value_delimiter = ',')]
    pub(crate) metrics: Vec<String>,
    /// Show gaps instead.
    #[arg(long, conflicts_with_all = ["since", "metrics"])]
    pub(crate) gaps: bool,
}

pub(crate) fn parse_span(text: &str) -> Result<Span, String> {
    shared::spec::duration(text).map_err(|(what, mend)| format!("{what}: {mend}"))
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent (in the foreground, until SIGTERM).
    Run(Box<RunArgs>),
    /// The configuration.
    #[command(subcommand)]
    Config(Config),
    /// Show the agent, its link and what it has not brought back yet.
    #[command(after_help = "\
Examples:
  driftless-agent status
  driftless-agent status --json")]
    Status,
    /// Check this gateway: clock, disk, certificate, the way to the coordinator, kernel, store.
    #[command(after_help = CHECK_EXAMPLES)]
    Check,
    /// Show its tasks.
    #[command(after_help = "\
Examples:
  driftless-agent ps
  driftless-agent ps --all            what has ended, too")]
    Ps {
        /// Ended ones, too.
        #[arg(long)]
        all: bool,
    },
    /// Show what a task wrote.
    #[command(after_help = "\
Examples:
  driftless-agent logs 4f1c clean
  driftless-agent logs 4f1c clean --attempt 1.2
  driftless-agent logs 4f1c clean --follow")]
    Logs {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task's id.
        task: String,
        /// The attempt, as EPOCH.NUMBER; the newest if absent.
        #[arg(long)]
        attempt: Option<String>,
        /// Go on with what it writes until it is over, also in its next attempts.
        #[arg(long, short)]
        follow: bool,
    },
    /// Show what this gateway measured of itself.
    Telemetry(TelemetryArgs),
    /// Show why a task runs, or why it does not run yet.
    #[command(after_help = "\
Examples:
  driftless-agent explain 4f1c clean")]
    Explain {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task's id.
        task: String,
    },
    /// Run a workflow on this gateway.
    #[command(after_help = "\
Examples:
  driftless-agent submit flow.yaml --param month=7
  driftless-agent submit flow.yaml --file table=july.csv
  generate | driftless-agent submit -")]
    Submit {
        /// The specification; - reads it from standard input.
        file: PathBuf,
        /// A parameter.
        #[arg(long = "param", value_name = "NAME=VALUE")]
        params: Vec<String>,
        /// A file to send along.
        #[arg(long = "file", value_name = "NAME=PATH")]
        files: Vec<String>,
    },
    /// End a run on this gateway.
    #[command(after_help = "\
Examples:
  driftless-agent cancel 4f1c --reason \"wrong month\"")]
    Cancel {
        /// A run, or the unique beginning of its id.
        run: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Begin nothing more of a run until `resume` (what runs goes on).
    #[command(after_help = "\
Examples:
  driftless-agent pause 4f1c")]
    Pause {
        /// A run, or the unique beginning of its id.
        run: String,
    },
    /// Show what waits for a person here, oldest first, with the command that ends each wait.
    #[command(after_help = "\
Examples:
  driftless-agent waits
  driftless-agent waits --json")]
    Waits,
    /// Answer a question of a task, without any network.
    #[command(after_help = ANSWER_EXAMPLES)]
    Answer {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task that asks.
        task: String,
        /// yes approves it, no rejects it: the task fails.
        #[arg(value_name = "yes|no", value_parser = ["yes", "no"])]
        answer: String,
        /// A field that the question asks for.
        #[arg(long = "input", value_name = "NAME=VALUE")]
        input: Vec<String>,
    },
    /// Let a paused, lost or failed task run again, and what fell with it wait for it again.
    #[command(after_help = "\
Examples:
  driftless-agent retry 4f1c clean")]
    Retry {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task's id.
        task: String,
    },
    /// Let a paused run, or a paused, lost or failed task, go on.
    #[command(after_help = "\
Examples:
  driftless-agent resume 4f1c
  driftless-agent resume 4f1c clean   only this task")]
    Resume {
        /// A run, or the unique beginning of its id.
        run: String,
        /// Only this task: run it again.
        task: Option<String>,
    },
    /// Make, show and change schedules that fire on this gateway.
    #[command(subcommand)]
    Schedule(schedule_commands::Command),
    /// Write what this gateway knows of itself into a file without secrets, for whoever helps.
    SupportBundle(support::SupportArgs),
    /// Show and pause what goes to the coordinator.
    #[command(subcommand)]
    Sync(sync_commands::Command),
    /// Verify or compact the store of a stopped agent.
    #[command(subcommand)]
    Store(store_commands::Command),
    /// Read the journal, whether or not the agent runs.
    #[command(subcommand)]
    Journal(Journal),
}

#[derive(Debug, Subcommand)]
#[command(after_help = JOURNAL_EXAMPLES)]
enum Journal {
    /// Print every fact and directive that is there as a JSON line: number, hash, content.
    #[command(after_help = JOURNAL_EXAMPLES)]
    Export,
    /// Recompute the hash chains of both logs and compare them with what is stored. Exit code 1: a
    /// chain is broken, with the first entries that do not fit.
    #[command(after_help = JOURNAL_EXAMPLES)]
    Verify,
}

#[derive(Debug, Subcommand)]
enum Config {
    /// Find all mistakes of the configuration, or show what holds and where each value comes from.
    #[command(after_help = "\
Examples:
  driftless-agent config check
  driftless-agent config check --config new.toml && sudo cp new.toml /etc/driftless/agent.toml

Exit codes: 0 no mistake, 6 mistakes (each with file, line, what is wrong, and the mend)")]
    Check,
}

/// The whole command line, for completions and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses `args` (the first one is the program's name) and does what they say.
#[must_use]
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let Cli { given, command } = cli;
    let common = given.common();
    match command {
        Command::Run(args) => run::main(&given, &args),
        Command::Config(Config::Check) => commands::check_config(&given),
        Command::Status => commands::status(&common),
        Command::Check => check::main(&given),
        Command::Ps { all } => commands::ps(&common, all),
        Command::Logs {
            run,
            task,
            attempt,
            follow: true,
        } => crate::tail::follow(&common, run, task, attempt),
        Command::Logs {
            run, task, attempt, ..
        } => commands::logs(&common, run, task, attempt),
        Command::Telemetry(args) => commands::telemetry(&common, &args),
        Command::Explain { run, task } => commands::explain(&common, run, task),
        Command::Submit {
            file,
            params,
            files,
        } => commands::submit(&common, &file, &params, &files),
        Command::Cancel { run, reason } => commands::cancel(&common, run, reason),
        Command::Waits => commands::waits(&common),
        Command::Answer {
            run,
            task,
            answer,
            input,
        } => commands::answer(&common, run, task, answer == "yes", &input),
        Command::Pause { run } => commands::pause(&common, run, true),
        Command::Retry { run, task }
        | Command::Resume {
            run,
            task: Some(task),
        } => commands::resume(&common, run, task),
        Command::Resume { run, task: None } => commands::pause(&common, run, false),
        Command::SupportBundle(args) => support::main(&given, &args),
        Command::Journal(command) => {
            crate::journal::run(&common, matches!(command, Journal::Export))
        }
        Command::Schedule(command) => schedule_commands::run(&common, command),
        Command::Sync(command) => sync_commands::run(&common, command),
        Command::Store(command) => store_commands::run(&common, command),
    }
}
