//! One attempt from its directory to its confirmed end.

use crate::bench::{Bench, Place};
use crate::creds::Identity;
use crate::environ::{below, environment, program};
use crate::files::{open_dir, open_regular, take};
use crate::logs::{Capture, Logs, Stream};
use crate::mark;
use crate::model::{Ended, Event, Launch, Options};
use crate::procs::{Remains, Whose, group_of, is_want, look_everywhere};
use contents::Dir;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use shared::explain::Reason;
use shared::fact::OutputFile;
use shared::ids::AttemptRef;
use shared::time::{Mono, Now, Span, Unix};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wait4::Wait4;

/// The beginning of what is over sooner is not told apart from its end: each message costs the
/// agent CPU that short tasks need.
const TOLD_AFTER: Duration = Duration::from_millis(5);
/// What a pipe can hold at most: Linux's `pipe-max-size` unless root raised it.
const PIPE_BYTES: usize = 1 << 20;

/// What all attempts share.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) options: Options,
    pub(crate) work: PathBuf,
    pub(crate) store: String,
    pub(crate) identity: Identity,
    pub(crate) files: Dir,
    pub(crate) logs: Logs,
    /// Main processes of running attempts.
    pub(crate) mains: Mutex<BTreeSet<i32>>,
}

/// Why an attempt did not begin or did not succeed.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

impl Trouble {
    pub(crate) fn new(reason: Reason, text: String) -> Self {
        Self { reason, text }
    }

    /// `what` failed with `error`: no room, or else not startable.
    pub(crate) fn io(what: &str, error: io::Error) -> Self {
        Self::new(
            io_reason(&error, Reason::CannotStart),
            format!("{what}: {error}"),
        )
    }
}

fn io_reason(error: &io::Error, otherwise: Reason) -> Reason {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::NoRoom,
        _ => otherwise,
    }
}

/// An order to end an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) grace: Span,
    pub(crate) why: Reason,
}

/// How a worker is reached while it waits for a process.
#[derive(Debug)]
pub(crate) struct Control {
    order: Mutex<Option<Order>>,
    wake: OwnedFd,
}

impl Control {
    pub(crate) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            order: Mutex::new(None),
            wake,
        })
    }

    /// Gives the order. The newest counts.
    pub(crate) fn give(&self, order: Order) {
        *self.lock() = Some(order);
        // full only if it is awake already
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes the order, if there is one.
    pub(crate) fn take(&self) -> Option<Order> {
        let order = self.lock().take();
        if order.is_some() {
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        order
    }

    fn lock(&self) -> MutexGuard<'_, Option<Order>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both clocks.
pub(crate) fn now() -> Now {
    let nanos = |t: Timespec| t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs();
    let wall = clock_gettime(ClockId::Realtime);
    Now {
        mono: Mono(nanos(clock_gettime(ClockId::Boottime))),
        wall: Unix(wall.tv_sec * 1000 + wall.tv_nsec / 1_000_000),
    }
}

/// An end without a beginning.
pub(crate) fn not_begun(launch: &Launch, reason: Reason, text: String) -> Ended {
    Ended {
        attempt: launch.attempt,
        exit: None,
        outputs: Vec::new(),
        reason,
        began: None,
        at: now(),
        cpu_ms: 0,
        peak_memory: 0,
        log_dropped: 0,
        text,
        idle: false,
    }
}

/// Open files of an attempt that is over. Whoever waits for its end need not wait for their
/// closing.
#[derive(Debug)]
pub(crate) struct Debris {
    _files: [OwnedFd; 3],
    _command: Command,
}

/// Runs an attempt to its end.
pub(crate) fn run(
    node: &Node,
    bench: &mut Bench,
    control: &Control,
    launch: &Launch,
    sink: &dyn Fn(Event),
) -> Ended {
    let AttemptRef { slice, number, .. } = launch.attempt;
    // Every line about the attempt names it.
    let span = tracing::error_span!(
        "attempt",
        run = %slice.run,
        task = launch.task.id,
        epoch = slice.epoch.0,
        attempt = number
    );
    let ended = span.in_scope(|| carry(node, bench, control, launch, sink));
    span.in_scope(|| tell(&ended));
    ended
}

/// Failures are rare enough to be told each.
fn tell(ended: &Ended) {
    let (exit, text) = (ended.exit, ended.text.as_str());
    match ended.reason {
        Reason::ExitedZero => tracing::debug!("succeeded"),
        reason => tracing::info!(reason = reason.text(), exit, text, "did not succeed"),
    }
}

fn carry(
    node: &Node,
    bench: &mut Bench,
    control: &Control,
    launch: &Launch,
    sink: &dyn Fn(Event),
) -> Ended {
    if let Some(order) = control.take() {
        return not_begun(launch, order.why, "stopped before it began".to_owned());
    }
    let mark = mark::of(&launch.attempt);
    let begun = Running::begin(node, bench, control, launch, &mark);
    let (mut running, place) = match begun {
        Ok(begun) => begun,
        Err(trouble) => return not_begun(launch, trouble.reason, trouble.text),
    };
    tracing::debug!(pid = running.pid.as_raw_nonzero().get(), "began");
    // while it runs
    bench.prepare();
    running.watch(bench, sink);
    let used = running.reap(bench, &mark);
    running.drain(bench);
    let verdict = running.judge(used.status, &place);
    let captured = running.capture.finish();
    if captured.evicted.0 > 0 {
        sink(Event::LogsDropped {
            files: captured.evicted.0,
            bytes: captured.evicted.1,
        });
    }
    let (reason, text, outputs) = match verdict {
        Ok(outputs) => (Reason::ExitedZero, String::new(), outputs),
        Err(trouble) => (trouble.reason, trouble.text, Vec::new()),
    };
    let ended = Ended {
        attempt: launch.attempt,
        exit: used
            .status
            .code()
            .or_else(|| used.status.signal().map(|signal| -signal)),
        outputs,
        reason,
        began: Some(running.began),
        at: now(),
        cpu_ms: used.cpu_ms,
        peak_memory: used.peak_memory,
        log_dropped: captured.dropped,
        text,
        idle: false,
    };
    bench.debris = Some(Debris {
        _files: [running.fd, running.out, running.err],
        _command: running.command,
    });
    ended
}

/// How a main process ended and what it used.
struct Used {
    status: ExitStatus,
    cpu_ms: u64,
    peak_memory: u64,
}

/// A process and what belongs to it.
struct Running<'a> {
    node: &'a Node,
    control: &'a Control,
    launch: &'a Launch,
    capture: Capture<'a>,
    /// Until it is reaped.
    child: Option<Child>,
    pid: Pid,
    fd: OwnedFd,
    out: OwnedFd,
    err: OwnedFd,
    /// Holds the writing ends of the pipes, so that they do not close one by one while it exits.
    command: Command,
    began: Now,
    since: Instant,
    /// When its beginning is told; none once it was.
    untold: Option<Instant>,
    order: Option<Order>,
    kill_at: Option<Instant>,
}

impl<'a> Running<'a> {
    fn begin(
        node: &'a Node,
        bench: &mut Bench,
        control: &'a Control,
        launch: &'a Launch,
        mark: &str,
    ) -> Result<(Self, Place), Trouble> {
        let cannot = |text| Trouble::new(Reason::CannotStart, text);
        let plain = |path: &str| path.is_empty() || path == ".";
        if !plain(&launch.task.workdir) && below(&launch.task.workdir).is_none() {
            let workdir = launch.task.workdir.escape_default();
            return Err(cannot(format!(
                "workdir '{workdir}' leaves the attempt's directory"
            )));
        }
        // found before the directory is made: a missing directory says that nothing began
        let base = bench.path(mark).join(&launch.task.workdir);
        let program = program(launch, &node.options, &base).map_err(cannot)?;
        let env = environment(launch, node, mark, &bench.path(mark)).map_err(cannot)?;
        let system = |e: Errno| Trouble::io("cannot make a pipe", e.into());
        let [(out, out_to), (err, err_to)] = bench.pipes().map_err(system)?;
        let mut place = bench.place(node, launch, mark)?;
        let stdin = place
            .stdin
            .take()
            .map_or_else(|| bench.null.try_clone(), Ok);
        let mut command = Command::new(&program.file);
        command
            .arg0(&program.argv[0])
            .args(&program.argv[1..])
            .env_clear()
            .envs(env);
        command.current_dir(&place.cwd).process_group(0);
        command
            .stdout(Stdio::from(out_to))
            .stderr(Stdio::from(err_to));
        let spawned = stdin.and_then(|stdin| {
            command.stdin(Stdio::from(stdin));
            node.identity.spawn(&bench.home, &mut command)
        });
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                crate::bench::remove(&place.dir);
                return Err(refused(&program.file, &error));
            }
        };
        let (began, since) = (now(), Instant::now());
        let pid = Pid::from_child(&child);
        let fd = match watched(pid) {
            Ok(fd) => fd,
            Err(error) => {
                // not reaped yet, so the number is still its own
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = child.wait();
                return Err(Trouble::io("cannot watch the process", error.into()));
            }
        };
        node.mains().insert(pid.as_raw_nonzero().get());
        let capture = Capture::new(&node.logs, launch.attempt);
        let running = Self {
            node,
            control,
            launch,
            capture,
            child: Some(child),
            pid,
            fd,
            out,
            err,
            command,
            began,
            since,
            untold: Some(since + TOLD_AFTER),
            order: None,
            kill_at: None,
        };
        Ok((running, place))
    }

    /// Returns when the main process is over (and not reaped yet).
    fn watch(&mut self, bench: &mut Bench, sink: &dyn Fn(Event)) {
        while !self.wait(bench) {
            let now = Instant::now();
            if self.untold.is_some_and(|at| at <= now) {
                self.untold = None;
                sink(Event::Began {
                    attempt: self.launch.attempt,
                    pid: self.pid.as_raw_nonzero().get().unsigned_abs(),
                    at: self.began,
                });
            }
            if self.kill_at.is_some_and(|at| at <= now) {
                self.kill_at = None;
                // the leader is not reaped: the group's number is its own
                let _ = kill_process_group(self.pid, Signal::KILL);
            }
        }
    }

    /// Waits until something is to be done. Whether the main process is over.
    fn wait(&mut self, bench: &mut Bench) -> bool {
        let due = self.untold.into_iter().chain(self.kill_at).min();
        let left = due.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [
            PollFd::new(&self.fd, PollFlags::IN),
            PollFd::new(&self.out, PollFlags::IN),
            PollFd::new(&self.err, PollFlags::IN),
            PollFd::new(&self.control.wake, PollFlags::IN),
        ];
        if let Err(error) = poll(&mut fds, timeout.as_ref())
            && error != Errno::INTR
        {
            tracing::warn!(%error, "cannot wait for a process; trying again");
            std::thread::sleep(Duration::from_millis(50));
            return false;
        }
        let [over, out, err, wake] = fds.map(|fd| !fd.revents().is_empty());
        self.keep(bench, out, err);
        if wake && !over {
            self.obey();
        }
        over
    }

    /// Reads what the pipes hold.
    fn keep(&mut self, bench: &mut Bench, out: bool, err: bool) {
        let mut read = |fd: &OwnedFd, stream| {
            if let Ok(len) = rustix::io::read(fd, &mut bench.buffer[..]) {
                self.capture.write(stream, &bench.buffer[..len]);
            }
        };
        if out {
            read(&self.out, Stream::Out);
        }
        if err {
            read(&self.err, Stream::Err);
        }
    }

    /// Begins to end the attempt.
    fn obey(&mut self) {
        let Some(order) = self.control.take() else {
            return;
        };
        let _ = kill_process_group(self.pid, Signal::TERM);
        let mark = mark::of(&self.launch.attempt);
        let whose = Whose {
            store: &self.node.store,
            mark: Some(&mark),
            group: None,
        };
        let in_group = |pid| group_of(pid) == Some(self.pid);
        for found in look_everywhere(whose, &in_group).found {
            found.signal(Signal::TERM);
        }
        self.order = Some(order);
        // beyond a century nobody waits
        let grace = Duration::from_millis(order.grace.0.min(1 << 41));
        self.kill_at = Some(Instant::now() + grace);
    }

    /// Takes the end of the main process and makes sure that nothing of the attempt is left.
    fn reap(&mut self, bench: &Bench, mark: &str) -> Used {
        let whose = Whose {
            store: &self.node.store,
            mark: Some(mark),
            group: Some(self.pid),
        };
        let remains = Remains {
            whose,
            main: self.pid,
            ran: self.since.elapsed(),
        };
        let alone = remains.are_none(&bench.orphans);
        if !alone {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        let reaped = self
            .child
            .take()
            .map_or_else(|| Err(Errno::CHILD.into()), Wait4::wait4);
        self.node.mains().remove(&self.pid.as_raw_nonzero().get());
        if !alone {
            remains.clear(&bench.last, &|pid| self.node.mains().contains(&pid));
        }
        match reaped {
            Ok(used) => Used {
                status: used.status,
                cpu_ms: millis(used.rusage.utime + used.rusage.stime),
                peak_memory: used.rusage.maxrss,
            },
            Err(error) => {
                tracing::error!(%error, "the end of a process was taken by somebody else");
                let status = ExitStatus::from_raw(Signal::KILL.as_raw());
                Used {
                    status,
                    cpu_ms: 0,
                    peak_memory: 0,
                }
            }
        }
    }

    /// Reads what is left in the pipes. A process that escaped may go on writing: no more is read
    /// than pipes can hold.
    fn drain(&mut self, bench: &mut Bench) {
        for _ in 0..(2 * PIPE_BYTES).div_ceil(bench.buffer.len()) {
            let mut fds = [
                PollFd::new(&self.out, PollFlags::IN),
                PollFd::new(&self.err, PollFlags::IN),
            ];
            let ready = poll(
                &mut fds,
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                }),
            );
            let [out, err] = fds.map(|fd| fd.revents().contains(PollFlags::IN));
            if ready.is_err() || !(out || err) {
                return;
            }
            self.keep(bench, out, err);
        }
    }

    fn judge(&self, status: ExitStatus, place: &Place) -> Result<Vec<OutputFile>, Trouble> {
        if let Some(order) = self.order {
            return Err(Trouble::new(order.why, format!("stopped: {status}")));
        }
        match status.code() {
            Some(0) => self.harvest(place),
            Some(_) => Err(Trouble::new(Reason::ExitedNonzero, status.to_string())),
            None => Err(Trouble::new(Reason::Signalled, status.to_string())),
        }
    }

    /// Takes the declared outputs into the content store.
    fn harvest(&self, place: &Place) -> Result<Vec<OutputFile>, Trouble> {
        let outputs = &self.launch.task.outputs;
        if outputs.is_empty() {
            return Ok(Vec::new());
        }
        let missing = |text| Trouble::new(Reason::OutputMissing, text);
        let dir = open_dir(&place.dir)
            .map_err(|e| missing(format!("the attempt's directory is gone: {e}")))?;
        let mut taken = Vec::with_capacity(outputs.len());
        for output in outputs {
            let name = output.path.escape_default();
            let mut file = self.open_output(&dir, &output.path).map_err(|e| {
                missing(format!(
                    "output '{name}' is not a plain file below the directory: {e}"
                ))
            })?;
            taken.push(take(&self.node.files, &mut file).map_err(|e| {
                let reason = io_reason(&e, Reason::OutputMissing);
                Trouble::new(reason, format!("cannot keep output '{name}': {e}"))
            })?);
        }
        self.node
            .files
            .sync(taken.iter().map(|file| file.hash))
            .map_err(|e| Trouble::io("cannot make outputs durable", e.into()))?;
        Ok(taken)
    }

    fn open_output(&self, dir: impl AsFd, path: &str) -> io::Result<File> {
        let below = below(path).ok_or_else(|| io::Error::other("the path leaves it"))?;
        let file = open_regular(dir, below)?;
        let meta = file.metadata()?;
        let foreign = self
            .node
            .identity
            .owner()
            .is_some_and(|(uid, _)| uid.as_raw() != meta.uid());
        if foreign && meta.mode() & 0o004 == 0 {
            // a hard link to something that the task itself may not read
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        Ok(file)
    }
}

/// A process by its own descriptor, which is waited for if there is none to be had: the program
/// runs already, and must not be taken for one that never began.
fn watched(pid: Pid) -> rustix::io::Result<OwnedFd> {
    loop {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Err(error) if is_want(error) => std::thread::sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
}

impl Node {
    fn mains(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.mains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Says why a program that was found could not be executed.
fn refused(file: &std::path::Path, error: &io::Error) -> Trouble {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => " (it, its interpreter or its directory is missing)",
        io::ErrorKind::PermissionDenied => " (the user of tasks may not execute it)",
        _ => "",
    };
    let reason = io_reason(error, Reason::CannotStart);
    Trouble::new(
        reason,
        format!("cannot execute {}: {error}{hint}", file.display()),
    )
}
