//! The run aggregate: its slices, its tasks, its requests. One worker folds it at a time.
//!
//! The head (slices, counts, requests) is always in memory; the body (workflow and task rows, in
//! chunks) is loaded when the run is touched. A slice number is never used again: each placement is
//! a new slice with a new epoch, so a fact counts exactly when its slice is open and owns the task.

pub mod answers;
mod apart;
mod at;
pub mod definition;
pub mod fit;
pub mod fold;
pub mod forget;
mod leave;
pub mod limits;
pub mod moves;
mod nowhere;
pub mod place;
mod recollect;
pub mod requests;
pub mod retry;
pub mod rules;

pub use self::at::At;

use self::definition::{Definition, Edges};
use crate::effects::Effects;
use crate::inbox::{Message, Post};
use crate::store::{AggregateId, EventId};
use serde::{Deserialize, Serialize};
use shared::directive::Upstream;
use shared::explain::{Decision, Reason};
use shared::fact::{Outcome, OutputFile};
use shared::ids::{Epoch, Generation, Hash, Incarnation, NodeId, RunId, SliceRef, TaskIdx};
use shared::state::{RunState, TaskState};
use shared::time::{Span, Unix};
use shared::wire::LogId;
use shared::workflow::{Matrix, Workflow};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Tasks in one stored row.
pub const CHUNK: usize = 256;
/// Decisions in one stored row.
const DECISIONS_CHUNK: u64 = 64;
/// No slice.
pub const NONE: u32 = u32::MAX;
/// Who submitted a run that is known from an inventory only.
const REBUILT: &str = "rebuilt from an inventory";
/// Notes kept for people.
const NOTES: usize = 64;
/// Bytes of the evidence of one decision from a gateway; a decision with more is not kept.
pub const DECISION_BYTES: usize = 4096;
/// Attempts of one task that are remembered one by one.
pub const HISTORY: usize = 64;

/// How far a slice has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Stage {
    /// Its directive is on the way.
    Assigned,
    /// Its node took it over.
    Accepted,
    /// Its node is asked to give it up.
    Releasing,
    /// Given up by its node: nothing of it counts any more.
    Released,
    /// Taken away: nothing of it counts any more.
    Lost,
    /// All its tasks are final.
    Done,
}

/// A part of the run placed on one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slice {
    /// Fencing token.
    pub epoch: Epoch,
    /// Its owner.
    pub node: NodeId,
    /// Its owner's life.
    pub incarnation: Incarnation,
    /// How far it has come.
    pub stage: Stage,
    /// Tasks in it that are not final.
    pub open: u32,
    /// Shortest `lost_after` of those tasks.
    pub lost_after: Option<Span>,
    /// The node confirmed the cancel request.
    pub cancelled: bool,
    /// The pause mark that the node confirmed last.
    pub paused: bool,
}

impl Slice {
    /// Whether somebody had it. Else only its number is kept free, since a higher one is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.node != NodeId::default()
    }

    /// Whether it was given to that life of a node.
    #[must_use]
    pub fn is_of(&self, log: LogId) -> bool {
        self.node == log.node && self.incarnation == log.incarnation
    }

    /// Whether its facts count.
    #[must_use]
    pub fn counts(&self) -> bool {
        !matches!(self.stage, Stage::Released | Stage::Lost)
    }
    /// Whether its node still has something to do or to answer.
    #[must_use]
    pub fn live(&self) -> bool {
        matches!(
            self.stage,
            Stage::Assigned | Stage::Accepted | Stage::Releasing
        )
    }
}

/// A person's request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// When.
    pub at: Unix,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

impl Asked {
    /// Without a reason.
    #[must_use]
    pub fn plain(at: Unix, by: String) -> Self {
        let why = String::new();
        Self { at, by, why }
    }
}

/// What is kept of a run apart from its tasks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunHead {
    /// Name of its workflow.
    pub workflow: String,
    /// Content hash of the workflow.
    pub hash: Hash,
    /// Its parameters.
    pub params: BTreeMap<String, String>,
    /// When it was submitted (or first heard of).
    pub submitted: Unix,
    /// Who submitted it.
    pub by: String,
    /// The node where it was submitted, if it was at a node: it belongs to that node.
    pub origin: Option<NodeId>,
    /// Its workflow is known.
    pub known: bool,
    /// Its state.
    pub state: RunState,
    /// When it became final.
    pub ended: Option<Unix>,
    /// Number of tasks in each state, in the order of `TaskState::ALL`.
    pub counts: Vec<u32>,
    /// Its slices, by number.
    pub slices: Vec<Slice>,
    /// Tasks that are on no node and not final, and since when there are such.
    pub unplaced: u32,
    /// Since when.
    pub unplaced_since: Option<Unix>,
    /// Why the first of them is not placed, for people.
    pub unplaced_why: String,
    /// Counter of epochs.
    pub epochs: u32,
    /// Cancel request.
    pub cancel: Option<Asked>,
    /// Pause request of the coordinator's side.
    pub pause: Option<Asked>,
    /// Pause marks of persons at gateways.
    pub paused_at: BTreeMap<NodeId, String>,
    /// Stands still after a restore.
    pub held: bool,
    /// Tasks in doubt: they wait for a person; since when.
    pub in_doubt: BTreeMap<TaskIdx, Unix>,
    /// Facts that are kept back: while the workflow is not known, until their node's inventory
    /// came, or while the run is held. Rows of numbers, with facts of other runs among them.
    pub kept: Vec<(LogId, u64, u64)>,
    /// Nodes that refused a slice and are not offered one for now, and why.
    pub refused_by: BTreeMap<NodeId, String>,
    /// Last fact folded of each log.
    pub folded: BTreeMap<LogId, u64>,
    /// Logs whose inventory came in the hold that began at `heard_since`.
    pub heard: BTreeSet<LogId>,
    /// Facts applied, and those recorded only.
    pub applied: u64,
    /// Facts that changed nothing.
    pub not_applied: u64,
    /// Terminal facts that were applied.
    pub outcomes: u64,
    /// Number of the next decision.
    pub decisions: u64,
    /// For people: who cancelled or did what at a gateway.
    pub notes: VecDeque<String>,
    /// Messages.
    pub post: Post,
    /// What its workflow is for.
    pub description: String,
    /// Labels of its workflow.
    pub labels: BTreeMap<String, String>,
    /// A person or its age asks for it to be forgotten.
    pub forgetting: Option<Asked>,
    /// Nodes that have not confirmed that they forgot it.
    pub unconfirmed: BTreeSet<NodeId>,
    /// It was forgotten: all that is left is this tombstone.
    pub gone: Option<Unix>,
    /// The event that it answers: its submission.
    pub event: Option<EventId>,
    /// The last facts that were not applied, newest last.
    pub conflicts: VecDeque<Conflict>,
    /// Questions that wait for a person, and since when, by their nodes.
    pub asking: BTreeMap<TaskIdx, Unix>,
    /// Answers to questions, oldest first.
    pub answers: BTreeMap<TaskIdx, Vec<answers::Given>>,
    /// When it was last asked to stand still or to go on.
    pub pause_asked: Unix,
    /// A person's retry that waits for nodes.
    pub retry: Option<retry::Retry>,
    /// Failures of tasks that use up no retry, since a person let them run again after those.
    pub forgiven: BTreeMap<TaskIdx, u32>,
    /// What the last of `conflicts` are about, newest last.
    pub abouts: VecDeque<About>,
    /// Lives of nodes that were declared gone, or replaced, since it named them.
    pub gone_logs: BTreeSet<LogId>,
    /// Slices whose numbers were drawn again, or of which tasks are elsewhere, since the store had
    /// gone back: their nodes are asked for them when the run is not held any more.
    pub stale: BTreeSet<(LogId, SliceRef)>,
    /// Its workflow has matrices with limits.
    pub limited: bool,
    /// What slices may run of them, by slice and matrix.
    pub shares: BTreeMap<(u32, u32), limits::Share>,
    /// Since when the marks of `paused_at` stand.
    pub paused_since: BTreeMap<NodeId, Unix>,
    /// The generation in which the store was found to have gone back last: what slices of older
    /// ones were told, and what they did, may be forgotten.
    pub went_back: Generation,
    /// Lives of nodes that ended while facts of theirs were kept back, and why: they end here
    /// behind those.
    pub losses: Vec<(LogId, Reason)>,
    /// The hold in which the logs of `heard` were heard.
    pub heard_since: Option<Unix>,
    /// The generation in which the run was held last and went on: what counts in it stands,
    /// whatever a node that was not heard then had been given before.
    pub settled: Generation,
    /// When it had ended before an inventory told that it had been let run again.
    pub reopened: Option<Unix>,
    /// Slices that an inventory told of, or kept facts, and of which no fact was folded yet.
    pub adopted: BTreeSet<SliceRef>,
    /// Slices that facts alone told of since the store went back, and that were not given up yet.
    pub recollected: BTreeSet<SliceRef>,
}

impl RunHead {
    /// How many facts are kept back at most.
    pub(crate) fn kept_facts(&self) -> usize {
        let rows = self.kept.iter();
        let facts = rows.map(|(_, first, last)| last - first + 1).sum::<u64>();
        usize::try_from(facts).unwrap_or(usize::MAX)
    }
}

/// A fact that is recorded and changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Conflict {
    /// Whose.
    pub node: NodeId,
    /// Its number.
    pub fact: u64,
    /// When it happened, by the node.
    pub at: Unix,
    /// Why it was not applied.
    pub reason: Reason,
}

/// What a fact that changed nothing is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct About {
    /// Its slice.
    pub slice: Option<SliceRef>,
    /// Its task.
    pub task: Option<TaskIdx>,
    /// Number of its attempt.
    pub attempt: Option<u32>,
}

/// An attempt as its facts tell it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptRow {
    /// Where.
    pub node: NodeId,
    /// Epoch of its slice.
    pub epoch: Epoch,
    /// Its number.
    pub number: u32,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why.
    pub reason: Option<Reason>,
    /// Exit code, or minus the signal's number.
    pub exit: Option<i32>,
    /// When it began, by the node.
    pub began: Option<Unix>,
    /// When it ended, by the node.
    pub ended: Option<Unix>,
    /// Why it does not count.
    pub not_applied: Option<Reason>,
}

/// A task.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskRow {
    /// Its state as its owner told it.
    pub state: TaskState,
    /// Number of the slice that owns it, or [`NONE`].
    pub slice: u32,
    /// Retries used up by former epochs: what its next owner begins to count from.
    pub used: u32,
    /// Number of the last attempt of this epoch.
    pub attempts: u32,
    /// Since when it is in this state, by its node.
    pub since: Option<Unix>,
    /// Why.
    pub reason: Option<Reason>,
    /// Its outputs if it succeeded.
    pub outputs: Vec<OutputFile>,
    /// All attempts that are known.
    pub history: Vec<AttemptRow>,
}

impl RunHead {
    /// Whether there is a number for each state of tasks, and whether their sum can be one.
    pub(crate) fn counts_fit(&self) -> bool {
        let sum: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        self.counts.len() == TaskState::ALL.len() && u32::try_from(sum).is_ok()
    }

    /// The tasks that it names: each must be one of the workflow.
    pub(crate) fn named_tasks(&self) -> impl Iterator<Item = TaskIdx> {
        let waiting = self.in_doubt.keys().chain(self.asking.keys());
        let people = self.answers.keys().chain(self.forgiven.keys());
        waiting.chain(people).copied()
    }
}

impl TaskRow {
    fn fresh() -> Self {
        Self {
            state: TaskState::Blocked,
            slice: NONE,
            used: 0,
            attempts: 0,
            since: None,
            reason: None,
            outputs: Vec::new(),
            history: Vec::new(),
        }
    }

    /// Executions that failed and count, over all epochs. What never began, or was lost with its
    /// node, uses up no retry.
    #[must_use]
    pub fn failed(&self) -> u32 {
        let counts =
            |row: &&AttemptRow| row.outcome == Some(Outcome::Failed) && row.not_applied.is_none();
        u32::try_from(self.history.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }
}

/// A decision with the tasks that it is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Decided {
    /// Number within the run.
    pub number: u64,
    /// When.
    pub at: Unix,
    /// The tasks, as first and last of rows of them.
    pub tasks: Vec<(u32, u32)>,
    /// Made at this node (else by the coordinator), after this fact.
    pub edge: Option<(NodeId, u64)>,
    /// What and why.
    pub decision: Decision,
}

/// The part of a run that is loaded when it is touched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunBody {
    /// Its workflow.
    pub workflow: Arc<Workflow>,
    /// For each task: those whose ends it waits for or whose outputs it reads.
    pub deps: Arc<Edges>,
    /// For each task: those that depend on it.
    pub dependents: Arc<Edges>,
    /// By position.
    pub tasks: Vec<TaskRow>,
    /// Newest last.
    pub decisions: VecDeque<Decided>,
    /// Tasks whose state changed since this was taken.
    pub(crate) moved: Vec<TaskIdx>,
    changed: BTreeSet<usize>,
    decisions_changed: BTreeSet<u64>,
}

impl RunBody {
    /// A body of this workflow.
    #[must_use]
    pub fn new(definition: Definition, tasks: Vec<TaskRow>, decisions: VecDeque<Decided>) -> Self {
        let Definition {
            workflow,
            deps,
            dependents,
        } = definition;
        Self {
            workflow,
            deps,
            dependents,
            tasks,
            decisions,
            moved: Vec::new(),
            changed: BTreeSet::new(),
            decisions_changed: BTreeSet::new(),
        }
    }

    /// Marks a task's row as changed.
    pub fn touch(&mut self, task: TaskIdx) {
        self.changed.insert(task.0 as usize / CHUNK);
    }

    /// The end of a task as another slice is told it.
    #[must_use]
    pub fn upstream(&self, task: TaskIdx) -> Upstream {
        let row = &self.tasks[task.0 as usize];
        // of one that is lost they may come back with its node; until then nobody can fetch them
        let outputs = match row.state {
            TaskState::Succeeded => row.outputs.clone(),
            _ => Vec::new(),
        };
        Upstream {
            task,
            state: row.state,
            outputs,
        }
    }
}

/// A run with what is loaded of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Always there.
    pub head: RunHead,
    /// Loaded when touched.
    pub body: Option<RunBody>,
}

impl Run {
    /// A run that is known only from messages that name it.
    #[must_use]
    pub fn unknown(id: RunId, at: Unix) -> Self {
        let head = RunHead {
            workflow: String::new(),
            hash: Hash::default(),
            params: BTreeMap::new(),
            submitted: at,
            by: String::new(),
            origin: None,
            known: false,
            state: RunState::UnknownRun,
            ended: None,
            counts: vec![0; TaskState::ALL.len()],
            slices: Vec::new(),
            unplaced: 0,
            unplaced_since: None,
            unplaced_why: String::new(),
            epochs: 0,
            cancel: None,
            pause: None,
            paused_at: BTreeMap::new(),
            held: false,
            in_doubt: BTreeMap::new(),
            kept: Vec::new(),
            refused_by: BTreeMap::new(),
            folded: BTreeMap::new(),
            heard: BTreeSet::new(),
            applied: 0,
            not_applied: 0,
            outcomes: 0,
            decisions: 0,
            notes: VecDeque::new(),
            post: Post::default(),
            description: String::new(),
            labels: BTreeMap::new(),
            forgetting: None,
            unconfirmed: BTreeSet::new(),
            gone: None,
            event: None,
            conflicts: VecDeque::new(),
            asking: BTreeMap::new(),
            answers: BTreeMap::new(),
            pause_asked: Unix::default(),
            retry: None,
            forgiven: BTreeMap::new(),
            abouts: VecDeque::new(),
            gone_logs: BTreeSet::new(),
            stale: BTreeSet::new(),
            limited: false,
            shares: BTreeMap::new(),
            paused_since: BTreeMap::new(),
            went_back: Generation::default(),
            losses: Vec::new(),
            heard_since: None,
            settled: Generation::default(),
            reopened: None,
            adopted: BTreeSet::new(),
            recollected: BTreeSet::new(),
        };
        Self {
            id,
            head,
            body: None,
        }
    }

    /// Makes the workflow known; all tasks are unplaced.
    pub fn define(&mut self, packed: &[u8], hash: Hash, definition: Definition, fx: &mut Effects) {
        let (head, workflow) = (&mut self.head, &definition.workflow);
        head.workflow = workflow.name.clone();
        head.params = workflow.params.clone();
        head.description.clone_from(&workflow.description);
        head.labels = workflow.labels.clone();
        head.hash = hash;
        head.known = true;
        let limited = |m: &Matrix| m.max_parallel.is_some() || m.max_fails.is_some();
        head.limited = workflow.matrices.iter().any(limited);
        let n = workflow.tasks.len();
        head.counts[TaskState::Blocked as usize] = n as u32;
        head.unplaced = n as u32;
        head.unplaced_since = Some(head.submitted);
        let mut body = RunBody::new(definition, vec![TaskRow::fresh(); n], VecDeque::new());
        body.changed = (0..n.div_ceil(CHUNK)).collect();
        self.body = Some(body);
        fx.rows.push(("w".to_owned(), Some(packed.to_vec())));
        self.refresh(self.head.submitted);
    }

    /// The reference to slice `number`.
    #[must_use]
    pub fn slice_ref(&self, number: u32) -> SliceRef {
        SliceRef {
            run: self.id,
            slice: number,
            epoch: self.head.slices[number as usize].epoch,
        }
    }

    /// Sets a task's state and keeps all counts right.
    pub fn set(&mut self, task: TaskIdx, to: TaskState, reason: Option<Reason>, at: Unix) {
        let Some(body) = &mut self.body else { return };
        let row = &mut body.tasks[task.0 as usize];
        let was = row.state;
        row.state = to;
        row.reason = reason;
        row.since = Some(at);
        self.head.counts[was as usize] -= 1;
        self.head.counts[to as usize] += 1;
        if to == TaskState::Lost && reason == Some(Reason::InDoubt) {
            self.head.in_doubt.insert(task, at);
        } else {
            self.head.in_doubt.remove(&task);
        }
        self.note_asking(task, to, reason, at);
        let Some(body) = &mut self.body else { return };
        let row = &mut body.tasks[task.0 as usize];
        let open = match (was.is_final(), to.is_final()) {
            (false, true) => -1,
            (true, false) => 1,
            _ => 0,
        };
        let count = match self.head.slices.get_mut(row.slice as usize) {
            Some(slice) => {
                // a person at the gateway let a task run again
                if open > 0 && slice.stage == Stage::Done {
                    slice.stage = Stage::Accepted;
                }
                &mut slice.open
            }
            None => &mut self.head.unplaced,
        };
        *count = count.saturating_add_signed(open);
        body.touch(task);
        if was != to {
            body.moved.push(task);
        }
    }

    /// Gives a task to a slice (or to none) and keeps all counts right.
    pub fn own(&mut self, task: TaskIdx, slice: u32) {
        let forgiven = self.head.forgiven.get(&task).copied().unwrap_or(0);
        let Some(body) = &mut self.body else { return };
        let row = &mut body.tasks[task.0 as usize];
        let open = u32::from(!row.state.is_final());
        match self.head.slices.get_mut(row.slice as usize) {
            Some(old) => old.open -= open,
            None => self.head.unplaced -= open,
        }
        match self.head.slices.get_mut(slice as usize) {
            Some(new) => new.open += open,
            None => self.head.unplaced += open,
        }
        row.slice = slice;
        row.used = row.failed().saturating_sub(forgiven);
        row.attempts = 0;
        body.touch(task);
    }

    /// The node that owns a task.
    #[must_use]
    pub fn owner(&self, task: TaskIdx) -> Option<NodeId> {
        let row = self.body.as_ref()?.tasks.get(task.0 as usize)?;
        let slice = self.head.slices.get(row.slice as usize)?;
        slice.counts().then_some(slice.node)
    }

    /// Number of tasks in a state.
    #[must_use]
    pub fn count(&self, state: TaskState) -> u32 {
        self.head.counts[state as usize]
    }

    /// Tasks that are not final.
    #[must_use]
    pub fn open(&self) -> u32 {
        let open = TaskState::ALL.iter().filter(|s| !s.is_final());
        open.map(|s| self.count(*s)).sum()
    }

    /// The state that the rest of the head amounts to.
    pub fn refresh(&mut self, at: Unix) {
        let state = self.judged();
        if state.is_final() && !self.head.state.is_final() {
            self.head.ended = Some(at);
        } else if !state.is_final() {
            self.head.ended = None;
        }
        if self.head.unplaced == 0 {
            self.head.unplaced_since = None;
            self.head.unplaced_why.clear();
        } else {
            self.head.unplaced_since.get_or_insert(at);
        }
        self.head.state = state;
    }

    fn judged(&self) -> RunState {
        use TaskState::{Aborted, Cancelled, Failed, Lost};
        let head = &self.head;
        if !head.known {
            RunState::UnknownRun
        } else if self.open() == 0 && head.retry.is_none() {
            if self.count(Cancelled) > 0 {
                RunState::Cancelled
            } else if self.count(Failed) > 0 {
                RunState::Failed
            } else if self.count(Lost) > 0 {
                RunState::PartlyLost
            } else if self.count(Aborted) > 0 {
                RunState::Failed
            } else {
                RunState::Succeeded
            }
        } else if head.held {
            RunState::Held
        } else if head.pause.is_some() || !head.paused_at.is_empty() {
            RunState::Paused
        } else if head.slices.iter().any(Slice::counts) {
            RunState::Running
        } else {
            RunState::Accepted
        }
    }

    /// Records a decision that was made at `node`, behind `fact` of its log. Of its own tasks only:
    /// nobody else's word about them is evidence. It may be dropped, so what is too wide is.
    pub fn decided_there(
        &mut self,
        at: At<'_>,
        node: NodeId,
        fact: u64,
        task: TaskIdx,
        decision: Decision,
    ) {
        let bytes = |e: &shared::explain::Evidence| e.name.len() + e.value.len();
        let wide = decision.evidence.iter().map(bytes).sum::<usize>() > DECISION_BYTES
            || decision.evidence.len() > DECISION_BYTES / 16;
        if self.owner(task) == Some(node) && !wide {
            self.decide(at, vec![(task.0, task.0)], Some((node, fact)), decision);
        }
    }

    /// Records a decision; the oldest beyond the quota go.
    pub fn decide(
        &mut self,
        at: At<'_>,
        tasks: Vec<(u32, u32)>,
        edge: Option<(NodeId, u64)>,
        decision: Decision,
    ) {
        let Some(body) = &mut self.body else { return };
        let again = body.decisions.iter_mut().rev().take(8).find(|d| {
            let (old, new) = (&d.decision, &decision);
            d.tasks == tasks
                && d.edge.map(|e| e.0) == edge.map(|e| e.0)
                && (old.action, old.reason, &old.evidence)
                    == (new.action, new.reason, &new.evidence)
        });
        if let Some(known) = again {
            // a gateway says how often, and may lie
            let times = decision.repeats.saturating_add(1);
            known.decision.repeats = known.decision.repeats.saturating_add(times);
            body.decisions_changed
                .insert(known.number / DECISIONS_CHUNK);
            return;
        }
        let number = self.head.decisions;
        self.head.decisions += 1;
        body.decisions.push_back(Decided {
            number,
            at: at.wall,
            tasks,
            edge,
            decision,
        });
        body.decisions_changed.insert(number / DECISIONS_CHUNK);
        while body.decisions.len() > at.decisions.max(1) {
            if let Some(gone) = body.decisions.pop_front() {
                body.decisions_changed.insert(gone.number / DECISIONS_CHUNK);
            }
        }
    }

    /// Adds a note for people.
    pub fn note(&mut self, text: String) {
        if self.head.notes.len() >= NOTES {
            self.head.notes.pop_front();
        }
        self.head.notes.push_back(text);
    }

    /// Sends a message.
    pub fn send(&mut self, to: NodeId, message: Message, fx: &mut Effects) {
        fx.send(&mut self.head.post, AggregateId::Node(to), message);
    }

    /// The rows that changed since the last call.
    pub fn changed_rows(&mut self) -> Vec<(String, Option<Vec<u8>>)> {
        let Some(body) = &mut self.body else {
            return Vec::new();
        };
        let mut rows = Vec::new();
        for chunk in std::mem::take(&mut body.changed) {
            let from = chunk * CHUNK;
            let to = (from + CHUNK).min(body.tasks.len());
            let bytes = shared::codec::encode(&body.tasks[from..to]);
            rows.push((format!("t{chunk:08x}"), Some(bytes)));
        }
        for chunk in std::mem::take(&mut body.decisions_changed) {
            let kept: Vec<&Decided> = body
                .decisions
                .iter()
                .filter(|d| d.number / DECISIONS_CHUNK == chunk)
                .collect();
            let bytes = (!kept.is_empty()).then(|| shared::codec::encode(&kept));
            rows.push((format!("d{chunk:016x}"), bytes));
        }
        rows
    }
}
