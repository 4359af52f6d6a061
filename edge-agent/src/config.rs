//! The agent's configuration: its keys, and how flags, environment and `agent.toml` are read.

use crate::metrics;
use crate::run::RunArgs;
use edge_core::pressure::HoldLimits;
use host::Sources;
use rustix::process::geteuid;
use shared::config::scheduler::{KEYS as SCHEDULER, Scheduler};
use shared::config::{Flag, Key, Kind, Reader, Settings as Values};
use shared::spec::Mistakes;
use shared::time::Span;
use shared::workflow::Resources;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// The configuration file that is read unless another one is named.
pub const FILE: &str = "/etc/driftless/agent.toml";
/// Where the configuration comes from.
const SOURCES: Sources = Sources {
    file: FILE,
    variable: "DRIFTLESS_AGENT_CONFIG",
    prefix: "DRIFTLESS_AGENT_",
};
const MIB: u64 = 1 << 20;
const DAY: u64 = 86_400_000;
/// The user and group of nobody.
const NOBODY: &str = "65534:65534";
/// `HoldLimits::default()`.
const HOLD_ABOVE: &str = "memory=20,available=2,temperature=100";

/// All keys, in the order of `deploy/agent.toml`.
pub const KEYS: &[Key] = &[
    Key::new("name", Kind::Text, "").or_auto(""),
    Key::new("data", Kind::Text, "/var/lib/driftless-agent"),
    Key::new("coordinator", Kind::List, ""),
    Key::new("token_file", Kind::Text, "").or_auto(""),
    Key::new("labels", Kind::Texts, ""),
    Key::new("keep_runs", Kind::Span(0, 36_500 * DAY), "7d"),
    Key::new("capacity.cpus", Kind::Share(1), "").or_auto("all"),
    Key::new("capacity.slots", Kind::Count(1, 65_535), "").or_auto("auto"),
    Key::new("capacity.memory", Kind::Size(1), "").or_auto("all"),
    Key::new("capacity.disk", Kind::Size(1), "").or_auto("all"),
    Key::new("capacity.gpus", Kind::Share(0), "0"),
    Key::new("capacity.custom", Kind::Counts, ""),
    Key::new("tasks.run_as", Kind::Text, NOBODY),
    Key::new("tasks.allow_root", Kind::Switch, "false"),
    Key::new("tasks.allow_read", Kind::List, ""),
    Key::new("tasks.stop_grace", Kind::Span(0, DAY), "5s"),
    Key::new("files.budget", Kind::Size(MIB), "4GiB"),
    Key::new("link.idle_timeout", Kind::Span(1000, DAY), "1m"),
    Key::new("link.redial_max", Kind::Span(1000, DAY), "30s"),
    SCHEDULER[0],
    SCHEDULER[1],
    SCHEDULER[2],
    Key::new("telemetry.rate", Kind::Size(256), "16KiB"),
    Key::new("telemetry.budget", Kind::Size(64 << 10), "8MiB"),
    Key::new("telemetry.hold_above", Kind::Text, HOLD_ABOVE),
    Key::new("telemetry.nvml", Kind::Text, "").or_auto(""),
    Key::new("metrics.listen", Kind::Text, "").or_auto(""),
    Key::new("log.format", Kind::Word(&["text", "json"]), "text"),
    Key::new("log.filter", Kind::Text, "info").also("DRIFTLESS_LOG"),
];

/// The settings of an agent, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) name: Option<String>,
    pub(crate) coordinators: Vec<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Its disk is 0 where the data directory's file system decides.
    pub(crate) capacity: Resources,
    pub(crate) slots: usize,
    pub(crate) run_as: (u32, u32),
    /// Somebody has named that user, so it may not be left aside.
    pub(crate) run_as_named: bool,
    pub(crate) allow_root: bool,
    pub(crate) allow_read: Vec<PathBuf>,
    pub(crate) file_budget: u64,
    pub(crate) keep_runs: Span,
    pub(crate) stop_grace: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) redial_max: Span,
    pub(crate) scheduler: Scheduler,
    pub(crate) telemetry_rate: u64,
    pub(crate) telemetry_budget: u64,
    pub(crate) hold_above: HoldLimits,
    pub(crate) nvml: Option<PathBuf>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) log_json: bool,
    pub(crate) log_filter: String,
}

impl Settings {
    /// Reads flags, environment and file.
    ///
    /// # Errors
    /// All mistakes.
    pub(crate) fn read(file: Option<&Path>, flags: Vec<Flag>) -> Result<(Self, Values), Mistakes> {
        let mut reader = Reader::new(KEYS);
        SOURCES.read(file, &mut reader)?;
        reader.flags(flags);
        let run_as = check(&mut reader);
        let values = reader.settle()?;
        Ok((Self::of(&values, run_as), values))
    }

    fn of(values: &Values, run_as: (u32, u32)) -> Self {
        let path = |key: &str| {
            let text = values.text(key);
            (!text.is_empty()).then(|| PathBuf::from(text))
        };
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let cpus = values
            .number("capacity.cpus")
            .unwrap_or_else(|| cores() * 1000);
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let duration = |key: &str| Duration::from_millis(values.span(key).0);
        let name = values.text("name");
        Self {
            data: path("data").unwrap_or_default(),
            name: (!name.is_empty()).then(|| name.to_owned()),
            coordinators: values.list("coordinator").to_vec(),
            token_file: path("token_file"),
            labels: values.texts("labels"),
            capacity: Resources {
                cpu_milli: narrow(cpus),
                memory: values
                    .number("capacity.memory")
                    .unwrap_or_else(machine_memory),
                disk: values.number("capacity.disk").unwrap_or(0),
                gpu_milli: narrow(values.number("capacity.gpus").unwrap_or(0)),
                custom: values.counts("capacity.custom"),
            },
            slots: values
                .number("capacity.slots")
                .unwrap_or_else(|| cpus.div_ceil(1000))
                .try_into()
                .unwrap_or(usize::MAX),
            run_as,
            run_as_named: values.is_set("tasks.run_as"),
            allow_root: values.switch("tasks.allow_root"),
            allow_read: values
                .list("tasks.allow_read")
                .iter()
                .map(PathBuf::from)
                .collect(),
            file_budget: values.number("files.budget").unwrap_or(u64::MAX),
            keep_runs: values.span("keep_runs"),
            stop_grace: duration("tasks.stop_grace"),
            idle_timeout: duration("link.idle_timeout"),
            redial_max: values.span("link.redial_max"),
            scheduler: Scheduler::of(values),
            telemetry_rate: values.number("telemetry.rate").unwrap_or(u64::MAX),
            telemetry_budget: values.number("telemetry.budget").unwrap_or(u64::MAX),
            // checked before
            hold_above: HoldLimits::parse(values.text("telemetry.hold_above")).unwrap_or_default(),
            nvml: path("telemetry.nvml"),
            metrics: metrics::address(values.text("metrics.listen")).ok(),
            log_json: values.text("log.format") == "json",
            log_filter: values.text("log.filter").to_owned(),
        }
    }
}

/// The agent's data directory, for commands that need nothing else: of the flag, the environment,
/// the configuration file as far as it can be understood, or the default.
pub(crate) fn data_dir(file: Option<&Path>, flags: Vec<Flag>) -> PathBuf {
    let mut reader = Reader::new(KEYS);
    SOURCES.read_file_leniently(file, &mut reader);
    SOURCES.environment(&mut reader);
    reader.flags(flags);
    reader.settings().text("data").into()
}

/// What is wrong with single values beyond their grammar, and with several together. Returns the
/// user and group of tasks.
fn check(reader: &mut Reader) -> (u32, u32) {
    let values = reader.settings().clone();
    let name = values.text("name");
    if let Some(error) = certs::check_name(name).err().filter(|_| !name.is_empty()) {
        reader.conflict("name", &error.to_string(), "letters, digits and - inside");
    }
    if values.text("data").is_empty() {
        reader.conflict("data", "no directory is named", "write its path");
    }
    for address in values.list("coordinator") {
        let port = address.rsplit_once(':');
        if !port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
            let what = format!("'{address}' is no address");
            reader.conflict(
                "coordinator",
                &what,
                "write HOST:PORT, as in cloud.example:4433",
            );
        }
    }
    if !values.text("token_file").is_empty() && values.list("coordinator").is_empty() {
        let mend = "set coordinator, or remove token_file";
        reader.conflict("token_file", "there is no coordinator to enrol with", mend);
    }
    if values.switch("tasks.allow_root") && values.is_set("tasks.run_as") {
        let (what, mend) = (
            "tasks run either as root or as run_as",
            "set only one of them",
        );
        reader.conflict("tasks.allow_root", what, mend);
    }
    if let Err(why) = HoldLimits::parse(values.text("telemetry.hold_above")) {
        let mend = "as in memory=20,available=2,temperature=100, or off";
        reader.conflict("telemetry.hold_above", &why, mend);
    }
    let filter = values.text("log.filter");
    if let Err(error) = EnvFilter::try_new(filter) {
        let mend = "write a level, or levels of parts, as in warn,edge_agent=debug";
        reader.conflict("log.filter", &format!("'{filter}': {error}"), mend);
    }
    let listen = values.text("metrics.listen");
    if let Err(why) = metrics::address(listen)
        && !listen.is_empty()
    {
        let mend = "write IP:PORT, or a port of loopback, as in 9464";
        reader.conflict("metrics.listen", &why, mend);
    }
    let ids = values.text("tasks.run_as").split_once(':');
    let ids = ids.and_then(|(u, g)| Some((u.parse().ok()?, g.parse().ok()?)));
    ids.unwrap_or_else(|| {
        let what = format!("'{}' is no user and group", values.text("tasks.run_as"));
        reader.conflict("tasks.run_as", &what, "write UID:GID, both numbers");
        (0, 0)
    })
}

/// Labels, and taints told among them.
fn labels(args: &RunArgs) -> Vec<String> {
    let taints = args.taints.iter().map(|taint| {
        let (name, value) = taint.label();
        format!("{name}={value}")
    });
    args.labels.iter().cloned().chain(taints).collect()
}

/// What a flag says; a bare number gets its unit.
fn with(value: &Option<String>, unit: &str) -> Vec<String> {
    let bare = |text: &String| text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty();
    let one = |text: &String| match bare(text) {
        true => format!("{text}{unit}"),
        false => text.clone(),
    };
    value.iter().map(one).collect()
}

/// The flags of `run` as settings. A bare number has the unit that its flag always had.
pub(crate) fn flags(args: &RunArgs) -> Vec<Flag> {
    let paths = |paths: &[PathBuf]| paths.iter().map(|p| p.display().to_string()).collect();
    let all: [(&'static str, &'static str, Vec<String>); 23] = [
        ("name", "--name", with(&args.name, "")),
        ("coordinator", "--coordinator", args.coordinators.clone()),
        ("token_file", "--token-file", with(&args.token_file, "")),
        ("labels", "--label", labels(args)),
        ("keep_runs", "--keep-runs", with(&args.keep_runs, "d")),
        ("capacity.cpus", "--cpus", with(&args.cpus, "")),
        ("capacity.slots", "--slots", with(&args.slots, "")),
        ("capacity.memory", "--memory", with(&args.memory, "MiB")),
        ("capacity.disk", "--disk", with(&args.disk, "MiB")),
        ("capacity.gpus", "--gpus", with(&args.gpus, "")),
        ("capacity.custom", "--resource", args.resources.clone()),
        ("tasks.run_as", "--run-as", with(&args.run_as, "")),
        ("tasks.allow_read", "--allow-read", paths(&args.allow_read)),
        (
            "tasks.stop_grace",
            "--stop-grace",
            with(&args.stop_grace, "s"),
        ),
        (
            "files.budget",
            "--file-budget",
            with(&args.file_budget, "MiB"),
        ),
        (
            "link.idle_timeout",
            "--idle-timeout",
            with(&args.idle_timeout, "s"),
        ),
        (
            "link.redial_max",
            "--redial-max",
            with(&args.redial_max, "s"),
        ),
        (
            "scheduler.resource_monitor_interval",
            "--monitor-interval",
            with(&args.monitor_interval, "s"),
        ),
        (
            "telemetry.rate",
            "--telemetry-rate",
            with(&args.telemetry_rate, "KiB"),
        ),
        (
            "telemetry.budget",
            "--telemetry-budget",
            with(&args.telemetry_budget, "MiB"),
        ),
        (
            "telemetry.hold_above",
            "--hold-above",
            with(&args.hold_above, ""),
        ),
        ("metrics.listen", "--metrics", with(&args.metrics, "")),
        ("log.format", "--log", with(&args.log, "")),
    ];
    let given = all.into_iter().filter(|(_, _, values)| !values.is_empty());
    let mut flags: Vec<Flag> = given
        .map(|(key, flag, values)| Flag { key, flag, values })
        .collect();
    if args.allow_root {
        flags.push(Flag {
            key: "tasks.allow_root",
            flag: "--allow-root",
            values: vec!["true".to_owned()],
        });
    }
    flags
}

/// The flag `--data`.
pub(crate) fn data_flag(data: Option<&Path>) -> Vec<Flag> {
    let flag = |data: &Path| Flag {
        key: "data",
        flag: "--data",
        values: vec![data.display().to_string()],
    };
    data.map(flag).into_iter().collect()
}

/// Bytes of memory of this machine.
fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram
        .saturating_mul(u64::from(info.mem_unit.max(1)))
}

impl Settings {
    /// User and group that tasks run as, if that is not whoever the agent is. An agent that may not
    /// change users has an answer only if somebody named one, which its executor then refuses
    /// unless it is the agent's own.
    pub(crate) fn other_user(&self) -> Option<(u32, u32)> {
        let switches = match geteuid().is_root() {
            true => !self.allow_root,
            false => self.run_as_named,
        };
        switches.then_some(self.run_as)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let mut reader = Reader::new(KEYS);
        reader.file("agent.toml", text);
        let run_as = check(&mut reader);
        let values = reader.settle().map_err(|mistakes| mistakes.to_string())?;
        Ok(Settings::of(&values, run_as))
    }

    #[test]
    fn the_published_file_writes_out_every_default() {
        let text = include_str!("../../deploy/agent.toml");
        // a key is commented out without a space, prose with one
        let value = |line: &'static str| {
            let key = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase());
            line.strip_prefix('#').filter(key).unwrap_or(line)
        };
        let defaults: Vec<&str> = text.lines().map(value).collect();
        let written = {
            let mut reader = Reader::new(KEYS);
            reader.file("agent.toml", &defaults.join("\n"));
            reader.settle().unwrap()
        };
        let defaults = Reader::new(KEYS).settle().unwrap();
        for (key, value, from) in written.all() {
            assert_eq!(value, defaults.get(key), "{key}");
            assert!(
                from.to_string().starts_with("agent.toml:"),
                "{key} is not written"
            );
        }
        assert_eq!(read(text), read(""));
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_their_places() {
        let text = "nmae = 'gw-7'\ncoordinator = ['a']\n[link]\nidle_timeout = 60\n\
                    redial_max = '2MiB'\n[capacity]\nmemory = '512'\n[tasks]\nallow_root = true\n\
                    run_as = '1:1'\nidle_timeout = '1s'\n";
        let told = read(text).unwrap_err();
        for wanted in [
            "agent.toml:1:1: unknown key 'nmae'\n  mend: did you mean 'name'?",
            "agent.toml:2:1: coordinator: 'a' is no address\n  mend: write HOST:PORT",
            "agent.toml:4:16: link.idle_timeout: the duration '60' has no unit\n  mend: write 60s",
            "agent.toml:5:14: link.redial_max: '2MiB' is no duration",
            "agent.toml:7:10: capacity.memory: the size '512' has no unit",
            "agent.toml:9:1: tasks.allow_root: tasks run either as root or as run_as",
            "agent.toml:11:1: unknown key 'tasks.idle_timeout'\n  mend: did you mean 'idle_timeout' \
             in section [link]?",
        ] {
            assert!(told.contains(wanted), "{wanted}\n--- in\n{told}");
        }
        assert_eq!(told.matches("mend:").count(), 7, "{told}");
    }

    #[test]
    fn a_broken_file_says_where() {
        let told = read("name = 'a'\nlabels = {\n").unwrap_err();
        assert!(told.contains("agent.toml:2:"), "{told}");
        assert!(told.contains("this is no TOML"), "{told}");
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let mut reader = Reader::new(KEYS);
        reader.file(
            "f",
            "name = 'file'\nkeep_runs = '1d'\n[link]\nredial_max = '9s'\n",
        );
        let variables = [
            ("DRIFTLESS_AGENT_NAME", "variable"),
            ("DRIFTLESS_AGENT_LINK_REDIAL_MAX", "8s"),
            ("DRIFTLESS_AGENT_LABELS", "site=a, rack=3"),
            ("DRIFTLESS_LOG", "debug"),
            ("DRIFTLESS_TOKEN", "not ours to read"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        reader.environment(SOURCES.prefix, &[], variables.into_iter());
        reader.flags(vec![Flag {
            key: "link.redial_max",
            flag: "--redial-max",
            values: vec!["7s".to_owned()],
        }]);
        let values = reader.settle().unwrap();
        let set = Settings::of(&values, (1, 1));
        assert_eq!(set.name.as_deref(), Some("variable"));
        assert_eq!((set.keep_runs, set.redial_max), (Span(DAY), Span::secs(7)));
        assert_eq!(set.labels["rack"], "3");
        assert_eq!(set.log_filter, "debug");
        assert_eq!(values.from("link.redial_max").to_string(), "--redial-max");
        assert_eq!(values.from("keep_runs").to_string(), "f:2");
    }

    #[test]
    fn an_unknown_variable_with_our_prefix_is_a_mistake() {
        let mut reader = Reader::new(KEYS);
        let given = ("DRIFTLESS_AGENT_NMAE".to_owned(), "x".to_owned());
        reader.environment(SOURCES.prefix, &[], [given].into_iter());
        let told = reader.settle().unwrap_err().to_string();
        assert!(
            told.contains("did you mean 'DRIFTLESS_AGENT_NAME'?"),
            "{told}"
        );
    }
}
