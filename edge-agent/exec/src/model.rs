//! What the executor is told and what it tells.

use crate::environ::DEFAULT_PATH;
use shared::explain::Reason;
use shared::fact::OutputFile;
use shared::ids::{AttemptRef, Hash, Incarnation, RunId};
use shared::time::{Now, Span};
use shared::workflow::Task;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// How the executor works on this machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory that holds `work/`, `files/` and `logs/`. Made searchable for others when tasks
    /// run as another user.
    pub data: PathBuf,
    /// Attempts that run at once; more of them wait in order, unless a launch says otherwise.
    pub slots: usize,
    /// User and group that tasks run as. Needs an agent that is root.
    pub run_as: Option<(u32, u32)>,
    /// Tasks may run as root (only looked at when the agent is root and `run_as` is absent).
    pub allow_root: bool,
    /// Marks the processes of this data directory.
    pub store_id: Incarnation,
    /// Bytes of output kept of one attempt.
    pub log_quota_per_attempt: u64,
    /// Bytes of output kept on this node; the oldest logs go first.
    pub log_quota_node: u64,
    /// Most bytes of the content store.
    pub file_budget: u64,
    /// Directories that tasks may name files of as inputs.
    pub read_roots: Vec<PathBuf>,
    /// `PATH` of tasks that set none.
    pub path: String,
    /// Use the kernel's list of orphaned processes where it has one. Without it they are looked
    /// for, which costs more. The process that holds an executor starts no children from its first
    /// thread: they would be taken for orphans.
    pub list_orphans: bool,
}

impl Options {
    /// The defaults for the data directory `data`: as `nobody` when the agent is root, 2 slots, 1
    /// MiB of log an attempt, 256 MiB a node, no bound of the content store, no files of the node.
    #[must_use]
    pub fn new(data: PathBuf, store_id: Incarnation) -> Self {
        let nobody = (65_534, 65_534);
        Self {
            data,
            slots: 2,
            run_as: rustix::process::geteuid().is_root().then_some(nobody),
            allow_root: false,
            store_id,
            log_quota_per_attempt: 1 << 20,
            log_quota_node: 256 << 20,
            file_budget: u64::MAX,
            read_roots: Vec::new(),
            path: DEFAULT_PATH.to_owned(),
            list_orphans: true,
        }
    }
}

/// Where the content of an input is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputFile {
    /// In the content store.
    Stored(Hash),
    /// A file of the node, by its absolute path.
    NodeFile(String),
}

/// An attempt to begin.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Which.
    pub attempt: AttemptRef,
    /// Its task.
    pub task: Arc<Task>,
    /// Path below the attempt's directory, and what is laid there.
    pub inputs: Vec<(String, InputFile)>,
    /// Environment besides that of the task; the agent's own names win over it.
    pub env: BTreeMap<String, String>,
    /// Wait for a free slot, in order; else begin at once.
    pub queue: bool,
    /// Begin in the slot of this attempt as soon as it is over, before all that wait for a slot. If
    /// it is over already, or is not known, the next free slot is taken.
    pub behind: Option<AttemptRef>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Command {
    /// Begin an attempt (or queue it). Repeating one that is queued or running changes nothing.
    Begin(Box<Launch>),
    /// End an attempt: TERM, after `grace` KILL. One that is still queued never begins.
    Stop {
        /// Which.
        attempt: AttemptRef,
        /// Between TERM and KILL.
        grace: Span,
        /// Becomes the reason of its end.
        why: Reason,
    },
    /// End everything, as `Stop` does.
    StopAll {
        /// Between TERM and KILL.
        grace: Span,
        /// Becomes the reason of their ends.
        why: Reason,
    },
    /// The ends of these attempts are durable: their directories may go.
    Settled(Vec<AttemptRef>),
    /// A run is over everywhere: its logs may go.
    Forget(RunId),
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The program of an attempt runs. One that is over within milliseconds is not told of here,
    /// only by its end.
    Began {
        /// Which.
        attempt: AttemptRef,
        /// Its main process.
        pid: u32,
        /// When.
        at: Now,
    },
    /// An attempt is over and every process of it is gone.
    Ended(Box<Ended>),
    /// Old logs were removed because the node's quota is used up.
    LogsDropped {
        /// Files.
        files: u64,
        /// Bytes.
        bytes: u64,
    },
}

/// The end of an attempt.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Which.
    pub attempt: AttemptRef,
    /// Exit code, or minus the signal's number.
    pub exit: Option<i32>,
    /// In the order of the task's declaration; empty unless it succeeded.
    pub outputs: Vec<OutputFile>,
    /// Why; `ExitedZero` is the only success.
    pub reason: Reason,
    /// When its program was executed; none if it never was.
    pub began: Option<Now>,
    /// When all of it was gone.
    pub at: Now,
    /// CPU time of the main process and those it waited for, milliseconds.
    pub cpu_ms: u64,
    /// Largest resident set of one of them, bytes.
    pub peak_memory: u64,
    /// Bytes of output that were not kept.
    pub log_dropped: u64,
    /// What went wrong, for people; empty when nothing did.
    pub text: String,
    /// The thread that tells this has nothing else to do: whoever hears it may use it for as long
    /// as it likes. What is begun meanwhile is run by this thread first.
    pub idle: bool,
}

/// What the agent before this one left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Attempts that had processes, which are gone now.
    pub killed: Vec<AttemptRef>,
    /// Processes that were ended.
    pub processes: usize,
    /// Attempts whose directory is there: they may have begun. The others never did.
    pub directories: Vec<AttemptRef>,
}

/// A process that could not be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOver {
    /// Its number.
    pub pid: i32,
    /// The mark it bears.
    pub mark: String,
}

/// Why the executor cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory or file of the executor's own is not usable.
    #[error("cannot {what} {}: check its owner, mode and the space left", .path.display())]
    Path {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content store is not usable.
    #[error("the content store cannot be opened: {0}")]
    Files(#[from] contents::FilesError),
    /// Tasks would run as root.
    #[error("the agent is root: name a user for tasks to run as, or allow tasks to be root")]
    WouldBeRoot,
    /// The agent may not change users.
    #[error(
        "tasks cannot run as user {uid}: only an agent that is root may change users; remove \
         tasks.run_as (--run-as), or run the agent as root"
    )]
    NotRoot {
        /// The user that was asked for.
        uid: u32,
    },
    /// Tasks could not reach their directories.
    #[error("tasks run as user {uid}, who may not search {}: allow it (chmod o+x)", .path.display())]
    Unreachable {
        /// The user that tasks run as.
        uid: u32,
        /// The directory in the way.
        path: PathBuf,
    },
    /// The system refused something that the executor needs.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Processes of the agent before this one cannot be ended.
    #[error("{} process(es) of an earlier agent could not be ended: {list:?}", .list.len())]
    Strangers {
        /// Which.
        list: Vec<LeftOver>,
    },
}
