//! The processes of the demo: each in a group of its own, told to stop when the demo ends in any
//! way, and gone when this module says so.

use super::args::Child as ChildArgs;
use crate::exit::{Code, Failure};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// What would steer the children from outside.
const VARIABLES: [&str; 5] = [
    "DRIFTLESS_API",
    "DRIFTLESS_DATA",
    "DRIFTLESS_TOKEN",
    "DRIFTLESS_AGENT_DATA",
    "DRIFTLESS_LOG",
];
/// How often an end is looked for.
const TICK: Duration = Duration::from_millis(20);

/// A child.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; what it writes to standard error goes to `log`.
    pub(super) fn start<S: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        args: &[S],
        log: &Path,
        pipes: bool,
    ) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let what = format!("cannot start {name} ({}): {error}", program.display());
            Failure::new(Code::Failed, what)
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(failed)?;
        let own = std::env::current_exe().map_err(failed)?;
        let ends = || if pipes { Stdio::piped() } else { Stdio::null() };
        let mut command = Command::new(own);
        command
            .arg("demo-child")
            .arg(std::process::id().to_string())
            .arg("--")
            .arg(program);
        command
            .args(args)
            .stdin(ends())
            .stdout(ends())
            .stderr(file)
            .process_group(0);
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        // nor does a configuration of this machine
        for variable in ["DRIFTLESS_AGENT_CONFIG", "DRIFTLESS_COORDINATOR_CONFIG"] {
            command.env(variable, "/dev/null");
        }
        let child = command.spawn().map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its two pipes, once.
    pub(super) fn pipes(
        &mut self,
    ) -> Option<(std::process::ChildStdin, std::process::ChildStdout)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?))
    }

    /// Fails if it has ended, with the last thing it said.
    pub(super) fn must_live(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            ended => {
                let text = fs::read_to_string(&self.log).unwrap_or_default();
                let last = text.lines().rev().find(|line| !line.trim().is_empty());
                let how = ended
                    .ok()
                    .flatten()
                    .map_or_else(|| "lost".into(), |s| s.to_string());
                let what = format!(
                    "{} has ended ({how}): {}",
                    self.name,
                    last.unwrap_or("no word")
                );
                Err(Failure::new(Code::Failed, what))
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It was not waited for yet, so the number is still its own.
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to stop.
    pub(super) fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for its end and ends it when the time is over. Whether it went by itself.
    pub(super) fn wait(mut self, patience: Duration) -> bool {
        let limit = Instant::now() + patience;
        while Instant::now() < limit {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(TICK);
        }
        false
    }

    /// kill -9: it learns nothing of it.
    pub(super) fn kill(self) {
        drop(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Becomes another program that is told to stop when its parent ends.
pub(crate) fn become_child(args: &ChildArgs) -> Failure {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(
            Code::Failed,
            format!("cannot become {:?}: {error}", args.command),
        )
    };
    let Some((program, rest)) = args.command.split_first() else {
        return failed(&"no program");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return failed(&error);
    }
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(args.parent) {
        return failed(&"the demo is gone already");
    }
    failed(&Command::new(program).args(rest).exec())
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C and the like are noticed by [`interrupted`] and end nothing by themselves.
pub(super) fn catch_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (interrupt, terminate, hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let (mut interrupt, mut terminate, mut hangup) = (interrupt, terminate, hangup);
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {}
                    }
                    INTERRUPTED.store(true, Ordering::Relaxed);
                }
            });
        })?;
    Ok(())
}

/// Whether somebody wants the demo to end.
pub(super) fn interrupted() -> Result<(), Failure> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err(Failure::new(
            Code::Failed,
            "interrupted; everything was stopped and removed",
        ));
    }
    Ok(())
}

/// The directory of all processes.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// A new one, or `keep`, which must be new or empty.
    pub(super) fn new(keep: Option<&Path>) -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt;
        let path = keep.map_or_else(
            || {
                let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
                let name = format!(
                    "driftless-demo-{}-{:x}",
                    std::process::id(),
                    since.subsec_nanos()
                );
                std::env::temp_dir().join(name)
            },
            Path::to_owned,
        );
        let failed = |error: io::Error| {
            let what = format!("cannot make the directory {}: {error}", path.display());
            Failure::new(Code::Failed, what).hint("name another one with --keep, or set TMPDIR")
        };
        // Tasks of an agent that is root run as another user, who must get through here.
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(keep.is_some())
            .mode(0o711)
            .create(&path)
            .map_err(failed)?;
        if fs::read_dir(&path).map_err(failed)?.next().is_some() {
            let what = format!("{} is not empty", path.display());
            return Err(
                Failure::new(Code::Usage, what).hint("--keep wants a new or empty directory")
            );
        }
        let path = path.canonicalize().map_err(failed)?;
        Ok(Self {
            path,
            keep: keep.is_some(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn kept(&self) -> bool {
        self.keep
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        end_strays(&self.path);
        if !self.keep {
            // Whatever cannot be removed now was made by somebody else.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Ends the processes that work below `dir`: tasks of an agent that was killed and not started
/// again.
fn end_strays(dir: &Path) {
    for entry in fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw);
        let works =
            || fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        let Some(pid) = pid.filter(|_| works()) else {
            continue;
        };
        let opened = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        // Looked at again with the handle in hand: the number cannot have changed its owner since.
        if let Ok(handle) = opened
            && works()
        {
            let _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
        }
    }
}
