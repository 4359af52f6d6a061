//! Messages between aggregates. A message names node, incarnation and numbers of facts, not copies
//! of them.

use crate::certificate::Certificate;
use crate::store::AggregateId;
use serde::{Deserialize, Serialize};
use shared::approval::Answer;
use shared::directive::{Assign, Limit, Upstream};
use shared::explain::{Decision, Reason};
use shared::fact::{Body, SliceState};
use shared::ids::{Epoch, Incarnation, NodeId, RunId, SliceRef, TaskIdx};
use shared::schedule::Order;
use shared::time::Unix;
use shared::wire::LogId;
use std::collections::BTreeMap;

/// A message in an inbox. Variants are numbered by position and may only be appended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// node → run: facts that name it, by numbers (first and last of each row of them).
    Facts {
        /// Whose.
        log: LogId,
        /// Ascending.
        ranges: Vec<(u64, u64)>,
    },
    /// node → run: evidence from the edge about its tasks.
    Details {
        /// When it was received.
        at: Unix,
        /// Task, number of the fact it hangs on, decision.
        details: Vec<(TaskIdx, u64, Decision)>,
    },
    /// node → run: everything placed on these incarnations of the node is gone.
    NodeLost {
        /// The node.
        node: NodeId,
        /// The incarnation that is closed.
        incarnation: Incarnation,
        /// `node_forgotten` or `node_reimaged`.
        why: Reason,
    },
    /// node → run: what a node has of it (after the coordinator lost part of its store).
    Inventory {
        /// Whose.
        log: LogId,
        /// Its slices of this run.
        slices: Vec<SliceState>,
        /// The packed workflow, if it was sent along.
        workflow: Option<Vec<u8>>,
    },
    /// node → run: an assignment no longer fits the node.
    AssignRefused {
        /// The slice.
        slice: SliceRef,
        /// Why.
        why: Reason,
    },
    /// fleet → run: stand still, or go on.
    Hold {
        /// Stand still.
        on: bool,
    },
    /// fleet → node: it was enrolled (again).
    Enrolled {
        /// Its name.
        name: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// A new incarnation of it is welcome.
        replace: bool,
    },
    /// fleet, run, the node itself → node: part of what it said is lost here: ask for everything it
    /// has.
    AskInventory,
    /// node → fleet: the node was heard since the hold.
    Heard {
        /// The node.
        node: NodeId,
    },
    /// run → node: take over a slice. The workflow is added by the node where it is needed.
    Assign {
        /// To this incarnation.
        incarnation: Incarnation,
        /// What.
        assign: Box<Assign>,
    },
    /// run → node: a task of another slice is final (or no longer).
    Upstream {
        /// The slice that waits.
        slice: SliceRef,
        /// The task.
        upstream: Upstream,
    },
    /// run → node: cancel.
    Cancel {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// run → node: pause or go on.
    Pause {
        /// The run.
        run: RunId,
        /// Which.
        on: bool,
        /// Who.
        by: String,
    },
    /// run → node: give the slice up.
    Release {
        /// The slice.
        slice: SliceRef,
    },
    /// run → node: the slice is over, it need not be remembered.
    Closed {
        /// The slice.
        slice: SliceRef,
    },
    /// run → node: the run is over everywhere: its files may go.
    Forget {
        /// The run.
        run: RunId,
    },
    /// node → run: it forgot the run, or is gone itself.
    Forgotten {
        /// The node.
        node: NodeId,
    },
    /// run → node: the run is forgotten everywhere; facts need not be kept for it.
    Unneeded {
        /// The run.
        run: RunId,
    },
    /// node → run: directives of this log that it may not have applied are gone: say again what
    /// stands.
    Repeat {
        /// Whose.
        log: LogId,
    },
    /// run → node: a person answered a question.
    Answer {
        /// The slice of the task.
        slice: SliceRef,
        /// The task.
        task: TaskIdx,
        /// The answer.
        answer: Answer,
    },
    /// fleet → node: it was enrolled (again), and this key speaks for it from now on.
    EnrolledAs {
        /// Its name.
        name: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// A new incarnation of it is welcome.
        replace: bool,
        /// Its certificate.
        certificate: Certificate,
    },
    /// node → run: a person had asked this of it; the store may have forgotten it.
    Recalled {
        /// The run.
        run: RunId,
        /// What.
        asked: Recall,
        /// When.
        at: Unix,
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// schedule → node: for its directives.
    Schedule {
        /// The owner's epoch.
        epoch: Epoch,
        /// Number of the order.
        order: u64,
        /// What.
        what: Order,
        /// Who.
        by: String,
    },
    /// node → schedule: a fact about it. Its own copy: facts are kept for runs only.
    ScheduleFact {
        /// Whose.
        log: LogId,
        /// Wall clock of the node.
        at: Unix,
        /// What.
        body: Box<Body>,
    },
    /// node → schedule: directives that it may not have applied are gone: say again what stands.
    RepeatSchedule,
    /// schedule → run: begin.
    Fire {
        /// The packed workflow.
        workflow: Vec<u8>,
        /// Name of the schedule.
        name: String,
    },
    /// schedule → run: end, another run takes its place.
    Replaced {
        /// Name of the schedule.
        name: String,
    },
    /// run → node: a cancel of the run no longer stands, it runs again.
    Retry {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
    },
    /// run → node: what a slice may run of a matrix.
    Limit(Limit),
}

/// What a person had asked of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Recall {
    /// Its end.
    Cancel,
    /// That it stands still.
    Pause,
    /// That it goes on.
    Resume,
}

/// What every aggregate keeps to send each message once and to fold each message once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Post {
    /// Number of the last message sent.
    pub sent: u64,
    /// Number of the last message folded, by sender.
    pub cursors: BTreeMap<AggregateId, u64>,
}

impl Post {
    /// Whether message `number` of `from` is new; then it counts as folded.
    pub fn fold(&mut self, from: AggregateId, number: u64) -> bool {
        let cursor = self.cursors.entry(from).or_default();
        let new = number > *cursor;
        *cursor = number.max(*cursor);
        new
    }
}
