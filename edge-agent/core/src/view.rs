//! What people and programs see of the agent's state, offline too. Field names are part of the
//! interface (`--json`) and stay.

use crate::agent::Agent;
use crate::rest::Rest;
use crate::slice::Slice;
use crate::state::{SliceKey, TaskKey};
use crate::sync::SyncPaused;
use serde::{Deserialize, Serialize};
use shared::explain::Reason;
use shared::ids::{AttemptRef, RunId, TaskIdx};
use shared::planted::{self, Mistake};
use shared::state::TaskState;
use shared::time::Unix;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The agent as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub node: String,
    /// The life of its data directory.
    pub incarnation: String,
    /// `online`, `connecting`, `offline`, `paused`, or `alone` without a coordinator.
    pub link: String,
    /// Why the link is down, for people.
    pub trouble: Option<String>,
    /// Session numbers are below this.
    pub session: u64,
    /// Number of the last fact.
    pub facts: u64,
    /// Facts that the coordinator did not acknowledge yet.
    pub behind: u64,
    /// Facts up to here are in a backup of the coordinator, if it makes some.
    pub safe: Option<u64>,
    /// Number of the last directive.
    pub directives: u64,
    /// Boots of the machine within the incarnation.
    pub boots: u32,
    /// Number of tasks in each state, over all runs.
    pub tasks: BTreeMap<String, u64>,
    /// Attempts that hold a slot, and slots in all.
    pub slots: (u32, u32),
    /// Files waited for.
    pub files_missing: u64,
    /// Files to be brought to the coordinator.
    pub uploads: u64,
    /// Whether there is room on the disk for more work.
    pub room: bool,
    /// Whether the wall clock was set since the machine booted.
    pub clock_trusted: bool,
    /// What holds where specifications say nothing: name and value, as in the configuration.
    pub scheduler: BTreeMap<String, String>,
    /// A person lets nothing be sent.
    pub sync_paused: Option<SyncPaused>,
}

/// A run, as far as it is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Name of its workflow.
    pub workflow: String,
    /// Submitted at this gateway.
    pub local: bool,
    /// Who asked for its end.
    pub cancel: Option<String>,
    /// Whether a pause mark stands.
    pub paused: bool,
    /// Number of tasks in each state.
    pub tasks: BTreeMap<String, u64>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The run.
    pub run: RunId,
    /// Its id in the specification.
    pub task: String,
    /// Its position in the workflow.
    pub index: TaskIdx,
    /// Its state's text.
    pub state: String,
    /// Why.
    pub reason: String,
    /// Name of this node.
    pub node: String,
    /// Attempts that were executed, those of earlier epochs included.
    pub attempts: u32,
    /// Number of the last attempt in this epoch.
    pub number: u32,
    /// Epoch of its slice.
    pub epoch: u64,
    /// Its outputs if it succeeded.
    pub outputs: Vec<OutputFile>,
    /// Exit code of the last attempt, or minus the signal's number.
    pub exit: Option<i32>,
    /// When the last attempt began.
    pub began: Option<Unix>,
    /// Since when it is in this state, by the last fact about it.
    pub since: Option<Unix>,
}

/// An output of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Its name.
    pub name: String,
    /// Its path below the attempt's directory.
    pub path: String,
    /// Its content, `ALGORITHM:HEX`.
    pub hash: String,
    /// Bytes.
    pub size: u64,
}

/// Why a task runs, or does not run yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explain {
    /// The task.
    pub task: Task,
    /// In one sentence, for people.
    pub summary: String,
    /// Tasks that it waits for.
    pub waits_for: Vec<String>,
    /// The decisions that are remembered, oldest first.
    pub decisions: Vec<Decision>,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its id.
    pub decision_id: String,
    /// When.
    pub at: Unix,
    /// What was decided about.
    pub action: String,
    /// Why.
    pub reason: String,
    /// 1 where a rule decided.
    pub confidence: f64,
    /// The numbers that decided, `name=value`.
    pub evidence: Vec<String>,
    /// How often it was decided the same way again.
    pub repeats: u32,
}

impl Agent {
    /// The agent as a whole.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut tasks = BTreeMap::new();
        for slice in self.state.slices.values() {
            tally(slice, &mut tasks);
        }
        for rest in self.state.resting.values() {
            tally_at_rest(rest, &mut tasks);
        }
        Status {
            name: self.config.name.clone(),
            node: self.config.node.to_string(),
            incarnation: self.config.incarnation.to_string(),
            link: self.link_text().to_owned(),
            trouble: self.link.trouble.clone(),
            session: self.link.next,
            facts: self.state.facts,
            behind: self.behind(),
            safe: self.link.safe,
            directives: self.state.directives,
            boots: self.state.boots,
            tasks,
            slots: (self.usage.slots, self.config.slots),
            files_missing: self.files.wanted.len() as u64,
            uploads: self.files.backlog() as u64,
            room: self.has_room(),
            clock_trusted: self.clock_trusted,
            scheduler: self.settings().texts(),
            sync_paused: self.sync_paused(),
        }
    }

    /// The agent in a few words, as a service manager shows them. Costs the same however many tasks
    /// there are.
    #[must_use]
    pub fn headline(&self) -> String {
        let running = self.usage.slots;
        let text = format!("link: {}, {running} tasks run", self.link_text());
        if self.config.has_coordinator {
            return format!("{text}, {} facts to bring back", self.behind());
        }
        text
    }

    /// Facts that the coordinator did not acknowledge yet.
    fn behind(&self) -> u64 {
        self.state.facts.saturating_sub(self.link.acked)
    }

    /// The runs that are here.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        let view = |(id, run): (&RunId, &crate::state::Run)| {
            let mut tasks = BTreeMap::new();
            let mut workflow = String::new();
            for (_, slice) in self.state.slices_of(*id) {
                workflow.clone_from(&slice.workflow.name);
                tally(slice, &mut tasks);
            }
            for (_, rest) in self.state.resting.range((*id, 0)..=(*id, u32::MAX)) {
                rest.name.as_ref().clone_into(&mut workflow);
                tally_at_rest(rest, &mut tasks);
            }
            Run {
                id: *id,
                workflow,
                local: run.local,
                cancel: run.cancel.clone(),
                paused: run.paused_here || run.paused_there,
                tasks,
            }
        };
        self.state.runs.iter().map(view).collect()
    }

    /// The tasks that are here; without `all` only those that are not final.
    #[must_use]
    pub fn ps(&self, all: bool) -> Vec<Task> {
        let tasks = self.ps_behind(all, None, usize::MAX).into_iter();
        tasks.map(|(_, task)| task).collect()
    }

    /// Whether a task of this id is here and not over.
    #[must_use]
    pub fn is_open(&self, run: RunId, id: &str) -> bool {
        let open =
            |slice: &Slice, pos| slice.task(pos).id == id && !slice.slot(pos).state.is_final();
        let slices = self.state.slices.range((run, 0)..=(run, u32::MAX));
        slices
            .map(|(_, slice)| slice)
            .any(|slice| (0..slice.slots.len() as u32).any(|pos| open(slice, pos)))
    }

    /// The next tasks behind `after`, `most` at most, by run, slice and position.
    #[must_use]
    pub fn ps_behind(
        &self,
        all: bool,
        after: Option<TaskKey>,
        most: usize,
    ) -> Vec<(TaskKey, Task)> {
        let first = after.map_or((RunId([0; 16]), 0), |after| after.slice);
        let awake = self.state.slices.range(first..).map(|(at, _)| *at);
        let mut slices: BTreeSet<SliceKey> = awake.collect();
        if all {
            let at_rest = self.state.resting.range(first..);
            slices.extend(at_rest.map(|(at, _)| *at));
        }
        let mut tasks = Vec::new();
        for at in slices {
            let Some(slice) = self.state.slice(at) else {
                continue;
            };
            let behind = after.filter(|after| after.slice == at);
            for pos in behind.map_or(0, |after| after.pos + 1)..slice.slots.len() as u32 {
                if tasks.len() >= most {
                    return tasks;
                }
                if all || !slice.slot(pos).state.is_final() {
                    let key = TaskKey { slice: at, pos };
                    tasks.push((key, self.view_task(key, &slice)));
                }
            }
        }
        tasks
    }

    /// The position of a task by its id in the specification.
    #[must_use]
    pub fn find(&self, run: RunId, id: &str) -> Option<TaskIdx> {
        self.locate(run, id)
            .map(|(key, slice)| slice.index[key.pos as usize])
    }

    /// Why a task runs, or why it does not run yet.
    #[must_use]
    pub fn explain(&self, run: RunId, id: &str) -> Option<Explain> {
        let (key, slice) = self.locate(run, id)?;
        let task = self.view_task(key, &slice);
        let waits_for = self.awaited(&slice, key);
        let idx = slice.index[key.pos as usize];
        let notes = self.notes.about(key, slice.id, idx);
        let decisions = notes.into_iter().enumerate().map(|(n, note)| {
            let decision = note.decision();
            let text = |item: shared::explain::Evidence| format!("{}={}", item.name, item.value);
            Decision {
                decision_id: format!("{}/{}.{n}", self.config.name, note.fact),
                at: note.at,
                action: decision.action.text().to_owned(),
                reason: decision.reason.text().to_owned(),
                confidence: f64::from(decision.confidence_milli) / 1000.0,
                evidence: decision.evidence.into_iter().map(text).collect(),
                repeats: decision.repeats,
            }
        });
        let decisions = decisions.collect();
        let mut summary = self.summary(&task, &waits_for, key);
        if planted::on(Mistake::NoReason) && !self.link.online() {
            summary.clear();
        }
        Some(Explain {
            task,
            summary,
            waits_for,
            decisions,
        })
    }

    fn locate(&self, run: RunId, id: &str) -> Option<(TaskKey, Cow<'_, Slice>)> {
        let at_rest = self.state.resting.range((run, 0)..=(run, u32::MAX));
        let awake = self.state.slices_of(run).map(|(at, _)| *at);
        let mut slices = awake.chain(at_rest.map(|(at, _)| *at));
        slices.find_map(|at| {
            let slice = self.state.slice(at)?;
            let pos = (0..slice.slots.len() as u32).find(|pos| slice.task(*pos).id == id)?;
            Some((TaskKey { slice: at, pos }, slice))
        })
    }

    fn summary(&self, task: &Task, waits_for: &[String], key: TaskKey) -> String {
        let what = format!("{} is {}", task.task, task.state);
        let question = self.state.slices.get(&key.slice);
        if let Some((approval, true)) = question.and_then(|slice| slice.question(key.pos)) {
            return format!("{what}: it asks a person: {}", approval.prompt);
        }
        let silent = self.silence_told().unwrap_or_default();
        if !waits_for.is_empty() {
            let slice = self.state.slices.get(&key.slice);
            let elsewhere = slice.is_some_and(|slice| self.waits_elsewhere(slice, key));
            let silent = if elsewhere { silent } else { String::new() };
            return format!("{what}: it waits for {}{silent}", waits_for.join(", "));
        }
        match self.files.missing(key).count() {
            0 => format!("{what}: {}", task.reason.replace('_', " ")),
            n => format!("{what}: {n} of its input files are not here yet{silent}"),
        }
    }

    fn awaited(&self, slice: &Slice, key: TaskKey) -> Vec<String> {
        if slice.slot(key.pos).state != TaskState::Blocked {
            return Vec::new();
        }
        let unfinal = |need: &&TaskIdx| {
            slice
                .end_of(**need)
                .is_none_or(|(state, _)| !state.is_final())
        };
        let name = |need: &TaskIdx| slice.workflow.tasks[need.0 as usize].id.clone();
        slice
            .task(key.pos)
            .needs
            .iter()
            .filter(unfinal)
            .map(name)
            .collect()
    }

    /// State and reason as shown: a task that could start stands for a reason that is not in the
    /// fold.
    fn shown(&self, key: TaskKey, slice: &Slice) -> (TaskState, Reason) {
        let slot = slice.slot(key.pos);
        match slot.state {
            TaskState::Ready if slice.releasing => (TaskState::Ready, Reason::Superseded),
            TaskState::Ready if self.state.paused(key.slice.0) => {
                (TaskState::Paused, Reason::PausedByPerson)
            }
            TaskState::Ready if self.files.missing(key).next().is_some() => {
                (TaskState::Blocked, Reason::WaitsForFile)
            }
            TaskState::Ready if !self.has_room() => (TaskState::Ready, Reason::WaitsForDisk),
            TaskState::Ready if let Some((reason, ..)) = self.pressed() => {
                (TaskState::Ready, reason)
            }
            TaskState::Ready if self.limit_of(key).is_some() => {
                (TaskState::Ready, Reason::WaitsForLimit)
            }
            TaskState::Ready => {
                let never = self
                    .config
                    .capacity
                    .lacks(&slice.task(key.pos).resources)
                    .is_some();
                let reason = if never {
                    Reason::DoesNotFit
                } else {
                    Reason::WaitsForResources
                };
                (TaskState::Ready, reason)
            }
            TaskState::Blocked if slot.reason == Reason::WaitsForPerson => {
                (slot.state, slot.reason)
            }
            TaskState::Blocked => (TaskState::Blocked, Reason::WaitsForTasks),
            TaskState::Retrying => (TaskState::Retrying, Reason::WaitsForRetry),
            state => (state, slot.reason),
        }
    }

    /// When the last attempt began: as its end says, or as the executor says while it runs. A start
    /// that is only committed ahead has not begun.
    fn began(&self, key: TaskKey, slice: &Slice) -> Option<Unix> {
        let slot = slice.slot(key.pos);
        if slot.state != TaskState::Running {
            return slot.began.map(|at| at.wall);
        }
        let attempt = AttemptRef {
            slice: slice.id,
            task: slice.index[key.pos as usize],
            number: slot.attempts,
        };
        let began = self.attempts.get(&attempt)?.began?;
        let since = i64::try_from((self.now.mono - began).0).unwrap_or(i64::MAX);
        Some(Unix(self.now.wall.0.saturating_sub(since)))
    }

    fn view_task(&self, key: TaskKey, slice: &Slice) -> Task {
        let (slot, spec) = (slice.slot(key.pos), slice.task(key.pos));
        let (state, reason) = self.shown(key, slice);
        let output =
            |(declared, file): (&shared::workflow::Output, &shared::fact::OutputFile)| OutputFile {
                name: declared.name.clone(),
                path: declared.path.clone(),
                hash: file.hash.to_string(),
                size: file.size,
            };
        Task {
            run: key.slice.0,
            task: spec.id.clone(),
            index: slice.index[key.pos as usize],
            state: state.text().to_owned(),
            reason: reason.text().to_owned(),
            node: self.config.name.clone(),
            attempts: slot.used + u32::from(slot.state == TaskState::Succeeded),
            number: slot.attempts,
            epoch: slice.id.epoch.0,
            outputs: spec.outputs.iter().zip(&slot.outputs).map(output).collect(),
            exit: slot.exit,
            began: self.began(key, slice),
            since: slot.since.map(|at| at.wall),
        }
    }
}

fn tally(slice: &Slice, tasks: &mut BTreeMap<String, u64>) {
    for slot in &slice.slots {
        *tasks.entry(slot.state.text().to_owned()).or_default() += 1;
    }
}

fn tally_at_rest(rest: &Rest, tasks: &mut BTreeMap<String, u64>) {
    for (state, count) in &rest.counts {
        *tasks.entry(state.text().to_owned()).or_default() += u64::from(*count);
    }
}
