//! Facts: what an agent's steps commit and what travels up, in order, each once.
//!
//! Variants are numbered by position and may only be appended; so may fields at the end of an
//! entry's body, where an older writer's entry is read as zero (`codec::decode_extended`). An entry
//! of a later version keeps its bytes: [`Fact::decode`] says so and the reader records it without
//! applying it.

use crate::approval::Answer;
use crate::explain::Reason;
use crate::ids::{AttemptRef, BootId, Epoch, Hash, RunId, ScheduleId, SliceRef, TaskIdx};
use crate::log::Head;
use crate::schedule::due::Skipped;
use crate::schedule::{Cause, Order};
use crate::state::TaskState;
use crate::time::{Span, Stamp, Unix};
use serde::{Deserialize, Serialize};

/// One fact.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fact {
    /// When, by the clocks of the node.
    pub at: Stamp,
    /// Number of the last directive that the node had applied.
    pub seen: u64,
    /// What.
    pub body: Body,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// 0: the agent started.
    Booted {
        /// The kernel's boot.
        boot: BootId,
        /// The agent before it ended without saying so.
        unclean: bool,
        /// The machine itself was started anew since the agent before it.
        rebooted: bool,
    },
    /// 1: a slice was taken over.
    Accepted {
        /// The slice.
        slice: SliceRef,
    },
    /// 2: a directive could not be honoured.
    Refused {
        /// Its number.
        directive: u64,
        /// The slice it spoke of, if any.
        slice: Option<SliceRef>,
        /// Why.
        reason: Reason,
        /// Why, for people.
        text: String,
    },
    /// 3: an attempt may have begun from now on.
    Started {
        /// Which.
        attempt: AttemptRef,
    },
    /// 4: an attempt ended. Terminal: exactly one for each `Started`.
    Ended {
        /// Which.
        attempt: AttemptRef,
        /// How.
        end: End,
    },
    /// 5: a task changed its state without an attempt of its own (skipped, aborted, cancelled,
    /// paused, ready again).
    Moved {
        /// The slice of the task.
        slice: SliceRef,
        /// The task.
        task: TaskIdx,
        /// Its state from now on.
        to: TaskState,
        /// Why.
        reason: Reason,
    },
    /// 6: a cancel request is carried out here: nothing of the slice runs or will run.
    CancelDone {
        /// The slice.
        slice: SliceRef,
    },
    /// 7: a slice was given up at the coordinator's wish: nothing of it runs or will run here.
    Released {
        /// The slice.
        slice: SliceRef,
        /// Its `at_most_once` attempts that began and have no known end.
        in_doubt: Vec<TaskIdx>,
    },
    /// 8: a run was submitted at this node; it belongs to it.
    Submitted {
        /// Its slice 0, epoch 0 of generation 0.
        slice: SliceRef,
        /// `codec::pack` of the workflow.
        workflow: Vec<u8>,
        /// Who, as the local system names them.
        by: String,
    },
    /// 9: a person cancelled a run at the gateway.
    CancelledHere {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
        /// Why, in their words.
        why: String,
    },
    /// 10: a person paused or resumed a run at the gateway.
    PausedHere {
        /// The run.
        run: RunId,
        /// Paused, or resumed.
        on: bool,
        /// Who.
        by: String,
    },
    /// 11: entries that can no longer be sent, and what the node's slices look like instead.
    Reset {
        /// First number that is missing.
        from: u64,
        /// Last number that is missing.
        to: u64,
        /// Why, for people.
        why: String,
        /// States of the node's slices.
        slices: Vec<SliceState>,
    },
    /// 12: something other than facts was dropped.
    Dropped {
        /// What: `details`, `logs`, `telemetry`.
        class: String,
        /// How many.
        count: u64,
        /// Why, for people.
        why: String,
    },
    /// 13: everything a slice can do here is done: all its tasks are final.
    SliceDone {
        /// The slice.
        slice: SliceRef,
    },
    /// 14: a pause mark that the coordinator asked for is in force (or gone) here.
    PauseDone {
        /// The slice.
        slice: SliceRef,
        /// In force, or gone.
        on: bool,
    },
    /// 15: a question was answered. This is its end if the answer counts; else it stands for those
    /// who ask what became of it.
    Answered {
        /// The slice of the task.
        slice: SliceRef,
        /// The task.
        task: TaskIdx,
        /// The answer.
        answer: Answer,
        /// Why it does not count.
        not: Option<Reason>,
    },
    /// 16: what a directive asked of a schedule is done here, or cannot be.
    ScheduleDone {
        /// The schedule.
        schedule: ScheduleId,
        /// Its epoch in the directive.
        epoch: Epoch,
        /// Number of the order in the directive.
        order: u64,
        /// The last slot that was decided here.
        cursor: Unix,
        /// Why not, if it is not done.
        refused: Option<(Reason, String)>,
    },
    /// 17: a person at the gateway asked something of a schedule; it is done.
    ScheduleAsked {
        /// The schedule.
        schedule: ScheduleId,
        /// What.
        what: Order,
        /// Who.
        by: String,
    },
    /// 18: a slot of a schedule fired: its run is this slice, made of the schedule's workflow by
    /// `schedule::workflow_of` with this fact's wall clock.
    Fired {
        /// The schedule.
        schedule: ScheduleId,
        /// The owner's epoch.
        epoch: Epoch,
        /// The slot.
        slot: Unix,
        /// Slice 0 at epoch 0 of the run `schedule::run_of`.
        slice: SliceRef,
        /// Why.
        cause: Cause,
        /// Whether the wall clock was to be trusted.
        trusted: bool,
        /// Revision of the schedule that was in force.
        revision: u32,
    },
    /// 19: slots of a schedule that did not fire.
    SlotsSkipped {
        /// The schedule.
        schedule: ScheduleId,
        /// The owner's epoch.
        epoch: Epoch,
        /// Which, and why.
        skipped: Skipped,
    },
    /// 20: a person at the gateway stopped sending: from here on the coordinator is neither dialled
    /// nor told anything, until 21. Work goes on.
    SyncPaused {
        /// Who.
        by: String,
        /// It ends by itself after so long; none: when a person says so.
        length: Option<Span>,
    },
    /// 21: sending goes on.
    SyncResumed {
        /// Who; none: the time of the pause was over.
        by: Option<String>,
    },
    /// 22: what a slice holds of the share of a matrix that it was told; the rest is given back.
    Limited {
        /// The slice.
        slice: SliceRef,
        /// Position of the matrix in the workflow's `matrices`.
        matrix: u32,
        /// The word of the coordinator that was the last one then.
        seq: u64,
        /// So many members run, or may run.
        held: u32,
    },
}

impl Body {
    /// The slice that it is about, if it is about one.
    #[must_use]
    pub fn slice(&self) -> Option<SliceRef> {
        match self {
            Self::Accepted { slice }
            | Self::Moved { slice, .. }
            | Self::CancelDone { slice }
            | Self::Released { slice, .. }
            | Self::Submitted { slice, .. }
            | Self::SliceDone { slice }
            | Self::PauseDone { slice, .. }
            | Self::Answered { slice, .. }
            | Self::Limited { slice, .. }
            | Self::Fired { slice, .. } => Some(*slice),
            Self::Started { attempt } | Self::Ended { attempt, .. } => Some(attempt.slice),
            Self::Refused { slice, .. } => *slice,
            Self::Booted { .. }
            | Self::CancelledHere { .. }
            | Self::PausedHere { .. }
            | Self::Reset { .. }
            | Self::Dropped { .. }
            | Self::ScheduleDone { .. }
            | Self::ScheduleAsked { .. }
            | Self::SlotsSkipped { .. }
            | Self::SyncPaused { .. }
            | Self::SyncResumed { .. } => None,
        }
    }

    /// The run that it is about, if it is about one: a reset is about many.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::CancelledHere { run, .. } | Self::PausedHere { run, .. } => Some(*run),
            other => other.slice().map(|slice| slice.run),
        }
    }
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct End {
    /// The outcome.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// Exit code, or minus the signal's number.
    pub exit: Option<i32>,
    /// When it began; none if it never did or nobody saw it.
    pub began: Option<Stamp>,
    /// The outputs in the order of the task's declaration; empty unless it succeeded.
    pub outputs: Vec<OutputFile>,
    /// The pause before the next attempt; none if there is no next one.
    pub retry_in: Option<Span>,
    /// The task's state from now on.
    pub task: TaskState,
    /// CPU time, milliseconds.
    pub cpu_ms: u64,
    /// Largest resident set, bytes.
    pub peak_memory: u64,
}

/// Outcome of an attempt: the terminal fact about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// It did what it should.
    Succeeded,
    /// It did not.
    Failed,
    /// A person ended it.
    Cancelled,
    /// It was interrupted or its end is not known.
    Lost,
    /// It never began.
    NotBegun,
}

impl Outcome {
    /// The text that people and programs see.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::NotBegun => "not_begun",
        }
    }
}

/// A file that a task has written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OutputFile {
    /// Its content.
    pub hash: Hash,
    /// Bytes.
    pub size: u64,
}

/// A slice as its node sees it: what inventories and resets carry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SliceState {
    /// The slice.
    pub slice: SliceRef,
    /// Content hash of the workflow.
    pub workflow: Hash,
    /// Its tasks on this node with what is known of them.
    pub tasks: Vec<TaskStatus>,
}

/// A task as its node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The task.
    pub task: TaskIdx,
    /// Its state.
    pub state: TaskState,
    /// Attempts that were started in this epoch.
    pub attempts: u32,
    /// The outputs if it succeeded.
    pub outputs: Vec<OutputFile>,
}

/// An entry that this version cannot read. Its bytes are kept.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("entry {} of a kind this version does not know, or malformed", .number)]
pub struct Unreadable {
    /// Number of the entry.
    pub number: u64,
}

impl Fact {
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

/// Facts above an acknowledgement: what the coordinator has of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The last fact that is durable there.
    pub head: Head,
    /// The last one that is in a finished backup, too.
    pub safe: u64,
}
