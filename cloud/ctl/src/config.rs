//! The coordinator's configuration: its keys, and how flags, environment and `coordinator.toml` are
//! read.

use crate::args::Global;
use crate::commands::serve::Serve;
use crate::exit::{Code, Failure, chain};
use crate::output::Output;
use crate::target::{DEFAULT_API, usual_dir};
use cloud::backup::Periodic;
use cloud::{Guarded, Options};
use cloud_core::record::Limits;
use host::Sources;
use shared::config::scheduler::{KEYS as SCHEDULER, Scheduler};
use shared::config::{Flag, Key, Kind, Reader, Settings};
use shared::spec::{Mistake, Mistakes};
use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;

/// Where they come from. Inside a test the machine's own file has no say.
const SOURCES: Sources = Sources {
    file: match cfg!(test) {
        true => "/dev/null",
        false => "/etc/driftless/coordinator.toml",
    },
    variable: "DRIFTLESS_COORDINATOR_CONFIG",
    prefix: "DRIFTLESS_COORDINATOR_",
};
/// Where a coordinator of root keeps its state unless told otherwise.
pub(crate) const DATA: &str = "/var/lib/driftless/coordinator";

/// All keys, in the order of `deploy/coordinator.toml`.
const KEYS: &[Key] = &[
    Key::new("data", Kind::Text, DATA).also("DRIFTLESS_DATA"),
    Key::new("listen", Kind::Text, "0.0.0.0:4433"),
    Key::new("api", Kind::Text, DEFAULT_API),
    Key::new("retention", Kind::Span(0, 36_500 * 86_400_000), "7d"),
    Key::new(
        "certificates.life",
        Kind::Span(3_000, 3_650 * 86_400_000),
        "90d",
    ),
    Key::new(
        "certificates.grace",
        Kind::Span(0, 3_650 * 86_400_000),
        "365d",
    ),
    Key::new("files.budget", Kind::Size(1 << 20), "16GiB"),
    Key::new("access.tls", Kind::Switch, "false"),
    Key::new("access.cert", Kind::Text, ""),
    Key::new("access.key", Kind::Text, ""),
    Key::new("access.names", Kind::List, ""),
    Key::new("access.open_metrics", Kind::Switch, "false"),
    Key::new(
        "audit.keep",
        Kind::Span(86_400_000, 36_500 * 86_400_000),
        "400d",
    ),
    Key::new("audit.budget", Kind::Size(64 << 10), "16MiB"),
    Key::new("events.budget", Kind::Size(64 << 10), "16MiB"),
    Key::new("backup.dir", Kind::Text, ""),
    Key::new("backup.every", Kind::Span(1000, 365 * 86_400_000), "1d"),
    Key::new("backup.keep", Kind::Count(1, 10_000), "7"),
    SCHEDULER[0],
    SCHEDULER[1],
    SCHEDULER[2],
    Key::new("log.format", Kind::Word(&["text", "json"]), "text"),
    Key::new("log.filter", Kind::Text, "warn,cloud=info,cloud_core=info").also("DRIFTLESS_LOG"),
];

/// What a coordinator is started with.
#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) options: Options,
    pub(crate) log_json: bool,
    pub(crate) log_filter: String,
}

/// Reads flags, environment and file.
///
/// # Errors
/// All mistakes.
pub(crate) fn read(global: &Global, serve: &Serve) -> Result<(Configured, Settings), Mistakes> {
    let mut reader = reader();
    SOURCES.read(global.config.as_deref(), &mut reader)?;
    reader.flags(flags(global, serve));
    if reader.settings().text("data").is_empty() {
        reader.conflict("data", "no directory is named", "write its path");
    }
    let listen = address(&mut reader, "listen");
    let api = address(&mut reader, "api");
    let given = |key| !reader.settings().text(key).is_empty();
    if given("access.cert") != given("access.key") {
        let mend = "name both access.cert and access.key, or neither";
        reader.conflict(
            "access.cert",
            "a certificate and its key come together",
            mend,
        );
    }
    check_pair(&mut reader);
    let filter = reader.settings().text("log.filter").to_owned();
    if let Err(error) = EnvFilter::try_new(&filter) {
        let mend = "write a level, or levels of parts, as in warn,cloud=debug";
        reader.conflict("log.filter", &format!("'{filter}': {error}"), mend);
    }
    let settings = reader.settle()?;
    let options = Options {
        data: dir_of(global, &settings),
        listen,
        api,
        retention: settings.span("retention"),
        certificate_life: settings.span("certificates.life"),
        renewal_grace: settings.span("certificates.grace"),
        scheduler: Scheduler::of(&settings),
        hellos_at_once: cloud::HELLOS_AT_ONCE,
        file_budget: settings.number("files.budget").unwrap_or(u64::MAX),
        access: Guarded {
            tls: settings.switch("access.tls"),
            files: pem_files(&settings),
            metrics_open: settings.switch("access.open_metrics"),
            names: settings.list("access.names").to_vec(),
        },
        record: Limits {
            events: settings.number("events.budget").unwrap_or(u64::MAX),
            audit: settings.number("audit.budget").unwrap_or(u64::MAX),
            audit_age: settings.span("audit.keep"),
        },
        backup: periodic(&settings),
    };
    let configured = Configured {
        options,
        log_json: settings.text("log.format") == "json",
        log_filter: settings.text("log.filter").to_owned(),
    };
    Ok((configured, settings))
}

/// A certificate of the API's own is loaded as `serve` does it, unless this user may not read it.
fn check_pair(reader: &mut Reader) {
    let Some((cert, key)) = pem_files(reader.settings()) else {
        return;
    };
    let hidden = |path: &Path| {
        File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    if hidden(&cert) || hidden(&key) {
        return;
    }
    if let Err(error) = certs::api_server_of_files(&cert, &key) {
        let mend = "name a certificate and its key, both in PEM";
        reader.conflict("access.cert", &chain(&error), mend);
    }
}

/// The API's own certificate and key, if both are named.
fn pem_files(settings: &Settings) -> Option<(PathBuf, PathBuf)> {
    let path = |key| Some(settings.text(key)).filter(|text| !text.is_empty());
    Some((path("access.cert")?.into(), path("access.key")?.into()))
}

/// Backups that are made by themselves, if a directory is given for them.
fn periodic(settings: &Settings) -> Option<Periodic> {
    let dir = settings.text("backup.dir");
    let keep = settings.number("backup.keep");
    (!dir.is_empty()).then(|| Periodic {
        dir: dir.into(),
        every: settings.span("backup.every"),
        keep: keep.and_then(|n| n.try_into().ok()).unwrap_or(usize::MAX),
    })
}

/// All defaults, as they are for this user.
fn reader() -> Reader {
    let mut reader = Reader::new(KEYS);
    reader.default("data", &usual_dir().display().to_string());
    reader
}

/// Where the coordinator is, by flags, environment and file as far as they can be read and
/// understood: for commands that need nothing else, and may be another user's, who may not read the
/// file.
pub(crate) fn whereabouts(global: &Global) -> Settings {
    let mut reader = reader();
    SOURCES.read_file_leniently(global.config.as_deref(), &mut reader);
    SOURCES.environment(&mut reader);
    let flags = flags(global, &Serve::default());
    reader.flags(
        flags
            .into_iter()
            .filter(|flag| flag.key == "data")
            .collect(),
    );
    reader.settings().clone()
}

/// The data directory among `settings`; one that a flag names need not be UTF-8.
pub(crate) fn dir_of(global: &Global, settings: &Settings) -> PathBuf {
    match (&global.data, settings.text("data")) {
        (Some(named), _) => named.clone(),
        (None, "") => usual_dir(),
        (None, text) => text.into(),
    }
}

/// All mistakes as a command's failure: of a wrong command line if only flags are wrong.
pub(crate) fn failure(mistakes: &Mistakes, out: &Output) -> Failure {
    let flag = |mistake: &Mistake| mistake.file.starts_with("--");
    let code = match mistakes.mistakes.iter().all(flag) {
        true => Code::Usage,
        false => Code::Specification,
    };
    if out.json {
        for mistake in &mistakes.mistakes {
            if let Ok(line) = serde_json::to_string(mistake) {
                out.say(&line);
            }
        }
        let count = mistakes.mistakes.len() + mistakes.more;
        return Failure::new(code, format!("{count} mistakes in the configuration"));
    }
    Failure::new(code, mistakes.to_string())
}

fn flags(global: &Global, serve: &Serve) -> Vec<Flag> {
    let data = global.data.as_ref().map(|path| path.display().to_string());
    let json = global.json.then(|| "json".to_owned());
    let log = match &serve.log {
        Some(format) => ("log.format", "--log", Some(format.clone())),
        None => ("log.format", "--json", json),
    };
    let tls = serve.api_tls.then(|| "true".to_owned());
    let names = Flag {
        key: "access.names",
        flag: "--api-name",
        values: serve.api_name.clone(),
    };
    let all = [
        ("data", "--data", data),
        ("listen", "--listen", serve.listen.clone()),
        ("api", "--api", global.api.clone()),
        ("retention", "--retention", serve.retention.clone()),
        (
            "certificates.life",
            "--certificate-life",
            serve.certificate_life.clone(),
        ),
        (
            "certificates.grace",
            "--renewal-grace",
            serve.renewal_grace.clone(),
        ),
        ("files.budget", "--file-budget", serve.file_budget.clone()),
        ("access.tls", "--api-tls", tls),
        ("access.cert", "--api-cert", serve.api_cert.clone()),
        ("access.key", "--api-key", serve.api_key.clone()),
        ("backup.dir", "--backup-dir", serve.backup_dir.clone()),
        ("backup.every", "--backup-every", serve.backup_every.clone()),
        ("backup.keep", "--backup-keep", serve.backup_keep.clone()),
        log,
    ];
    let given = all.into_iter().filter_map(|(key, flag, value)| {
        let values = vec![value?];
        Some(Flag { key, flag, values })
    });
    let names = Some(names).filter(|names| !names.values.is_empty());
    given.chain(names).collect()
}

/// The address that a key names; notes a mistake if it names none.
fn address(reader: &mut Reader, key: &str) -> SocketAddr {
    let text = reader.settings().text(key).to_owned();
    let bare = text.split_once("://").map_or(&*text, |(_, bare)| bare);
    let found = bare.trim_end_matches('/').to_socket_addrs();
    let why = match found.map(|mut found| found.next()) {
        Ok(Some(address)) => return address,
        Ok(None) => "it has no address".to_owned(),
        Err(error) => error.to_string(),
    };
    let what = format!("'{text}' is no address: {why}");
    let mend = "write ADDRESS:PORT, as in 127.0.0.1:4480, 0.0.0.0:4433 or [::]:4433";
    reader.conflict(key, &what, mend);
    SocketAddr::from(([0, 0, 0, 0], 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(global: Global, listen: &str) -> Result<Configured, Mistakes> {
        let listen = Some(listen.to_owned());
        let serve = Serve {
            listen,
            ..Serve::default()
        };
        read(&global, &serve).map(|(configured, _)| configured)
    }

    #[test]
    fn the_published_file_writes_out_every_default() {
        // a key is commented out without a space, prose with one
        let value = |line: &'static str| {
            let key = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase());
            line.strip_prefix('#').filter(key).unwrap_or(line)
        };
        let text = include_str!("../../../deploy/coordinator.toml");
        let lines: Vec<&str> = text.lines().map(value).collect();
        let mut reader = Reader::new(KEYS);
        reader.file("coordinator.toml", &lines.join("\n"));
        let written = reader.settle().unwrap();
        let defaults = Reader::new(KEYS).settle().unwrap();
        for (key, value, from) in written.all() {
            assert_eq!(value, defaults.get(key), "{key}");
            let from = from.to_string();
            assert!(
                from.starts_with("coordinator.toml:"),
                "{key} is not written"
            );
        }
    }

    #[test]
    fn addresses_to_listen_on_are_checked() {
        let global = |api: &str| Global {
            api: Some(api.to_owned()),
            ..Global::default()
        };
        let read = with(global("http://127.0.0.1:80/"), "127.0.0.1:0").unwrap();
        assert_eq!(
            (read.options.listen.port(), read.options.api.port()),
            (0, 80)
        );
        for wrong in ["nonsense", "127.0.0.1", "127.0.0.1:99999"] {
            let told = with(global(wrong), wrong).unwrap_err().to_string();
            assert!(told.contains("--listen: listen: '"), "{told}");
            assert!(told.contains("--api: api: '"), "{told}");
        }
    }

    #[test]
    fn mistakes_of_a_file_have_places_and_mends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let text = "lisen = 'x'\napi = 'nonsense'\n[scheduler]\nmax_retries = -1\n\
                    backoff_duration = '5'\n[files]\nbudget = 5\n";
        std::fs::write(&path, text).unwrap();
        let global = Global {
            config: Some(path),
            ..Global::default()
        };
        let told = with(global, "127.0.0.1:0").unwrap_err().to_string();
        for wanted in [
            "c.toml:1:1: unknown key 'lisen'\n  mend: did you mean 'listen'?",
            "c.toml:2:1: api: 'nonsense' is no address",
            "c.toml:4:15: scheduler.max_retries: '-1' is no whole number",
            "c.toml:5:20: scheduler.backoff_duration: the duration '5' has no unit\n  mend: write 5s",
            "c.toml:7:10: files.budget: the size '5' has no unit",
        ] {
            assert!(told.contains(wanted), "{wanted}\n--- in\n{told}");
        }
    }
}
