//! The queue of attempts, the workers that run them, and the door of the executor.

use crate::attempt::{Control, Node, Order, not_begun, run};
use crate::bench::{Bench, make_parent, remove};
use crate::creds::Identity;
use crate::logs::Logs;
use crate::mark;
use crate::model::{Command, Ended, Error, Event, Launch, LeftOver, Options, Report};
use crate::procs::{Orphans, Whose, look_everywhere};
use contents::Dir;
use rustix::process::Signal;
use shared::explain::Reason;
use shared::ids::{AttemptRef, RunId};
use shared::time::Span;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Most attempts at once, whatever launches say.
const WORKERS: usize = 1024;
/// Stack of a worker, which may take a turn of the agent's loop on it.
const STACK: usize = 2 * 1024 * 1024;
/// How long settled directories lie around for use while there is nothing to do.
const TIDY_AFTER: Duration = Duration::from_millis(200);
/// How often orphans that are over are let go while no attempt ends.
const REAP_EVERY: Duration = Duration::from_secs(60);
/// How long killed processes of an earlier agent may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(5);

type Sink = dyn Fn(Event) + Send + Sync;

/// Runs attempts. Ending it ends them.
pub struct Executor {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

struct Shared {
    node: Node,
    sink: Box<Sink>,
    state: Mutex<State>,
    /// Something to do for a worker.
    work: Condvar,
    /// A worker has left.
    left: Condvar,
}

/// Work that no worker does, so that commands return at once.
enum Errand {
    Report(Box<Ended>),
    Remove(PathBuf),
    Forget(RunId),
}

#[derive(Default)]
struct State {
    queue: VecDeque<Box<Launch>>,
    /// Launches that do not wait for a slot.
    urgent: VecDeque<Box<Launch>>,
    /// Launches that wait for the slot of another attempt.
    followers: BTreeMap<AttemptRef, Box<Launch>>,
    running: HashMap<AttemptRef, Arc<Control>>,
    /// Attempts that are over, while their end is told.
    told: BTreeSet<AttemptRef>,
    /// Number of the bench that holds the directory of an attempt that is not settled.
    places: HashMap<AttemptRef, usize>,
    /// Settled directories, by the worker that may use them again.
    settled: BTreeMap<usize, Vec<String>>,
    workers: BTreeSet<usize>,
    idle: usize,
    /// Workers that tell of an end and come back for work.
    returning: usize,
    closing: bool,
    errands: Option<mpsc::Sender<Errand>>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Executor")
            .field("running", &state.running.len())
            .field("queued", &(state.queue.len() + state.urgent.len()))
            .finish_non_exhaustive()
    }
}

impl Executor {
    /// Prepares the directories. `sink` is called from the executor's threads and must not wait for
    /// them.
    ///
    /// # Errors
    /// When tasks would be root, could not reach their directories, or these cannot be made.
    pub fn start(
        options: Options,
        sink: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let (node, places) = prepare(options)?;
        let (errands, orders) = mpsc::channel();
        let state = State {
            places,
            errands: Some(errands),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            node,
            sink: Box::new(sink),
            state: Mutex::new(state),
            work: Condvar::new(),
            left: Condvar::new(),
        });
        let keeper = Arc::clone(&shared);
        let keeper = std::thread::Builder::new()
            .name("exec-keeper".to_owned())
            .stack_size(STACK)
            .spawn(move || keeper.keep(&orders))
            .map_err(|source| Error::System {
                what: "start a thread",
                source,
            })?;
        Ok(Self {
            shared,
            keeper: Some(keeper),
        })
    }

    /// Does what `command` says. Returns at once; what follows is reported.
    pub fn command(&self, command: Command) {
        let shared = &self.shared;
        let mut state = shared.lock();
        match command {
            Command::Begin(launch) => {
                let idle = shared.begin(&mut state, launch);
                // whoever wakes up finds the lock free
                drop(state);
                if idle {
                    shared.work.notify_one();
                }
            }
            Command::Stop {
                attempt,
                grace,
                why,
            } => {
                state.stop(&|a| *a == attempt, Order { grace, why });
            }
            Command::StopAll { grace, why } => state.stop(&|_| true, Order { grace, why }),
            Command::Settled(attempts) => {
                attempts.iter().for_each(|a| shared.settle(&mut state, a))
            }
            Command::Forget(run) => state.errand(Errand::Forget(run)),
        }
    }

    /// The content store that inputs come from and outputs go to.
    #[must_use]
    pub fn files(&self) -> &Dir {
        &self.shared.node.files
    }

    /// Ends every process that an earlier agent on this data directory left: TERM, after `grace`
    /// KILL. Processes of this executor are left alone. To be called before the first `Begin`.
    ///
    /// # Errors
    /// [`Error::Strangers`] if some do not end within bounded time: nothing may be started again
    /// then.
    pub fn reap_strangers(&self, grace: Span) -> Result<Report, Error> {
        let node = &self.shared.node;
        let mut report = Report {
            directories: self.shared.directories(),
            ..Report::default()
        };
        let mut seen = BTreeSet::new();
        let kill_at = Instant::now() + Duration::from_millis(grace.0.min(600_000));
        let whose = Whose {
            store: &node.store,
            mark: None,
            group: None,
        };
        loop {
            let own: Vec<String> = self.shared.lock().running.keys().map(mark::of).collect();
            let mut found = look_everywhere(whose, &|pid| pid.unsigned_abs() == std::process::id());
            found.found.retain(|found| !own.contains(&found.mark));
            if found.found.is_empty() {
                report.processes = seen.len();
                return Ok(report);
            }
            let late = Instant::now() >= kill_at;
            for found in &found.found {
                if seen.insert(found.pid.as_raw_nonzero().get()) || late {
                    found.signal(if late { Signal::KILL } else { Signal::TERM });
                }
                if let Some(attempt) = mark::parse(&found.mark)
                    && !report.killed.contains(&attempt)
                {
                    report.killed.push(attempt);
                }
            }
            if Instant::now() >= kill_at + GONE_WITHIN {
                let list = found.found.into_iter().map(LeftOver::from).collect();
                return Err(Error::Strangers { list });
            }
            let patience = Duration::from_millis(20);
            found.found.iter().all(|found| found.gone_within(patience));
        }
    }

    /// Ends everything (TERM, after `grace` KILL, reason `why`) and returns when all ends are
    /// reported and every thread has left. What is still commanded meanwhile never begins.
    pub fn shutdown(&mut self, grace: Span, why: Reason) {
        self.close(Order { grace, why });
    }

    fn close(&mut self, order: Order) {
        let Some(keeper) = self.keeper.take() else {
            return;
        };
        let mut state = self.shared.lock();
        state.closing = true;
        state.stop(&|_| true, order);
        self.shared.work.notify_all();
        while !state.workers.is_empty() {
            state = self
                .shared
                .left
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.errands = None;
        drop(state);
        if keeper.join().is_err() {
            tracing::error!("the executor's keeper panicked");
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.close(Order {
            grace: Span(0),
            why: Reason::AgentDied,
        });
    }
}

impl From<crate::procs::Found> for LeftOver {
    fn from(found: crate::procs::Found) -> Self {
        Self {
            pid: found.pid.as_raw_nonzero().get(),
            mark: found.mark,
        }
    }
}

impl State {
    fn errand(&self, errand: Errand) {
        if let Some(errands) = &self.errands {
            // the keeper lives as long as its sender
            let _ = errands.send(errand);
        }
    }

    fn stop(&mut self, which: &dyn Fn(&AttemptRef) -> bool, order: Order) {
        for (_, control) in self.running.iter().filter(|(attempt, _)| which(attempt)) {
            control.give(order);
        }
        let waiting = self.followers.values().map(|launch| launch.attempt);
        let waiting: Vec<_> = waiting.filter(|attempt| which(attempt)).collect();
        let mut stopped: Vec<_> = waiting.iter().filter_map(|a| self.unfollow(a)).collect();
        let mut kept = Vec::new();
        for queue in [&mut self.queue, &mut self.urgent] {
            for launch in std::mem::take(queue) {
                if which(&launch.attempt) {
                    kept.extend(self.followers.remove(&launch.attempt));
                    stopped.push(launch);
                } else {
                    kept.push(launch);
                }
            }
            queue.extend(kept.drain(..));
        }
        for launch in stopped {
            let ended = not_begun(&launch, order.why, "stopped before it began".to_owned());
            self.errand(Errand::Report(Box::new(ended)));
        }
    }

    /// Whether nothing waits for the worker that ran this one.
    fn has_nothing_after(&self, attempt: &AttemptRef) -> bool {
        let waiting = self.queue.len() + self.urgent.len();
        waiting == 0 && !self.followers.contains_key(attempt) && !self.closing
    }

    fn known(&self, attempt: &AttemptRef) -> bool {
        let mut waiting = self.queue.iter().chain(&self.urgent);
        self.running.contains_key(attempt)
            || waiting.any(|launch| launch.attempt == *attempt)
            || self
                .followers
                .values()
                .any(|launch| launch.attempt == *attempt)
    }

    /// Puts a launch behind `before`, and behind all that follow it already.
    fn follow(&mut self, before: AttemptRef, launch: Box<Launch>) {
        let mut last = before;
        while let Some(next) = self.followers.get(&last) {
            last = next.attempt;
        }
        self.followers.insert(last, launch);
    }

    /// Takes a follower out; whoever follows it moves up.
    fn unfollow(&mut self, attempt: &AttemptRef) -> Option<Box<Launch>> {
        let (before, _) = self.followers.iter().find(|(_, l)| l.attempt == *attempt)?;
        let before = *before;
        let launch = self.followers.remove(&before);
        if let Some(next) = self.followers.remove(attempt) {
            self.followers.insert(before, next);
        }
        launch
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directories(&self) -> Vec<AttemptRef> {
        let state = self.lock();
        let mut found: Vec<_> = state.places.keys().copied().collect();
        found.sort();
        found
    }

    /// Takes a launch. Whether an idle worker is to be woken for it.
    fn begin(self: &Arc<Self>, state: &mut State, launch: Box<Launch>) -> bool {
        if state.known(&launch.attempt) {
            return false;
        }
        if state.closing {
            let text = "the agent is being stopped".to_owned();
            let ended = not_begun(&launch, Reason::AgentDied, text);
            state.errand(Errand::Report(Box::new(ended)));
            return false;
        }
        let urgent = !launch.queue;
        match launch.behind {
            Some(before) if state.known(&before) || state.told.contains(&before) => {
                state.follow(before, launch);
                return false;
            }
            Some(_) => state.queue.push_front(launch),
            None if urgent => state.urgent.push_back(launch),
            None => state.queue.push_back(launch),
        }
        let waiting = state.queue.len() + state.urgent.len();
        let wanted = urgent || state.workers.len() < self.node.options.slots.max(1);
        if state.idle + state.returning < waiting && wanted && state.workers.len() < WORKERS {
            self.hire(state);
        }
        state.idle > 0 && waiting > state.returning
    }

    /// Starts another worker.
    fn hire(self: &Arc<Self>, state: &mut State) {
        let number = (0..).find(|n| !state.workers.contains(n)).unwrap_or(0);
        let shared = Arc::clone(self);
        let hired = std::thread::Builder::new()
            .name(format!("exec-{number}"))
            .stack_size(STACK)
            .spawn(move || shared.work(number));
        match hired {
            Ok(_) => {
                state.workers.insert(number);
            }
            Err(error) if state.workers.is_empty() => {
                let text = format!("no thread to run it: {error}");
                state.stop_all_unstartable(&text);
            }
            Err(error) => tracing::warn!(%error, "no thread for another attempt; it waits"),
        }
    }

    fn settle(&self, state: &mut State, attempt: &AttemptRef) {
        if state.running.contains_key(attempt) {
            return;
        }
        let Some(number) = state.places.remove(attempt) else {
            return;
        };
        let name = mark::of(attempt);
        if state.workers.contains(&number) {
            state.settled.entry(number).or_default().push(name);
        } else {
            let dir = self.node.work.join(number.to_string()).join(name);
            state.errand(Errand::Remove(dir));
        }
    }

    fn keep(&self, errands: &mpsc::Receiver<Errand>) {
        let orphans = Orphans::adopt(self.node.options.list_orphans);
        loop {
            let errand = match errands.recv_timeout(REAP_EVERY) {
                Ok(errand) => errand,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    orphans.reap();
                    continue;
                }
            };
            match errand {
                Errand::Report(ended) => (self.sink)(Event::Ended(ended)),
                Errand::Remove(dir) => remove(&dir),
                Errand::Forget(run) => self.node.logs.forget(&run),
            }
        }
    }

    /// A worker's life.
    fn work(&self, number: usize) {
        let _leaving = Leaving {
            shared: self,
            number,
        };
        let made = Bench::new(&self.node, number).and_then(|b| Ok((b, Arc::new(Control::new()?))));
        match made {
            Ok((mut bench, control)) => {
                while let Some(launch) = self.next(number, &mut bench, &control) {
                    let ended = run(&self.node, &mut bench, &control, &launch, &*self.sink);
                    self.finish(number, &control, ended);
                }
                bench.tidy(0);
            }
            Err(error) => {
                let text = format!("no working place for it: {error}");
                self.lock().stop_all_unstartable(&text);
            }
        }
    }

    fn leave(&self, number: usize) {
        let mut state = self.lock();
        state.workers.remove(&number);
        let settled = state.settled.remove(&number).unwrap_or_default();
        for name in settled {
            state.errand(Errand::Remove(
                self.node.work.join(number.to_string()).join(name),
            ));
        }
        drop(state);
        self.left.notify_all();
    }

    /// Tells of an end of worker `number`.
    fn finish(&self, number: usize, control: &Control, mut ended: Ended) {
        let mut state = self.lock();
        state.running.remove(&ended.attempt);
        state.told.insert(ended.attempt);
        if ended.began.is_none() {
            state.places.remove(&ended.attempt);
        }
        // an order that came too late is not meant for the next attempt
        control.take();
        ended.idle = !self.is_extra(number) && state.has_nothing_after(&ended.attempt);
        state.returning += usize::from(ended.idle);
        drop(state);
        let (attempt, idle) = (ended.attempt, ended.idle);
        (self.sink)(Event::Ended(Box::new(ended)));
        // Only now: nobody may hear that the next one began before this one's end.
        let mut state = self.lock();
        state.returning -= usize::from(idle);
        state.told.remove(&attempt);
        if let Some(next) = state.followers.remove(&attempt) {
            state.urgent.push_front(next);
        }
    }

    /// Whether a worker is there only for what does not wait for a slot.
    fn is_extra(&self, number: usize) -> bool {
        number >= self.node.options.slots.max(1)
    }

    /// The next attempt for this worker; none when it is to leave.
    fn next(
        &self,
        number: usize,
        bench: &mut Bench,
        control: &Arc<Control>,
    ) -> Option<Box<Launch>> {
        let extra = self.is_extra(number);
        let mut prepared = false;
        let mut state = self.lock();
        loop {
            bench.settled(state.settled.remove(&number).unwrap_or_default());
            let state_now = &mut *state;
            let from_queue = || {
                if extra {
                    None
                } else {
                    state_now.queue.pop_front()
                }
            };
            if let Some(launch) = state_now.urgent.pop_front().or_else(from_queue) {
                state.running.insert(launch.attempt, Arc::clone(control));
                state.places.insert(launch.attempt, number);
                return Some(launch);
            }
            if extra || state.closing {
                return None;
            }
            if !prepared {
                drop(state);
                bench.prepare();
                prepared = true;
                state = self.lock();
                // something may have come meanwhile
                continue;
            }
            state.idle += 1;
            let soon = bench.untidy() || !state.places.is_empty();
            let timed_out;
            (state, timed_out) = self.wait(state, soon);
            state.idle -= 1;
            if timed_out && bench.untidy() {
                drop(state);
                bench.tidy(0);
                state = self.lock();
            }
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, soon: bool) -> (MutexGuard<'a, State>, bool) {
        if soon {
            let (state, result) = self
                .work
                .wait_timeout(state, TIDY_AFTER)
                .unwrap_or_else(PoisonError::into_inner);
            (state, result.timed_out())
        } else {
            (
                self.work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                false,
            )
        }
    }
}

/// Says that a worker has left, even if it panicked: nobody may wait for it for ever.
struct Leaving<'a> {
    shared: &'a Shared,
    number: usize,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.shared.leave(self.number);
    }
}

impl State {
    /// Ends whatever waits because nothing can run it.
    fn stop_all_unstartable(&mut self, text: &str) {
        let followers = std::mem::take(&mut self.followers).into_values();
        let queued = self.queue.drain(..).chain(self.urgent.drain(..));
        let waiting: Vec<_> = queued.chain(followers).collect();
        for launch in waiting {
            let ended = not_begun(&launch, Reason::CannotStart, text.to_owned());
            self.errand(Errand::Report(Box::new(ended)));
        }
    }
}

fn prepare(mut options: Options) -> Result<(Node, HashMap<AttemptRef, usize>), Error> {
    let root = rustix::process::geteuid().is_root();
    match options.run_as {
        Some((uid, _)) if !root && uid != rustix::process::geteuid().as_raw() => {
            return Err(Error::NotRoot { uid });
        }
        Some((0, _)) | None if root && !options.allow_root => return Err(Error::WouldBeRoot),
        Some(_) if !root => options.run_as = None,
        Some((0, _)) => options.run_as = None,
        _ => {}
    }
    let path_error = |what, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Path { what, path, source }
    };
    fs::create_dir_all(&options.data).map_err(path_error("create", &options.data))?;
    options.data = fs::canonicalize(&options.data).map_err(path_error("find", &options.data))?;
    let identity = Identity::new(options.run_as);
    let work = options.data.join("work");
    make_parent(&work, options.run_as.is_some()).map_err(path_error("create", &work))?;
    for name in ["files", "logs"] {
        let dir = options.data.join(name);
        make_parent(&dir, false).map_err(path_error("create", &dir))?;
    }
    if let Some((uid, gid)) = options.run_as {
        make_reachable(&options.data, uid, gid)?;
    }
    let files = Dir::open(&options.data.join("files"), options.file_budget)?;
    let logs = Logs::open(
        &options.data,
        options.log_quota_per_attempt,
        options.log_quota_node,
    )?;
    let places = left_places(&work).map_err(path_error("read", &work))?;
    let store = options.store_id.to_string();
    let mains = Mutex::default();
    Ok((
        Node {
            options,
            work,
            store,
            identity,
            files,
            logs,
            mains,
        },
        places,
    ))
}

/// Attempts whose directories are there, with the number of their bench.
fn left_places(work: &Path) -> std::io::Result<HashMap<AttemptRef, usize>> {
    let mut places = HashMap::new();
    for bench in fs::read_dir(work)? {
        let bench = bench?;
        let Some(number) = bench.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        for place in fs::read_dir(bench.path())? {
            if let Some(attempt) = place?.file_name().to_str().and_then(mark::parse) {
                places.insert(attempt, number);
            }
        }
    }
    Ok(places)
}

/// Lets the user of tasks pass through `data`, and checks that the directories above let them.
fn make_reachable(data: &Path, uid: u32, gid: u32) -> Result<(), Error> {
    let meta = |path: &Path| {
        fs::metadata(path).map_err(|source| Error::Path {
            what: "read",
            path: path.to_owned(),
            source,
        })
    };
    let mut permissions = meta(data)?.permissions();
    if permissions.mode() & 0o011 != 0o011 {
        permissions.set_mode(permissions.mode() & 0o7777 | 0o011);
        fs::set_permissions(data, permissions).map_err(|source| Error::Path {
            what: "open to tasks",
            path: data.to_owned(),
            source,
        })?;
    }
    for path in data.ancestors() {
        let meta = meta(path)?;
        let bit = match (meta.uid() == uid, meta.gid() == gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        if meta.mode() & bit == 0 {
            return Err(Error::Unreachable {
                uid,
                path: path.to_owned(),
            });
        }
    }
    Ok(())
}
