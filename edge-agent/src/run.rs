//! `run`: opens the data directory, ends what an earlier agent left, resumes all work, and only
//! then dials.

use crate::begin::{self, BeginError, store_identity};
use crate::cli::Given;
use crate::clock;
use crate::commands;
use crate::config::{self, Settings};
use crate::data::{self, DataDir, DataError, Identity};
use crate::enrolling;
use crate::linking::{self, LinkCommand, LinkOptions};
use crate::local;
use crate::looping::{self, Ending, Loop, Message, Parts};
use crate::mailbox::Handle;
use crate::metrics::Metrics;
use crate::sweep::Sweep;
use crate::telemetry::{self, Telemetry};
use clap::Args;
use edge_core::driver::Driver;
use edge_core::event::{Boot, Config};
use edge_core::telemetry::Limits;
use edge_exec as exec;
use edge_store::RedbStore;
use shared::config::scheduler::Scheduler;
use shared::ids::{Incarnation, NodeId};
use shared::taint::Taint;
use shared::time::Span;
use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

fn taint(text: &str) -> Result<Taint, String> {
    text.parse()
        .map_err(|error: shared::taint::NoTaint| error.to_string())
}

/// `run`'s options. Each but the token is also a key of the configuration.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  driftless-agent run                                       what /etc/driftless/agent.toml says
  driftless-agent run --coordinator cloud.example:4433 --token TOKEN --name gw-7
  driftless-agent run --config gw.toml --idle-timeout 90s

A flag wins over its environment variable (DRIFTLESS_AGENT_ and the key's name in capitals), that over
the configuration file; `driftless-agent config check` shows what holds, and where it comes from.")]
pub struct RunArgs {
    /// The coordinator to enrol with and to dial; kept for later starts. Several are tried in turn.
    #[arg(long = "coordinator", value_name = "HOST:PORT")]
    pub coordinators: Vec<String>,
    /// A token made by `driftless token create`; needed once.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "DRIFTLESS_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// A file with such a token; removed when it was used.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<String>,
    /// This gateway's name; needed once.
    #[arg(long)]
    pub name: Option<String>,
    /// A label, for placement; `site` names the LAN.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// A taint, which keeps work off this gateway that does not tolerate it; EFFECT is `refuse` or
    /// `avoid`.
    #[arg(long = "taint", value_name = "KEY[=VALUE]:EFFECT", value_parser = taint)]
    pub taints: Vec<Taint>,
    /// Cores that tasks may use in all; all of the machine's if absent.
    #[arg(long, value_name = "CORES")]
    pub cpus: Option<String>,
    /// Attempts that run at once, whatever they ask for; as many as there are cores if absent.
    #[arg(long, value_name = "COUNT")]
    pub slots: Option<String>,
    /// Memory that tasks may use in all (a bare number: MiB); all of the machine's if absent.
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Room for the attempts' directories in all (a bare number: MiB); the data directory's whole
    /// file system if absent.
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<String>,
    /// GPUs that tasks may use in all [default: 0]
    #[arg(long, value_name = "GPUS")]
    pub gpus: Option<String>,
    /// Something else that tasks may ask for (`resources.custom`).
    #[arg(long = "resource", value_name = "NAME=COUNT")]
    pub resources: Vec<String>,
    /// A directory whose files workflows may name as `file:/…` inputs.
    #[arg(long = "allow-read", value_name = "DIR")]
    pub allow_read: Vec<PathBuf>,
    /// User that tasks run as when the agent is root [default: 65534:65534]
    #[arg(long, value_name = "UID:GID")]
    pub run_as: Option<String>,
    /// Let tasks run as root when the agent is root.
    #[arg(long)]
    pub allow_root: bool,
    /// Most bytes of the file store (a bare number: MiB) [default: 4GiB]
    #[arg(long, value_name = "SIZE")]
    pub file_budget: Option<String>,
    /// How long runs submitted here are kept after their end (a bare number: days), if the gateway
    /// has no coordinator [default: 7d]
    #[arg(long, value_name = "DURATION")]
    pub keep_runs: Option<String>,
    /// Time between TERM and KILL for tasks when the agent stops (a bare number: seconds)
    /// [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub stop_grace: Option<String>,
    /// Time after which a silent link counts as down (a bare number: seconds) [default: 1m]
    #[arg(long, value_name = "DURATION")]
    pub idle_timeout: Option<String>,
    /// Longest pause between dials (a bare number: seconds) [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub redial_max: Option<String>,
    /// Time between two measurements of the machine (a bare number: seconds) [default: 3s]
    #[arg(long, value_name = "DURATION")]
    pub monitor_interval: Option<String>,
    /// What telemetry may take of the link, in a second, on average (a bare number: KiB)
    /// [default: 16KiB]
    #[arg(long, value_name = "SIZE")]
    pub telemetry_rate: Option<String>,
    /// What telemetry may take of the disk (a bare number: MiB) [default: 8MiB]
    #[arg(long, value_name = "SIZE")]
    pub telemetry_budget: Option<String>,
    /// Pressure from which on new starts wait, or `off`: percent of 10 s that tasks stall for cpu,
    /// memory or io, percent of memory that must be available, degrees of temperature
    /// [default: memory=20,available=2,temperature=100]
    #[arg(long, value_name = "LIMITS")]
    pub hold_above: Option<String>,
    /// Where figures for Prometheus can be read, with /healthz and /readyz: IP:PORT, or a port of
    /// loopback; nowhere if absent.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<String>,
    /// Log format: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log: Option<String>,
}

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Begin(#[from] BeginError),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Other(String),
}

fn other(what: &str) -> impl Fn(&dyn std::fmt::Display) -> StartError {
    let what = what.to_owned();
    move |error| StartError::Other(format!("{what}: {error}"))
}

/// Runs the agent until it is stopped.
#[must_use]
pub fn main(given: &Given, args: &RunArgs) -> ExitCode {
    crate::memory::keep_little();
    let mut flags = config::flags(args);
    flags.extend(given.flags());
    let settings = match Settings::read(given.config.as_deref(), flags) {
        Ok((settings, _)) => settings,
        Err(mistakes) => return commands::mistakes(&mistakes, given.json),
    };
    start_log(&settings);
    abort_on_panic();
    let metrics = match settings.metrics.map(start_metrics).transpose() {
        Ok(metrics) => metrics,
        Err(why) => return fail(1, &why),
    };
    loop {
        match run_once(&settings, args.token.as_deref(), metrics.as_ref()) {
            Ok(Ending::Stopped) => return ExitCode::SUCCESS,
            Ok(Ending::NewIncarnation(why)) => {
                tracing::warn!(%why, "this store's history forked; going on as a new incarnation");
            }
            Ok(Ending::Fatal(why)) => return fail(1, &why),
            Err(StartError::Usage(why)) => return fail(2, &why),
            Err(error) => return fail(1, &error.to_string()),
        }
    }
}

/// A thread that is lost without a word could take the end of an attempt with it. The service
/// manager starts the agent again, and it resumes from its store.
fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

fn fail(code: u8, why: &str) -> ExitCode {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(io::stderr(), "error: {why}");
    ExitCode::from(code)
}

fn start_log(settings: &Settings) {
    use tracing_subscriber::EnvFilter;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&settings.log_filter))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // A second start within one process keeps the first log.
    let _ = match settings.log_json {
        true => builder.json().with_span_list(false).try_init(),
        false => builder.try_init(),
    };
}

fn start_metrics(at: SocketAddr) -> Result<Metrics, String> {
    Metrics::start(at)
        .map_err(|error| format!("figures cannot be served at {at}: {error}; --metrics moves them"))
}

fn run_once(
    settings: &Settings,
    token: Option<&str>,
    metrics: Option<&Metrics>,
) -> Result<Ending, StartError> {
    let mut settings = settings.clone();
    let data = DataDir::open(&settings.data)?;
    if settings.capacity.disk == 0 {
        settings.capacity.disk = file_system_size(data.path())
            .map_err(|error| other("the size of the file system cannot be read")(&error))?;
    }
    let (identity, fresh) = identify(&data, &settings, token)?;
    let incarnation = identity.incarnation();
    let handle = Handle::default();
    let options = executor_options(&settings, &data, &identity);
    let executor = start_executor(options, handle.clone())?;
    let left = executor
        .reap_strangers(Span::secs(2))
        .map_err(|error| StartError::Other(error.to_string()))?;
    log_left(left.processes);
    drop_copy(&data);
    let store = open_store(&data, &identity)?;
    let mut driver = Driver::open(store, config(&identity, &settings, fresh))
        .map_err(|error| other("the store cannot be opened")(&error))?;
    driver.keep_runs(settings.keep_runs);
    driver.hold_above(settings.hold_above);
    let (link, commands) = unbounded_channel();
    let files = executor.files().clone();
    let (telemetry, measuring) = start_telemetry(&settings, &data, incarnation, &handle)?;
    let shown = metrics.map(|metrics| metrics.show(&handle, &data));
    let (to_loop, measured) = (handle.clone(), telemetry.clone());
    local::serve(data.path(), to_loop, files.clone(), measured)
        .map_err(|error| other("cannot listen for local commands")(&error))?;
    let sweep = Sweep::new(files.clone());
    let link_options = LinkOptions {
        coordinators: identity.coordinators(),
        pki: data.pki(),
        data: data.path().to_owned(),
        files,
        idle_timeout: settings.idle_timeout,
        telemetry: Arc::new(telemetry.clone()),
        ground: None,
        clocks: clock::Clocks::default(),
    };
    let threads = spawn_link(link_options, handle.clone(), commands)?;
    let boot = boot(&data, left.directories.into_iter().collect())?;
    let parts = Parts {
        mailbox: handle,
        driver,
        executor,
        link,
        data: data.path().to_owned(),
        sweep,
        telemetry: telemetry.clone(),
        stop_grace: settings.stop_grace,
        boot,
        slots: settings.slots,
    };
    tracing::info!(
        name = %identity.name,
        data = %data.path().display(),
        coordinator = identity.coordinator.as_deref().unwrap_or("none"),
        "the agent runs"
    );
    let ending = Loop::new(parts).run();
    drop(shown);
    // The loop is gone, and with it its end of the link's queue.
    let _ = threads.join();
    telemetry.stop();
    let _ = measuring.join();
    if let Ending::NewIncarnation(_) = &ending {
        succeed(&data, &identity)?;
    }
    Ok(ending)
}

fn log_left(processes: usize) {
    if processes > 0 {
        tracing::info!(processes, "ended what an earlier agent left running");
    }
}

/// Telemetry below the data directory.
fn start_telemetry(
    settings: &Settings,
    data: &DataDir,
    incarnation: Incarnation,
    to_loop: &Handle,
) -> Result<(Telemetry, std::thread::JoinHandle<()>), StartError> {
    let scheduler = settings.scheduler.over(Scheduler::DEFAULT);
    let every = scheduler.resource_monitor_interval;
    let options = telemetry::Options {
        data: data.path().to_owned(),
        incarnation,
        every: every.map(|every| Duration::from_millis(every.0)),
        nvml: settings.nvml.clone(),
        limits: Limits {
            quota: settings.telemetry_budget,
            rate: settings.telemetry_rate,
            ..Limits::default()
        },
        hold_above: settings.hold_above,
    };
    telemetry::start(options, to_loop.clone())
        .map_err(|error| other("no thread for telemetry")(&error))
}

/// An executor that reports to the loop.
fn start_executor(options: exec::Options, to_loop: Handle) -> Result<exec::Executor, StartError> {
    exec::Executor::start(options, move |event| match event {
        exec::Event::Ended(ended) if ended.idle => to_loop.tell_and_lend(Message::Ended(*ended)),
        exec::Event::Ended(ended) => to_loop.tell(Message::Ended(*ended)),
        exec::Event::Began { attempt, at, .. } => to_loop.tell(Message::Began { attempt, at }),
        exec::Event::LogsDropped { files, bytes } => {
            tracing::warn!(
                files,
                bytes,
                "old logs were removed: the node's quota is used up"
            );
        }
    })
    .map_err(|error| StartError::Other(error.to_string()))
}

/// The store goes aside, and a new incarnation succeeds it.
fn succeed(data: &DataDir, identity: &Identity) -> Result<Identity, StartError> {
    let random = data::random().map_err(|error| other("no random numbers")(&error))?;
    let mut next = identity.clone();
    next.succeeds = Some(identity.incarnation.clone());
    next.incarnation = Incarnation(random).to_string();
    begin::begin(data, &next)?;
    Ok(next)
}

/// Processes bear the node's identity, so that they are found again whatever incarnation follows.
fn mark_of(identity: &Identity) -> Incarnation {
    Incarnation(identity.node().0)
}

/// A compaction that was killed leaves a copy of the store, which means nothing.
fn drop_copy(data: &DataDir) {
    let copy = data.store().with_extension(tablefile::ASIDE);
    if let Err(error) = data::remove_if_there(&copy) {
        let copy = copy.display();
        tracing::warn!(%copy, %error, "a copy of the store that nobody needs cannot be removed");
    }
}

fn open_store(data: &DataDir, identity: &Identity) -> Result<RedbStore, StartError> {
    edge_store::open_file(&data.store(), store_identity(identity))
        .map_err(|error| other("the store cannot be opened")(&error))
}

/// Who we are; enrols on the first start. The second value says that the identity is new.
fn identify(
    data: &DataDir,
    settings: &Settings,
    token: Option<&str>,
) -> Result<(Identity, bool), StartError> {
    begin::resume(data)?;
    if let Some(identity) = data.identity()? {
        let identity = known(data, settings, identity, token)?;
        if !data.store_is_cut() {
            return Ok((identity, false));
        }
        let lost = &identity.incarnation;
        tracing::error!(
            incarnation = %lost,
            "store.redb was cut to nothing: what was not acknowledged is lost. Going on as a new \
             incarnation; the coordinator is told"
        );
        return Ok((succeed(data, &identity)?, false));
    }
    let Some(name) = &settings.name else {
        return Err(DataError::Empty(data.path().display().to_string()).into());
    };
    let random = || data::random().map_err(|error| other("no random numbers")(&error));
    let node = match settings.coordinators.is_empty() {
        true => own_id(data)?,
        false => enrol(data, settings, &settings.coordinators, (name, None), token)?,
    };
    let identity = Identity::new(
        node,
        name,
        Incarnation(random()?),
        settings.coordinators.clone(),
        settings.labels.clone(),
    );
    begin::begin(data, &identity)?;
    drop_token(settings);
    Ok((identity, true))
}

/// The id of a gateway that works alone: the one that it will have in a fleet.
fn own_id(data: &DataDir) -> Result<NodeId, StartError> {
    let key = certs::NodeKey::open_or_create(&data.pki())
        .map_err(|error| StartError::Other(linking::text(&error)))?;
    Ok(key.first_id())
}

/// The identity of an earlier start, with what the configuration says now.
fn known(
    data: &DataDir,
    settings: &Settings,
    mut identity: Identity,
    token: Option<&str>,
) -> Result<Identity, StartError> {
    if let Some(name) = settings
        .name
        .as_ref()
        .filter(|name| **name != identity.name)
    {
        let known = &identity.name;
        return Err(StartError::Usage(format!(
            "this data directory belongs to {known}; leave --name away, or give {name} its own with --data"
        )));
    }
    let wanted = &settings.coordinators;
    if certs::kept_certificate(&data.pki()).is_some() {
        drop_token(settings);
    } else if let Err(why) = join(data, settings, &identity, token) {
        // Who reaches nobody, or is refused, works on as before; the token stays.
        tracing::error!(%why, "this gateway does not join the fleet; the next start tries again");
        return Ok(identity);
    }
    let moved = !wanted.is_empty() && *wanted != identity.coordinators();
    if moved || (!settings.labels.is_empty() && settings.labels != identity.labels) {
        if moved {
            identity.set_coordinators(wanted.clone());
        }
        if !settings.labels.is_empty() {
            identity.labels = settings.labels.clone();
        }
        data.save(&identity)
            .map_err(|error| other("the identity cannot be written")(&error))?;
    }
    Ok(identity)
}

/// Enrols a gateway that has an identity and no certificate, if it is to have a coordinator: one
/// that worked alone, or one whose certificate was lost and that has a token again. It stays the
/// node that it is, with all its work.
fn join(
    data: &DataDir,
    settings: &Settings,
    identity: &Identity,
    token: Option<&str>,
) -> Result<(), StartError> {
    let (wanted, known) = (settings.coordinators.clone(), identity.coordinators());
    let alone = known.is_empty();
    let to = if wanted.is_empty() { known } else { wanted };
    let file = settings.token_file.as_ref();
    let has_token = token.is_some() || file.is_some_and(|file| file.exists());
    if to.is_empty() || !alone && !has_token {
        return Ok(());
    }
    if alone && own_id(data)? != identity.node() {
        return Err(StartError::Usage(format!(
            "it began to work alone with a version whose gateways cannot join with what they have; \
             move {} aside, and it enrols as a new node",
            data.path().display()
        )));
    }
    let node = Some(identity.node());
    enrol(data, settings, &to, (&identity.name, node), token)?;
    drop_token(settings);
    tracing::info!(name = identity.name, "this gateway has joined the fleet");
    Ok(())
}

/// Enrols with the first coordinator's address that answers.
fn enrol(
    data: &DataDir,
    settings: &Settings,
    coordinators: &[String],
    (name, known): (&str, Option<NodeId>),
    token: Option<&str>,
) -> Result<NodeId, StartError> {
    let kept = || enrolling::kept(&data.pki(), name);
    let token = match (token, &settings.token_file) {
        (Some(token), _) => token.to_owned(),
        (None, Some(file)) => match std::fs::read_to_string(file) {
            Ok(token) => token.trim().to_owned(),
            Err(error) => return kept().ok_or_else(|| {
                StartError::Usage(format!(
                    "the first start enrols with the token in {}, which cannot be read: {error}; \
                     `driftless token create` makes one",
                    file.display()
                ))
            }),
        },
        (None, None) => {
            return kept().ok_or_else(|| {
                StartError::Usage(
                    "the first start with a coordinator needs --token or --token-file; \
                 `driftless token create` makes one"
                        .into(),
                )
            });
        }
    };
    let labels = &settings.labels;
    enrolling::enrol(coordinators, &token, (name, known), labels, &data.pki())
        .or_else(|why| kept().ok_or(why))
        .map_err(StartError::Other)
}

/// The token is used up: its file goes. One that cannot be removed is of no use to anybody.
fn drop_token(settings: &Settings) {
    let Some(file) = &settings.token_file else {
        return;
    };
    if let Err(error) = data::remove_if_there(file) {
        let file = file.display();
        tracing::warn!(%file, %error, "the used token's file cannot be removed; remove it");
    }
}

fn boot(
    data: &DataDir,
    directories: BTreeSet<shared::ids::AttemptRef>,
) -> Result<Boot, StartError> {
    let seed = data::random().map_err(|error| other("no random numbers")(&error))?;
    let mut first = [0; 8];
    first.copy_from_slice(&seed[..8]);
    Ok(Boot {
        boot: clock::boot_id(),
        seed: u64::from_le_bytes(first),
        directories,
        alive: BTreeSet::new(),
        ended: Vec::new(),
        clock_trusted: clock::trusted(),
        clean_stop: looping::take_clean_stop(data.path()),
    })
}

fn config(identity: &Identity, settings: &Settings, _fresh: bool) -> Config {
    Config {
        node: identity.node(),
        incarnation: identity.incarnation(),
        succeeds: identity
            .succeeds
            .as_ref()
            .and_then(|text| text.parse().ok()),
        name: identity.name.clone(),
        labels: identity.labels.clone(),
        capacity: settings.capacity.clone(),
        slots: u32::try_from(settings.slots).unwrap_or(u32::MAX),
        redial: (Span(200), settings.redial_max),
        snapshot_interval: Span::secs(10),
        fact_window: Span::secs(24 * 3600),
        inventory_part: shared::limits::INVENTORY_PART_BYTES,
        has_coordinator: identity.coordinator.is_some(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        scheduler: settings.scheduler,
    }
}

fn spawn_link(
    options: LinkOptions,
    handle: Handle,
    commands: UnboundedReceiver<LinkCommand>,
) -> Result<std::thread::JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name("link".into())
        .spawn(move || linking::run(options, handle, commands))
        .map_err(|error| other("no thread for the link")(&error))
}

fn executor_options(settings: &Settings, data: &DataDir, identity: &Identity) -> exec::Options {
    exec::Options {
        slots: settings.slots,
        run_as: settings.other_user(),
        allow_root: settings.allow_root,
        read_roots: settings.allow_read.clone(),
        file_budget: settings.file_budget,
        ..exec::Options::new(data.path().to_owned(), mark_of(identity))
    }
}

/// Bytes of the file system that `path` lies on.
fn file_system_size(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}
