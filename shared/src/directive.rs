//! Directives: the coordinator's intent for one node, in order, each once.
//!
//! Variants are numbered by position and may only be appended; see `fact` for entries of later
//! versions.

use crate::approval::Answer;
use crate::config::scheduler::Scheduler;
use crate::fact::{OutputFile, Unreadable};
use crate::ids::{Epoch, Generation, Hash, RunId, ScheduleId, SliceRef, TaskIdx};
use crate::schedule::Order;
use crate::state::TaskState;
use crate::time::Unix;
use serde::{Deserialize, Serialize};

/// One directive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Directive {
    /// Wall clock of the coordinator.
    pub at: Unix,
    /// The life of the coordinator's store that wrote it.
    pub generation: Generation,
    /// What.
    pub body: Body,
}

/// What is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// 0: take over a slice.
    Assign(Assign),
    /// 1: a task of another slice that this slice waits for is final (or no longer).
    Upstream {
        /// The slice that waits.
        slice: SliceRef,
        /// The task it waits for.
        upstream: Upstream,
    },
    /// 2: end what runs of a run, begin nothing more; confirmed by `CancelDone` for each slice.
    Cancel {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
        /// Why, in their words.
        why: String,
    },
    /// 3: begin nothing more of a run (what runs goes on), or go on; confirmed by `PauseDone`.
    Pause {
        /// The run.
        run: RunId,
        /// Pause, or go on.
        on: bool,
        /// Who.
        by: String,
    },
    /// 4: give a slice up; confirmed by `Released`, and only then assigned elsewhere.
    Release {
        /// The slice.
        slice: SliceRef,
    },
    /// 5: the run is over everywhere: its files may go.
    Forget {
        /// The run.
        run: RunId,
    },
    /// 6: the log before this entry is gone or forked: what the node should have. Work that is not
    /// named here goes on and is reported.
    Reset {
        /// Why, for people.
        why: String,
        /// The slices that the coordinator knows to be the node's.
        slices: Vec<SliceRef>,
    },
    /// 7: a person answered a question of a task; which answer counts its owner says by `Answered`.
    Answer {
        /// The slice of the task.
        slice: SliceRef,
        /// The task.
        task: TaskIdx,
        /// The answer.
        answer: Answer,
    },
    /// 8: about a schedule that this node fires; answered by `ScheduleDone`.
    Schedule {
        /// The schedule.
        schedule: ScheduleId,
        /// The epoch at which this node owns it.
        epoch: Epoch,
        /// Counts what the coordinator asked of this schedule.
        order: u64,
        /// What.
        what: Order,
        /// Who.
        by: String,
    },
    /// 9: what holds where specifications say nothing, from now on; it replaces what was said
    /// before.
    Configure(Scheduler),
    /// 10: the run was over and a person lets some of it run again: a cancel before this no longer
    /// stands.
    Retry {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
    },
    /// 11: how many members of a matrix a slice may run at once; confirmed by `Limited`.
    Limit(Limit),
}

/// What a slice may run of a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limit {
    /// The slice.
    pub slice: SliceRef,
    /// Position of the matrix in the workflow's `matrices`.
    pub matrix: u32,
    /// Grows with each word on the slice and the matrix.
    pub seq: u64,
    /// So many may run at once.
    pub share: u32,
    /// Too many failed: no more begin.
    pub stop: bool,
}

impl Body {
    /// The slice that it is about, if it is about one.
    #[must_use]
    pub fn slice(&self) -> Option<SliceRef> {
        match self {
            Self::Assign(assign) => Some(assign.slice),
            Self::Upstream { slice, .. } | Self::Release { slice } | Self::Answer { slice, .. } => {
                Some(*slice)
            }
            Self::Cancel { .. }
            | Self::Pause { .. }
            | Self::Forget { .. }
            | Self::Reset { .. }
            | Self::Schedule { .. }
            | Self::Configure(_)
            | Self::Retry { .. } => None,
            Self::Limit(limit) => Some(limit.slice),
        }
    }

    /// The run that it is about, if it is about one.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::Cancel { run, .. }
            | Self::Pause { run, .. }
            | Self::Forget { run }
            | Self::Retry { run, .. } => Some(*run),
            other => other.slice().map(|slice| slice.run),
        }
    }
}

/// A slice to take over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Assign {
    /// The slice at its epoch.
    pub slice: SliceRef,
    /// Content hash of the workflow.
    pub workflow_hash: Hash,
    /// `codec::pack` of the whole workflow: in the first `assign` of a run to this incarnation.
    pub workflow: Option<Vec<u8>>,
    /// Its tasks, ascending.
    pub tasks: Vec<TaskIdx>,
    /// Attempts already used in earlier epochs, where not 0.
    pub attempts_used: Vec<(TaskIdx, u32)>,
    /// Tasks of the slice that are final already (a slice moved with its results).
    pub done: Vec<Upstream>,
    /// Final tasks of other slices that this one needs.
    pub upstream: Vec<Upstream>,
    /// The coordinator's pause mark on the run; it replaces what the node was told before.
    pub paused: bool,
}

/// The end of a task, told to a slice that needs it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Upstream {
    /// The task.
    pub task: TaskIdx,
    /// How it ended.
    pub state: TaskState,
    /// Its outputs if it succeeded.
    pub outputs: Vec<OutputFile>,
}

impl Directive {
    /// The entry's bytes; never encoded again afterwards.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        crate::codec::encode(self)
    }

    /// Reads the entry numbered `number`.
    ///
    /// # Errors
    /// [`Unreadable`] for a kind of a later version or malformed bytes.
    pub fn decode(number: u64, bytes: &[u8]) -> Result<Self, Unreadable> {
        crate::codec::decode_extended(bytes).map_err(|_| Unreadable { number })
    }
}
