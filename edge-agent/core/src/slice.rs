//! One slice: the states of its tasks in dense vectors, and counters of what each still waits for,
//! so that the end of a task costs work for its dependents only.

use crate::limit::{Group, Told};
use serde::{Deserialize, Serialize};
use shared::approval::{Answer, Approval};
use shared::directive::Upstream;
use shared::explain::Reason;
use shared::fact::OutputFile;
use shared::ids::{Hash, SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::time::{Span, Stamp};
use shared::workflow::{Source, Task, TriggerRule, Workflow};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is known of a task here. Part of the fold and of the snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// Its state.
    pub state: TaskState,
    /// Why it is in it.
    pub reason: Reason,
    /// Number of the last attempt of this epoch.
    pub attempts: u32,
    /// Executions that count against `max_attempts`, those of earlier epochs included.
    pub used: u32,
    /// Deaths of agent or node that it saw.
    pub crashes: u32,
    /// Its results came with the assignment: its files may be elsewhere.
    pub adopted: bool,
    /// Its outputs if it succeeded.
    pub outputs: Vec<OutputFile>,
    /// Since when, and how long, it waits for its next attempt.
    pub retry: Option<(Stamp, Span)>,
    /// When its last attempt began.
    pub began: Option<Stamp>,
    /// When its state last changed by a fact.
    pub since: Option<Stamp>,
    /// Exit code of its last attempt, or minus the signal's number.
    pub exit: Option<i32>,
}

/// A task of another slice that tasks here wait for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct External {
    /// Its end, once it was told.
    pub known: Option<Upstream>,
    /// Positions of the tasks that wait for it.
    pub readers: Vec<u32>,
}

/// A slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slice {
    /// Run, number, epoch.
    pub id: SliceRef,
    /// Content hash of the workflow.
    pub hash: Hash,
    /// The workflow.
    pub workflow: Arc<Workflow>,
    /// Its tasks, ascending.
    pub index: Vec<TaskIdx>,
    /// What is known of each.
    pub slots: Vec<Slot>,
    /// Number of tasks that each waits for.
    pub waits: Vec<u32>,
    /// Tasks of other slices.
    pub externals: BTreeMap<TaskIdx, External>,
    /// For each task a bit for each output that must go to the coordinator.
    pub exports: Vec<u64>,
    /// Positions of the tasks that wait for each task: `readers[starts[p]..starts[p + 1]]`.
    readers: Vec<u32>,
    starts: Vec<u32>,
    /// Tasks that are not final.
    pub unfinal: u32,
    /// Attempts that have started and not ended.
    pub running: u32,
    /// `SliceDone` was said.
    pub done: bool,
    /// The coordinator wants it back.
    pub releasing: bool,
    /// A cancel is not confirmed yet.
    pub cancel_ask: bool,
    /// A change of the coordinator's pause mark is not confirmed yet.
    pub pause_ask: Option<bool>,
    /// Answers to its questions, each with why it does not count; the last few of each task.
    pub answers: BTreeMap<TaskIdx, Answers>,
    /// Matrices with limits, by their position in the workflow.
    pub groups: BTreeMap<u32, Group>,
    /// Whether a task of it has a deadline.
    pub has_deadlines: bool,
}

/// Answers to a question, oldest first, each with why it does not count.
pub type Answers = Vec<(Answer, Option<Reason>)>;

/// What becomes of a task whose needs are all final.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It may start.
    Ready,
    /// It ends like this without an attempt.
    Ends(TaskState, Reason),
}

/// Why a slice cannot be built.
pub type Misfit = (Reason, String);

impl Slice {
    /// A slice of `workflow` with all its tasks blocked.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn new(
        id: SliceRef,
        workflow: Arc<Workflow>,
        hash: Hash,
        index: Vec<TaskIdx>,
    ) -> Result<Self, Misfit> {
        let total = workflow.tasks.len();
        let ascending = index.windows(2).all(|pair| pair[0] < pair[1]);
        if index.is_empty() || !ascending || index.last().is_some_and(|t| t.0 as usize >= total) {
            let text = format!("its tasks are not an ascending list below {total}");
            return Err((Reason::Malformed, text));
        }
        let blank = Slot {
            state: TaskState::Blocked,
            reason: Reason::WaitsForTasks,
            attempts: 0,
            used: 0,
            crashes: 0,
            adopted: false,
            outputs: Vec::new(),
            retry: None,
            began: None,
            since: None,
            exit: None,
        };
        let deadline = |task: &TaskIdx| workflow.tasks[task.0 as usize].deadline;
        let has_deadlines = index.iter().any(|task| deadline(task).is_some());
        let mut slice = Self {
            id,
            hash,
            workflow,
            slots: vec![blank; index.len()],
            waits: vec![0; index.len()],
            externals: BTreeMap::new(),
            exports: vec![0; index.len()],
            readers: Vec::new(),
            starts: Vec::new(),
            unfinal: index.len() as u32,
            running: 0,
            done: false,
            releasing: false,
            cancel_ask: false,
            pause_ask: None,
            answers: BTreeMap::new(),
            groups: BTreeMap::new(),
            has_deadlines,
            index,
        };
        slice.link_tasks()?;
        slice.mark_exports();
        slice.find_groups();
        Ok(slice)
    }

    /// Position of a task, if it belongs to the slice.
    #[must_use]
    pub fn position(&self, task: TaskIdx) -> Option<u32> {
        if self.index.len() == self.workflow.tasks.len() {
            return ((task.0 as usize) < self.index.len()).then_some(task.0);
        }
        self.index.binary_search(&task).ok().map(|at| at as u32)
    }

    /// The task at a position.
    #[must_use]
    pub fn task(&self, pos: u32) -> &Task {
        &self.workflow.tasks[self.index[pos as usize].0 as usize]
    }

    /// What is known of the task at a position.
    #[must_use]
    pub fn slot(&self, pos: u32) -> &Slot {
        &self.slots[pos as usize]
    }

    /// The question of the task at a position, and whether it is put to people now.
    #[must_use]
    pub fn question(&self, pos: u32) -> Option<(&Approval, bool)> {
        let slot = self.slot(pos);
        let open = slot.state == TaskState::Blocked && slot.reason == Reason::WaitsForPerson;
        Some((self.task(pos).approval()?, open))
    }

    /// The answer that counts for the task at a position.
    #[must_use]
    pub fn answer(&self, pos: u32) -> Option<&Answer> {
        let answers = self.answers.get(&self.index[pos as usize])?;
        let counting = answers.iter().rev().find(|(_, not)| not.is_none());
        counting.map(|(answer, _)| answer)
    }

    /// Positions of the tasks that wait for the one at `pos`.
    #[must_use]
    pub fn readers(&self, pos: u32) -> std::ops::Range<usize> {
        self.starts[pos as usize] as usize..self.starts[pos as usize + 1] as usize
    }

    /// The reader at an index of [`Self::readers`].
    #[must_use]
    pub fn reader(&self, at: usize) -> u32 {
        self.readers[at]
    }

    fn link_tasks(&mut self) -> Result<(), Misfit> {
        let total = self.workflow.tasks.len();
        let mut edges: Vec<(u32, u32)> = Vec::new();
        let mut outside: BTreeSet<(TaskIdx, u32)> = BTreeSet::new();
        for pos in 0..self.index.len() as u32 {
            for need in awaited(self.task(pos)) {
                if need.0 as usize >= total {
                    let text = format!(
                        "task {} needs a task that does not exist",
                        self.task(pos).id
                    );
                    return Err((Reason::Malformed, text));
                }
                match self.position(need) {
                    Some(at) => edges.push((at, pos)),
                    None => drop(outside.insert((need, pos))),
                }
            }
        }
        edges.sort_unstable();
        edges.dedup();
        self.starts = vec![0; self.index.len() + 1];
        for (from, to) in &edges {
            self.starts[*from as usize + 1] += 1;
            self.waits[*to as usize] += 1;
        }
        for at in 1..self.starts.len() {
            self.starts[at] += self.starts[at - 1];
        }
        self.readers = edges.into_iter().map(|(_, to)| to).collect();
        for (need, pos) in outside {
            self.waits[pos as usize] += 1;
            let blank = External {
                known: None,
                readers: Vec::new(),
            };
            self.externals
                .entry(need)
                .or_insert(blank)
                .readers
                .push(pos);
        }
        Ok(())
    }

    /// Outputs read outside the slice, or by nobody, go to the coordinator.
    fn mark_exports(&mut self) {
        let all = |n: usize| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
        let mut inside = vec![0u64; self.index.len()];
        let mut outside = vec![0u64; self.index.len()];
        for (reader, task) in self.workflow.tasks.iter().enumerate() {
            let here = self.position(TaskIdx(reader as u32)).is_some();
            for input in &task.inputs {
                if let Source::Task { task, output } = input.source
                    && let Some(at) = self.position(task)
                    && output < 64
                {
                    let side = if here { &mut inside } else { &mut outside };
                    side[at as usize] |= 1 << output;
                }
            }
        }
        for pos in 0..self.index.len() {
            let made = all(self.task(pos as u32).outputs.len());
            self.exports[pos] = made & (outside[pos] | !inside[pos]);
        }
    }

    /// The state and outputs of a task that tasks here wait for.
    #[must_use]
    pub fn end_of(&self, task: TaskIdx) -> Option<(TaskState, &[OutputFile])> {
        if let Some(pos) = self.position(task) {
            let slot = self.slot(pos);
            return Some((slot.state, &slot.outputs));
        }
        let known = self.externals.get(&task)?.known.as_ref()?;
        Some((known.state, &known.outputs))
    }

    /// What becomes of the task at `pos`, all of whose needs are final.
    #[must_use]
    pub fn verdict(&self, pos: u32) -> Verdict {
        let task = self.task(pos);
        if task.when.as_ref().is_some_and(|when| !when.holds) {
            return Verdict::Ends(TaskState::Skipped, Reason::WhenFalse);
        }
        if task.trigger_rule == TriggerRule::AllDone {
            return Verdict::Ready;
        }
        let (mut bad, mut fell, mut skipped) = (false, false, false);
        for need in &task.needs {
            match self.end_of(*need).map(|(state, _)| state) {
                Some(TaskState::Failed | TaskState::Lost) => (bad, fell) = (true, true),
                Some(TaskState::Aborted | TaskState::Cancelled) => bad = true,
                Some(TaskState::Skipped) => skipped = true,
                _ => {}
            }
        }
        match task.trigger_rule {
            TriggerRule::OneFailed if fell => Verdict::Ready,
            TriggerRule::OneFailed => Verdict::Ends(TaskState::Skipped, Reason::TriggerNotMet),
            _ if bad => Verdict::Ends(TaskState::Aborted, Reason::NeedFailed),
            TriggerRule::AllSuccess if skipped => {
                Verdict::Ends(TaskState::Skipped, Reason::NeedSkipped)
            }
            _ => Verdict::Ready,
        }
    }

    /// Puts back what was stored or packed of the slice.
    pub(crate) fn restore(
        &mut self,
        slots: Vec<Slot>,
        told: Vec<Upstream>,
        answers: Vec<(TaskIdx, Answers)>,
        limits: Vec<(u32, Told)>,
    ) {
        self.slots = slots;
        self.answers = answers.into_iter().collect();
        for (matrix, told) in limits {
            if let Some(group) = self.groups.get_mut(&matrix) {
                group.told = told;
            }
        }
        for told in told {
            if let Some(external) = self.externals.get_mut(&told.task) {
                external.known = Some(told);
            }
        }
        self.recount();
    }

    /// Counts anew what each task waits for, from the states alone.
    pub(crate) fn recount(&mut self) {
        self.waits.fill(0);
        for pos in 0..self.slots.len() as u32 {
            if !self.slot(pos).state.is_final() {
                for at in self.readers(pos) {
                    let reader = self.readers[at];
                    self.waits[reader as usize] += 1;
                }
            }
        }
        for external in self.externals.values() {
            if !external
                .known
                .as_ref()
                .is_some_and(|known| known.state.is_final())
            {
                for pos in &external.readers {
                    self.waits[*pos as usize] += 1;
                }
            }
        }
        let states = || self.slots.iter().map(|slot| slot.state);
        self.unfinal = states().filter(|state| !state.is_final()).count() as u32;
        self.running = states()
            .filter(|state| *state == TaskState::Running)
            .count() as u32;
        self.count_groups();
    }
}

/// The tasks that `task` waits for: its needs, and the writers of its inputs (an edge that
/// transitive reduction took away may cross slices).
fn awaited(task: &Task) -> impl Iterator<Item = TaskIdx> {
    let writers = task.inputs.iter().filter_map(|input| match input.source {
        Source::Task { task, .. } => Some(task),
        _ => None,
    });
    task.needs.iter().copied().chain(writers)
}
