//! A coordinator, agents that reach it through a relay, and the cables between them, which can be
//! pulled. All processes are the built binaries; everything is looked at through their command
//! lines. Waiting has a bound everywhere, and nothing outlives the [`Fleet`].
//!
//! Tasks can leave something outside their directory only in [`Fleet::marks`]; in a specification
//! `@M` stands for it. A task that shall wait for the test waits for a mark: [`HOLD`].

mod faults;

use crate::agent::{binary, stderr, stdout, wait_for};
use crate::disk::SmallDisk;
use relay::Relay;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Shell text that waits until the test has left the mark `go`.
pub const HOLD: &str = "until [ -e @M/go ]; do sleep 0.02; done";

/// One gateway of a fleet.
#[derive(Debug)]
struct Node {
    name: String,
    data: PathBuf,
    args: Vec<String>,
    env: Vec<(String, PathBuf)>,
    child: Option<Child>,
}

/// A coordinator with its gateways.
#[derive(Debug)]
pub struct Fleet {
    nodes: Vec<Node>,
    coordinator: Option<Child>,
    listen: SocketAddr,
    api: SocketAddr,
    relay: Relay,
    specs: AtomicU32,
    /// Further arguments of `serve`.
    serve_args: Vec<String>,
    /// Small disks of gateways; they go before the directory does.
    disks: BTreeMap<usize, SmallDisk>,
    base: TempDir,
}

/// An agent on a copied directory; ended with this.
#[derive(Debug)]
pub struct CopiedAgent(Child);

impl Drop for CopiedAgent {
    fn drop(&mut self) {
        // It may have ended already; it must only not be left.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory for a test that tasks of any user may pass through, with `marks` in it that they may
/// write to.
fn directory() -> TempDir {
    let base = tempfile::tempdir().expect("a temporary directory");
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    open(base.path(), 0o755).expect("its mode can be changed");
    let marks = base.path().join("marks");
    fs::create_dir(&marks).expect("a directory in it");
    open(&marks, 0o777).expect("its mode can be changed");
    base
}

/// A program with nothing of the test's own environment that would steer it.
#[must_use]
pub fn program(name: &str) -> Command {
    let mut command = Command::new(binary(name));
    for variable in ["API", "DATA", "TOKEN", "AGENT_DATA", "LOG"] {
        command.env_remove(format!("DRIFTLESS_{variable}"));
    }
    for side in ["AGENT", "COORDINATOR"] {
        command.env(format!("DRIFTLESS_{side}_CONFIG"), "/dev/null");
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a program to its end.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn output(command: &mut Command) -> Output {
    command.output().expect("a built program can be started")
}

/// Copies a directory with all that is in it, owners and times as well.
///
/// # Panics
/// If it cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    let done = output(Command::new("cp").arg("-a").args([from, to]));
    assert!(done.status.success(), "{from:?}: {}", stderr(&done));
}

impl Fleet {
    /// A coordinator and one gateway for each item, which are further arguments of its `run`
    /// (`--label station=sf`). They are called `gw-0`, `gw-1`, …, are enrolled and online.
    ///
    /// # Panics
    /// If something of it does not come up.
    #[must_use]
    pub fn start(nodes: &[&[&str]]) -> Self {
        let mut fleet = Self::enrolling(nodes);
        for node in 0..nodes.len() {
            fleet.start_agent(node);
        }
        for node in 0..nodes.len() {
            fleet.wait_online(node);
        }
        fleet
    }

    /// The same without any agent started yet.
    ///
    /// # Panics
    /// If the coordinator does not come up.
    #[must_use]
    pub fn enrolling(nodes: &[&[&str]]) -> Self {
        Self::with(directory(), &[], nodes)
    }

    /// The same with further arguments of `serve`.
    ///
    /// # Panics
    /// If the coordinator does not come up.
    #[must_use]
    pub fn serving(serve_args: &[&str], nodes: &[&[&str]]) -> Self {
        Self::with(directory(), serve_args, nodes)
    }

    /// Goes on with data directories (`coordinator`, `gw-0`, …) that `fill` puts into the test's
    /// directory.
    ///
    /// # Panics
    /// If the coordinator does not come up.
    #[must_use]
    pub fn found(fill: impl FnOnce(&Path), serve_args: &[&str], nodes: &[&[&str]]) -> Self {
        let base = directory();
        fill(base.path());
        let mut fleet = Self::with(base, serve_args, nodes);
        for (n, node) in fleet.nodes.iter_mut().enumerate() {
            let address = fleet.relay.address(n).to_string();
            node.args.extend(["--coordinator".to_owned(), address]);
        }
        fleet
    }

    fn with(base: TempDir, serve_args: &[&str], nodes: &[&[&str]]) -> Self {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let serve_args: Vec<String> = serve_args.iter().map(|arg| (*arg).to_owned()).collect();
        let coordinator = serve(base.path(), any, any, &serve_args);
        let (listen, api) = addresses(base.path());
        let relay = Relay::start(listen, nodes.len(), 1).expect("a relay on loopback");
        let node = |(n, args): (usize, &&[&str])| Node {
            name: format!("gw-{n}"),
            data: base.path().join(format!("gw-{n}")),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: Vec::new(),
            child: None,
        };
        let nodes = nodes.iter().enumerate().map(node).collect();
        let (coordinator, specs) = (Some(coordinator), AtomicU32::new(0));
        Self {
            nodes,
            coordinator,
            listen,
            api,
            relay,
            specs,
            serve_args,
            disks: BTreeMap::new(),
            base,
        }
    }

    /// The test's directory.
    #[must_use]
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// Where tasks may leave something.
    #[must_use]
    pub fn marks(&self) -> PathBuf {
        self.base().join("marks")
    }

    /// The content of a file that tasks wrote to [`Self::marks`]; nothing if it is not there.
    #[must_use]
    pub fn mark(&self, name: &str) -> String {
        fs::read_to_string(self.marks().join(name)).unwrap_or_default()
    }

    /// Leaves a file for tasks: `go` ends every [`HOLD`].
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn put_mark(&self, name: &str, text: &str) {
        fs::write(self.marks().join(name), text).expect("the test's directory can be written");
    }

    /// The coordinator's data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.base().join("coordinator")
    }

    /// A gateway's data directory.
    #[must_use]
    pub fn agent_data(&self, node: usize) -> &Path {
        &self.nodes[node].data
    }

    /// Where agents reach the coordinator without a relay.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where the coordinator's API is.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// The network between the agents and the coordinator; lane `n` is that of `gw-n`.
    #[must_use]
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Pulls a gateway's cable.
    pub fn cut(&self, node: usize) {
        self.relay.cut(node);
    }

    /// Plugs it in again.
    pub fn join(&self, node: usize) {
        self.relay.join(node);
    }

    /// Makes a token, with further arguments of `token create`.
    #[must_use]
    pub fn token(&self, args: &[&str]) -> String {
        let args: Vec<&str> = ["token", "create"].iter().chain(args).copied().collect();
        text(&self.json(&args).remove(0)["token"])
    }

    /// The command that runs a gateway's agent; it enrols if it is not enrolled yet.
    fn agent(&self, node: usize) -> Command {
        let Node {
            name,
            data,
            args,
            env,
            ..
        } = &self.nodes[node];
        let mut command = program("driftless-agent");
        command.envs(env.iter().map(|(name, path)| (name, path)));
        command.args([
            "run",
            "--idle-timeout",
            "2",
            "--redial-max",
            "1",
            "--stop-grace",
            "1",
        ]);
        command.arg("--data").arg(data).args(args);
        if !data.join("identity.json").exists() {
            let known = self.json(&["node", "list"]);
            let is_known = known.iter().any(|node| node["name"] == **name);
            let bound = if is_known { "--replace" } else { "--name" };
            let (address, token) = (
                self.relay.address(node).to_string(),
                self.token(&[bound, name]),
            );
            command.args(["--coordinator", &address, "--token", &token, "--name", name]);
        }
        command
    }

    /// Runs an agent on a copy of a gateway's directory; what it writes is in the log of this name.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn clone_agent(&self, name: &str, data: &Path) -> CopiedAgent {
        let mut command = program("driftless-agent");
        command.args(["run", "--idle-timeout", "2", "--redial-max", "1", "--data"]);
        command
            .arg(data)
            .stdout(Stdio::null())
            .stderr(self.log(name));
        CopiedAgent(command.spawn().expect("an agent can be started"))
    }

    fn log(&self, name: &str) -> Stdio {
        let path = self.base().join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.expect("the test's directory can be written").into()
    }

    /// Starts a gateway's agent and waits until it answers; the first time it enrols.
    ///
    /// # Panics
    /// If it runs already, or cannot be started.
    pub fn start_agent(&mut self, node: usize) {
        self.spawn_agent(node);
        self.wait(&format!("the agent of gw-{node}"), || {
            self.agent_cli(node, &["status"])
                .status
                .success()
                .then_some(())
        });
    }

    /// Ends a gateway's agent with SIGKILL; its tasks are left as they are.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_agent(&mut self, node: usize) {
        let mut child = self.nodes[node].child.take().expect("the agent runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a killed child ends");
    }

    /// Ends a gateway's agent with SIGTERM.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn stop_agent(&mut self, node: usize) {
        let child = self.nodes[node].child.take().expect("the agent runs");
        let ended = stop(child);
        assert_eq!(
            ended.code(),
            Some(0),
            "{}",
            self.log_text(&format!("gw-{node}"))
        );
    }

    /// Ends the coordinator with SIGKILL.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_coordinator(&mut self) {
        let mut child = self.coordinator.take().expect("the coordinator runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a killed child ends");
    }

    /// Ends the coordinator with SIGTERM.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn stop_coordinator(&mut self) {
        let child = self.coordinator.take().expect("the coordinator runs");
        let ended = stop(child);
        assert_eq!(ended.code(), Some(0), "{}", self.log_text("coordinator"));
    }

    /// Starts the coordinator again, where it was, and waits until it says where that is.
    pub fn start_coordinator(&mut self) {
        self.spawn_coordinator();
        addresses(self.base());
    }

    /// Runs `driftless` with `--json` against the coordinator.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Output {
        let mut command = program("driftless");
        output(
            command
                .args(args)
                .arg("--json")
                .arg("--data")
                .arg(self.data()),
        )
    }

    /// The same; the JSON lines that it prints.
    ///
    /// # Panics
    /// If it fails or prints something else.
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        self.lines(args, &self.cli(args))
    }

    /// Runs a local command of a gateway with `--json`.
    #[must_use]
    pub fn agent_cli(&self, node: usize, args: &[&str]) -> Output {
        let mut command = program("driftless-agent");
        output(
            command
                .args(args)
                .arg("--json")
                .arg("--data")
                .arg(&self.nodes[node].data),
        )
    }

    /// The same; the JSON lines that it prints.
    ///
    /// # Panics
    /// If it fails or prints something else.
    #[must_use]
    pub fn agent_json(&self, node: usize, args: &[&str]) -> Vec<Value> {
        self.lines(args, &self.agent_cli(node, args))
    }

    fn lines(&self, args: &[&str], output: &Output) -> Vec<Value> {
        assert!(
            output.status.success(),
            "{args:?}: {}\n{}",
            stderr(output),
            self.logs()
        );
        let lines = stdout(output);
        lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect()
    }

    /// Writes a specification to a file; `@M` becomes the path of [`Self::marks`].
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn spec(&self, text: &str) -> PathBuf {
        let number = self.specs.fetch_add(1, Ordering::Relaxed);
        let path = self.base().join(format!("flow-{number}.yaml"));
        let text = text.replace("@M", &self.marks().display().to_string());
        fs::write(&path, text).expect("the test's directory can be written");
        path
    }

    /// Submits a specification, with further arguments.
    #[must_use]
    pub fn try_submit(&self, text: &str, args: &[&str]) -> Output {
        let spec = self.spec(text).display().to_string();
        let all: Vec<&str> = ["submit", &spec]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        self.cli(&all)
    }

    /// Submits a specification; the run's id.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn submit(&self, spec: &str) -> String {
        let output = self.try_submit(spec, &[]);
        text(&self.lines(&["submit"], &output).remove(0)["id"])
    }

    /// A run as the coordinator shows it.
    #[must_use]
    pub fn run(&self, run: &str) -> Value {
        self.json(&["run", "get", run]).remove(0)
    }

    /// Waits until the coordinator shows a run in this state; the run.
    #[must_use]
    pub fn wait_run(&self, run: &str, state: &str) -> Value {
        self.wait(&format!("run {run} to be {state}"), || {
            Some(self.run(run)).filter(|run| run["state"] == state)
        })
    }

    /// All tasks of a run by id, as the coordinator shows them.
    #[must_use]
    pub fn tasks(&self, run: &str) -> BTreeMap<String, Value> {
        by_id(self.json(&["task", "list", run]))
    }

    /// One task with its attempts, as the coordinator shows it.
    #[must_use]
    pub fn task(&self, run: &str, task: &str) -> Value {
        self.json(&["task", "get", run, task]).remove(0)
    }

    /// Waits until the coordinator shows a task in this state; the task.
    #[must_use]
    pub fn wait_task_placed(&self, run: &str, task: &str) -> Value {
        self.wait("the task to be placed or to say why not", || {
            let found = self.task(run, task);
            let waits = self.run(run)["waits"]
                .as_array()
                .is_some_and(|w| !w.is_empty());
            (!found["node"].is_null() || waits).then(|| found["node"].clone())
        })
    }

    /// Waits until a task is in a state.
    pub fn wait_task(&self, run: &str, task: &str, state: &str) -> Value {
        self.wait(&format!("{task} to be {state}"), || {
            Some(self.task(run, task)).filter(|task| task["state"] == state)
        })
    }

    /// All tasks of a gateway by id, as its agent shows them.
    #[must_use]
    pub fn local_tasks(&self, node: usize) -> BTreeMap<String, Value> {
        by_id(self.agent_json(node, &["ps", "--all"]))
    }

    /// Waits until a gateway's own agent shows a task in this state; the task.
    #[must_use]
    pub fn wait_local(&self, node: usize, task: &str, state: &str) -> Value {
        self.wait(&format!("{task} to be {state} at gw-{node}"), || {
            self.local_tasks(node)
                .remove(task)
                .filter(|task| task["state"] == state)
        })
    }

    /// Waits until the coordinator shows a gateway in this state.
    pub fn wait_node(&self, node: usize, state: &str) {
        let name = &self.nodes[node].name;
        self.wait(&format!("{name} to be {state}"), || {
            let nodes = self.json(&["node", "list"]);
            nodes
                .into_iter()
                .find(|node| node["name"] == **name && node["state"] == state)
        });
    }

    /// Waits until a gateway is online.
    pub fn wait_online(&self, node: usize) {
        self.wait_node(node, "online");
    }

    /// Waits until a gateway has nothing left that the coordinator did not acknowledge.
    pub fn wait_delivered(&self, node: usize) {
        self.wait(
            &format!("all facts of gw-{node} to be acknowledged"),
            || {
                let status = self.agent_json(node, &["status"]).remove(0);
                (status["link"] == "online" && status["behind"] == 0).then_some(())
            },
        );
    }

    /// Like [`wait_for`], and shows all logs if it never comes.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let shown = std::panic::AssertUnwindSafe(|| wait_for(what, &mut look));
        std::panic::catch_unwind(shown).unwrap_or_else(|panic| {
            // Standard error of a test is kept and shown when it fails.
            eprintln!("{}", self.logs());
            std::panic::resume_unwind(panic)
        })
    }

    /// What a process (`coordinator`, `gw-0`) wrote to standard error so far.
    #[must_use]
    pub fn log_text(&self, name: &str) -> String {
        fs::read_to_string(self.base().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// What all processes wrote to standard error so far.
    #[must_use]
    pub fn logs(&self) -> String {
        let names = ["coordinator"]
            .into_iter()
            .chain(self.nodes.iter().map(|n| n.name.as_str()));
        names
            .map(|name| format!("--- {name}\n{}", self.log_text(name)))
            .collect()
    }

    /// Ends what agents that were killed have left running, as the end of their machines does.
    pub fn end_tasks_left(&self) {
        self.wait("the end of all tasks", || self.end_tasks().then_some(()));
    }

    /// Ends the tasks that an agent which was killed has left; whether there was none.
    fn end_tasks(&self) -> bool {
        let left = homed_below(self.base());
        for pid in &left {
            // It may have ended meanwhile.
            let _ = kill_process(*pid, Signal::KILL);
        }
        left.is_empty()
    }
}

/// Processes of tasks: their homes lie below this directory.
fn homed_below(directory: &Path) -> Vec<Pid> {
    let home = format!("HOME={}/", directory.display());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = |entry: &fs::DirEntry| {
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        environ
            .split(|byte| *byte == 0)
            .any(|variable| variable.starts_with(home.as_bytes()))
    };
    entries
        .filter(ours)
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let agents = self.nodes.iter_mut().filter_map(|node| node.child.take());
        for mut child in agents.chain(self.coordinator.take()) {
            // It may have ended already; it must only not be left.
            let _ = child.kill();
            let _ = child.wait();
        }
        for _ in 0..500 {
            if self.end_tasks() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn by_id(tasks: Vec<Value>) -> BTreeMap<String, Value> {
    tasks
        .into_iter()
        .map(|task| (text(&task["task"]), task))
        .collect()
}

/// Sends SIGTERM and waits for the end.
fn stop(mut child: Child) -> ExitStatus {
    kill_process(Pid::from_child(&child), Signal::TERM).expect("a child can be signalled");
    wait_for("the end of a process that was asked to stop", || {
        child.try_wait().ok()?
    })
}

fn serve(base: &Path, listen: SocketAddr, api: SocketAddr, further: &[String]) -> Child {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(base.join("coordinator.log"));
    let mut command = program("driftless");
    command.args(serve_args(&base.join("coordinator"), listen, api));
    command.args(further);
    command
        .stdout(Stdio::null())
        .stderr(log.expect("the test's directory can be written"));
    command.spawn().expect("the coordinator can be started")
}

/// The arguments of a `serve` on this directory and these addresses.
#[must_use]
pub fn serve_args(data: &Path, listen: SocketAddr, api: SocketAddr) -> Vec<OsString> {
    let mut args: Vec<OsString> = ["serve", "--data"].map(Into::into).into();
    args.push(data.into());
    args.extend(["--listen", &listen.to_string(), "--api", &api.to_string()].map(Into::into));
    args
}

/// Waits until a coordinator says where it is.
fn addresses(base: &Path) -> (SocketAddr, SocketAddr) {
    let read = |name: &str| {
        let text = fs::read_to_string(base.join("coordinator").join(name)).ok()?;
        // with TLS the API's is a URL
        let address = text.trim().trim_start_matches("https://");
        address.parse().ok()
    };
    wait_for("the coordinator", || {
        Some((read("quic.addr")?, read("api.addr")?))
    })
}
