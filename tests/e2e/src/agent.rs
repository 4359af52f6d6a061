//! A gateway without a coordinator: one `driftless-agent` in a temporary directory, steered and
//! read by its own local commands. Waiting has a bound everywhere, and nothing outlives the
//! [`Gateway`].
//!
//! Tasks can write outside their directory only into [`Gateway::marks`]; in a specification `@M`
//! stands for it.

use crate::disk::SmallDisk;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything is waited for: far more than it takes, so that only what never comes fails.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(15);
/// States in which nothing more happens to a task by itself.
const SETTLED: &[&str] = &[
    "succeeded",
    "failed",
    "cancelled",
    "aborted",
    "skipped",
    "lost",
    "paused",
];

/// The path of a built binary of this workspace.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running test has a path");
    let folder = own.parent().expect("a program lies in a directory");
    // Tests lie in `deps` beside the programs.
    let tests = folder.parent().filter(|_| folder.ends_with("deps"));
    let path = tests.unwrap_or(folder).join(name);
    assert!(
        path.exists(),
        "{} is not there: run `cargo xtask test`, or `cargo build --workspace` before the tests",
        path.display()
    );
    path
}

/// Waits until `look` gives something.
///
/// # Panics
/// If it never comes.
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_or(look).unwrap_or_else(|| panic!("waited {PATIENCE:?} for {what}"))
}

fn wait_or<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match look() {
            None if Instant::now() > until => return None,
            None => sleep(PAUSE),
            found => return found,
        }
    }
}

/// What a program wrote to standard error.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a program wrote to standard output.
#[must_use]
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether the tests run as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that a test is skipped, and why.
///
/// # Panics
/// In the gate (`.ci/run` sets `CI`) as root, where there is nothing to skip.
pub fn skip(why: &str) {
    let gate = is_root() && std::env::var_os("CI").is_some();
    assert!(!gate, "a test would be skipped in the gate: {why}");
    eprintln!("skipped: {why}");
}

/// One agent and everything it may touch.
#[derive(Debug)]
pub struct Gateway {
    /// A file system that was mounted for the data directory; it goes before the directory does.
    mounted: Option<SmallDisk>,
    base: TempDir,
    data: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
    specs: AtomicU32,
    env: BTreeMap<String, PathBuf>,
    /// Who the agent runs as, if not who the test is.
    user: Option<u32>,
}

impl Gateway {
    /// A gateway whose agent does not run yet; `args` are further arguments of `run`.
    ///
    /// # Panics
    /// If there is no temporary directory.
    #[must_use]
    pub fn new(args: &[&str]) -> Self {
        let base = tempfile::tempdir().expect("a temporary directory");
        // Tasks may run as another user, who must get through.
        let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        open(base.path(), 0o755).expect("its mode can be changed");
        let marks = base.path().join("marks");
        fs::create_dir(&marks).expect("a directory in it");
        open(&marks, 0o777).expect("its mode can be changed");
        Self {
            data: base.path().join("data"),
            base,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            child: None,
            specs: AtomicU32::new(0),
            mounted: None,
            env: BTreeMap::new(),
            user: None,
        }
    }

    /// A gateway whose agent runs.
    #[must_use]
    pub fn started(args: &[&str]) -> Self {
        let mut gateway = Self::new(args);
        gateway.start();
        gateway
    }

    /// Changes the further arguments of `run`, from the next start on.
    pub fn set_args(&mut self, args: &[&str]) {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    }

    /// Sets a variable of the agent's environment, from the next start on.
    pub fn set_env(&mut self, name: &str, path: &Path) {
        self.env.insert(name.to_owned(), path.to_owned());
    }

    /// Lets the agent run as another user, who gets the data directory. Only root can.
    ///
    /// # Panics
    /// If that cannot be done.
    pub fn set_user(&mut self, user: u32) {
        fs::create_dir(&self.data).expect("the test's directory can be written");
        std::os::unix::fs::chown(&self.data, Some(user), Some(user)).expect("root may do that");
        // Where the programs were built that user may not be let in.
        let program = self.base.path().join("driftless-agent");
        fs::copy(binary("driftless-agent"), program).expect("the test's directory can be written");
        self.user = Some(user);
    }

    /// The program, as the user that the agent runs as.
    #[must_use]
    pub fn program(&self) -> Command {
        let Some(user) = self.user else {
            return Command::new(binary("driftless-agent"));
        };
        let mut command = Command::new(self.base.path().join("driftless-agent"));
        command.uid(user).gid(user);
        command
    }

    /// The test's directory.
    #[must_use]
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// The agent's data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Puts the data directory somewhere else in the test's directory.
    pub fn place_data(&mut self, path: &Path) {
        self.data = path.to_owned();
    }

    /// Puts the data directory on a file system of its own of so many MiB. Only root can; others
    /// are told that the test is skipped, and get `false`.
    ///
    /// # Panics
    /// If root cannot, either.
    #[must_use]
    pub fn on_small_disk(&mut self, mib: u32) -> bool {
        let Some(disk) = SmallDisk::mount(&self.base.path().join("small"), mib) else {
            eprintln!("skipped: only root can mount a small file system for this test");
            return false;
        };
        self.data = disk.path().join("data");
        self.mounted = Some(disk);
        true
    }

    /// Where tasks may leave something.
    #[must_use]
    pub fn marks(&self) -> PathBuf {
        self.base.path().join("marks")
    }

    /// The content of a file that tasks wrote to [`Self::marks`]; nothing if it is not there.
    #[must_use]
    pub fn mark(&self, name: &str) -> String {
        fs::read_to_string(self.marks().join(name)).unwrap_or_default()
    }

    /// Leaves a file for tasks.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn put_mark(&self, name: &str, text: &str) {
        fs::write(self.marks().join(name), text).expect("the test's directory can be written");
    }

    /// Waits until a file of [`Self::marks`] has at least `lines` lines.
    #[must_use]
    pub fn wait_mark(&self, name: &str, lines: usize) -> Vec<String> {
        self.wait(&format!("{lines} lines in {name}"), || {
            let text = self.mark(name);
            let found: Vec<String> = text.lines().map(str::to_owned).collect();
            (found.len() >= lines).then_some(found)
        })
    }

    fn run_command(&self) -> Command {
        let log = self.base.path().join("agent.log");
        let log = OpenOptions::new().create(true).append(true).open(log);
        let mut command = self.program();
        command.envs(&self.env);
        command.arg("run").arg("--data").arg(&self.data);
        command
            .args(["--name", "gw-1", "--stop-grace", "1"])
            .args(&self.args);
        command.env("DRIFTLESS_AGENT_CONFIG", "/dev/null");
        command.env_remove("DRIFTLESS_LOG").stdin(Stdio::null());
        command
            .stdout(Stdio::null())
            .stderr(log.expect("the test's directory can be written"));
        command
    }

    /// Starts the agent and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(&mut self) {
        self.start_silently();
        let ready = wait_or(|| {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().ok()?);
            assert!(
                ended.is_none(),
                "the agent ended: {ended:?}\n{}",
                self.agent_log()
            );
            self.command(&["status"]).status.success().then_some(())
        });
        assert!(
            ready.is_some(),
            "the agent does not answer\n{}",
            self.agent_log()
        );
    }

    /// Starts the agent and waits for nothing.
    ///
    /// # Panics
    /// If it runs already.
    pub fn start_silently(&mut self) {
        assert!(self.child.is_none(), "the agent runs already");
        let child = self.run_command().spawn();
        self.child = Some(child.expect("the agent can be started"));
    }

    /// Starts an agent that is expected to end by itself; what it said.
    ///
    /// # Panics
    /// If it goes on.
    #[must_use]
    pub fn start_refused(&self) -> Output {
        let mut command = self.run_command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the agent can be started");
        let ended = wait_or(|| child.try_wait().ok()?);
        if ended.is_none() {
            // It is gone or will be: either way its output ends.
            let _ = child.kill();
        }
        let output = child.wait_with_output().expect("its output can be read");
        assert!(
            ended.is_some(),
            "the agent goes on where it should refuse: {}",
            stderr(&output)
        );
        output
    }

    /// What the agent wrote to standard error so far, for messages of failed tests.
    #[must_use]
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.base.path().join("agent.log")).unwrap_or_default()
    }

    fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(Pid::from_child)
    }

    /// Sends a signal to the agent alone.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().expect("the agent runs");
        kill_process(pid, signal).expect("the agent can be signalled");
    }

    /// Sends a signal to the agent and everything it started, as a service manager does;
    /// `tasks_first` says in which order.
    pub fn signal_all(&self, signal: Signal, tasks_first: bool) {
        if !tasks_first {
            self.signal(signal);
        }
        for pid in self.task_processes() {
            // It may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
        if tasks_first {
            self.signal(signal);
        }
    }

    /// Waits until the agent has ended.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the agent runs");
        let ended = wait_or(|| child.try_wait().ok()?);
        let Some(ended) = ended else {
            self.child = Some(child);
            panic!("the agent does not end\n{}", self.agent_log());
        };
        ended
    }

    /// Whether the agent still runs.
    pub fn runs(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends the agent with SIGKILL.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_exit();
    }

    /// Ends the agent with SIGTERM and checks that it says so.
    ///
    /// # Panics
    /// If it ends otherwise.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(0), "signal {:?}", status.signal());
    }

    /// The processes of tasks: their homes lie in the data directory.
    #[must_use]
    pub fn task_processes(&self) -> Vec<Pid> {
        let home = format!("HOME={}/work/", self.data.display());
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let pids = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let ours = |pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ
                .split(|byte| *byte == 0)
                .any(|item| item.starts_with(home.as_bytes()))
        };
        pids.filter(ours).filter_map(Pid::from_raw).collect()
    }

    /// Runs a local command with `--json`.
    ///
    /// # Panics
    /// If the program cannot be started.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary("driftless-agent"));
        command
            .args(args)
            .arg("--json")
            .arg("--data")
            .arg(&self.data);
        command
            .stdin(Stdio::null())
            .output()
            .expect("the command can be started")
    }

    /// Runs a local command and reads the JSON lines it prints.
    ///
    /// # Panics
    /// If it fails or prints something else.
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        let output = self.command(args);
        assert!(
            output.status.success(),
            "{args:?}: {}\n{}",
            stderr(&output),
            self.agent_log()
        );
        stdout(&output)
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
        let path = self.base.path().join(format!("flow-{number}.yaml"));
        let text = text.replace("@M", &self.marks().display().to_string());
        let written = File::create(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.expect("the test's directory can be written");
        path
    }

    /// Tries to submit a specification, with further arguments.
    #[must_use]
    pub fn try_submit(&self, text: &str, args: &[&str]) -> Output {
        let spec = self.spec(text).display().to_string();
        let all: Vec<&str> = ["submit", &spec]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        self.command(&all)
    }

    /// Submits a specification with further arguments; the run's id.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn submit_with(&self, text: &str, args: &[&str]) -> String {
        let output = self.try_submit(text, args);
        assert!(output.status.success(), "submit: {}", stderr(&output));
        let run: Value = serde_json::from_str(&stdout(&output)).expect("the run as JSON");
        run["id"].as_str().expect("a run has an id").to_owned()
    }

    /// Submits a specification; the run's id.
    #[must_use]
    pub fn submit(&self, text: &str) -> String {
        self.submit_with(text, &[])
    }

    /// Submits a specification that must be refused; what was said.
    ///
    /// # Panics
    /// If it is taken.
    #[must_use]
    pub fn refused(&self, text: &str, args: &[&str]) -> String {
        let output = self.try_submit(text, args);
        assert!(
            !output.status.success(),
            "it was taken: {}",
            stdout(&output)
        );
        let printed = stdout(&output);
        let mistakes = printed.lines().map(|line| {
            let mistake: Value = serde_json::from_str(line).expect("each line is JSON");
            let text = |field: &str| mistake[field].as_str().unwrap_or_default().to_owned();
            let place = format!("{}:{}:{}", text("file"), mistake["line"], mistake["column"]);
            format!("{place}: {}\n  mend: {}\n", text("what"), text("mend"))
        });
        mistakes.chain([stderr(&output)]).collect()
    }

    /// All tasks of a run by id, as `ps --all --json` shows them.
    #[must_use]
    pub fn tasks(&self, run: &str) -> BTreeMap<String, Value> {
        let mine = |task: &Value| task["run"] == run;
        self.json(&["ps", "--all"])
            .into_iter()
            .filter(mine)
            .map(|task| (task["task"].as_str().unwrap_or_default().to_owned(), task))
            .collect()
    }

    /// One task.
    #[must_use]
    pub fn task(&self, run: &str, task: &str) -> Value {
        self.tasks(run).remove(task).unwrap_or_default()
    }

    /// Waits until nothing more happens to any task of a run by itself.
    #[must_use]
    pub fn settled(&self, run: &str) -> BTreeMap<String, Value> {
        let settled = |task: &Value| SETTLED.iter().any(|state| task["state"] == *state);
        self.wait("the end of the run", || {
            let tasks = self.tasks(run);
            (!tasks.is_empty() && tasks.values().all(settled)).then_some(tasks)
        })
    }

    /// Waits until a task is in a state; the task.
    #[must_use]
    pub fn wait_state(&self, run: &str, task: &str, state: &str) -> Value {
        self.wait(&format!("{task} to be {state}"), || {
            Some(self.task(run, task)).filter(|task| task["state"] == state)
        })
    }

    /// Like [`wait_for`], and shows the tasks and the agent's log if it never comes.
    ///
    /// # Panics
    /// If it never comes.
    pub fn wait<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        wait_or(look).unwrap_or_else(|| {
            let tasks = stdout(&self.command(&["ps", "--all"]));
            panic!(
                "waited {PATIENCE:?} for {what}\n{tasks}\n{}",
                self.agent_log()
            )
        })
    }

    /// Submits, waits for the end, and checks that every task succeeded; the run's id.
    ///
    /// # Panics
    /// If one did not.
    #[must_use]
    pub fn succeeds(&self, text: &str) -> String {
        let run = self.submit(text);
        for (id, task) in self.settled(&run) {
            let said = self.output(&run, &id);
            assert_eq!(task["state"], "succeeded", "{id}: {task}\n{said}");
        }
        run
    }

    /// Why a task runs or not.
    #[must_use]
    pub fn explain(&self, run: &str, task: &str) -> Value {
        self.json(&["explain", run, task]).remove(0)
    }

    /// What the newest attempt of a task wrote, line by line.
    #[must_use]
    pub fn output(&self, run: &str, task: &str) -> String {
        let lines = self.json(&["logs", run, task]);
        let lines: Vec<&str> = lines
            .iter()
            .filter_map(|line| line["line"].as_str())
            .collect();
        lines.join("\n")
    }
}

impl Gateway {
    fn end_tasks(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.task_processes();
            if left.is_empty() || Instant::now() > until {
                return;
            }
            for pid in left {
                // It may have ended meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
            sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already; it must only not be left.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.end_tasks();
    }
}
