//! The command line: every command, flag and help text. What they do is in `commands`.

use crate::text::parse_span;
mod schedule;

pub(crate) use schedule::{NewSchedule, Schedule, ScheduleName};

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use cloud_core::access::Role;
use shared::state::{RunState, TaskState};
use shared::time::Span;
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  driftless demo                                   see the main job done, on this machine alone
  driftless serve --data /var/lib/driftless        run a coordinator
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

const DOCTOR_EXAMPLES: &str = "\
Examples:
  driftless doctor
  sudo driftless doctor --data /var/lib/driftless/coordinator --json
  driftless doctor --api HOST:PORT                 from afar: only what the coordinator itself says

Each line is ok, warning or error, with the mend. It changes nothing and works also when the
coordinator does not run. Exit codes: 0 no error, 1 an error";

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
    Serve(Serve),
    /// Check the configuration; see and change settings of the fleet, of a label or of one node.
    #[command(subcommand)]
    Config(Config),
    /// Let nodes join.
    #[command(subcommand)]
    Token(Token),
    /// Decide who may use the API.
    #[command(subcommand)]
    Access(Access),
    /// Read what operators did.
    #[command(subcommand)]
    Audit(Audit),
    /// Read what happened, and what happens.
    Events(Events),
    /// Start a run of a workflow.
    Submit(Submit),
    /// See and steer runs.
    #[command(subcommand)]
    Run(Run),
    /// See the tasks of a run.
    #[command(subcommand)]
    Task(Task),
    /// Answer a question of a task. The gateway decides which answer counts.
    Answer(Answer),
    /// See the nodes.
    #[command(subcommand)]
    Node(Node),
    /// See what nodes measured of themselves.
    #[command(subcommand)]
    Telemetry(Telemetry),
    /// Check the coordinator: directory, disk, clock, authority, store, nodes, what waits.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor,
    /// See the certificates.
    #[command(subcommand)]
    Cert(Cert),
    /// Make, see and change schedules.
    #[command(subcommand)]
    Schedule(Schedule),
    /// See what waits for a person.
    #[command(subcommand)]
    Waits(Waits),
    /// Make, check and restore backups of the coordinator.
    #[command(subcommand)]
    Backup(Backup),
    /// Check a specification and print it with every default filled in.
    Lint(Lint),
    /// Show the tasks of a specification and their edges.
    Graph(Graph),
    /// See the main job done, on this machine alone.
    Demo(crate::demo::args::Demo),
    #[command(hide = true)]
    DemoRelay(crate::demo::args::Relay),
    #[command(hide = true)]
    DemoChild(crate::demo::args::Child),
    #[command(hide = true)]
    DemoFigures(crate::demo::args::Figures),
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

/// Run the coordinator until it is told to stop (Ctrl-C or SIGTERM).
#[derive(Args, Debug, Default)]
#[command(after_help = "\
Examples:
  driftless serve
  driftless serve --config /etc/driftless/coordinator.toml
  driftless serve --data /var/lib/driftless --listen 0.0.0.0:4433 --api 127.0.0.1:4480

The data directory holds the state, the keys and the files; it is made if it does not exist, and only
one coordinator uses it at a time. Without --data: DRIFTLESS_DATA, else what the configuration says, else
/var/lib/driftless/coordinator for root and ~/.local/state/driftless/coordinator for others. A flag wins
over its environment variable (DRIFTLESS_COORDINATOR_ and the key's name in capitals), that over the
configuration file, /etc/driftless/coordinator.toml if it is there. With --api ADDR the API listens there
(127.0.0.1:4480 without it). On loopback every program of this machine may use it; elsewhere it speaks
TLS and asks for access tokens (`driftless access create`).
Port 0 takes a free port; DIR/quic.addr and DIR/api.addr say which.")]
pub(crate) struct Serve {
    /// Where agents connect (QUIC over UDP) [default: 0.0.0.0:4433]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Most bytes that the file store may take [default: 16GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) file_budget: Option<String>,
    /// How long runs are kept after their end [default: 7d]
    #[arg(long, value_name = "DURATION")]
    pub(crate) retention: Option<String>,
    /// How long a node's certificate is good, renewed after two thirds of that [default: 90d]
    #[arg(long, value_name = "DURATION")]
    pub(crate) certificate_life: Option<String>,
    /// How long an expired certificate may still be renewed [default: 365d]
    #[arg(long, value_name = "DURATION")]
    pub(crate) renewal_grace: Option<String>,
    /// How the log is written: text or json [default: text, json with --json]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log: Option<String>,
    /// Ask for TLS and access tokens on loopback, too
    #[arg(long)]
    pub(crate) api_tls: bool,
    /// The API's own certificate chain (PEM) [default: the fleet's authority makes one]
    #[arg(long, value_name = "FILE", requires = "api_key")]
    pub(crate) api_cert: Option<String>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "api_cert")]
    pub(crate) api_key: Option<String>,
    /// A name or address under which the API is reached (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub(crate) api_name: Vec<String>,
    /// Make backups by itself, in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) backup_dir: Option<String>,
    /// How often [default: 1d]
    #[arg(long, value_name = "DURATION")]
    pub(crate) backup_every: Option<String>,
    /// How many of them are kept [default: 7]
    #[arg(long, value_name = "N")]
    pub(crate) backup_keep: Option<String>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Config {
    /// Find all mistakes of the configuration, or show what holds and where each value comes from.
    #[command(after_help = "\
Examples:
  driftless config check
  driftless config check --config new.toml && sudo cp new.toml /etc/driftless/coordinator.toml

Exit codes: 0 no mistake, 6 mistakes (each with file, line, what is wrong, and the mend)")]
    Check,
    /// Show the settings of the fleet, of a label or of one node, and where each comes from.
    #[command(after_help = SETTINGS)]
    Get {
        #[command(flatten)]
        of: Of,
        /// Only this one
        #[arg(value_name = "KEY")]
        key: Option<String>,
    },
    /// Change a setting; running nodes follow at once, others when they return.
    #[command(after_help = SETTINGS)]
    Set {
        #[command(flatten)]
        of: Of,
        /// Which, as max_retries
        #[arg(value_name = "KEY")]
        key: String,
        /// In the grammar of the configuration, as 5 or 90s
        #[arg(value_name = "VALUE", allow_hyphen_values = true)]
        value: String,
    },
    /// Leave a setting to the next wider one: node, label, fleet, configuration, default.
    #[command(after_help = SETTINGS)]
    Unset {
        #[command(flatten)]
        of: Of,
        /// Which, as max_retries
        #[arg(value_name = "KEY")]
        key: String,
    },
}

const SETTINGS: &str = "\
Examples:
  driftless config get
  driftless config set max_retries 5
  driftless config set backoff_duration 2m --label site=plant-3
  driftless config unset backoff_duration --label site=plant-3
  driftless config get --node gw-7                 what holds there, and whether gw-7 has confirmed it

Keys: resource_monitor_interval (default 3s), backoff_duration (30s: retry.initial_interval of tasks that
do not say it), max_retries (3: retry.max_attempts of tasks that do not say it, less the first attempt).
A node's setting wins over those of its labels, these over the fleet's, that over the configuration.";

/// For whom a setting holds; the fleet if neither is given.
#[derive(Args, Debug, Default)]
pub(crate) struct Of {
    /// One node, by name or id
    #[arg(long, value_name = "NODE", conflicts_with = "label")]
    pub(crate) node: Option<String>,
    /// The nodes with this label
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Option<String>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Token {
    /// Make a token that lets one node join, once.
    #[command(after_help = "\
Examples:
  driftless token create --name gw-7
  driftless token create --replace gw-7     gw-7 was re-imaged and lost its directory
  T=$(driftless token create --expires 15m)

The token is a secret and printed once. It carries the fingerprint of this coordinator's authority.")]
    Create {
        /// The only node name that it may enrol
        #[arg(long)]
        name: Option<String>,
        /// How long it is good
        #[arg(long, value_name = "DURATION", default_value = "1h",
              value_parser = crate::text::parse_span)]
        expires: Span,
        /// Let it take the place of the enrolled node of this name, and of no other: the work of
        /// its lost directory is lost, and its old key is revoked
        #[arg(long, value_name = "NAME", conflicts_with = "name")]
        replace: Option<String>,
    },
    /// List the tokens: open ones, and for a week those that are used, void or expired.
    List,
    /// Make a token void before it is used.
    Revoke {
        /// Its id, or the beginning of it, as `token list` shows it
        id: String,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum Access {
    /// Make a token for the API.
    #[command(after_help = "\
Examples:
  driftless access create --role viewer --name dashboard
  driftless access create --role operator --name ci --expires 90d
  DRIFTLESS_TOKEN=$(driftless access create --role admin --name ann)

A viewer reads; an operator also starts and steers runs; an admin also decides who belongs to the fleet
and who may use the API. The token is a secret and printed once. The API asks for one where it is not on
loopback, or with `serve --api-tls`. Commands that can read the coordinator's data directory need none.")]
    Create {
        /// What its bearer may do
        #[arg(long, value_name = "ROLE", value_parser = roles())]
        role: String,
        /// Its name, shown with whatever is done with it
        #[arg(long)]
        name: String,
        /// How long it is good; until it is revoked without it
        #[arg(long, value_name = "DURATION", value_parser = crate::text::parse_span)]
        expires: Option<Span>,
    },
    /// List the tokens.
    List,
    /// End a token: who shows it is refused at once.
    Revoke {
        /// Its name
        name: String,
    },
}

fn roles() -> PossibleValuesParser {
    PossibleValuesParser::new(Role::ALL.iter().map(|role| role.text()))
}

#[derive(Subcommand, Debug)]
pub(crate) enum Audit {
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

/// Read what happened: runs, tasks, nodes and their sessions, conflicts, operators' actions.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless events
  driftless events --follow --json
  driftless events --after 4711 --follow           go on behind event 4711

Events are numbered without gap, also over restarts of the coordinator. A reader that knows the last
number it saw misses nothing and sees nothing twice. A number that is no longer kept is refused with the
first one that is.")]
pub(crate) struct Events {
    /// Only what came behind this number; without it from the first that is kept
    #[arg(long, value_name = "N")]
    pub(crate) after: Option<u64>,
    /// Go on with what happens from now on
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

/// Check a specification, send it with its files, and start a run.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless submit flow.yaml
  driftless submit flow.yaml --param month=7 --param mode=night --wait
  driftless submit report.yaml --file stations.csv=data/stations.csv
  driftless submit flow.yaml --idempotency-key nightly-2026-11-23

With --wait the exit code says how the run ended: 0 succeeded, 1 failed, cancelled or partly lost.")]
pub(crate) struct Submit {
    /// The specification (YAML); - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) given: Given,
    /// Wait until the run is over, and show how it goes
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait: give up waiting (not the run) after this time, with exit code 7
    #[arg(long, value_name = "DURATION", requires = "wait",
          value_parser = crate::text::parse_span)]
    pub(crate) timeout: Option<Span>,
    /// Submitting again with the same key gives the run of the first time
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

/// What is given along with a specification.
#[derive(Args, Debug, Default)]
pub(crate) struct Given {
    /// A parameter's value (may be repeated)
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = crate::text::parse_pair)]
    pub(crate) params: Vec<(String, String)>,
    /// A file for the input of that name (may be repeated)
    #[arg(long = "file", value_name = "NAME=PATH", value_parser = crate::text::parse_pair)]
    pub(crate) files: Vec<(String, String)>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Run {
    /// List the runs, newest first.
    List {
        /// Only those in this state
        #[arg(long, value_name = "STATE", value_parser = run_states())]
        state: Option<String>,
        /// At most so many; 0 for all
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Show one run.
    Get {
        /// The run's id, or the beginning of it
        run: String,
    },
    /// Show how a run goes until it is over (Ctrl-C stops watching, not the run).
    Watch {
        /// The run's id, or the beginning of it
        run: String,
    },
    /// Wait until a run is over; the exit code says how: 0 succeeded, 1 not, 7 not over in time.
    Wait {
        /// The run's id, or the beginning of it
        run: String,
        /// Give up waiting (not the run) after this time
        #[arg(long, value_name = "DURATION", value_parser = crate::text::parse_span)]
        timeout: Option<Span>,
    },
    /// Ask for a run's end. Nodes that cannot be reached follow when they are heard again.
    Cancel {
        /// The run's id, or the beginning of it
        run: String,
        /// Why; shown with the run
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Ask that nothing more of a run begins; what runs goes on to its end.
    Pause {
        /// The run's id, or the beginning of it
        run: String,
    },
    /// Let a paused run go on.
    Resume {
        /// The run's id, or the beginning of it
        run: String,
    },
}

fn run_states() -> PossibleValuesParser {
    PossibleValuesParser::new(RunState::ALL.iter().map(|state| state.text()))
}

fn task_states() -> PossibleValuesParser {
    PossibleValuesParser::new(TaskState::ALL.iter().map(|state| state.text()))
}

/// Names a task of a run.
#[derive(Args, Debug)]
pub(crate) struct TaskName {
    /// The run's id, or the beginning of it
    pub(crate) run: String,
    /// The task's id in the specification
    pub(crate) task: String,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Task {
    /// List the tasks of a run, in the order of the specification.
    List {
        /// The run's id, or the beginning of it
        run: String,
        /// Only those in this state
        #[arg(long, value_name = "STATE", value_parser = task_states())]
        state: Option<String>,
    },
    /// Show a task with its attempts and outputs.
    Get(TaskName),
    /// Show why a task runs where it runs, or why it does not run yet.
    Explain(TaskName),
    /// Print what a task wrote, as kept on its gateway.
    Logs {
        #[command(flatten)]
        name: TaskName,
        /// Which of its streams
        #[arg(long, value_enum, default_value_t = Stream::Stdout)]
        stream: Stream,
        /// Which of its attempts; the last one without it
        #[arg(long, value_name = "N")]
        attempt: Option<u32>,
    },
    /// Get one of a task's outputs.
    Output {
        #[command(flatten)]
        name: TaskName,
        /// The output's name or path; may be left out when there is only one
        output: Option<String>,
        /// Write it to this file and not to standard output
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

/// Answer a question that a task puts to a person.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless waits list                            what is asked, with the command that answers it
  driftless answer 4f1c release yes
  driftless answer 4f1c release yes --input batch=7
  driftless answer 4f1c release no

The answer goes to the gateway that owns the task, at the latest when it is heard again. One answer
counts: the one that the gateway records first, whether it came from here or was given there with
`driftless-agent answer`. `driftless task get RUN TASK` shows all of them. yes: the task succeeds;
no: it fails.")]
pub(crate) struct Answer {
    #[command(flatten)]
    pub(crate) name: TaskName,
    /// Approve, or reject
    #[arg(value_name = "yes|no", value_parser = ["yes", "no"])]
    pub(crate) answer: String,
    /// A field that the question asks for (may be repeated)
    #[arg(long = "input", value_name = "NAME=VALUE", value_parser = crate::text::parse_pair)]
    pub(crate) input: Vec<(String, String)>,
}

/// One of a process's two streams.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
}

impl Stream {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

#[derive(Subcommand, Debug)]
pub(crate) enum Node {
    /// List the nodes.
    List,
    /// Show one node.
    Get {
        /// Its name or id
        node: String,
    },
    /// Declare a node gone: its work is lost and placed again as its specification allows.
    Forget {
        /// Its name or id
        node: String,
    },
    /// Free a quarantined node: the next caller with its identity is taken for the original.
    Release {
        /// Its name or id
        node: String,
    },
    /// Say that a node will not come back after a restore: the hold of old runs waits for it no
    /// longer.
    Gone {
        /// Its name or id
        node: String,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum Telemetry {
    /// Show values over a time: one line a series, or one a step.
    Query(TelemetryQuery),
    /// Show where values are missing, and why.
    Gaps {
        /// Name or id of the node
        node: String,
    },
}

/// Which values.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless telemetry query gw-7                                  the last hour, a line a series
  driftless telemetry query gw-7 --metric cpu,memory --since 7d
  driftless telemetry query gw-7 --metric 'disk_busy_permille{sda}' --step 10m
  driftless telemetry query gw-7 --since 10m --json               every value as it was received

Old values of a node that was offline for long are means, minima and maxima of a minute, a quarter of an
hour or an hour. docs/telemetry.md lists the metrics.")]
pub(crate) struct TelemetryQuery {
    /// Name or id of the node
    pub(crate) node: String,
    /// A series, or the beginning of a metric's name; all if absent
    #[arg(long = "metric", value_name = "NAME", value_delimiter = ',')]
    pub(crate) metrics: Vec<String>,
    /// How long ago the time begins
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_span)]
    pub(crate) since: Span,
    /// How long ago it ends [default: now]
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub(crate) until: Option<Span>,
    /// Show each step of so long a time
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub(crate) step: Option<Span>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Cert {
    /// List the nodes' certificates, those that expire first on top.
    #[command(after_help = "\
Examples:
  driftless cert list
  driftless cert list --expiring-within 30d        also those that have expired

Nodes renew their certificates by themselves; one that is in this list for long is offline.")]
    List {
        /// Only those that expire within this time, or have expired
        #[arg(long, value_name = "DURATION", value_parser = parse_span)]
        expiring_within: Option<Span>,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum Waits {
    /// List everything that waits for a person, oldest first.
    List,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Backup {
    /// Make a backup, while the coordinator runs or of one that is stopped.
    #[command(after_help = "\
Examples:
  driftless backup create /backup/monday.backup
  driftless backup create monday.backup --api coordinator:4480
  driftless backup create monday.backup --data /var/lib/driftless    also when it is stopped

It holds the state, the files that the state names, and the authority's keys: guard it like them. It is
consistent, is written beside PATH, read once whole, synced and then named PATH. Once a running
coordinator knows that, gateways may remove what it holds of theirs.")]
    Create {
        /// The file that is made
        path: PathBuf,
    },
    /// Check every hash of a backup, open its store, and say what is in it.
    #[command(after_help = "\
Example:
  driftless backup verify /backup/monday.backup

The store is made in a temporary directory (TMPDIR), which needs room for it.")]
    Verify {
        /// The backup
        path: PathBuf,
    },
    /// Make a data directory from a backup.
    #[command(after_help = "\
Examples:
  driftless backup restore /backup/monday.backup --data /var/lib/driftless
  driftless backup restore monday.backup --data new --accept gw-7     gw-7 will not come back

The directory must be new or empty. The next `serve` on it begins a new generation: open tokens are void,
and old runs stand still until every node was heard, or is accepted as gone (here, or later by
`driftless node gone`). Nothing is deleted at the gateways; what they know better counts.")]
    Restore {
        /// The backup
        path: PathBuf,
        /// A node that will not come back: the hold does not wait for it (may be repeated)
        #[arg(long, value_name = "NODE")]
        accept: Vec<String>,
    },
    /// Show when the newest backup was finished.
    Status,
}

/// Check a specification: all mistakes at once, or the whole of it with every default.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless lint flow.yaml
  driftless lint flow.yaml --param month=7 > expanded.yaml")]
pub(crate) struct Lint {
    /// The specification (YAML); - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) given: Given,
}

/// Show the tasks of a specification and their edges, after transitive reduction.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless graph flow.yaml
  driftless graph flow.yaml --format dot | dot -Tsvg > flow.svg
  driftless graph flow.yaml --format svg > flow.svg")]
pub(crate) struct Graph {
    /// The specification (YAML); - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) given: Given,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// How a graph is written.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Levels of tasks, for a terminal
    Text,
    /// Graphviz
    Dot,
    /// Mermaid
    Mermaid,
    /// A picture
    Svg,
    /// For programs
    Json,
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
            "driftless node list",
            "driftless node get gw-7",
            "driftless node forget gw-7",
            "driftless node release gw-7",
            "driftless node gone gw-7",
            "driftless waits list",
            "driftless backup create b --data D --json",
            "driftless backup verify b",
            "driftless backup restore b --data D --accept gw-1 --accept gw-2",
            "driftless backup status",
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
