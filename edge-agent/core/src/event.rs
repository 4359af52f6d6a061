//! What the shell (or the simulator) tells the core, and what the core asks of it.

use crate::pressure::Pressure;
use serde::{Deserialize, Serialize};
use shared::config::scheduler::Scheduler;
use shared::explain::Reason;
use shared::fact::OutputFile;
use shared::ids::{AttemptRef, BootId, Hash, Incarnation, NodeId, RunId, ScheduleId, TaskIdx};
use shared::schedule::Order;
use shared::time::{Span, Stamp};
use shared::wire::{Down, Up};
use shared::workflow::{Resources, Task};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who the agent is and what it may use. Set by the shell at every start; not part of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its identity.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// The incarnation before it, when a fork made it take this one.
    pub succeeds: Option<Incarnation>,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What tasks may use in all.
    pub capacity: Resources,
    /// How many attempts the executor runs at once from its queue (starts ahead wait there).
    pub slots: u32,
    /// Shortest and longest pause before a dial.
    pub redial: (Span, Span),
    /// Time between snapshots, if anything changed.
    pub snapshot_interval: Span,
    /// How long acknowledged facts are kept.
    pub fact_window: Span,
    /// Bytes of a part of an inventory, and of the tasks in a reset: `limits::INVENTORY_PART_BYTES`
    /// at most.
    pub inventory_part: usize,
    /// Whether there is a coordinator to dial at all.
    pub has_coordinator: bool,
    /// Version of the program, for people.
    pub version: String,
    /// What holds where neither specifications nor the coordinator say anything, as far as it was
    /// configured here.
    pub scheduler: Scheduler,
}

/// How this start came about. The first event after the state was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel's boot.
    pub boot: BootId,
    /// Seed of the core's generator.
    pub seed: u64,
    /// Attempts whose directory exists: they may have begun. After a power loss directories prove
    /// nothing.
    pub directories: BTreeSet<AttemptRef>,
    /// Attempts that the executor still runs or holds (after a failed commit; empty at a start of
    /// the process, which ends all old processes first).
    pub alive: BTreeSet<AttemptRef>,
    /// Ends of attempts that were not recorded before the core was thrown away.
    pub ended: Vec<ProcessEnd>,
    /// Whether the wall clock was set since the machine booted.
    pub clock_trusted: bool,
    /// The process before this one was asked to stop and had ended all attempts itself: what it
    /// interrupted counts to no crash limit.
    pub clean_stop: bool,
}

/// An attempt's end as the executor saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEnd {
    /// Which attempt.
    pub attempt: AttemptRef,
    /// When it began; none if it never did.
    pub began: Option<Stamp>,
    /// Exit code, or minus the signal's number.
    pub exit: Option<i32>,
    /// `exited_zero`, `exited_nonzero`, `signalled`, `output_missing`, `cannot_start`,
    /// `input_missing`, or `never_began`.
    pub reason: Reason,
    /// For people: what went wrong.
    pub text: String,
    /// The declared outputs; empty unless it succeeded.
    pub outputs: Vec<OutputFile>,
    /// CPU time, milliseconds.
    pub cpu_ms: u64,
    /// Largest resident set, bytes.
    pub peak_memory: u64,
}

/// What happened outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The first event after loading, and after the core was rebuilt.
    Boot(Boot),
    /// `next_wakeup` has come. A spurious one changes nothing.
    Wake,
    /// A transport to the coordinator stands; the core sends its hello.
    Linked {
        /// The number given with `Action::Dial`.
        session: u64,
    },
    /// A dial failed or a session ended.
    Unlinked {
        /// The number given with `Action::Dial`.
        session: u64,
        /// For people.
        why: String,
    },
    /// A message of a session.
    Heard {
        /// The number given with `Action::Dial`.
        session: u64,
        /// The message.
        message: Down,
    },
    /// An attempt's process runs.
    Began {
        /// Which attempt.
        attempt: AttemptRef,
        /// Since when.
        at: Stamp,
    },
    /// An attempt's processes are gone, every one.
    Ended(ProcessEnd),
    /// A file asked for by `Action::Fetch` is here, verified.
    FileHere {
        /// Its content.
        hash: Hash,
    },
    /// A file asked for cannot be had yet; the core asks again.
    FileNotThere {
        /// Its content.
        hash: Hash,
        /// For people.
        why: String,
    },
    /// A file is durable at the coordinator.
    Uploaded {
        /// Its content.
        hash: Hash,
    },
    /// A file could not be brought to the coordinator; the core asks again.
    NotUploaded {
        /// Its content.
        hash: Hash,
        /// It is in this node's file store; if it is not, it can never be brought.
        here: bool,
        /// For people.
        why: String,
    },
    /// A person at the gateway asks for something; answered by `Action::Reply` once it is durable.
    Local {
        /// To be repeated in the reply.
        request: u64,
        /// What.
        what: Local,
    },
    /// Free room for the store and for files, in bytes, as last measured by the shell.
    Room {
        /// Free bytes.
        free: u64,
        /// A start needs at least so much.
        wanted: u64,
    },
    /// Whether the wall clock was set since the machine booted, when that has changed.
    Clock {
        /// As in [`Boot`].
        trusted: bool,
    },
    /// The monitor has read how much the machine suffers.
    Pressure(Pressure),
    /// The link has taken the part of an inventory that was sent last: the next one may follow.
    PartTaken {
        /// The number given with `Action::Dial`.
        session: u64,
    },
}

/// What a person at the gateway can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Local {
    /// Run a workflow here.
    Submit {
        /// Drawn by the shell.
        run: RunId,
        /// `codec::pack` of the compiled workflow; its sent files are in the file store already.
        workflow: Vec<u8>,
        /// Who.
        by: String,
    },
    /// Cancel a run here.
    Cancel {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// Pause a run here, or go on.
    Pause {
        /// The run.
        run: RunId,
        /// Pause, or go on.
        on: bool,
        /// Who.
        by: String,
    },
    /// Let a paused or lost task run again.
    Resume {
        /// The run.
        run: RunId,
        /// The task.
        task: TaskIdx,
        /// Who.
        by: String,
    },
    /// Answer a question.
    Answer {
        /// The run.
        run: RunId,
        /// The task that asks.
        task: TaskIdx,
        /// Approve, or reject.
        yes: bool,
        /// What is filled in.
        input: BTreeMap<String, String>,
        /// Who.
        by: String,
    },
    /// Something about a schedule that this node fires, or a new one.
    Schedule {
        /// The schedule; a new one's is drawn by the shell.
        schedule: ScheduleId,
        /// What.
        what: Order,
        /// Who.
        by: String,
    },
    /// Send nothing to the coordinator and do not dial it; work goes on.
    PauseSync {
        /// For so long; none: until a person says so.
        length: Option<Span>,
        /// Who.
        by: String,
    },
    /// Send again.
    ResumeSync {
        /// Who.
        by: String,
    },
}

impl Local {
    /// The run that it is about, if it is about one that is here.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::Cancel { run, .. }
            | Self::Pause { run, .. }
            | Self::Resume { run, .. }
            | Self::Answer { run, .. } => Some(*run),
            Self::Submit { .. }
            | Self::Schedule { .. }
            | Self::PauseSync { .. }
            | Self::ResumeSync { .. } => None,
        }
    }
}

/// The answer to a local request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocalReply {
    /// It is durable.
    Done,
    /// It was not honoured and changed nothing; why, for people.
    Refused(String),
}

/// An attempt to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Which attempt.
    pub attempt: AttemptRef,
    /// Name of the workflow, for the environment.
    pub workflow: String,
    /// What to run.
    pub task: Arc<Task>,
    /// For each of the task's inputs that is a stored file: its content. In the order of
    /// `task.inputs`; none for files of the node.
    pub inputs: Vec<Option<Hash>>,
    /// Wait in the executor's queue for a slot instead of beginning at once.
    pub queue: bool,
    /// Wait for the slot of this attempt instead: begin there as soon as it is over, however it
    /// ended, or took no slot. If it is over already, the next free slot is taken.
    pub behind: Option<AttemptRef>,
}

/// What the core wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the coordinator; answered by `Linked` or `Unlinked` with this number.
    Dial {
        /// Number of the session.
        session: u64,
    },
    /// Send a message on a session.
    Send {
        /// The session.
        session: u64,
        /// The message.
        message: Up,
    },
    /// Close a session.
    Hangup {
        /// The session.
        session: u64,
    },
    /// Start an attempt. Already known ones are ignored.
    Begin(Launch),
    /// End an attempt's processes: TERM, after the grace KILL; answered by `Ended`. Unknown ones
    /// are answered, too (`never_began`).
    Stop {
        /// Which attempt.
        attempt: AttemptRef,
        /// Time between TERM and KILL.
        grace: Span,
    },
    /// Get a file from the coordinator; answered by `FileHere` or `FileNotThere`. Repeats are
    /// harmless.
    Fetch {
        /// Its content.
        hash: Hash,
        /// Bytes.
        size: u64,
    },
    /// Bring a file to the coordinator; answered by `Uploaded` or `NotUploaded`. Repeats are
    /// harmless.
    Upload {
        /// Its content.
        hash: Hash,
        /// Bytes.
        size: u64,
    },
    /// Answer a local request.
    Reply {
        /// As in the request.
        request: u64,
        /// The answer.
        reply: LocalReply,
    },
    /// Put these bytes into the file store, before anything that is asked for later; nothing
    /// answers. Repeats are harmless.
    Keep {
        /// The content.
        bytes: Vec<u8>,
    },
    /// The files of a run (work, logs, outputs nobody else names) may go.
    ForgetRun {
        /// The run.
        run: RunId,
    },
    /// Put the store aside, begin a new one with a new incarnation that succeeds this one, and
    /// start over.
    NewIncarnation {
        /// For people.
        why: String,
    },
    /// What holds from now on where specifications say nothing: every field is set. Asked for at
    /// each start and after each change.
    Settings(Scheduler),
    /// Whether the shell may dial the coordinator on its own account, too (to renew a certificate).
    /// Asked for at each start and after each change; until then it may not.
    MayDial(bool),
}
