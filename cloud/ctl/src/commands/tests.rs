//! Commands against a coordinator in this process: exit codes, JSON names, what people see.

use crate::args::{Cli, Global};
use crate::client::Client;
use crate::commands::execute;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::progress::{self, Show};
use clap::Parser;
use cloud::{Options, Ready};
use serde_json::Value;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;

const FLOW: &str = "\
name: cold-chain
params: {limit: {type: integer, default: 80}}
tasks:
  read: {command: [sensor-read], outputs: [raw.txt]}
  clean: {command: [sort, raw.txt], env: {LIMIT: \"${params.limit}\"}, inputs: [raw.txt]}
";

/// A coordinator and a directory with files to submit.
struct World {
    dir: TempDir,
    ready: Ready,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ready, stop, thread) = serve(dir.path().join("data"));
        Self {
            dir,
            ready,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Stops the coordinator and starts it again, at another address.
    fn restart(&mut self) {
        self.halt();
        let (ready, stop, thread) = serve(self.dir.path().join("data"));
        (self.ready, self.stop, self.thread) = (ready, Some(stop), Some(thread));
    }

    fn halt(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs a command; its exit code and its standard output.
    fn run(&self, line: &str) -> (Result<Code, Failure>, String) {
        let api = self.ready.api.to_string();
        let words = ["driftless", "--api", &api]
            .into_iter()
            .chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap();
        let sink = Sink::default();
        let mut out = Output::plain(cli.global.json, Box::new(sink.clone()));
        let code = execute(cli, &mut out);
        (code, sink.text())
    }

    fn ok(&self, line: &str) -> String {
        let (code, text) = self.run(line);
        assert_eq!(code, Ok(Code::Done), "{line}");
        text
    }

    fn json(&self, line: &str) -> Value {
        let text = self.ok(&format!("{line} --json"));
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    fn fails(&self, line: &str, code: Code, said: &str) {
        let (found, text) = self.run(line);
        let failure = found.expect_err(line);
        assert_eq!(failure.code, code, "{line}: {failure}");
        assert!(failure.to_string().contains(said), "{line}: {failure}");
        assert_eq!(text, "", "{line}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.halt();
    }
}

fn serve(data: PathBuf) -> (Ready, oneshot::Sender<()>, JoinHandle<()>) {
    let any = "127.0.0.1:0".parse().unwrap();
    let options = Options {
        data,
        listen: any,
        api: any,
        file_budget: 1 << 20,
        access: cloud::Guarded::default(),
        record: cloud_core::record::Limits::default(),
        retention: cloud_core::event::RETENTION,
        certificate_life: cloud::CERTIFICATE_LIFE,
        renewal_grace: cloud::RENEWAL_GRACE,
        backup: None,
        scheduler: shared::config::scheduler::Scheduler::default(),
        hellos_at_once: cloud::HELLOS_AT_ONCE,
    };
    let (told, is_ready) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let stop = async { drop(stopped.await) };
        let tell = |ready: &Ready| told.send(ready.clone()).unwrap();
        runtime
            .unwrap()
            .block_on(cloud::serve(options, stop, tell))
            .unwrap();
    });
    let ready = is_ready.recv_timeout(Duration::from_secs(30)).unwrap();
    (ready, stop, thread)
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}
impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_run_from_submission_to_its_end() {
    let world = World::new();
    let flow = world.write("flow.yaml", FLOW);
    let run = world.json(&format!("submit {} --param limit=90", flow.display()));
    for name in ["id", "workflow", "state", "waits"] {
        assert!(run.get(name).is_some(), "{name} in {run}");
    }
    assert_eq!(run["params"]["limit"], "90");
    let id = run["id"].as_str().unwrap();
    let beginning = &id[..10];
    assert_eq!(world.json("run list")["id"], id);
    assert_eq!(world.json(&format!("run get {beginning}"))["id"], id);
    let tasks = world.ok(&format!("task list {beginning} --json"));
    let tasks: Vec<Value> = tasks
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(
        tasks.iter().map(|task| &task["task"]).collect::<Vec<_>>(),
        ["read", "clean"]
    );
    assert_eq!(tasks[0]["run"], id);

    world.fails(
        &format!("run wait {beginning} --timeout 10ms"),
        Code::TimedOut,
        "was not over",
    );
    world.ok(&format!("run cancel {beginning} --reason test"));
    let (code, text) = world.run(&format!("run wait {beginning}"));
    assert_eq!(code, Ok(Code::Failed));
    assert!(
        text.starts_with(&format!("{} cancelled after ", &id[..12])),
        "{text}"
    );
    world.fails(&format!("run cancel {beginning}"), Code::Refused, "already");
}

#[test]
fn people_see_tables() {
    let world = World::new();
    let flow = world.write("flow.yaml", FLOW);
    let id = world.ok(&format!("submit {}", flow.display()));
    let id = id.trim_end();
    assert_eq!(id.len(), 32, "the id alone is data");
    let by = super::who();
    let width = by.len().max(2);
    let wanted = format!(
        "RUN           WORKFLOW    STATE     DONE  SUBMITTED  {:width$}  WAITS\n\
         {}  cold-chain  accepted   0/2  just now   {by:width$}  1\n",
        "BY",
        &id[..12]
    );
    assert_eq!(world.ok("run list"), wanted);
    let found = world.ok(&format!("task list {id}"));
    assert_eq!(found.lines().count(), 3, "{found}");
    let header = "TASK   STATE    NODE  ATTEMPTS  SINCE";
    assert!(found.starts_with(header), "{found}");
    let explained = world.ok(&format!("task explain {id} clean"));
    assert!(
        explained.starts_with("clean waits for a node"),
        "{explained}"
    );
    assert_eq!(world.ok("node list"), "");
    let wait = world.json("waits list");
    assert_eq!(wait["run"], id);
}

#[test]
fn the_same_key_gives_the_same_run_and_files_go_first() {
    let world = World::new();
    let text = "name: sent\ntasks:\n  a: {command: [cat, in.txt], inputs: [in.txt]}\n";
    let flow = world.write("sent.yaml", text);
    let data = world.write("data.txt", "1 2 3");
    let (flow, data) = (flow.display(), data.display());
    let line = format!("submit {flow} --file in.txt={data} --idempotency-key nightly");
    let first = world.ok(&line);
    assert_eq!(world.ok(&line), first);
    assert_eq!(world.ok("run list --json").lines().count(), 1);
    let large = world.write("large.bin", &"x".repeat(2 << 20));
    let line = format!("submit {flow} --file in.txt={}", large.display());
    world.fails(&line, Code::Refused, "--file-budget");
}

#[test]
fn mistakes_are_shown_at_once_and_nothing_is_sent() {
    let world = World::new();
    let text = "name: x\ntasks:\n  a: {comand: [a]}\n  b: {command: [b], needs: [zz]}\n";
    let flow = world.write("bad.yaml", text);
    let flow = flow.display();
    for command in ["submit", "lint", "graph"] {
        let (code, lines) = world.run(&format!("{command} {flow} --json"));
        assert_eq!(code.unwrap_err().code, Code::Specification);
        let lines: Vec<Value> = lines
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert!(lines.len() >= 2, "{lines:?}");
        for name in ["file", "line", "column", "what", "mend"] {
            assert!(lines[0].get(name).is_some(), "{name} in {}", lines[0]);
        }
    }
    assert_eq!(world.ok("run list --json"), "");
    world.fails(
        &format!("submit {flow} --param a=1 --param a=2"),
        Code::Usage,
        "twice",
    );
    world.fails(
        "submit /nowhere/flow.yaml",
        Code::NotFound,
        "/nowhere/flow.yaml",
    );
}

#[test]
fn lint_and_graph_need_no_coordinator() {
    let world = World::new();
    let flow = world.write("flow.yaml", FLOW);
    let expanded = world.ok(&format!("lint {}", flow.display()));
    assert!(expanded.contains("max_attempts: 4"), "{expanded}");
    let again = world.write("again.yaml", &expanded);
    assert_eq!(world.ok(&format!("lint {}", again.display())), expanded);
    let dot = world.ok(&format!("graph {} --format dot", flow.display()));
    assert!(dot.starts_with("digraph"), "{dot}");
    let graph = world.ok(&format!("graph {} --json", flow.display()));
    assert!(serde_json::from_str::<Value>(&graph).is_ok(), "{graph}");
}

#[test]
fn waiting_outlives_a_coordinator_that_comes_back_at_another_address() {
    let mut world = World::new();
    let flow = world.write("flow.yaml", FLOW);
    let id = world.ok(&format!("submit {}", flow.display()));
    let id = id.trim_end().to_owned();
    let data = Some(world.dir.path().join("data"));
    let global = Global {
        data,
        ..Global::default()
    };
    let client = Client::new(&global).unwrap();
    let run = id.parse().unwrap();
    let waiting = std::thread::spawn(move || {
        let mut out = Output::plain(false, Box::new(io::sink()));
        progress::follow(&client, run, Show::Progress, None, &mut out)
    });
    world.restart();
    world.ok(&format!("run cancel {id}"));
    assert_eq!(waiting.join().unwrap().unwrap().state, "cancelled");
}

#[test]
fn names_that_nobody_has_are_said() {
    let world = World::new();
    let flow = world.write("flow.yaml", FLOW);
    let id = world.ok(&format!("submit {}", flow.display()));
    let id = id.trim_end();
    world.fails("run get 00ff00ff", Code::NotFound, "no run");
    world.fails(
        &format!("task get {id} claen"),
        Code::NotFound,
        "did you mean clean?",
    );
    world.fails(
        &format!("task logs {id} clean"),
        Code::NotFound,
        "has not run",
    );
    world.fails(
        &format!("task output {id} read"),
        Code::NotFound,
        "no outputs",
    );
    world.fails("node forget gw-7", Code::NotFound, "no node gw-7");
    let token = world.json("token create --name gw-7 --expires 10m");
    assert!(token["token"].as_str().unwrap().starts_with("dft1-"));
    assert!(token["expires"].is_i64());
    world.fails("token create --name a/b", Code::Refused, "'/'");
}
