//! The state as a fold over the two logs. What is decided live and what is replayed goes through
//! the same `apply_*`; they never emit anything, and report in `Touch` what changed.

pub(crate) use crate::snapshot::Row;

use crate::change::{change, count, reconsider};
use crate::rest::Rest;
use crate::scheduled::Scheduled;
use crate::slice::{Misfit, Slice};
use crate::sync::SyncPause;
use serde::{Deserialize, Serialize};
use shared::approval::Answer;
use shared::codec;
use shared::config::scheduler::Scheduler;
use shared::directive::{self, Assign, Limit, Upstream};
use shared::explain::Reason;
use shared::fact::{self, End, Fact, Outcome};
use shared::ids::{AttemptRef, BootId, Epoch, Hash, RunId, ScheduleId, SliceRef, TaskIdx};
use shared::planted::{self, Mistake};
use shared::state::TaskState;
use shared::time::{Stamp, Unix};
use shared::workflow::Workflow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// How many forgotten runs are remembered.
const FORGOTTEN: usize = 1000;
/// Tasks in one row of the snapshot.
pub(crate) const CHUNK: u32 = 256;

/// A slice of a run, whatever its epoch.
pub type SliceKey = (RunId, u32);

/// A task here: its slice and its position in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TaskKey {
    /// The slice.
    pub slice: SliceKey,
    /// Position in the slice.
    pub pos: u32,
}

/// What is known of a run as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// Who asked for its end.
    pub cancel: Option<String>,
    /// The coordinator's pause mark.
    pub paused_there: bool,
    /// The gateway's pause mark.
    pub paused_here: bool,
    /// To be dropped as soon as nothing of it runs.
    pub forget: bool,
    /// Submitted at this gateway.
    pub local: bool,
    /// The schedule that it is a run of, and the slot.
    pub schedule: Option<(ScheduleId, Unix)>,
    /// Since when the gateway's pause mark stands, and the coordinator's by its own clock.
    pub paused_since: [Option<Unix>; 2],
}

/// A directive that is recorded and not answered yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Open {
    /// A slice to take over.
    Assign(Assign),
    /// A slice to give up that is not here.
    Release(SliceRef),
    /// It cannot be honoured.
    Refuse(Option<SliceRef>, Reason, String),
    /// A person answered a question.
    Answer(SliceRef, TaskIdx, Answer),
    /// What was asked of a schedule is done, or cannot be.
    Schedule {
        /// The schedule.
        schedule: ScheduleId,
        /// Its epoch in the directive.
        epoch: Epoch,
        /// Number of the order in the directive.
        order: u64,
        /// The last slot that was decided before.
        cursor: Unix,
        /// Why not.
        refused: Option<(Reason, String)>,
    },
    /// A word on a matrix of a slice that is not taken over yet.
    Limit(Limit),
}

/// What a fold step changed, for whoever keeps indexes over the state.
#[derive(Debug, Default)]
pub(crate) struct Touch {
    /// Rows of the snapshot that are no longer right.
    pub(crate) rows: BTreeSet<Row>,
    /// Tasks that became ready.
    pub(crate) ready: Vec<TaskKey>,
    /// Tasks that were ready and no longer are.
    pub(crate) unready: Vec<TaskKey>,
    /// Blocked tasks whose needs are final and that will not run, or ask a person instead.
    pub(crate) ending: Vec<TaskKey>,
    /// Tasks that wait for their next attempt.
    pub(crate) retrying: Vec<TaskKey>,
    /// Slices whose conditions are to be looked at.
    pub(crate) slices: BTreeSet<SliceKey>,
    /// Slices that came.
    pub(crate) taken: Vec<SliceKey>,
    /// Slices that went.
    pub(crate) dropped: Vec<SliceKey>,
    /// Runs whose files may go.
    pub(crate) forgotten: BTreeSet<RunId>,
    /// Tasks of other slices that were told.
    pub(crate) upstream: Vec<(SliceKey, TaskIdx)>,
    /// Tasks that succeeded here.
    pub(crate) succeeded: Vec<TaskKey>,
    /// Schedules whose slots are to be looked at.
    pub(crate) schedules: BTreeSet<ScheduleId>,
    /// The coordinator changed the settings.
    pub(crate) settings: bool,
    /// Sending was paused, or goes on.
    pub(crate) sync: bool,
}

/// The fold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Number of the last fact folded.
    pub facts: u64,
    /// Number of the last directive folded.
    pub directives: u64,
    /// Boots of the machine within the incarnation.
    pub boots: u32,
    /// The kernel's boot of the last `booted`.
    pub boot: Option<BootId>,
    /// The agent before the last `booted` ended without saying so.
    pub unclean: bool,
    /// Runs.
    pub runs: BTreeMap<RunId, Run>,
    /// Slices that something may still happen to, by itself.
    pub slices: BTreeMap<SliceKey, Slice>,
    /// The others, see `rest`.
    pub resting: BTreeMap<SliceKey, Rest>,
    /// Highest epoch of each slice that ever was here, until its run is forgotten.
    pub epochs: BTreeMap<SliceKey, Epoch>,
    /// Workflows of slices that are awake, and of schedules, by content.
    pub workflows: BTreeMap<Hash, Arc<Workflow>>,
    /// Workflows that are or were at rest, packed.
    pub packed: BTreeMap<Hash, Box<[u8]>>,
    /// Directives without an answer.
    pub open: BTreeMap<u64, Open>,
    /// Attempts without an end, with the number of their `started`.
    pub running: BTreeMap<AttemptRef, u64>,
    /// Runs forgotten lately.
    pub forgotten: VecDeque<RunId>,
    /// Schedules that this node fires.
    pub schedules: BTreeMap<ScheduleId, Scheduled>,
    /// What the wall clock showed at the last fact.
    pub wall: Unix,
    /// What the coordinator said last about what holds where specifications say nothing.
    pub settings: Scheduler,
    /// A person lets nothing be sent.
    pub sync: Option<SyncPause>,
}

/// The key of a slice.
#[must_use]
pub fn key(slice: SliceRef) -> SliceKey {
    (slice.run, slice.slice)
}

impl State {
    /// The slice at exactly this epoch, if it is awake.
    #[must_use]
    pub fn slice_at(&self, slice: SliceRef) -> Option<&Slice> {
        self.slices.get(&key(slice)).filter(|held| held.id == slice)
    }

    /// The slices of a run that are awake.
    pub fn slices_of(&self, run: RunId) -> impl Iterator<Item = (&SliceKey, &Slice)> {
        self.slices.range((run, 0)..=(run, u32::MAX))
    }

    /// The task that an attempt belongs to, if its slice is here at its epoch.
    #[must_use]
    pub fn task_of(&self, attempt: AttemptRef) -> Option<TaskKey> {
        let pos = self.slice_at(attempt.slice)?.position(attempt.task)?;
        Some(TaskKey {
            slice: key(attempt.slice),
            pos,
        })
    }

    /// Whether a run stands still for a person.
    #[must_use]
    pub fn paused(&self, run: RunId) -> bool {
        self.runs
            .get(&run)
            .is_some_and(|run| run.paused_there || run.paused_here)
    }

    /// Folds one fact.
    pub(crate) fn apply_fact(&mut self, fact: &Fact, touch: &mut Touch) {
        use fact::Body;
        self.facts += 1;
        self.wall = fact.at.wall;
        touch.rows.insert(Row::Wall);
        self.wake(fact.body.slice(), fact.body.run());
        match &fact.body {
            Body::Booted { boot, unclean, .. } => {
                let new = u32::from(self.boot != Some(*boot));
                self.boots = self.boots.saturating_add(new);
                self.boot = Some(*boot);
                self.unclean = *unclean;
                touch.rows.insert(Row::Core);
            }
            Body::Accepted { slice } => self.accepted(*slice, touch),
            Body::Refused { directive, .. } => {
                if let Some(Open::Assign(assign)) = self.open.remove(directive) {
                    self.requeue(key(assign.slice), touch);
                }
                touch.rows.insert(Row::Core);
            }
            Body::Started { attempt } => self.started(*attempt, fact.at, touch),
            Body::Ended { attempt, end } => self.ended(*attempt, end, fact.at, touch),
            Body::Moved {
                slice,
                task,
                to,
                reason,
            } => {
                if let Some(pos) = self.slice_at(*slice).and_then(|held| held.position(*task)) {
                    let slice = key(*slice);
                    self.moved(TaskKey { slice, pos }, *to, *reason, fact.at, touch);
                }
            }
            Body::CancelDone { slice } => {
                self.with(*slice, touch, |slice| slice.cancel_ask = false);
            }
            Body::PauseDone { slice, .. } => {
                self.with(*slice, touch, |slice| slice.pause_ask = None);
            }
            Body::SliceDone { slice } => {
                self.with(*slice, touch, |slice| slice.done = true);
                self.touch_schedule_of(slice.run, touch);
            }
            Body::Released { slice, .. } => self.released(*slice, touch),
            Body::Submitted {
                slice, workflow, ..
            } => self.submitted(*slice, workflow, touch),
            Body::CancelledHere { run, by, .. } => self.cancel(*run, by, touch),
            Body::PausedHere { run, on, .. } => self.pause_here(*run, *on, fact.at.wall, touch),
            Body::Answered {
                slice,
                task,
                answer,
                not,
            } => self.answered((*slice, *task), answer, *not, fact.at, touch),
            Body::ScheduleDone { .. }
            | Body::ScheduleAsked { .. }
            | Body::Fired { .. }
            | Body::SlotsSkipped { .. } => self.scheduled(fact, touch),
            Body::SyncPaused { .. } | Body::SyncResumed { .. } => self.sync_changed(fact, touch),
            Body::Limited { .. } => self.limited(&fact.body, touch),
            Body::Reset { .. } | Body::Dropped { .. } => {}
        }
    }

    /// Folds one directive; `None` is one that cannot be read.
    pub(crate) fn apply_directive(
        &mut self,
        number: u64,
        directive: Option<&directive::Directive>,
        touch: &mut Touch,
    ) {
        use directive::Body;
        self.directives = number;
        if let Some(directive) = directive {
            self.wake(directive.body.slice(), directive.body.run());
        }
        let open = match directive.map(|directive| &directive.body) {
            None => {
                let text = "this version does not know its kind".to_owned();
                Some(Open::Refuse(None, Reason::UnknownKind, text))
            }
            Some(Body::Assign(assign)) => {
                touch.slices.insert(key(assign.slice));
                Some(Open::Assign(assign.clone()))
            }
            Some(Body::Upstream { slice, upstream }) => self.told(*slice, upstream, touch),
            Some(Body::Cancel { run, by, .. }) => {
                let known = self.runs.contains_key(run);
                self.cancel(*run, by, touch);
                (!known).then(|| unknown_run(*run))
            }
            Some(Body::Pause { run, on, .. }) => {
                let at = directive.map(|directive| directive.at);
                self.pause(*run, *on, at, touch)
            }
            Some(Body::Release { slice }) => self.release(*slice, touch),
            Some(Body::Forget { run }) => self.forget(*run, touch),
            Some(Body::Reset { slices, .. }) => self.reset(slices),
            Some(Body::Retry { run, .. }) => self.lift_cancel(*run, touch),
            Some(Body::Answer {
                slice,
                task,
                answer,
            }) => Some(Open::Answer(*slice, *task, answer.clone())),
            Some(Body::Schedule {
                schedule,
                epoch,
                order,
                what,
                by,
            }) => {
                let at = directive.map_or(Unix(0), |directive| directive.at);
                Some(self.ordered((*schedule, *epoch, *order), what, (by, at), touch))
            }
            Some(Body::Limit(limit)) => match self.limit(limit, touch) {
                true => None,
                false => Some(Open::Limit(*limit)),
            },
            Some(Body::Configure(settings)) => {
                self.settings = *settings;
                touch.rows.insert(Row::Core);
                touch.settings = true;
                None
            }
        };
        if let Some(open) = open {
            self.open.insert(number, open);
            touch.rows.insert(Row::Core);
        }
    }

    pub(crate) fn with(
        &mut self,
        id: SliceRef,
        touch: &mut Touch,
        change: impl FnOnce(&mut Slice),
    ) {
        if let Some(slice) = self.slices.get_mut(&key(id)).filter(|held| held.id == id) {
            change(slice);
            touch.rows.insert(Row::Slice(key(id)));
            touch.slices.insert(key(id));
        }
    }

    /// The slice that an assignment makes; the same check decides and folds.
    pub(crate) fn build(&self, assign: &Assign) -> Result<Slice, Misfit> {
        let workflow = match (self.workflow(assign.workflow_hash), &assign.workflow) {
            (Some(known), _) => known,
            (None, Some(packed)) => {
                let (workflow, hash) = codec::unpack(packed)
                    .map_err(|error| (Reason::Malformed, format!("its workflow is {error}")))?;
                if hash != assign.workflow_hash {
                    let text = "its workflow does not have the hash named".to_owned();
                    return Err((Reason::Malformed, text));
                }
                Arc::new(workflow)
            }
            (None, None) => {
                let text = "its workflow is not known here and was not sent along".to_owned();
                return Err((Reason::Malformed, text));
            }
        };
        let (hash, tasks) = (assign.workflow_hash, assign.tasks.clone());
        let mut slice = Slice::new(assign.slice, workflow, hash, tasks)?;
        for (task, used) in &assign.attempts_used {
            if let Some(pos) = slice.position(*task) {
                slice.slots[pos as usize].used = *used;
            }
        }
        for done in &assign.done {
            if let Some(pos) = slice.position(done.task) {
                let slot = &mut slice.slots[pos as usize];
                (slot.state, slot.outputs) = (done.state, done.outputs.clone());
                slot.adopted = true;
            }
        }
        for told in &assign.upstream {
            if let Some(external) = slice.externals.get_mut(&told.task) {
                external.known = Some(told.clone());
            }
        }
        slice.recount();
        Ok(slice)
    }

    fn accepted(&mut self, id: SliceRef, touch: &mut Touch) {
        let of = |open: &Open| matches!(open, Open::Assign(assign) if assign.slice == id);
        let Some(number) = self.open.iter().find(|(_, open)| of(open)).map(|(n, _)| *n) else {
            return;
        };
        let Some(Open::Assign(assign)) = self.open.remove(&number) else {
            return;
        };
        touch.rows.insert(Row::Core);
        if self.slice_at(id).is_none() {
            let Ok(slice) = self.build(&assign) else {
                return;
            };
            if self.slices.contains_key(&key(id)) {
                self.drop_slice(key(id), touch);
            }
            self.runs.entry(id.run).or_default();
            self.take(slice, touch);
        }
        self.limit_early(id, touch);
        self.mark(id.run, assign.paused, touch);
    }

    /// The coordinator's pause mark as its last word has it: a node whose slices were all over or
    /// lost was not told of every change since.
    fn mark(&mut self, run: RunId, on: bool, touch: &mut Touch) {
        if let Some(held) = self.runs.get_mut(&run)
            && std::mem::replace(&mut held.paused_there, on) != on
        {
            self.pause_changed(run, touch);
        }
    }

    fn submitted(&mut self, id: SliceRef, packed: &[u8], touch: &mut Touch) {
        let Ok((workflow, hash)) = self.unpack(packed) else {
            return;
        };
        let tasks = (0..workflow.tasks.len() as u32).map(TaskIdx).collect();
        if let Ok(slice) = Slice::new(id, workflow, hash, tasks) {
            self.runs.entry(id.run).or_default().local = true;
            self.take(slice, touch);
        }
    }

    pub(crate) fn take(&mut self, mut slice: Slice, touch: &mut Touch) {
        let at = key(slice.id);
        slice.cancel_ask = self.runs.get(&at.0).is_some_and(|run| run.cancel.is_some());
        self.epochs.insert(at, slice.id.epoch);
        self.workflows
            .entry(slice.hash)
            .or_insert_with(|| slice.workflow.clone());
        touch
            .rows
            .extend([Row::Core, Row::Run(at.0), Row::Workflow(slice.hash)]);
        touch.rows.extend([Row::Frame(at), Row::Slice(at)]);
        let chunks = (slice.slots.len() as u32).div_ceil(CHUNK);
        touch
            .rows
            .extend((0..chunks).map(|chunk| Row::Chunk(at, chunk)));
        touch.slices.insert(at);
        touch.taken.push(at);
        for pos in 0..slice.slots.len() as u32 {
            reconsider(&mut slice, TaskKey { slice: at, pos }, touch);
        }
        self.slices.insert(at, slice);
    }

    pub(crate) fn drop_slice(&mut self, at: SliceKey, touch: &mut Touch) {
        let Some(slice) = self.slices.remove(&at) else {
            return;
        };
        let chunks = (slice.slots.len() as u32).div_ceil(CHUNK);
        touch
            .rows
            .extend((0..chunks).map(|chunk| Row::Chunk(at, chunk)));
        touch.rows.extend([Row::Frame(at), Row::Slice(at)]);
        let id = slice.id;
        self.running.retain(|attempt, _| attempt.slice != id);
        self.drop_workflow(slice.hash, touch);
        // a slot may wait for the end of the run, which is no run of this gateway any more
        self.touch_schedule_of(at.0, touch);
        touch.dropped.push(at);
    }

    /// The schedule that fired a run is looked at.
    fn touch_schedule_of(&self, run: RunId, touch: &mut Touch) {
        let run = self.runs.get(&run);
        let schedule = run.and_then(|run| run.schedule);
        touch.schedules.extend(schedule.map(|(id, _)| id));
    }

    fn started(&mut self, attempt: AttemptRef, at: Stamp, touch: &mut Touch) {
        let Some(task) = self.task_of(attempt) else {
            return;
        };
        let Some(slice) = self.slices.get_mut(&task.slice) else {
            return;
        };
        let slot = &mut slice.slots[task.pos as usize];
        slot.attempts = attempt.number;
        slot.began = None;
        slice.running += 1;
        self.running.insert(attempt, self.facts);
        touch.rows.insert(Row::Slice(task.slice));
        change(
            slice,
            task,
            TaskState::Running,
            Reason::FirstInQueue,
            at,
            touch,
        );
    }

    fn ended(&mut self, attempt: AttemptRef, end: &End, at: Stamp, touch: &mut Touch) {
        if self.running.remove(&attempt).is_none() {
            return;
        }
        let Some(task) = self.task_of(attempt) else {
            return;
        };
        let unclean = self.unclean;
        let Some(slice) = self.slices.get_mut(&task.slice) else {
            return;
        };
        slice.running = slice.running.saturating_sub(1);
        let slot = &mut slice.slots[task.pos as usize];
        slot.used += u32::from(end.outcome == Outcome::Failed);
        let died = end.outcome == Outcome::Lost && end.reason != Reason::InDoubt;
        slot.crashes += u32::from(died && unclean);
        (slot.began, slot.exit) = (end.began, end.exit);
        slot.outputs.clone_from(&end.outputs);
        slot.retry = end.retry_in.map(|pause| (at, pause));
        change(slice, task, end.task, end.reason, at, touch);
        if end.task == TaskState::Succeeded {
            touch.succeeded.push(task);
        }
        touch.slices.insert(task.slice);
        touch.rows.insert(Row::Slice(task.slice));
        self.forget_if_quiet(task.slice.0, touch);
    }

    fn moved(&mut self, at: TaskKey, to: TaskState, why: Reason, when: Stamp, touch: &mut Touch) {
        let Some(slice) = self.slices.get_mut(&at.slice) else {
            return;
        };
        let slot = &mut slice.slots[at.pos as usize];
        slot.retry = None;
        if why == Reason::ResumedByPerson {
            (slot.used, slot.crashes) = (0, 0);
        }
        change(slice, at, to, why, when, touch);
        touch.slices.insert(at.slice);
    }

    fn told(&mut self, id: SliceRef, told: &Upstream, touch: &mut Touch) -> Option<Open> {
        let at = key(id);
        let Some(slice) = self.slices.get_mut(&at).filter(|held| held.id == id) else {
            return self.told_early(id, told, touch);
        };
        let Some(external) = slice.externals.get_mut(&told.task) else {
            let text = format!("no task of the slice needs task {}", told.task.0);
            return Some(Open::Refuse(Some(id), Reason::ImpossibleTransition, text));
        };
        if external.known.as_ref() == Some(told) {
            return None;
        }
        let was = external
            .known
            .as_ref()
            .is_some_and(|known| known.state.is_final());
        external.known = Some(told.clone());
        let readers = external.readers.clone();
        touch.rows.insert(Row::Slice(at));
        touch.upstream.push((at, told.task));
        for pos in readers {
            count(
                slice,
                TaskKey { slice: at, pos },
                was,
                told.state.is_final(),
                touch,
            );
        }
        None
    }

    /// An assignment of this epoch may still wait for the end of the one before.
    fn told_early(&mut self, id: SliceRef, told: &Upstream, touch: &mut Touch) -> Option<Open> {
        for open in self.open.values_mut() {
            if let Open::Assign(assign) = open
                && assign.slice == id
            {
                assign.upstream.retain(|known| known.task != told.task);
                assign.upstream.push(told.clone());
                touch.rows.insert(Row::Core);
                return None;
            }
        }
        let held = self.epochs.get(&key(id));
        let reason = match held {
            Some(epoch) if *epoch >= id.epoch => Reason::Superseded,
            _ => Reason::UnknownRun,
        };
        Some(Open::Refuse(
            Some(id),
            reason,
            "the slice is not here at this epoch".to_owned(),
        ))
    }

    fn cancel(&mut self, run: RunId, by: &str, touch: &mut Touch) {
        let Some(held) = self.runs.get_mut(&run) else {
            return;
        };
        held.cancel = Some(by.to_owned());
        touch.rows.insert(Row::Run(run));
        for (at, slice) in self.slices.range_mut((run, 0)..=(run, u32::MAX)) {
            slice.cancel_ask = true;
            touch.rows.insert(Row::Slice(*at));
            touch.slices.insert(*at);
        }
    }

    fn pause_here(&mut self, run: RunId, on: bool, at: Unix, touch: &mut Touch) {
        if let Some(held) = self.runs.get_mut(&run) {
            held.paused_here = on;
            let since = &mut held.paused_since[0];
            *since = on.then(|| since.unwrap_or(at));
            self.pause_changed(run, touch);
        }
    }

    fn pause(&mut self, run: RunId, on: bool, at: Option<Unix>, touch: &mut Touch) -> Option<Open> {
        for open in self.open.values_mut() {
            if let Open::Assign(assign) = open
                && assign.slice.run == run
            {
                assign.paused = on;
                touch.rows.insert(Row::Core);
            }
        }
        let Some(held) = self.runs.get_mut(&run) else {
            return Some(unknown_run(run));
        };
        held.paused_there = on;
        let since = &mut held.paused_since[1];
        *since = since.or(at).filter(|_| on);
        for (_, slice) in self.slices.range_mut((run, 0)..=(run, u32::MAX)) {
            slice.pause_ask = Some(on);
        }
        self.pause_changed(run, touch);
        None
    }

    fn pause_changed(&mut self, run: RunId, touch: &mut Touch) {
        touch.rows.insert(Row::Run(run));
        let slices: Vec<_> = self.slices_of(run).map(|(at, _)| *at).collect();
        for at in slices {
            touch.rows.insert(Row::Slice(at));
            self.requeue(at, touch);
        }
    }

    /// What lets the ready tasks of a slice start may have changed.
    fn requeue(&self, at: SliceKey, touch: &mut Touch) {
        let Some(slice) = self.slices.get(&at) else {
            return;
        };
        touch.slices.insert(at);
        for (pos, slot) in slice.slots.iter().enumerate() {
            if slot.state == TaskState::Ready {
                touch.ready.push(TaskKey {
                    slice: at,
                    pos: pos as u32,
                });
            }
        }
    }

    fn release(&mut self, id: SliceRef, touch: &mut Touch) -> Option<Open> {
        self.open
            .retain(|_, open| !matches!(open, Open::Assign(held) if held.slice == id));
        // an older epoch that stood aside for it may go on
        self.requeue(key(id), touch);
        touch.rows.insert(Row::Core);
        if self.slice_at(id).is_some() {
            self.with(id, touch, |slice| slice.releasing = true);
            return None;
        }
        match self.slices.get(&key(id)) {
            Some(held) if held.id.epoch > id.epoch => {
                let text = format!("it is here at epoch {}", held.id.epoch);
                Some(Open::Refuse(Some(id), Reason::Superseded, text))
            }
            _ => Some(Open::Release(id)),
        }
    }

    fn released(&mut self, id: SliceRef, touch: &mut Touch) {
        self.open
            .retain(|_, open| !matches!(open, Open::Release(held) if *held == id));
        touch.rows.insert(Row::Core);
        if self.slice_at(id).is_some() {
            self.drop_slice(key(id), touch);
        }
        let known = self.epochs.entry(key(id)).or_default();
        *known = id.epoch.max(*known);
        if self.runs.get(&id.run).is_some_and(|run| run.local) {
            // Its only slice is gone: nothing is left to know of it.
            self.forget(id.run, touch);
        }
    }

    fn forget(&mut self, run: RunId, touch: &mut Touch) -> Option<Open> {
        self.runs.entry(run).or_default().forget = true;
        touch.rows.insert(Row::Run(run));
        touch.slices.extend(self.slices_of(run).map(|(at, _)| *at));
        self.forget_if_quiet(run, touch);
        None
    }

    fn forget_if_quiet(&mut self, run: RunId, touch: &mut Touch) {
        let wanted = self.runs.get(&run).is_some_and(|held| held.forget);
        if !wanted || self.slices_of(run).any(|(_, slice)| slice.running > 0) {
            return;
        }
        let slices: Vec<_> = self.slices_of(run).map(|(at, _)| *at).collect();
        for at in slices {
            self.drop_slice(at, touch);
        }
        self.runs.remove(&run);
        self.epochs.retain(|(of, _), _| *of != run);
        self.open
            .retain(|_, open| !matches!(open, Open::Assign(held) if held.slice.run == run));
        self.forgotten.push_back(run);
        if self.forgotten.len() > FORGOTTEN {
            self.forgotten.pop_front();
        }
        touch.rows.extend([Row::Core, Row::Run(run)]);
        touch.forgotten.insert(run);
    }

    /// Work that a reset does not mention goes on; what it mentions and is not here is answered.
    fn reset(&mut self, slices: &[SliceRef]) -> Option<Open> {
        if planted::on(Mistake::ResetStopsOthers) {
            let named = |id: &SliceRef| slices.contains(id);
            self.slices.retain(|_, slice| named(&slice.id));
        }
        let missing = slices.iter().find(|id| !self.holds(**id))?;
        let more = slices.iter().filter(|id| !self.holds(**id)).count() - 1;
        let text = format!("a slice that the reset names is not here, and {more} more");
        Some(Open::Refuse(Some(*missing), Reason::UnknownRun, text))
    }
}

fn unknown_run(run: RunId) -> Open {
    Open::Refuse(
        None,
        Reason::UnknownRun,
        format!("no slice of run {run} is here"),
    )
}
