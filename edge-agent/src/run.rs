//! `run`: opens the data directory, ends what an earlier agent left, resumes all work, and only
//! then dials.

use crate::begin::{self, BeginError, store_identity};
use crate::cli::Common;
use crate::clock;
use crate::data::{self, DataDir, DataError, Identity};
use crate::linking::{self, LinkCommand, LinkOptions};
use crate::local;
use crate::looping::{self, Ending, Loop, Message, Parts};
use crate::mailbox::Handle;
use crate::sweep::Sweep;
use clap::Args;
use edge_core::driver::Driver;
use edge_core::event::{Boot, Config};
use edge_exec as exec;
use edge_store::RedbStore;
use shared::ids::{Incarnation, NodeId};
use shared::time::Span;
use shared::workflow::Resources;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// `run`'s options.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The coordinator to enrol with and to dial; kept for later starts.
    #[arg(long, value_name = "HOST:PORT")]
    pub coordinator: Option<String>,
    /// A token made by `driftless token create`; needed once.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "DRIFTLESS_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// This gateway's name; needed once.
    #[arg(long)]
    pub name: Option<String>,
    /// A label, for placement; `site` names the LAN.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Cores that tasks may use in all; all of the machine's if absent.
    #[arg(long, value_name = "CORES")]
    pub cpus: Option<f64>,
    /// Attempts that run at once, whatever they ask for; as many as there are cores if absent.
    #[arg(long, value_name = "COUNT")]
    pub slots: Option<u16>,
    /// Memory that tasks may use in all, in MiB; all of the machine's if absent.
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
    /// Room for the attempts' directories in all, in MiB; the data directory's whole file system if
    /// absent.
    #[arg(long, value_name = "MIB")]
    pub disk: Option<u64>,
    /// GPUs that tasks may use in all.
    #[arg(long, value_name = "GPUS", default_value_t = 0.0)]
    pub gpus: f64,
    /// Something else that tasks may ask for (`resources.custom`).
    #[arg(long = "resource", value_name = "NAME=COUNT")]
    pub resources: Vec<String>,
    /// A directory whose files workflows may name as `file:/…` inputs.
    #[arg(long = "allow-read", value_name = "DIR")]
    pub allow_read: Vec<PathBuf>,
    /// User that tasks run as when the agent is root.
    #[arg(long, value_name = "UID:GID", default_value = "65534:65534")]
    pub run_as: String,
    /// Let tasks run as root when the agent is root.
    #[arg(long)]
    pub allow_root: bool,
    /// Most bytes of the file store, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub file_budget: u64,
    /// How long runs submitted here are kept after their end, in days, if the gateway has no
    /// coordinator.
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    pub keep_runs: u16,
    /// Time between TERM and KILL for tasks when the agent stops, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub stop_grace: u64,
    /// Time after which a silent link counts as down, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub idle_timeout: u64,
    /// Longest pause between dials, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub redial_max: u64,
    /// Log format: text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log: String,
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
pub fn main(common: &Common, args: &RunArgs) -> ExitCode {
    start_log(&args.log);
    abort_on_panic();
    loop {
        match run_once(&common.data, args) {
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

fn start_log(format: &str) {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_env("DRIFTLESS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // A second start within one process keeps the first log.
    let _ = if format == "json" {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
}

fn run_once(dir: &Path, args: &RunArgs) -> Result<Ending, StartError> {
    let mut settings = Settings::parse(args)?;
    let data = DataDir::open(dir)?;
    if args.disk.is_none() {
        settings.capacity.disk = file_system_size(data.path())
            .map_err(|error| other("the size of the file system cannot be read")(&error))?;
    }
    let executor_options = settings.executor(&data, Incarnation::default());
    let (identity, fresh) = identify(&data, args, &settings)?;
    let incarnation = identity.incarnation();
    let handle = Handle::default();
    let options = exec::Options {
        store_id: mark_of(&identity),
        ..executor_options
    };
    let executor = start_executor(options, handle.clone())?;
    let left = executor
        .reap_strangers(Span::secs(2))
        .map_err(|error| StartError::Other(error.to_string()))?;
    if left.processes > 0 {
        tracing::info!(
            processes = left.processes,
            "ended what an earlier agent left running"
        );
    }
    let store = open_store(&data, &identity)?;
    let mut driver = Driver::open(store, config(&identity, &settings, fresh))
        .map_err(|error| other("the store cannot be opened")(&error))?;
    driver.keep_runs(Span::secs(u64::from(args.keep_runs) * 24 * 3600));
    let (link, commands) = unbounded_channel();
    let files = executor.files().clone();
    local::serve(data.path(), handle.clone(), files.clone())
        .map_err(|error| other("cannot listen for local commands")(&error))?;
    let sweep = Sweep::new(files.clone());
    let link_options = LinkOptions {
        coordinator: identity.coordinator.clone(),
        pki: data.pki(),
        data: data.path().to_owned(),
        files,
        idle_timeout: settings.idle_timeout,
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
    // The loop is gone, and with it its end of the link's queue.
    let _ = threads.join();
    if let Ending::NewIncarnation(_) = &ending {
        succeed(&data, &identity, incarnation)?;
    }
    Ok(ending)
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
fn succeed(data: &DataDir, identity: &Identity, old: Incarnation) -> Result<(), StartError> {
    let random = data::random().map_err(|error| other("no random numbers")(&error))?;
    let mut next = identity.clone();
    next.succeeds = Some(old.to_string());
    next.incarnation = Incarnation(random).to_string();
    Ok(begin::begin(data, &next)?)
}

/// Processes bear the node's identity, so that they are found again whatever incarnation follows.
fn mark_of(identity: &Identity) -> Incarnation {
    Incarnation(identity.node().0)
}

fn open_store(data: &DataDir, identity: &Identity) -> Result<RedbStore, StartError> {
    edge_store::open_file(&data.store(), store_identity(identity))
        .map_err(|error| other("the store cannot be opened")(&error))
}

/// Who we are; enrols on the first start. The second value says that the identity is new.
fn identify(
    data: &DataDir,
    args: &RunArgs,
    settings: &Settings,
) -> Result<(Identity, bool), StartError> {
    begin::resume(data)?;
    if let Some(mut identity) = data.identity()? {
        if let Some(name) = args.name.as_ref().filter(|name| **name != identity.name) {
            let known = &identity.name;
            return Err(StartError::Usage(format!(
                "this data directory belongs to {known}; leave --name away, or give {name} its own with --data"
            )));
        }
        let moved = args.coordinator.is_some() && args.coordinator != identity.coordinator;
        if moved || (!settings.labels.is_empty() && settings.labels != identity.labels) {
            identity.coordinator = args.coordinator.clone().or(identity.coordinator);
            identity.labels = settings.labels.clone();
            data.save(&identity)
                .map_err(|error| other("the identity cannot be written")(&error))?;
        }
        return Ok((identity, false));
    }
    let Some(name) = &args.name else {
        return Err(DataError::Empty(data.path().display().to_string()).into());
    };
    certs::check_name(name).map_err(|error| StartError::Usage(error.to_string()))?;
    let random = || data::random().map_err(|error| other("no random numbers")(&error));
    let node = match (&args.coordinator, &args.token) {
        (Some(coordinator), Some(token)) => {
            linking::enrol(coordinator, token, name, &settings.labels, &data.pki())
                .or_else(|why| linking::kept(&data.pki(), name).ok_or(why))
                .map_err(StartError::Other)?
        }
        (Some(_), None) => linking::kept(&data.pki(), name).ok_or_else(|| {
            StartError::Usage(
                "the first start with a coordinator needs --token; `driftless token create` makes one".into(),
            )
        })?,
        (None, _) => NodeId(random()?),
    };
    let identity = Identity::new(
        node,
        name,
        Incarnation(random()?),
        args.coordinator.clone(),
        settings.labels.clone(),
    );
    begin::begin(data, &identity)?;
    Ok((identity, true))
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
        has_coordinator: identity.coordinator.is_some(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
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

/// The options, checked.
#[derive(Debug)]
struct Settings {
    labels: BTreeMap<String, String>,
    capacity: Resources,
    slots: usize,
    run_as: (u32, u32),
    allow_root: bool,
    allow_read: Vec<PathBuf>,
    file_budget: u64,
    stop_grace: Duration,
    idle_timeout: Duration,
    redial_max: Span,
}

impl Settings {
    fn parse(args: &RunArgs) -> Result<Self, StartError> {
        let usage = |text: String| StartError::Usage(text);
        let mut labels = BTreeMap::new();
        for label in &args.labels {
            let (key, value) = label
                .split_once('=')
                .ok_or_else(|| usage(format!("--label {label}: write KEY=VALUE")))?;
            labels.insert(key.to_owned(), value.to_owned());
        }
        let mut custom = BTreeMap::new();
        for resource in &args.resources {
            let parsed = resource
                .split_once('=')
                .and_then(|(name, n)| Some((name, n.parse().ok()?)));
            let (name, count) =
                parsed.ok_or_else(|| usage(format!("--resource {resource}: write NAME=COUNT")))?;
            custom.insert(name.to_owned(), count);
        }
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        let cpus = args.cpus.unwrap_or(cores);
        if !(0.001..=4096.0).contains(&cpus) {
            return Err(usage(format!("--cpus {cpus}: between 0.001 and 4096")));
        }
        if !(0.0..=4096.0).contains(&args.gpus) {
            return Err(usage(format!("--gpus {}: between 0 and 4096", args.gpus)));
        }
        let ids = args
            .run_as
            .split_once(':')
            .and_then(|(u, g)| Some((u.parse().ok()?, g.parse().ok()?)));
        let run_as = ids.ok_or_else(|| {
            usage(format!(
                "--run-as {}: write UID:GID, both numbers",
                args.run_as
            ))
        })?;
        Ok(Self {
            labels,
            capacity: Resources {
                cpu_milli: (cpus * 1000.0) as u32,
                memory: args.memory.map_or_else(machine_memory, |mib| mib << 20),
                disk: args
                    .disk
                    .map_or(u64::MAX, |mib| mib.saturating_mul(1 << 20)),
                gpu_milli: (args.gpus * 1000.0) as u32,
                custom,
            },
            slots: args
                .slots
                .map_or_else(|| cpus.ceil() as usize, |n| usize::from(n.max(1))),
            run_as,
            allow_root: args.allow_root,
            allow_read: args.allow_read.clone(),
            file_budget: args.file_budget << 20,
            stop_grace: Duration::from_secs(args.stop_grace),
            idle_timeout: Duration::from_secs(args.idle_timeout.max(1)),
            redial_max: Span::secs(args.redial_max.max(1)),
        })
    }

    fn executor(&self, data: &DataDir, store_id: Incarnation) -> exec::Options {
        let is_root = rustix::process::geteuid().is_root();
        exec::Options {
            slots: self.slots,
            run_as: (is_root && !self.allow_root).then_some(self.run_as),
            allow_root: self.allow_root,
            read_roots: self.allow_read.clone(),
            file_budget: self.file_budget,
            ..exec::Options::new(data.path().to_owned(), store_id)
        }
    }
}

/// Bytes of the file system that `path` lies on.
fn file_system_size(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// Bytes of memory of this machine.
fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram
        .saturating_mul(u64::from(info.mem_unit.max(1)))
}
