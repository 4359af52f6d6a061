//! The loop of the agent: takes what happened, lets the driver decide and commit, and does what it
//! asks for. Everything else (link, executor, local commands) speaks to it through one bounded
//! queue. One thread at a time takes a turn ([`crate::turns`]): the loop's own, or one that is lent
//! to it.

use crate::clock;
use crate::control::Answer;
use crate::launch::into_launch;
use crate::linking::LinkCommand;
use crate::mailbox::{Handle, Next};
use crate::memory::Rest;
use crate::reading::{Found, Look};
use crate::room;
use crate::service::{self, Watchdog};
use crate::sweep::Sweep;
use crate::telemetry::Telemetry;
use crate::turns::{Place, Turns};
use edge_core::driver::Driver;
use edge_core::event::{Action, Boot, Event};
use edge_core::store::Store;
use edge_exec as exec;
use shared::explain::Reason;
use shared::ids::{AttemptRef, Hash, RunId, ScheduleId};
use shared::time::{Now, Span};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Messages that are decided on at once.
const GROUP: usize = 512;
/// How long messages wait for company while the executor has enough to do without an answer.
const COMPANY: Duration = Duration::from_millis(2);
/// So many attempts that wait for a slot are enough, or two a slot.
const ENOUGH: usize = 8;

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

/// This machine, with the agent's own executor, link and telemetry.
struct Here {
    executor: exec::Executor,
    link: tokio::sync::mpsc::UnboundedSender<LinkCommand>,
    telemetry: Telemetry,
    data: PathBuf,
}

/// The loop and all it works with.
pub struct Loop<S: Store> {
    mailbox: Handle,
    turns: Turns<S, Here>,
    slots: usize,
    stop_grace: Duration,
    sweep: Sweep,
    rest: Rest,
    watchdog: Watchdog,
}

impl<S: Store> std::fmt::Debug for Loop<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loop")
            .field("turns", &self.turns)
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
        let here = Here {
            executor: parts.executor,
            link: parts.link,
            telemetry: parts.telemetry,
            data: parts.data,
        };
        Self {
            mailbox: parts.mailbox,
            turns: Turns::new(parts.driver, here, parts.boot),
            slots: parts.slots,
            stop_grace: parts.stop_grace,
            sweep: parts.sweep,
            rest: Rest::new(),
            watchdog: Watchdog::of_environment(),
        }
    }

    /// Resumes all work, then goes on until it is stopped.
    pub fn run(mut self) -> Ending {
        self.turns.begin();
        let mailbox = self.mailbox.clone();
        let shared = Arc::new(Mutex::new(self));
        let lent = Arc::clone(&shared);
        mailbox.open(Arc::new(move || lend(&lent)));
        lock(&shared).tell_ready();
        loop {
            let this = lock(&shared);
            let (next, seen) = (this.next(), mailbox.turns());
            let crowded = this.waiting() > ENOUGH.max(2 * this.slots);
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

    /// Attempts that wait in the executor's queue.
    fn waiting(&self) -> usize {
        self.turns.held().saturating_sub(self.slots)
    }

    /// Decides on all messages that are there, and acts.
    fn turn(&mut self) {
        self.turns.turn(self.mailbox.take(GROUP));
        if self.turns.ending().is_none() {
            self.sweep();
            self.rest.turn(self.turns.held() > 0);
        }
        let agent = self.turns.driver().agent();
        self.watchdog.turned(|| agent.headline());
    }

    /// Not if the first decision has failed.
    fn tell_ready(&self) {
        if self.turns.ending().is_none() {
            service::ready(&self.turns.driver().agent().headline());
        }
    }

    fn next(&self) -> Next {
        let rest = match self.turns.held() {
            0 => self.rest.left(),
            _ => Duration::MAX,
        };
        let patience = self.turns.patience().min(rest).min(self.watchdog.left());
        Next {
            due: Instant::now() + patience,
            over: self.turns.ending().is_some(),
        }
    }

    /// Ends what runs. Why the loop ended.
    fn wind_down(&mut self) -> Ending {
        if matches!(self.turns.ending(), Some(Ending::Stopped)) {
            self.record_the_last();
        }
        let ending = self.turns.take_ending().unwrap_or(Ending::Stopped);
        if !matches!(ending, Ending::NewIncarnation(_)) {
            service::stopping();
            service::bound_the_stop(self.stop_grace);
        }
        let grace = Span(u64::try_from(self.stop_grace.as_millis()).unwrap_or(u64::MAX));
        let here = self.turns.place_mut();
        here.executor.shutdown(grace, Reason::AgentDied);
        if matches!(ending, Ending::Stopped) {
            // Without the mark the next start takes this stop for a crash, which is safe.
            if let Err(error) = std::fs::write(here.data.join("work").join(CLEAN_STOP), b"") {
                tracing::warn!(%error, "cannot mark the stop as a clean one");
            }
        }
        ending
    }

    /// Records all ends that are known: what has an end is not run again by the next start.
    fn record_the_last(&mut self) {
        loop {
            let messages = self.mailbox.take(GROUP);
            if messages.is_empty() {
                break;
            }
            self.turns.turn(messages);
        }
        self.turns.flush();
    }

    /// Only while nothing runs: an attempt's outputs lie in the file store before its end names
    /// them.
    fn sweep(&mut self) {
        let driver = self.turns.driver();
        if self.turns.held() == 0 && self.sweep.is_due() && !driver.has_uncommitted() {
            let gone = self.sweep.run(&driver.agent().named_files());
            self.turns.files_gone(&gone);
        }
    }
}

impl Place for Here {
    fn now(&self) -> Now {
        clock::now()
    }

    fn clock_trusted(&self) -> bool {
        clock::trusted()
    }

    fn free_room(&self) -> Option<u64> {
        room::free_room(&self.data)
    }

    fn telemetry_quota(&self) -> u64 {
        self.telemetry.quota()
    }

    fn thin(&mut self, thin: bool) {
        self.telemetry.scarce(thin);
    }

    fn booted(&mut self, number: u32) {
        self.telemetry.booted(number);
    }

    fn facts(&mut self, number: u64) {
        self.telemetry.fact(number);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Begin(launch) => {
                let launch = Box::new(into_launch(launch));
                self.executor.command(exec::Command::Begin(launch));
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
            Action::Settings(settings) => {
                let texts = settings.texts();
                tracing::info!(settings = ?texts, "this holds where specifications say nothing");
                let every = settings.resource_monitor_interval;
                self.telemetry
                    .set_interval(every.map(|every| Duration::from_millis(every.0)));
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
            Action::Upload { hash, .. } => self.tell_link(LinkCommand::Upload { hash }),
            Action::MayDial(may) => self.tell_link(LinkCommand::MayDial(may)),
            // orders are answered by the turns themselves, and nobody else asks
            Action::Reply { .. } | Action::NewIncarnation { .. } => {}
        }
    }

    fn settle(&mut self, attempts: Vec<AttemptRef>) {
        self.executor.command(exec::Command::Settled(attempts));
    }

    fn pause(&mut self, length: Duration) {
        std::thread::sleep(length);
    }
}

impl Here {
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
    if this.turns.ending().is_none() {
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
