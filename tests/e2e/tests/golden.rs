//! The command line as it is published: the help of every command of both programs, what mistakes
//! are answered with, and the shape of what `--json` prints. It stands in `tests/e2e/golden`; after
//! a change that is meant, `DRIFTLESS_GOLDEN=write cargo test -p e2e --test golden` writes it anew.

use e2e::fleet::{Fleet, copy, output, program};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const AGENT: &str = "driftless-agent";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn writes() -> bool {
    std::env::var_os("DRIFTLESS_GOLDEN").is_some_and(|value| value == "write")
}

/// Compares what is in a folder (or one file) of the golden files with what is real, or writes it.
fn compare(folder: &str, real: &BTreeMap<String, String>, same: fn(&str, &str) -> bool) {
    let at = golden().join(folder);
    if writes() {
        let _ = fs::remove_dir_all(&at); // it may not be there
        fs::create_dir_all(&at).expect("the golden files can be written");
        for (name, text) in real {
            fs::write(at.join(name), text).expect("the golden files can be written");
        }
    }
    let mut known = BTreeMap::new();
    for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).expect("a golden file is text");
        known.insert(entry.file_name().to_string_lossy().into_owned(), text);
    }
    let names: BTreeSet<&String> = known.keys().chain(real.keys()).collect();
    for name in names {
        let (old, new) = (known.get(name), real.get(name));
        let of = |text: Option<&String>| text.cloned().unwrap_or_default();
        let (old, new) = (of(old), of(new));
        let first = old.lines().zip(new.lines()).find(|(a, b)| a != b);
        assert!(
            same(&old, &new),
            "{folder}/{name} is not what is real: {first:?}\n--- real\n{new}\n\
             If that is meant: DRIFTLESS_GOLDEN=write cargo test -p e2e --test golden"
        );
    }
}

/// The help of a command, and the names of those below it.
fn help(name: &str, path: &[String]) -> (String, Vec<String>) {
    let mut command = program(name);
    command.args(path).arg("--help").env_remove("COLUMNS");
    let shown = output(&mut command);
    assert_eq!(shown.status.code(), Some(0), "{name} {path:?}");
    let text = String::from_utf8(shown.stdout).expect("help is text");
    let below = text.lines().skip_while(|line| *line != "Commands:").skip(1);
    let below = below.take_while(|line| !line.is_empty());
    let names = below.filter_map(|line| line.strip_prefix("  ").filter(|l| !l.starts_with(' ')));
    let names = names.filter_map(|line| line.split(' ').next());
    let names = names.filter(|name| *name != "help").map(str::to_owned);
    (text.clone(), names.collect())
}

/// All commands of a program with their help, by the words that name them.
fn all_helps(name: &str) -> BTreeMap<Vec<String>, String> {
    let (mut all, mut left) = (BTreeMap::new(), vec![Vec::new()]);
    while let Some(path) = left.pop() {
        let (text, below) = help(name, &path);
        // `driftless agent` is the other program
        let below = below
            .into_iter()
            .filter(|below| below != "agent" || name == AGENT);
        left.extend(below.map(|below| [path.clone(), vec![below]].concat()));
        all.insert(path, text);
    }
    all
}

#[test]
fn every_help_is_as_it_was_published() {
    for name in ["driftless", AGENT] {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for (path, text) in all_helps(name) {
            let file = path.first().map_or("0", String::as_str);
            let file = files.entry(format!("{file}.txt")).or_default();
            let _ = writeln!(file, "$ {name} {} --help\n{text}", path.join(" "));
        }
        assert!(files.len() > 10, "{files:?}");
        compare(&format!("help/{name}"), &files, |a, b| a == b);
    }
    let (through, _) = help("driftless", &["agent".to_owned()]);
    assert_eq!(
        through.replace("driftless agent", AGENT),
        help(AGENT, &[]).0
    );
}

#[test]
fn the_page_of_commands_names_every_flag() {
    let page = include_str!("../../../docs/cli.md");
    let words = page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let known: BTreeSet<&str> = words.collect();
    for name in ["driftless", AGENT] {
        for (path, text) in all_helps(name) {
            let flags =
                text.lines().filter_map(|line| {
                    let line = line.trim_start();
                    let line = line.split_once(", ").map_or(line, |(short, long)| {
                        if short.len() == 2 { long } else { line }
                    });
                    let flag = line
                        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                        .next()?;
                    flag.starts_with("--").then_some(flag)
                });
            for flag in flags.filter(|flag| !["--help", "--version"].contains(flag)) {
                assert!(known.contains(flag), "{name} {}: {flag}", path.join(" "));
            }
        }
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        for (name, flag) in [("driftless", None), (AGENT, Some("--agent"))] {
            let script = output(program("driftless").args(["completion", shell]).args(flag));
            assert_eq!(script.status.code(), Some(0));
            let script = String::from_utf8(script.stdout).expect("a script is text");
            for word in all_helps(name).into_keys().flatten() {
                assert!(script.contains(&word), "{shell} {name}: {word}");
            }
            if name == "driftless" {
                // of the agent's own commands, which are its, too
                assert!(script.contains("hold-above"), "{shell}");
                assert!(!script.contains("demo-child"), "{shell}");
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let written = output(program("driftless").arg("man").arg(&pages));
    assert_eq!(written.status.code(), Some(0));
    for name in ["driftless", AGENT] {
        for path in all_helps(name).into_keys() {
            let page = [&[name.to_owned()], &path[..]].concat().join("-");
            let text = fs::read_to_string(pages.join(format!("{page}.1")));
            let text = text.unwrap_or_else(|error| panic!("{page}: {error}"));
            assert!(text.contains(".SH NAME"), "{page}");
        }
    }
}

/// A fleet with something of everything: a run that is over, one that waits for a person, a
/// schedule, a token.
fn furnished() -> (Fleet, [String; 2]) {
    let fleet = Fleet::start(&[&["--monitor-interval", "100ms"]]);
    let run = fleet.submit(ONE);
    let _ = fleet.wait_run(&run, "succeeded");
    let asking = fleet.submit(ASKING);
    fleet.wait("the question", || fleet.json(&["waits", "list"]).pop());
    let waits = || fleet.agent_json(0, &["waits"]).pop();
    fleet.wait("the question at the gateway", waits);
    let spec = fleet.spec(NIGHTLY).display().to_string();
    let _ = fleet.json(&["schedule", "create", &spec, "--node", "gw-0"]);
    let schedules = || fleet.agent_json(0, &["schedule", "list"]).pop();
    fleet.wait("the schedule at the gateway", schedules);
    let _ = fleet.token(&["--name", "gw-9"]);
    let _ = fleet.json(&["access", "create", "--role", "viewer", "--name", "ann"]);
    fleet.wait("a sample", || {
        let node = fleet.json(&["node", "get", "gw-0"]).pop()?;
        (!node["telemetry"].is_null()).then_some(())
    });
    fleet.wait_delivered(0);
    (fleet, [run, asking])
}

const ONE: &str = "\
name: one
tasks:
  a: {command: [sh, -c, 'echo hello | tee a.txt'], outputs: [a.txt]}
";
const ASKING: &str = "\
name: asking
tasks:
  ask: {approval: {prompt: 'May it go on?'}}
";
const NIGHTLY: &str = "\
name: nightly
schedule: {cron: '0 3 * * *'}
tasks:
  a: {command: ['true']}
";

/// Command lines that are wrong or ask for what is not there. `@D` is a directory, `@N` nobody's.
const MISTAKES: &[&str] = &[
    "driftless frobnicate",
    "driftless run",
    "driftless run list --state happy",
    "driftless run lost",
    "driftless submit",
    "driftless submit flow.yaml --param month",
    "driftless submit flow.yaml --timeout 5m",
    "driftless token create --expires 5",
    "driftless token create --name a --replace b",
    "driftless graph flow.yaml --format png",
    "driftless completion tcsh",
    "driftless run list --api 127.0.0.1:1",
    "driftless run list --api nowhere:at:all",
    "driftless run list --data @D/none",
    "driftless run list --api http://192.0.2.1:80 --token dfa1-0-0",
    "driftless lint @D/none.yaml",
    "driftless lint @D/bad.yaml",
    "driftless backup verify @D/none",
    "driftless config check --config @D/none.toml",
    "driftless run get zzzz --data @C",
    "driftless run cancel zzzz --data @C",
    "driftless task get zzzz a --data @C",
    "driftless task list @R --state ready --data @C",
    "driftless task get @R b --data @C",
    "driftless task logs @R a --attempt 9 --data @C",
    "driftless node get nobody --data @C",
    "driftless node forget nobody --data @C",
    "driftless token revoke zzzz --data @C",
    "driftless authority rotate finish --data @C",
    "driftless access revoke nobody --data @C",
    "driftless access create --role viewer --name ann --data @C",
    "driftless schedule get none --data @C",
    "driftless config set colour blue --data @C",
    "driftless events --after 100000 --data @C",
    "driftless-agent",
    "driftless-agent ps --colour",
    "driftless-agent resume",
    "driftless-agent status --data @D/none",
    "driftless-agent run --data @D/fresh --name a --metrics everywhere",
    "driftless-agent explain zzzz a --data @A",
    "driftless-agent cancel zzzz --data @A",
    "driftless-agent submit @D/none.yaml --data @A",
    "driftless-agent submit @D/bad.yaml --data @A",
    "driftless-agent journal verify --data @D/none",
    "driftless-agent store check --data @D/none",
    "driftless journal verify --data @D/none",
    "driftless store check --data @D/none",
];

#[test]
fn mistakes_are_answered_as_they_were_published() {
    let (fleet, [run, _]) = furnished();
    let base = fleet.base().display().to_string();
    fs::write(
        fleet.base().join("bad.yaml"),
        "name: 7up\ntasks:\n  a: {comand: [x]}\n",
    )
    .unwrap();
    let places = [
        ("@C", fleet.data().display().to_string()),
        ("@A", fleet.agent_data(0).display().to_string()),
        ("@R", run.clone()),
        ("@D", base.clone()),
    ];
    let mut text = a_low_role();
    for line in MISTAKES {
        let mut words = line.split(' ');
        let mut command = program(words.next().unwrap());
        command.args(words.map(|word| {
            let place = |word: String, (mark, is): &(&str, String)| word.replace(mark, is);
            places.iter().fold(word.to_owned(), place)
        }));
        let said = output(command.env_remove("COLUMNS"));
        let code = said.status.code().expect("it ends by itself");
        assert!(code != 0 || line.contains("--state ready"), "{line}");
        let errors = String::from_utf8(said.stderr).expect("errors are text");
        let errors = errors
            .replace(&base, "@D")
            .replace(&run, "@R")
            .replace(&run[..12], "@R");
        let errors = errors.replace(&fleet.api().to_string(), "@API");
        let errors = without_numbers(&errors, "events that are kept are ");
        let _ = writeln!(text, "$ {line}\n{errors}exit code {code}\n");
    }
    let made = fleet.base().join("none");
    assert!(!made.exists(), "looking at what is not there made it");
    let files = [("errors.txt".to_owned(), text)].into();
    compare("errors", &files, |a, b| a == b);
}

/// What a viewer is answered who wants more.
fn a_low_role() -> String {
    let guarded = Fleet::serving(&["--api-tls"], &[]);
    let made = guarded.json(&["access", "create", "--role", "viewer", "--name", "eve"]);
    let token = made[0]["token"].as_str().expect("a token");
    let line = "driftless token create --token @VIEWER --data @C";
    let mut command = program("driftless");
    command.args(["token", "create", "--token", token, "--data"]);
    let said = output(command.arg(guarded.data()));
    let code = said.status.code().expect("it ends by itself");
    let errors = String::from_utf8_lossy(&said.stderr).into_owned();
    format!("$ {line}\n{errors}exit code {code}\n\n")
}

/// Leaves out what follows `behind` on its line: it is never twice the same.
fn without_numbers(text: &str, behind: &str) -> String {
    let mut lines = text.lines().map(|line| match line.split_once(behind) {
        Some((before, _)) => format!("{before}{behind}…\n"),
        None => format!("{line}\n"),
    });
    lines.by_ref().collect()
}

/// What is asked for its shape, with `--json`.
const SHAPES: &[&str] = &[
    "driftless access create --role viewer --name bob",
    "driftless access list",
    "driftless access revoke bob",
    "driftless audit list",
    "driftless authority show",
    "driftless backup create @D/one.backup",
    "driftless backup status",
    "driftless backup verify @D/one.backup",
    "driftless cert list",
    "driftless config get",
    "driftless config set max_retries 4",
    "driftless config unset max_retries",
    "driftless doctor",
    "driftless events --limit 1",
    "driftless graph @D/flow-0.yaml --format json",
    "driftless man @D/man",
    "driftless node get gw-0",
    "driftless node list",
    "driftless run get @R",
    "driftless run list",
    "driftless run wait @R",
    "driftless schedule get nightly",
    "driftless schedule list",
    "driftless schedule next nightly 2",
    "driftless submit @D/flow-0.yaml",
    "driftless task explain @R a",
    "driftless task get @R a",
    "driftless task list @R",
    "driftless telemetry query gw-0 --metric memory_total_kib",
    "driftless token create",
    "driftless token list",
    "driftless token revoke @T",
    "driftless waits list",
    "driftless-agent check",
    "driftless-agent explain @R a",
    "driftless-agent ps --all",
    "driftless-agent schedule get nightly",
    "driftless-agent schedule list",
    "driftless-agent schedule next nightly 2",
    "driftless-agent status",
    "driftless-agent telemetry",
    "driftless-agent waits",
    "driftless config check",
    "driftless lint @D/flow-0.yaml",
    "driftless node cordon gw-0",
    "driftless node label gw-0 site=a",
    "driftless node sync-status gw-0",
    "driftless node taint gw-0 a=b:avoid",
    "driftless node drain gw-0",
    "driftless node uncordon gw-0",
    "driftless run pause @Q",
    "driftless run resume @Q",
    "driftless answer @Q ask yes",
    "driftless run retry @R --from a",
    "driftless schedule pause nightly",
    "driftless schedule resume nightly",
    "driftless schedule trigger nightly",
    "driftless task history @R a",
    "driftless-agent config check",
    "driftless-agent schedule pause nightly",
    "driftless-agent schedule trigger nightly",
    "driftless-agent submit @D/flow-0.yaml",
    "driftless plan @D/flow-0.yaml",
    "driftless run watch @R",
    "driftless run logs @R",
    "driftless task logs @R a",
    "driftless telemetry gaps gw-0",
    "driftless schedule create @D/flow-2.yaml --replace",
    "driftless schedule backfill nightly --from 2026-01-01 --to 2026-01-02",
    "driftless journal verify",
    "driftless journal export",
    "driftless support-bundle @D/coordinator.bundle",
    "driftless-agent logs @R a",
    "driftless-agent answer @1 ask yes",
    "driftless-agent pause @2",
    "driftless-agent resume @2",
    "driftless-agent cancel @2",
    "driftless-agent retry @F a",
    "driftless run cancel @3",
    "driftless-agent schedule create @D/daily.yaml",
    "driftless-agent schedule backfill daily --from 2026-01-01 --to 2026-01-02",
    "driftless-agent schedule resume daily",
    "driftless-agent schedule delete daily",
    "driftless-agent journal verify",
    "driftless-agent journal export",
    "driftless-agent sync status",
    "driftless-agent sync pause",
    "driftless-agent sync resume",
    "driftless-agent support-bundle @D/agent.bundle",
    "driftless schedule delete nightly",
    "driftless run forget @R",
    "driftless authority rotate begin",
    "driftless authority rotate status",
    "driftless authority rotate finish --force",
];

/// Commands that print no JSON, and why.
const NO_JSON: [(&str, &str); 3] = [
    ("driftless completion", "a script for a shell"),
    ("driftless task output", "the content of a file"),
    ("driftless-agent run", "it prints nothing but its log"),
];

/// Fields whose keys are data, not names.
const MAPS: &[&str] = &["values", "labels", "tasks", "scheduler", "custom", "inputs"];

/// Fields of which only their kind is published: entries of the logs, which are as many kinds.
const OPAQUE: &[&str] = &["entry"];

/// All paths of a value with their types.
fn shape(at: &str, value: &Value, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    found.entry(at.to_owned()).or_default().insert(kind);
    match value {
        _ if OPAQUE.iter().any(|name| at.ends_with(name)) => {}
        Value::Array(items) => items
            .iter()
            .for_each(|item| shape(&format!("{at}[]"), item, found)),
        Value::Object(fields) => {
            let name = at.rsplit('.').next().unwrap_or(at);
            for (field, value) in fields {
                let key = if MAPS.contains(&name) { "*" } else { field };
                shape(&format!("{at}.{key}"), value, found);
            }
        }
        _ => {}
    }
}

/// Every command of both programs that has none below it.
fn leaves() -> BTreeSet<String> {
    let of = |name: &'static str| {
        let all: Vec<Vec<String>> = all_helps(name).into_keys().collect();
        let below = |path: &Vec<String>| {
            all.iter()
                .any(|o| o.len() > path.len() && o.starts_with(path))
        };
        let leaves = all.iter().filter(|path| !below(path));
        let leaves = leaves.map(|path| format!("{name} {}", path.join(" ")));
        leaves.collect::<Vec<_>>()
    };
    ["driftless", AGENT].into_iter().flat_map(of).collect()
}

/// Whether two shapes are the same, as far as both can be known: behind what is null, or in a list
/// without items, there may be anything.
fn is_same_shape(one: &str, other: &str) -> bool {
    let paths = |text: &str| -> BTreeMap<String, String> {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .map(|(path, kinds)| (path.to_owned(), kinds.to_owned()))
            .collect()
    };
    let (one, other) = (paths(one), paths(other));
    let unknown = |path: &str, at: &BTreeMap<String, String>| {
        let is_above = |(above, kinds): (&String, &String)| {
            let rest = path.strip_prefix(above.as_str()).unwrap_or_default();
            let list = kinds.contains("list") && !at.contains_key(&format!("{above}[]"));
            let inside = rest.starts_with('.') || rest.starts_with("[]");
            inside && (kinds.contains("null") || list)
        };
        at.iter().any(is_above)
    };
    let fits = |path: &String| match (one.get(path), other.get(path)) {
        (Some(a), Some(b)) => {
            let known = |kinds: &str| kinds.replace("null or ", "").replace(" or null", "");
            let (a, b) = (known(a), known(b));
            a == b || a == "null" || b == "null"
        }
        (Some(_), None) => unknown(path, &other),
        (None, _) => unknown(path, &one),
    };
    one.keys().chain(other.keys()).all(fits)
}

#[test]
fn a_shape_is_the_same_as_far_as_it_is_known() {
    let full = ". object\n.a number\n.b list\n.b[] object\n.b[].c string";
    assert!(is_same_shape(full, full));
    assert!(is_same_shape(full, ". object\n.a null\n.b list"));
    assert!(is_same_shape(full, ". object\n.a null or number\n.b null"));
    assert!(!is_same_shape(full, ". object\n.a string\n.b list"));
    assert!(!is_same_shape(full, ". object\n.b list"));
    assert!(!is_same_shape(full, &format!("{full}\n.d number")));
}

/// What was seen of the commands' JSON.
struct Seen {
    /// Golden files by their names.
    files: BTreeMap<String, String>,
    /// All commands, and those of which nothing was seen.
    all: BTreeSet<String>,
    left: BTreeSet<String>,
}

impl Seen {
    fn new() -> Self {
        let all = leaves();
        Self {
            files: BTreeMap::new(),
            left: all.clone(),
            all,
        }
    }

    /// Runs a command of a fleet, in which `@D` and other marks stand for what is there.
    fn run(&mut self, fleet: &Fleet, marks: &[(&str, &str)], line: &str) {
        let base = fleet.base().display().to_string();
        let marks = [marks, &[("@D", base.as_str())]].concat();
        let words = line.split(' ').map(|word| {
            let put = |word: String, (mark, is): &(&str, &str)| word.replace(mark, is);
            marks.iter().fold(word.to_owned(), put)
        });
        let words: Vec<String> = words.collect();
        let args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let done = match words[0].as_str() {
            AGENT => fleet.agent_cli(0, &args),
            _ => fleet.cli(&args),
        };
        let ends_well =
            done.status.success() || line.ends_with(" doctor") || line.ends_with(" check");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(ends_well, "{line}: {said}");
        let text = String::from_utf8(done.stdout).expect("JSON is text");
        self.put(line, text.lines());
    }

    /// Takes the shape of the lines that a command printed.
    fn put<'a>(&mut self, line: &str, printed: impl Iterator<Item = &'a str>) {
        let mut found = BTreeMap::new();
        for one in printed {
            let value: Value =
                serde_json::from_str(one).unwrap_or_else(|_| panic!("{line}: {one}"));
            shape("", &value, &mut found);
        }
        assert!(!found.is_empty(), "{line} printed nothing");
        let mut file = format!("$ {line} --json\n");
        for (path, kinds) in found {
            let path = if path.is_empty() { "." } else { &path };
            let kinds: Vec<_> = kinds.into_iter().collect();
            let _ = writeln!(file, "{path} {}", kinds.join(" or "));
        }
        let is = |leaf: &&String| format!("{line} ").starts_with(&format!("{leaf} "));
        let leaf = self.all.iter().find(is);
        let leaf = leaf.unwrap_or_else(|| panic!("{line} is no command"));
        self.files
            .insert(format!("{}.txt", leaf.replace(' ', "-")), file);
        self.left.remove(leaf);
    }
}

const DAILY: &str = "\
name: daily
schedule: {every: 1d}
tasks:
  a: {command: ['true']}
";
const FAILING: &str = "\
name: failing
defaults: {retry: {max_attempts: 1}}
tasks:
  a: {command: ['false']}
";

/// Commands of a fleet that is well.
fn see_a_fleet(seen: &mut Seen) {
    let (mut fleet, [run, asking]) = furnished();
    // what was not measured meanwhile is a gap
    fleet.stop_agent(0);
    fleet.start_agent(0);
    fleet.wait_online(0);
    fleet.wait("a gap", || fleet.json(&["telemetry", "gaps", "gw-0"]).pop());
    let further = [ASKING, ASKING, ASKING].map(|spec| fleet.submit(spec));
    for one in &further {
        let _ = fleet.wait_task(one, "ask", "blocked");
    }
    let failed = fleet.submit(FAILING);
    let _ = fleet.wait_run(&failed, "failed");
    fs::write(fleet.base().join("daily.yaml"), DAILY).expect("a file");
    let token = fleet.json(&["token", "list"])[0]["id"].clone();
    let marks = [
        ("@R", run.as_str()),
        ("@Q", asking.as_str()),
        ("@T", token.as_str().expect("an id")),
        ("@1", further[0].as_str()),
        ("@2", further[1].as_str()),
        ("@3", further[2].as_str()),
        ("@F", failed.as_str()),
    ];
    for line in SHAPES {
        seen.run(&fleet, &marks, line);
    }
}

/// Runs on one of two gateways until there is the mark `go`, and elsewhere when that one is silent.
const MOVES: &str = "\
name: moves
tasks:
  a:
    disconnect: {lost_after: 1s, replace: true}
    side_effects: idempotent
    shell: while [ ! -e @M/go ]; do sleep 0.05; done
";

/// Commands for what goes wrong, and for what stands still.
fn see_a_fleet_in_trouble(seen: &mut Seen) {
    let mut fleet = Fleet::start(&[&[], &[]]);
    let run = fleet.submit(MOVES);
    let _ = fleet.wait_task(&run, "a", "running");
    let first = usize::from(fleet.task(&run, "a")["node"] == "gw-1");
    fleet.cut(first);
    fleet.wait("the task to move", || {
        (fleet.task(&run, "a")["node"] == format!("gw-{}", 1 - first)).then_some(())
    });
    fleet.put_mark("go", "");
    let _ = fleet.wait_run(&run, "succeeded");
    fleet.join(first);
    fleet.wait("the conflict", || fleet.json(&["conflicts", "list"]).pop());
    seen.run(&fleet, &[], "driftless conflicts list");
    let path = fleet.base().join("two.backup").display().to_string();
    let _ = fleet.json(&["backup", "create", &path]);

    fleet.stop_agent(0);
    fleet.stop_agent(1);
    fleet.stop_coordinator();
    for line in [
        "driftless store check",
        "driftless store compact",
        "driftless-agent store check",
        "driftless-agent store compact",
    ] {
        seen.run(&fleet, &[], line);
    }
    let copied = fleet.base().join("copied");
    copy(fleet.agent_data(0), &copied);
    fs::rename(fleet.data(), fleet.base().join("lost")).expect("a directory");
    seen.run(&fleet, &[], "driftless backup restore @D/two.backup");
    fleet.start_coordinator();
    // the restored coordinator waits for both
    seen.run(&fleet, &[], "driftless node gone gw-1");
    seen.run(&fleet, &[], "driftless node forget gw-1");
    fleet.start_agent(0);
    fleet.wait_online(0);
    let twin = fleet.clone_agent("twin", &copied);
    fleet.wait("the quarantine", || {
        let waits = fleet.json(&["waits", "list"]);
        let is = |w: &Value| w["command"].to_string().contains("node release");
        waits.into_iter().find(is)
    });
    drop(twin);
    seen.run(&fleet, &[], "driftless node release gw-0");
}

/// A coordinator that runs in the foreground says where it is.
fn see_serve(seen: &mut Seen) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = program("driftless");
    let nowhere = "127.0.0.1:0";
    command.args(["serve", "--json", "--listen", nowhere, "--api", nowhere]);
    let mut child = command.arg("--data").arg(dir.path().join("c")).spawn();
    let child = child.as_mut().expect("a built program can be started");
    let mut line = String::new();
    let out = child.stdout.take().expect("it is piped");
    let read = BufReader::new(out).read_line(&mut line);
    child.kill().expect("a child can be killed");
    child.wait().expect("a child ends");
    assert!(read.is_ok_and(|bytes| bytes > 0));
    seen.put("driftless serve", line.lines());
}

fn see_a_rehearsal(seen: &mut Seen, dir: &Path) {
    let [flow, fleet] = ["flow.yaml", "fleet.yaml"].map(|name| dir.join(name));
    let text = "name: x\ntasks: {t: {side_effects: at_most_once, estimate: 1h, shell: 'true'}}";
    fs::write(&flow, text).expect("a specification");
    fs::write(&fleet, "nodes: [{name: a}]").expect("a fleet");
    let mut command = program("driftless");
    command.args(["rehearse", "--json", "--seeds", "8", "--power-cut", "3"]);
    command.args(["--expect", "succeeded=100%"]);
    let out = output(command.arg(flow).arg("--nodes").arg(fleet));
    let told = String::from_utf8_lossy(&out.stdout);
    seen.put("driftless rehearse", told.lines());
}

#[test]
fn what_json_prints_has_the_shape_that_was_published() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let mut demo = program("driftless");
    demo.args(["demo", "--json"]).env("TMPDIR", dir.path());
    let demo = demo.spawn().expect("a built program can be started");
    let mut seen = Seen::new();
    see_a_fleet(&mut seen);
    see_a_fleet_in_trouble(&mut seen);
    see_serve(&mut seen);
    see_a_rehearsal(&mut seen, dir.path());
    let demo = demo.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&demo.stdout);
    seen.put("driftless demo", told.lines().next_back().into_iter());
    for (command, _) in NO_JSON {
        assert!(seen.left.remove(command), "{command} printed some");
    }
    assert!(seen.left.is_empty(), "not tried: {:?}", seen.left);
    let none = NO_JSON.map(|(command, why)| format!("{command}: {why}\n"));
    let none = format!("These print no JSON:\n{}", none.concat());
    seen.files.insert("0-not-tried.txt".to_owned(), none);
    compare("json", &seen.files, is_same_shape);
}
