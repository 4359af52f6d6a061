//! The loop of the agent: takes what happened, lets the driver decide and commit, and does what it
//! asks for. Everything else (link, executor, local commands) speaks to it through one bounded
//! queue. One thread at a time takes a turn: the loop's own, or one that is lent to it.

use crate::asked::{answer, find_run, find_task};
use crate::clock;
use crate::control::Answer;
use crate::launch::into_launch;
use crate::linking::LinkCommand;
use crate::mailbox::{Handle, Next};
use crate::memory::Rest;
use crate::reading::{self, Found, Look};
use crate::room::{ROOM_FOR_FILES, free_room, is_to_thin};
use crate::schedule;
use crate::service::{self, Watchdog};
use crate::sweep::Sweep;
use crate::telemetry::Telemetry;
use edge_core::driver::{Driver, DriverError};
use edge_core::event::{Action, Boot, Event, Local, LocalReply, ProcessEnd};
use edge_core::store::Store;
use edge_exec as exec;
use shared::config::scheduler::Scheduler;
use shared::explain::Reason;
use shared::ids::{AttemptRef, Hash, RunId, ScheduleId};
use shared::time::{Now, Span, Stamp};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Events that are decided on at once.
const GROUP: usize = 512;
/// How long an end by a signal that nobody here sent waits for the stop that may have come with it.
const SIGNAL_PAUSE: Duration = Duration::from_millis(250);
/// How often free room is measured.
const ROOM_INTERVAL: Duration = Duration::from_secs(2);
/// How long messages wait for company while the executor has enough to do without an answer.
const COMPANY: Duration = Duration::from_millis(2);
/// So many attempts that wait for a slot are enough, or two a slot.
const ENOUGH: usize = 8;
/// Longest sleep.
const LONGEST: Duration = Duration::from_secs(3600);
/// Pause after a commit that failed, so that a broken disk is not asked in a tight loop.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// A question that is answered from committed state.
#[derive(Debug, Clone)]
pub enum Ask {
    /// State of the agent.
    Status,
    /// Some of its tasks: `{tasks, last}`, where `last` is where to go on, or null.
    Tasks {
        /// Ended ones, too.
        all: bool,
        /// Behind this one.
        after: Option<edge_core::state::TaskKey>,
    },
    /// The link, and what waits for it.
    Sync,
    /// What waits for a person.
    Waits,
    /// Why a task runs or not.
    Explain {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task's id.
        task: String,
    },
    /// Where a task's logs lie: `{run, index}`.
    Locate {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task's id.
        task: String,
    },
    /// The schedules that it fires.
    Schedules,
    /// One of them.
    Schedule {
        /// Its name, or the unique beginning of its id.
        schedule: String,
    },
    /// Its next slots.
    NextSlots {
        /// Its name, or the unique beginning of its id.
        schedule: String,
        /// How many.
        count: u32,
    },
}

/// An order of a person; answered once it is durable.
#[derive(Debug, Clone)]
pub enum Order {
    /// See `Local::Submit`.
    Submit {
        /// The new run.
        run: RunId,
        /// The packed workflow.
        workflow: Vec<u8>,
        /// Who.
        by: String,
    },
    /// See `Local::Cancel`.
    Cancel {
        /// A run, or the unique beginning of its id.
        run: String,
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// See `Local::Pause`.
    Pause {
        /// A run, or the unique beginning of its id.
        run: String,
        /// Stand still, or go on.
        on: bool,
        /// Who.
        by: String,
    },
    /// See `Local::Resume`.
    Resume {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task's id.
        task: String,
        /// Who.
        by: String,
    },
    /// See `Local::Answer`.
    Answer {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task's id.
        task: String,
        /// Approve, or reject.
        yes: bool,
        /// What is filled in.
        input: BTreeMap<String, String>,
        /// Who.
        by: String,
    },
    /// A new schedule, or a new revision of the one with the same name.
    CreateSchedule {
        /// The new one's id.
        id: ScheduleId,
        /// The packed workflow.
        workflow: Vec<u8>,
        /// Only as a new revision.
        replace: bool,
        /// Who.
        by: String,
    },
    /// Something is asked of a schedule.
    AskSchedule {
        /// Its name, or the unique beginning of its id.
        schedule: String,
        /// What.
        ask: crate::control::ScheduleAsk,
        /// Who.
        by: String,
    },
    /// See `Local::PauseSync`.
    PauseSync {
        /// For so long; none: until a person says so.
        length: Option<Span>,
        /// Who.
        by: String,
    },
    /// See `Local::ResumeSync`.
    ResumeSync {
        /// Who.
        by: String,
    },
}

/// What comes to the loop.
#[derive(Debug)]
pub enum Message {
    /// Something happened.
    Event(Event),
    /// An attempt's program runs.
    Began {
        /// Which.
        attempt: AttemptRef,
        /// Since when.
        at: Now,
    },
    /// An attempt's processes are gone.
    Ended(exec::Ended),
    /// A question.
    Ask(Ask, SyncSender<Answer>),
    /// An order.
    Order(Order, SyncSender<Answer>),
    /// A look into the journal.
    Look(Look, SyncSender<Result<Found, String>>),
    /// The process was asked to stop.
    Stop,
}

/// Why the loop ended.
#[derive(Debug)]
pub enum Ending {
    /// It was asked to.
    Stopped,
    /// The log forked: the store must be put aside for a new incarnation.
    NewIncarnation(String),
    /// The process must end.
    Fatal(String),
}

/// What the loop acts with.
struct Hands {
    executor: exec::Executor,
    link: tokio::sync::mpsc::UnboundedSender<LinkCommand>,
    pending: BTreeMap<u64, SyncSender<Answer>>,
    /// Attempts that the executor holds.
    alive: BTreeSet<AttemptRef>,
    /// Those of them whose program is known to run; the others wait for a slot or just began.
    begun: BTreeSet<AttemptRef>,
    /// How many run at once.
    slots: usize,
    /// Why the loop is to end.
    ending: Option<Ending>,
    /// Settings that the monitor has not been told.
    settings: Option<Scheduler>,
}

/// The loop and all it works with.
pub struct Loop<S: Store> {
    mailbox: Handle,
    driver: Driver<S>,
    hands: Hands,
    data: PathBuf,
    stop_grace: Duration,
    next_request: u64,
    /// Ends that were told to the core; their directories go once they are durable.
    unsettled: Vec<AttemptRef>,
    /// Questions that came while something was decided and not durable: what is shown must not be
    /// undone by a crash.
    asked: Vec<(Ask, SyncSender<Answer>)>,
    /// Ends by a signal that may be part of a stop of everything.
    signalled: Vec<(Instant, exec::Ended)>,
    boot: Boot,
    /// Number of this boot, for the stamps of what the executor reports.
    boot_number: u32,
    room_due: Instant,
    sweep: Sweep,
    rest: Rest,
    telemetry: Telemetry,
    /// Whether the last measurement left no room for more work.
    scarce: bool,
    /// Whether telemetry was told to give up room.
    thinned: bool,
    watchdog: Watchdog,
}

impl<S: Store> std::fmt::Debug for Loop<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loop")
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

/// What a loop is made of.
#[derive(Debug)]
pub struct Parts<S: Store> {
    /// Brings messages to it.
    pub mailbox: Handle,
    /// Decides and commits.
    pub driver: Driver<S>,
    /// Runs attempts.
    pub executor: exec::Executor,
    /// Takes dials, messages and transfers.
    pub link: tokio::sync::mpsc::UnboundedSender<LinkCommand>,
    /// The data directory.
    pub data: PathBuf,
    /// Removes files that nobody names.
    pub sweep: Sweep,
    /// Measures, and gives room back.
    pub telemetry: Telemetry,
    /// Time between TERM and KILL when the agent stops.
    pub stop_grace: Duration,
    /// How this start came about.
    pub boot: Boot,
    /// Attempts that run at once.
    pub slots: usize,
}

impl<S: Store + Send + 'static> Loop<S> {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(parts: Parts<S>) -> Self {
        let Parts {
            mailbox,
            driver,
            executor,
            link,
            data,
            sweep,
            telemetry,
            stop_grace,
            boot,
            slots,
        } = parts;
        let hands = Hands {
            executor,
            link,
            pending: BTreeMap::new(),
            alive: BTreeSet::new(),
            begun: BTreeSet::new(),
            slots,
            ending: None,
            settings: None,
        };
        Self {
            mailbox,
            driver,
            hands,
            data,
            stop_grace,
            next_request: 0,
            unsettled: Vec::new(),
            asked: Vec::new(),
            signalled: Vec::new(),
            boot,
            boot_number: 0,
            room_due: Instant::now(),
            sweep,
            rest: Rest::new(),
            telemetry,
            scarce: false,
            thinned: false,
            watchdog: Watchdog::of_environment(),
        }
    }

    /// Resumes all work, then goes on until it is stopped.
    pub fn run(mut self) -> Ending {
        let mut events = vec![Event::Boot(self.boot.clone())];
        self.measure_room(&mut events);
        self.decide(events);
        self.boot_number = self.driver.agent().status().boots;
        self.telemetry.booted(self.boot_number);
        self.settle_former();
        let mailbox = self.mailbox.clone();
        let shared = Arc::new(Mutex::new(self));
        let lent = Arc::clone(&shared);
        mailbox.open(Arc::new(move || lend(&lent)));
        lock(&shared).tell_ready();
        loop {
            let this = lock(&shared);
            let (next, seen) = (this.next(), mailbox.turns());
            let crowded = this.hands.waiting() > ENOUGH.max(2 * this.hands.slots);
            drop(this);
            if next.over {
                break;
            }
            mailbox.wait(next.due, seen);
            if crowded {
                // Waking up for each end would cost CPU that tasks need.
                std::thread::sleep(COMPANY);
            }
            lock(&shared).turn();
        }
        mailbox.end();
        let ending = lock(&shared).wind_down();
        mailbox.close();
        ending
    }

    /// Decides on all messages that are there, and acts.
    fn turn(&mut self) {
        let mut events = Vec::new();
        for message in self.mailbox.take(GROUP) {
            self.take(message, &mut events);
        }
        if events.is_empty() {
            events.push(Event::Wake);
        }
        match self.hands.ending {
            None => {
                self.release_signalled(&mut events);
                self.measure_room(&mut events);
                self.decide(events);
                self.answer_asked();
                self.sweep();
                self.rest.turn(!self.hands.alive.is_empty());
            }
            Some(Ending::Stopped) => self.decide_last(events),
            Some(_) => {}
        }
        self.watchdog.turned(|| self.driver.agent().headline());
    }

    /// Not if the first decision has failed.
    fn tell_ready(&self) {
        if self.hands.ending.is_none() {
            service::ready(&self.driver.agent().headline());
        }
    }

    fn next(&self) -> Next {
        Next {
            due: Instant::now() + self.patience(),
            over: self.hands.ending.is_some(),
        }
    }

    /// Decides on what came with the wish to stop, or behind it, and starts nothing more.
    fn decide_last(&mut self, events: Vec<Event>) {
        self.driver.close();
        self.decide(events);
    }

    /// Records all ends that are known: what has an end is not run again by the next start.
    fn record_the_last(&mut self) {
        loop {
            let messages = self.mailbox.take(GROUP);
            if messages.is_empty() {
                break;
            }
            let mut events = Vec::new();
            for message in messages {
                self.take(message, &mut events);
            }
            self.decide_last(events);
        }
        let Self { driver, hands, .. } = self;
        let flushed = driver.flush(clock::now(), &mut |action| hands.act(action));
        if let Err(why) = flushed {
            tracing::error!(%why, "the last ends could not be recorded: those tasks run again");
        }
    }

    /// Ends what runs. Why the loop ended.
    fn wind_down(&mut self) -> Ending {
        if matches!(self.hands.ending, Some(Ending::Stopped)) {
            self.record_the_last();
        }
        let ending = self.hands.ending.take().unwrap_or(Ending::Stopped);
        if !matches!(ending, Ending::NewIncarnation(_)) {
            service::stopping();
            service::bound_the_stop(self.stop_grace);
        }
        let grace = Span(u64::try_from(self.stop_grace.as_millis()).unwrap_or(u64::MAX));
        self.hands.executor.shutdown(grace, Reason::AgentDied);
        if matches!(ending, Ending::Stopped) {
            // Without the mark the next start takes this stop for a crash, which is safe.
            if let Err(error) = std::fs::write(self.data.join("work").join(CLEAN_STOP), b"") {
                tracing::warn!(%error, "cannot mark the stop as a clean one");
            }
        }
        ending
    }

    /// Only while nothing runs: an attempt's outputs lie in the file store before its end names
    /// them.
    fn sweep(&mut self) {
        if self.hands.alive.is_empty() && self.sweep.is_due() && !self.driver.has_uncommitted() {
            let gone = self.sweep.run(&self.driver.agent().named_files());
            self.driver.files_gone(&gone);
        }
    }

    /// All attempts of the process before have a durable end by now.
    fn settle_former(&self) {
        let former = self
            .boot
            .directories
            .iter()
            .filter(|a| !self.hands.alive.contains(a));
        self.hands
            .executor
            .command(exec::Command::Settled(former.copied().collect()));
    }

    fn patience(&self) -> Duration {
        let now = clock::now().mono;
        let wake = self.driver.next_wakeup().map_or(LONGEST, |at| {
            Duration::from_nanos(at.0.saturating_sub(now.0))
        });
        let signal = self
            .signalled
            .iter()
            .map(|(due, _)| due.saturating_duration_since(Instant::now()));
        let is_idle = self.hands.alive.is_empty();
        let room = if is_idle && !self.scarce {
            Duration::from_secs(30)
        } else {
            self.room_due.saturating_duration_since(Instant::now())
        };
        let room = if is_idle {
            room.min(self.rest.left())
        } else {
            room
        };
        let signal = signal.min().unwrap_or(Duration::MAX);
        wake.min(room).min(signal).min(self.watchdog.left())
    }

    fn take(&mut self, message: Message, events: &mut Vec<Event>) {
        match message {
            Message::Event(event) => events.push(event),
            Message::Began { attempt, at } => {
                self.hands.begun.insert(attempt);
                let at = self.stamp(at);
                events.push(Event::Began { attempt, at });
            }
            Message::Ended(ended) if self.may_be_a_stop(&ended) => {
                self.signalled.push((Instant::now() + SIGNAL_PAUSE, ended));
            }
            Message::Ended(ended) => events.push(self.end(ended)),
            Message::Ask(ask, reply) => {
                self.asked.push((ask, reply));
                self.answer_asked();
            }
            Message::Order(order, reply) => self.order(order, reply, events),
            Message::Look(what, reply) => {
                let found = reading::read(&mut self.driver, what);
                // Whoever asked may be gone.
                let _ = reply.send(found.map_err(|error| error.to_string()));
            }
            Message::Stop => self.hands.ending = Some(Ending::Stopped),
        }
    }

    /// Answers from committed state, at the latest when the facts that wait for company are
    /// committed.
    fn answer_asked(&mut self) {
        if self.driver.has_uncommitted() {
            return;
        }
        for (ask, reply) in self.asked.drain(..) {
            // Whoever asked may be gone.
            let _ = reply.send(answer(self.driver.agent(), &ask));
        }
    }

    /// A service manager ends the agent and its tasks with one signal. Such an end is no failure of
    /// the task: it waits until it is clear that only the task was meant.
    fn may_be_a_stop(&self, ended: &exec::Ended) -> bool {
        const TERM_INT_KILL_HUP: [i32; 4] = [-15, -2, -9, -1];
        ended.reason == Reason::Signalled
            && ended
                .exit
                .is_some_and(|exit| TERM_INT_KILL_HUP.contains(&exit))
    }

    fn release_signalled(&mut self, events: &mut Vec<Event>) {
        let now = Instant::now();
        let (due, waiting) = std::mem::take(&mut self.signalled)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.signalled = waiting;
        let due: Vec<(Instant, exec::Ended)> = due;
        events.extend(due.into_iter().map(|(_, ended)| self.end(ended)));
    }

    fn end(&mut self, ended: exec::Ended) -> Event {
        self.hands.alive.remove(&ended.attempt);
        self.hands.begun.remove(&ended.attempt);
        self.unsettled.push(ended.attempt);
        let began = ended.began.map(|now| self.stamp(now));
        Event::Ended(ProcessEnd {
            attempt: ended.attempt,
            began,
            exit: ended.exit,
            reason: ended.reason,
            text: ended.text,
            outputs: ended.outputs,
            cpu_ms: ended.cpu_ms,
            peak_memory: ended.peak_memory,
        })
    }

    fn stamp(&self, now: Now) -> Stamp {
        Stamp {
            boot: self.boot_number,
            mono_ms: now.mono.0 / 1_000_000,
            wall: now.wall,
        }
    }

    /// Puts the room that there is before the events that are decided on; tasks can fill a disk at
    /// any time.
    fn measure_room(&mut self, events: &mut Vec<Event>) {
        let wanted = self.driver.room_wanted() + ROOM_FOR_FILES;
        let Some(mut free) = free_room(&self.data) else {
            return;
        };
        let agent = self.driver.agent();
        let enough = |free| agent.is_enough(free, wanted);
        let thin = is_to_thin(self.thinned, free, self.telemetry.quota(), enough);
        if thin != self.thinned {
            // Telemetry is thinned before any work waits or an outcome is refused.
            self.telemetry.scarce(thin);
            self.thinned = thin;
            free = free_room(&self.data).unwrap_or(free);
        }
        let scarce = !self.driver.agent().is_enough(free, wanted);
        if scarce != self.scarce || Instant::now() >= self.room_due {
            self.room_due = Instant::now() + ROOM_INTERVAL;
            self.scarce = scarce;
            events.insert(0, Event::Room { free, wanted });
        }
        self.look_at_clock(events);
    }

    /// Says when the wall clock was set, or turned out not to be.
    fn look_at_clock(&mut self, events: &mut Vec<Event>) {
        let trusted = clock::trusted();
        if trusted != self.boot.clock_trusted {
            self.boot.clock_trusted = trusted;
            events.insert(0, Event::Clock { trusted });
        }
    }

    fn order(&mut self, order: Order, reply: SyncSender<Answer>, events: &mut Vec<Event>) {
        let agent = self.driver.agent();
        let what = match order {
            Order::Submit { run, workflow, by } => Ok(Local::Submit { run, workflow, by }),
            Order::Cancel { run, by, why } => {
                find_run(agent, &run).map(|run| Local::Cancel { run, by, why })
            }
            Order::Pause { run, on, by } => {
                find_run(agent, &run).map(|run| Local::Pause { run, on, by })
            }
            Order::Resume { run, task, by } => {
                find_task(agent, &run, &task).map(|(run, task)| Local::Resume { run, task, by })
            }
            Order::Answer {
                run,
                task,
                yes,
                input,
                by,
            } => find_task(agent, &run, &task).map(|(run, task)| Local::Answer {
                run,
                task,
                yes,
                input,
                by,
            }),
            Order::CreateSchedule {
                id,
                workflow,
                replace,
                by,
            } => schedule::create(agent, id, workflow, replace, by),
            Order::AskSchedule { schedule, ask, by } => schedule::asked(agent, &schedule, ask, by),
            Order::PauseSync { length, by } => Ok(Local::PauseSync { length, by }),
            Order::ResumeSync { by } => Ok(Local::ResumeSync { by }),
        };
        match what {
            Ok(what) => {
                self.next_request += 1;
                self.hands.pending.insert(self.next_request, reply);
                events.push(Event::Local {
                    request: self.next_request,
                    what,
                });
            }
            Err(why) => {
                // Whoever asked may be gone.
                let _ = reply.send(Answer::Refused { why });
            }
        }
    }

    fn decide(&mut self, events: Vec<Event>) {
        let Self { driver, hands, .. } = self;
        let result = driver.run(clock::now(), events, &mut |action| hands.act(action));
        if let Some(settings) = self.hands.settings.take() {
            let every = settings.resource_monitor_interval;
            self.telemetry
                .set_interval(every.map(|every| Duration::from_millis(every.0)));
        }
        self.telemetry.fact(self.driver.agent().state().facts);
        match result {
            Ok(()) if self.unsettled.is_empty() || self.driver.has_uncommitted() => {}
            Ok(()) => {
                let settled = std::mem::take(&mut self.unsettled);
                self.hands.executor.command(exec::Command::Settled(settled));
            }
            Err(DriverError::Rebuilt(why)) => {
                tracing::error!(%why, "a commit failed; the state was read again from the store");
                std::thread::sleep(AFTER_FAILURE);
                let boot = Boot {
                    directories: self.hands.begun.clone(),
                    alive: self.hands.alive.clone(),
                    ..self.boot.clone()
                };
                self.decide(vec![Event::Boot(boot)]);
            }
            Err(DriverError::Fatal(why)) => {
                self.hands.ending = Some(Ending::Fatal(why.to_string()));
            }
        }
    }
}

impl Hands {
    /// Attempts that wait in the executor's queue.
    fn waiting(&self) -> usize {
        self.alive.len().saturating_sub(self.slots)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Begin(launch) => {
                self.alive.insert(launch.attempt);
                self.executor
                    .command(exec::Command::Begin(Box::new(into_launch(launch))));
            }
            Action::Stop { attempt, grace } => {
                // The core knows why it stops something and does not read this reason.
                let why = Reason::CancelledByPerson;
                self.executor.command(exec::Command::Stop {
                    attempt,
                    grace,
                    why,
                });
            }
            Action::Keep { bytes } => {
                // Where it cannot be written, who reads it fails with a missing input and retries.
                let files = self.executor.files();
                if files.find(Hash::of(&bytes)).is_none()
                    && let Err(error) = files.add(&mut bytes.as_slice())
                {
                    tracing::warn!(%error, "an answer cannot be put into the file store");
                }
            }
            Action::ForgetRun { run } => self.executor.command(exec::Command::Forget(run)),
            Action::Reply { request, reply } => {
                let answer = match reply {
                    LocalReply::Done => Answer::Done,
                    LocalReply::Refused(why) => Answer::Refused { why },
                };
                if let Some(to) = self.pending.remove(&request) {
                    // Whoever asked may be gone.
                    let _ = to.send(answer);
                }
            }
            Action::NewIncarnation { why } => {
                self.ending.get_or_insert(Ending::NewIncarnation(why));
            }
            Action::Dial { session } => self.tell_link(LinkCommand::Dial { session }),
            Action::Send { session, message } => {
                self.tell_link(LinkCommand::Send {
                    session,
                    message: Box::new(message),
                });
            }
            Action::Hangup { session } => self.tell_link(LinkCommand::Hangup { session }),
            Action::Fetch { hash, size } => self.tell_link(LinkCommand::Fetch { hash, size }),
            Action::Settings(settings) => {
                let texts = settings.texts();
                tracing::info!(settings = ?texts, "this holds where specifications say nothing");
                self.settings = Some(settings);
            }
            Action::Upload { hash, .. } => self.tell_link(LinkCommand::Upload { hash }),
            Action::MayDial(may) => self.tell_link(LinkCommand::MayDial(may)),
        }
    }

    fn tell_link(&self, command: LinkCommand) {
        // The link ends after the loop; before that it takes everything.
        let _ = self.link.send(command);
    }
}

/// Takes a turn with a thread that is lent, unless another one is taking one.
fn lend<S: Store + Send + 'static>(shared: &Mutex<Loop<S>>) -> bool {
    let Ok(mut this) = shared.try_lock() else {
        return false;
    };
    if this.hands.ending.is_none() {
        this.turn();
    }
    this.mailbox.turned(this.next());
    true
}

/// A turn that panics ends the process.
fn lock<S: Store>(shared: &Mutex<Loop<S>>) -> MutexGuard<'_, Loop<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Marks, below `work`, that the stop before was asked for and complete.
pub const CLEAN_STOP: &str = ".clean-stop";

/// Whether the stop before was asked for; the mark is taken away.
#[must_use]
pub fn take_clean_stop(data: &Path) -> bool {
    std::fs::remove_file(data.join("work").join(CLEAN_STOP)).is_ok()
}
