//! What must be true of a gateway, told by its records alone: a second, independent fold of both
//! logs. It shares no code with the cores; where it disagrees with one of them, one of the two is
//! wrong.

use crate::slots::{OpenRun, Slots};
use crate::workload::PlannedRun;
use shared::approval::Answer;
use shared::config::scheduler::Scheduler;
use shared::directive::{Body as Wanted, Directive, Upstream};
use shared::fact::{Body, Fact, Outcome, OutputFile};
use shared::ids::{AttemptRef, Hash, RunId, ScheduleId, SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::workflow::{Source, TriggerRule, Workflow};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The workflows of all runs of a seed.
pub type Flows = BTreeMap<RunId, Arc<PlannedRun>>;

/// A task of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskModel {
    /// Its state.
    pub state: TaskState,
    /// Attempts that were started in this epoch.
    pub started: u32,
    /// Its outputs if it succeeded.
    pub outputs: Vec<OutputFile>,
}

/// A slice at one epoch.
#[derive(Debug, Clone)]
pub struct SliceModel {
    /// Its name.
    pub slice: SliceRef,
    /// Its tasks.
    pub tasks: BTreeMap<TaskIdx, TaskModel>,
    /// Tasks elsewhere that are final as far as was told.
    pub upstream: BTreeMap<TaskIdx, Upstream>,
    /// The coordinator asked for it back.
    pub leaving: bool,
    /// It was given up.
    pub released: bool,
}

/// Marks on a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunMarks {
    /// Somebody asked for its end.
    pub cancelled: bool,
    /// The coordinator's pause mark.
    pub paused_there: bool,
    /// The gateway's pause mark.
    pub paused_here: bool,
    /// It may be forgotten.
    pub forgotten: bool,
}

/// What the trigger rule says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may run.
    Run,
    /// Its needs are not decided.
    Wait,
    /// It will not run.
    Never,
}

/// The fold.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Slices by run and number, at their newest epoch here.
    pub slices: BTreeMap<(RunId, u32), SliceModel>,
    /// All slices that were taken over, also those that are gone.
    pub taken: BTreeSet<SliceRef>,
    /// Marks on runs.
    pub runs: BTreeMap<RunId, RunMarks>,
    /// Attempts without an end.
    pub open: BTreeSet<AttemptRef>,
    /// Attempts with their ends.
    pub ended: BTreeMap<AttemptRef, Outcome>,
    /// Number of the last directive folded.
    pub directives: u64,
    /// What it was told last to hold where specifications say nothing.
    pub settings: Scheduler,
    /// Its schedules.
    pub slots: Slots,
    waiting: BTreeMap<u64, Wanted>,
    /// What slices may run of matrices, as told and not given back: how many, and whether none
    /// begin any more.
    shares: BTreeMap<(SliceRef, u32), (u32, bool)>,
}

impl Model {
    /// Folds one directive.
    pub fn directive(&mut self, number: u64, bytes: &[u8]) {
        self.directives = number;
        let Ok(directive) = Directive::decode(number, bytes) else {
            return;
        };
        match &directive.body {
            Wanted::Upstream { slice, upstream } => {
                if let Some(model) = self.slices.get_mut(&(slice.run, slice.slice))
                    && model.slice == *slice
                {
                    model.upstream.insert(upstream.task, upstream.clone());
                } else {
                    self.waiting.insert(number, directive.body);
                }
            }
            Wanted::Assign(_) => {
                self.waiting.insert(number, directive.body);
            }
            Wanted::Cancel { run, .. } => self.marks(*run).cancelled = true,
            Wanted::Pause { run, on, .. } => self.pause(*run, *on),
            Wanted::Forget { run } => self.marks(*run).forgotten = true,
            Wanted::Release { slice } => {
                let asked = |body: &Wanted| matches!(body, Wanted::Assign(a) if a.slice == *slice);
                // what was not taken over by now is not taken over by that entry any more
                self.waiting.retain(|_, body| !asked(body));
                if let Some(model) = self.slices.get_mut(&(slice.run, slice.slice))
                    && model.slice == *slice
                {
                    model.leaving = true;
                }
            }
            Wanted::Configure(settings) => self.settings = *settings,
            Wanted::Retry { run, .. } => self.marks(*run).cancelled = false,
            Wanted::Limit(limit) => {
                let share = (limit.share, limit.stop);
                self.shares.insert((limit.slice, limit.matrix), share);
            }
            Wanted::Schedule {
                schedule,
                epoch,
                what,
                ..
            } => self
                .slots
                .order(*schedule, epoch.0, what, directive.at, false),
            Wanted::Reset { .. } | Wanted::Answer { .. } => {}
        }
    }

    /// The mark changes for what is here and for what waits to be taken over.
    fn pause(&mut self, run: RunId, on: bool) {
        self.marks(run).paused_there = on;
        for wanted in self.waiting.values_mut() {
            if let Wanted::Assign(assign) = wanted
                && assign.slice.run == run
            {
                assign.paused = on;
            }
        }
    }

    fn marks(&mut self, run: RunId) -> &mut RunMarks {
        self.runs.entry(run).or_default()
    }

    /// Folds one fact; tells what is impossible about it.
    pub fn fact(&mut self, fact: &Fact, flows: &Flows) -> Result<(), String> {
        match &fact.body {
            Body::Accepted { slice } => self.accepted(*slice),
            // it may be told again at the same epoch, with the tasks that are not over by then
            Body::Refused { directive, .. } => drop(self.waiting.remove(directive)),
            Body::Started { attempt } => return self.started(*attempt, flows),
            Body::Ended { attempt, end } => {
                if !self.open.remove(attempt) {
                    return Err(format!("an end of {attempt:?}, which has no open start"));
                }
                if self.ended.insert(*attempt, end.outcome).is_some() {
                    return Err(format!("a second end of {attempt:?}"));
                }
                if let Some(task) = self.task(attempt.slice, attempt.task) {
                    task.state = end.task;
                    task.outputs.clone_from(&end.outputs);
                }
            }
            Body::Moved {
                slice, task, to, ..
            } => {
                if let Some(task) = self.task(*slice, *task) {
                    if task.state == TaskState::Succeeded {
                        return Err(format!("{slice:?} moved a task that succeeded to {to}"));
                    }
                    task.state = *to;
                }
            }
            Body::Answered {
                slice,
                task,
                answer,
                not,
            } if not.is_none() => {
                return self.answered((*slice, *task), answer, flows);
            }
            Body::Released { slice, .. } => {
                if let Some(model) = self.slices.get_mut(&(slice.run, slice.slice))
                    && model.slice == *slice
                {
                    model.released = true;
                }
            }
            Body::Submitted { slice, .. } => self.submitted(*slice, flows),
            Body::Limited {
                slice,
                matrix,
                held,
                ..
            } => {
                if let Some((share, _)) = self.shares.get_mut(&(*slice, *matrix)) {
                    *share = (*held).min(*share);
                }
            }
            Body::CancelledHere { run, .. } => self.marks(*run).cancelled = true,
            Body::PausedHere { run, on, .. } => self.marks(*run).paused_here = *on,
            _ => return self.about_slots(fact, flows),
        }
        Ok(())
    }

    /// Folds a fact about a schedule.
    fn about_slots(&mut self, fact: &Fact, flows: &Flows) -> Result<(), String> {
        match &fact.body {
            Body::Fired {
                schedule, slice, ..
            } => {
                let open = self.open_runs(*schedule);
                let judged = self.slots.fired(&fact.body, fact.at.wall, &open);
                self.submitted(*slice, flows);
                return judged;
            }
            Body::SlotsSkipped {
                schedule,
                epoch,
                skipped,
            } => {
                let (id, open) = ((*schedule, epoch.0), self.open_runs(*schedule));
                return self.slots.skipped(id, skipped, fact.at.wall, &open);
            }
            Body::ScheduleAsked { schedule, what, .. } => {
                let held = self.slots.held.get(schedule);
                let epoch = held.map_or(0, |held| held.epoch);
                self.slots.order(*schedule, epoch, what, fact.at.wall, true);
            }
            Body::SliceDone { slice } if self.slots.runs.contains_key(&slice.run) => {
                self.slots.done.insert(slice.run);
            }
            _ => {}
        }
        Ok(())
    }

    /// An answer counts: exactly one, and not before the question was put.
    fn answered(
        &mut self,
        (slice, task): (SliceRef, TaskIdx),
        answer: &Answer,
        flows: &Flows,
    ) -> Result<(), String> {
        let flow = flows.get(&slice.run).ok_or("a run nobody planned")?;
        let spec = &flow.workflow.tasks[task.0 as usize];
        let Some(approval) = spec.approval() else {
            return Err(format!(
                "task {} of {slice:?} was answered and asks nobody",
                task.0
            ));
        };
        let marks = self.runs.get(&slice.run).copied().unwrap_or_default();
        if marks.cancelled {
            return Err(format!(
                "task {} of {slice:?} was answered after a cancel",
                task.0
            ));
        }
        let held = self.slices.get(&(slice.run, slice.slice));
        let held = held.filter(|model| model.slice == slice && !model.released);
        let verdict = held.map(|model| model.verdict(&flow.workflow, task));
        if verdict != Some(Verdict::Run) {
            return Err(format!(
                "task {} of {slice:?} was answered although its needs say {verdict:?}",
                task.0
            ));
        }
        let outputs = vec![approval.output(answer); spec.outputs.len()];
        let Some(known) = self.task(slice, task) else {
            return Err(format!("task {} is not of {slice:?}", task.0));
        };
        if known.state.is_final() {
            return Err(format!("task {} of {slice:?} was answered twice", task.0));
        }
        (known.state, known.outputs) = match answer.yes {
            true => (TaskState::Succeeded, outputs),
            false => (TaskState::Failed, Vec::new()),
        };
        Ok(())
    }

    fn task(&mut self, slice: SliceRef, task: TaskIdx) -> Option<&mut TaskModel> {
        let model = self.slices.get_mut(&(slice.run, slice.slice))?;
        (model.slice == slice).then(|| model.tasks.get_mut(&task))?
    }

    fn accepted(&mut self, slice: SliceRef) {
        self.taken.insert(slice);
        let assign = self
            .waiting
            .iter()
            .find_map(|(number, wanted)| match wanted {
                Wanted::Assign(assign) if assign.slice == slice => Some((*number, assign.clone())),
                _ => None,
            });
        let Some((number, assign)) = assign else {
            return;
        };
        self.waiting.remove(&number);
        self.marks(slice.run).paused_there = assign.paused;
        let here = self.slices.get(&(slice.run, slice.slice));
        if here.is_some_and(|model| model.slice == slice) {
            // the same assignment again, after a reset of the log
            return;
        }
        let mut model = SliceModel {
            slice,
            tasks: assign.tasks.iter().map(|task| (*task, fresh())).collect(),
            upstream: BTreeMap::new(),
            leaving: false,
            released: false,
        };
        for done in assign.done.iter().chain(&assign.upstream) {
            if let Some(task) = model.tasks.get_mut(&done.task) {
                task.state = done.state;
                task.outputs.clone_from(&done.outputs);
            } else {
                model.upstream.insert(done.task, done.clone());
            }
        }
        self.waiting.retain(|_, wanted| match wanted {
            Wanted::Upstream {
                slice: told,
                upstream,
            } if *told == slice => {
                model.upstream.insert(upstream.task, upstream.clone());
                false
            }
            _ => true,
        });
        self.slices.insert((slice.run, slice.slice), model);
    }

    /// Whether somebody asked for the end of a run, by what is durable here.
    #[must_use]
    pub fn is_cancelled(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|marks| marks.cancelled)
    }

    /// Whether the coordinator let it forget a run, by what is durable here.
    #[must_use]
    pub fn is_forgotten(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|marks| marks.forgotten)
    }

    /// Whether something of a run is here that was not given up.
    #[must_use]
    pub fn has_of(&self, run: RunId) -> bool {
        let mut slices = self.slices.range((run, 0)..=(run, u32::MAX));
        slices.any(|(_, model)| !model.released)
    }

    /// The runs of a schedule that are not over, or of which that was not said yet.
    fn open_runs(&self, id: ScheduleId) -> Vec<OpenRun> {
        let runs = self.slots.runs.iter().filter(|(_, run)| run.0 == id);
        let open = runs.filter_map(|(run, _)| {
            let model = self.slices.get(&(*run, 0))?;
            let over = model.tasks.values().all(|task| task.state.is_final());
            let said = self.slots.done.contains(run);
            let cancelled = self.runs.get(run).is_some_and(|marks| marks.cancelled);
            let open = !(model.released || over && said || self.has_left(*run));
            open.then_some(OpenRun { over, cancelled })
        });
        open.collect()
    }

    /// Whether a run that is to be forgotten is gone: with the last of its attempts that runs here,
    /// without a word of its own. The coordinator may forget what ended there and never here: a
    /// task that is lost with the silence of this node.
    fn has_left(&self, run: RunId) -> bool {
        self.is_forgotten(run) && !self.open.iter().any(|attempt| attempt.slice.run == run)
    }

    /// Whether a run of a schedule is not over here.
    #[must_use]
    pub fn has_open_run(&self, id: ScheduleId) -> bool {
        !self.open_runs(id).is_empty()
    }

    fn submitted(&mut self, slice: SliceRef, flows: &Flows) {
        let Some(flow) = flows.get(&slice.run) else {
            return;
        };
        let tasks = (0..flow.workflow.tasks.len() as u32)
            .map(|task| (TaskIdx(task), fresh()))
            .collect();
        let model = SliceModel {
            slice,
            tasks,
            upstream: BTreeMap::new(),
            leaving: false,
            released: false,
        };
        self.slices.insert((slice.run, slice.slice), model);
    }

    fn started(&mut self, attempt: AttemptRef, flows: &Flows) -> Result<(), String> {
        if self.ended.contains_key(&attempt) || !self.open.insert(attempt) {
            return Err(format!("{attempt:?} started a second time"));
        }
        let slice = attempt.slice;
        let marks = self.runs.get(&slice.run).copied().unwrap_or_default();
        let Some(model) = self.slices.get(&(slice.run, slice.slice)) else {
            return Err(format!("{attempt:?} started without its slice"));
        };
        if model.slice != slice {
            return Err(format!(
                "{attempt:?} started, but {:?} is here",
                model.slice
            ));
        }
        if model.released {
            return Err(format!("{attempt:?} started after the slice was released"));
        }
        if marks.cancelled {
            return Err(format!("{attempt:?} started after its run was cancelled"));
        }
        if marks.paused_there || marks.paused_here {
            return Err(format!("{attempt:?} started while its run was paused"));
        }
        let flow = flows.get(&slice.run).ok_or("a run nobody planned")?;
        if flow.workflow.tasks[attempt.task.0 as usize]
            .approval()
            .is_some()
        {
            return Err(format!("{attempt:?} started, which asks a person"));
        }
        let verdict = model.verdict(&flow.workflow, attempt.task);
        if verdict != Verdict::Run {
            return Err(format!(
                "{attempt:?} started although its needs say {verdict:?}: {}",
                model.needs(&flow.workflow, attempt.task)
            ));
        }
        if let Some(why) = self.limited(slice, attempt.task, &flow.workflow) {
            return Err(format!("{attempt:?} started although {why}"));
        }
        let Some(task) = self.task(slice, attempt.task) else {
            return Err(format!("{attempt:?} started, not a task of its slice"));
        };
        if task.state.is_final() || task.state == TaskState::Running {
            return Err(format!("{attempt:?} started while it was {}", task.state));
        }
        task.state = TaskState::Running;
        task.started += 1;
        Ok(())
    }

    /// What the limits of its matrix say against a start of a task.
    fn limited(&self, slice: SliceRef, task: TaskIdx, workflow: &Workflow) -> Option<String> {
        let (number, matrix) = workflow.matrix_of(task)?;
        let model = self.slices.get(&(slice.run, slice.slice))?;
        let of = |task: &TaskIdx| workflow.tasks[task.0 as usize].matrix == Some(number);
        let count = |state: TaskState| {
            let members = model.tasks.iter().filter(|(task, _)| of(task));
            members.filter(|(_, known)| known.state == state).count() as u32
        };
        let told = self.shares.get(&(slice, number)).copied();
        let (running, failed) = (count(TaskState::Running), count(TaskState::Failed));
        let ours = slice.epoch.0 == 0;
        let share = match matrix.max_parallel {
            Some(most) if ours => most,
            Some(_) => told.map_or(0, |(share, _)| share),
            None => u32::MAX,
        };
        let stopped = told.is_some_and(|(_, stop)| stop)
            || matrix.max_fails.is_some_and(|most| failed > most);
        (running >= share || stopped)
            .then(|| format!("{running} of its share of {share} run, {failed} failed"))
    }

    /// Tasks that may start now as far as records tell, files and resources apart. What the
    /// coordinator asked back starts no more, also while its outputs are still on the way.
    #[must_use]
    pub fn startable(&self, flows: &Flows) -> Vec<(SliceRef, TaskIdx)> {
        let mut out = Vec::new();
        let stays = |model: &&SliceModel| !model.released && !model.leaving;
        for model in self.slices.values().filter(stays) {
            let run = model.slice.run;
            let marks = self.runs.get(&run).copied().unwrap_or_default();
            let Some(flow) = flows.get(&run) else {
                continue;
            };
            if marks.cancelled || marks.paused_there || marks.paused_here || marks.forgotten {
                continue;
            }
            for (task, known) in &model.tasks {
                let waits = matches!(known.state, TaskState::Blocked | TaskState::Ready);
                if waits
                    && flow.workflow.tasks[task.0 as usize].approval().is_none()
                    && model.verdict(&flow.workflow, *task) == Verdict::Run
                    && model.inputs_known(&flow.workflow, *task)
                    && self.limited(model.slice, *task, &flow.workflow).is_none()
                {
                    out.push((model.slice, *task));
                }
            }
        }
        out
    }

    /// Runs of which a task stands here until a person decides about it.
    pub fn waiting_runs<'a>(&'a self, flows: &'a Flows) -> impl Iterator<Item = RunId> + 'a {
        let stands = |model: &&SliceModel| {
            let paused = |task: &TaskModel| task.state == TaskState::Paused;
            let flow = flows.get(&model.slice.run);
            let asks = |task: &TaskIdx| flow.is_some_and(|flow| model.asks(&flow.workflow, *task));
            !model.released && (model.tasks.values().any(paused) || model.tasks.keys().any(asks))
        };
        self.slices
            .values()
            .filter(stands)
            .map(|model| model.slice.run)
    }

    /// Tasks here that are not final, apart from those that wait for a person. Tasks of the runs in
    /// `waiting` may wait for a person elsewhere.
    #[must_use]
    pub fn unfinished(&self, waiting: &BTreeSet<RunId>, flows: &Flows) -> Vec<String> {
        let mut out = Vec::new();
        for model in self.slices.values().filter(|model| !model.released) {
            let run = model.slice.run;
            if self.runs.get(&run).is_some_and(|marks| marks.forgotten) {
                continue;
            }
            for (task, known) in &model.tasks {
                // one that is ready may wait for the share of one that waits for a person
                let flow = flows.get(&run);
                let member = flow.is_some_and(|flow| flow.workflow.matrix_of(*task).is_some());
                let blocked = waiting.contains(&run)
                    && (known.state == TaskState::Blocked
                        || member && known.state == TaskState::Ready);
                let person = known.state == TaskState::Paused;
                if !known.state.is_final() && !person && !blocked {
                    out.push(format!(
                        "{:?} task {} is {}",
                        model.slice, task.0, known.state
                    ));
                }
            }
        }
        out
    }
}

fn fresh() -> TaskModel {
    TaskModel {
        state: TaskState::Blocked,
        started: 0,
        outputs: Vec::new(),
    }
}

impl SliceModel {
    /// The file that output number `output` of `task` is, if it is known here.
    #[must_use]
    pub fn output(&self, task: TaskIdx, output: u32) -> Option<Hash> {
        let here = self.tasks.get(&task).map(|known| &known.outputs);
        let outputs = here.or_else(|| self.upstream.get(&task).map(|told| &told.outputs))?;
        outputs.get(output as usize).map(|file| file.hash)
    }

    /// Whether all that `task` reads was written by tasks that succeeded, as far as is known here.
    fn inputs_known(&self, workflow: &Workflow, task: TaskIdx) -> bool {
        workflow.tasks[task.0 as usize]
            .inputs
            .iter()
            .all(|input| match input.source {
                Source::Task { task, .. } => self.state_of(task) == Some(TaskState::Succeeded),
                _ => true,
            })
    }

    /// Whether `task` asks a person now.
    #[must_use]
    pub fn asks(&self, workflow: &Workflow, task: TaskIdx) -> bool {
        let here = self.tasks.get(&task);
        let open = here.is_some_and(|known| known.state == TaskState::Blocked);
        open && workflow.tasks[task.0 as usize].approval().is_some()
            && self.verdict(workflow, task) == Verdict::Run
    }

    /// For people: the trigger rule of `task` and what is known of its needs.
    #[must_use]
    pub fn needs(&self, workflow: &Workflow, task: TaskIdx) -> String {
        let spec = &workflow.tasks[task.0 as usize];
        let known: Vec<_> = spec
            .needs
            .iter()
            .map(|need| (need.0, self.tasks.contains_key(need), self.state_of(*need)))
            .collect();
        format!(
            "{:?} of {known:?}, inputs {:?}",
            spec.trigger_rule, spec.inputs
        )
    }

    fn state_of(&self, task: TaskIdx) -> Option<TaskState> {
        let here = self.tasks.get(&task).map(|known| known.state);
        here.or_else(|| self.upstream.get(&task).map(|told| told.state))
    }

    /// What the trigger rule says of `task`.
    #[must_use]
    pub fn verdict(&self, workflow: &Workflow, task: TaskIdx) -> Verdict {
        let spec = &workflow.tasks[task.0 as usize];
        if spec.when.as_ref().is_some_and(|when| !when.holds) {
            return Verdict::Never;
        }
        let states: Vec<Option<TaskState>> =
            spec.needs.iter().map(|need| self.state_of(*need)).collect();
        let done = states
            .iter()
            .all(|state| state.is_some_and(TaskState::is_final));
        let count = |wanted: &[TaskState]| {
            states
                .iter()
                .filter(|state| state.is_some_and(|state| wanted.contains(&state)))
                .count()
        };
        use TaskState::{Aborted, Cancelled, Failed, Lost, Skipped, Succeeded};
        let bad = count(&[Failed, Aborted, Cancelled, Lost]);
        let runs = match spec.trigger_rule {
            TriggerRule::AllSuccess if bad + count(&[Skipped]) > 0 => return Verdict::Never,
            TriggerRule::AllSuccess => count(&[Succeeded]) == states.len(),
            TriggerRule::AllDone => done,
            TriggerRule::OneFailed => done && count(&[Failed, Lost]) > 0,
            TriggerRule::NoneFailed if bad > 0 => return Verdict::Never,
            TriggerRule::NoneFailed => done,
        };
        match (runs, done) {
            (true, _) => Verdict::Run,
            (false, true) => Verdict::Never,
            (false, false) => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::{Epoch, Generation};
    use shared::time::Unix;

    #[test]
    fn a_run_to_be_forgotten_is_open_until_its_last_attempt_ends() {
        let (id, run) = (ScheduleId([1; 16]), RunId([2; 16]));
        let slice = SliceRef {
            run,
            slice: 0,
            epoch: Epoch::LOCAL,
        };
        let mut model = Model::default();
        model.slots.runs.insert(run, (id, 0));
        let held = SliceModel {
            slice,
            tasks: BTreeMap::from([(TaskIdx(0), fresh())]),
            upstream: BTreeMap::new(),
            leaving: false,
            released: false,
        };
        model.slices.insert((run, 0), held);
        let attempt = AttemptRef {
            slice,
            task: TaskIdx(0),
            number: 1,
        };
        model.open.insert(attempt);
        let forget = Directive {
            at: Unix(0),
            generation: Generation(0),
            body: Wanted::Forget { run },
        };
        model.directive(1, &forget.encode());
        assert!(model.has_open_run(id), "an attempt of it still runs");
        model.open.remove(&attempt);
        assert!(!model.has_open_run(id));
    }
}
