//! Retry: a person lets tasks run again that ended. Each part that holds one of them is given up by
//! its node first, and only when that is confirmed everywhere do they become work for new slices at
//! new epochs, so that no former owner can go on with them.

use super::{Asked, At, NONE, Run, Slice, Stage};
use crate::effects::Effects;
use crate::event::Refused;
use crate::inbox::Message;
use serde::{Deserialize, Serialize};
use shared::explain::{DecisionKind, Evidence, Reason};
use shared::fact::{Outcome, OutputFile};
use shared::ids::{NodeId, TaskIdx};
use shared::state::TaskState;
use shared::time::Unix;
use shared::wire::LogId;
use shared::workflow::{SideEffects, Source};
use std::collections::BTreeSet;

/// A retry that is under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Retry {
    /// Who asked, and when.
    pub asked: Asked,
    /// The tasks that will run again.
    pub tasks: BTreeSet<TaskIdx>,
    /// The task that was named, if one was: it runs again also if it is in doubt.
    pub named: Option<TaskIdx>,
    /// Slices that must be given up before.
    pub slices: BTreeSet<u32>,
}

impl Run {
    /// A person lets what failed run again (and what fell with it), or a task and all behind it.
    ///
    /// # Errors
    /// [`Refused::State`]: the run cannot be retried, or there is nothing to run again.
    pub fn retry(
        &mut self,
        at: At<'_>,
        from: Option<TaskIdx>,
        asked: Asked,
        fx: &mut Effects,
    ) -> Result<(), Refused> {
        self.can_retry(at)?;
        let tasks = match from {
            Some(task) => self.behind(task)?,
            None => self.fallen(),
        };
        if tasks.is_empty() {
            let text = "nothing of the run failed, was cancelled or is lost; what is in doubt is \
                        named: --from TASK";
            return Err(Refused::State(text.to_owned()));
        }
        let tasks = match self.head.state.is_final() {
            true => self.with_what_went(at, tasks)?,
            false => tasks,
        };
        let body = self.body.as_ref();
        let slices: BTreeSet<u32> = tasks
            .iter()
            .filter_map(|t| Some(body?.tasks[t.0 as usize].slice))
            .filter(|n| {
                self.head
                    .slices
                    .get(*n as usize)
                    .is_some_and(|s| s.counts())
            })
            .collect();
        for number in &slices {
            let known = &mut self.head.slices[*number as usize];
            let (node, incarnation) = (known.node, known.incarnation);
            if self.head.gone_logs.contains(&LogId { node, incarnation }) {
                known.stage = Stage::Lost;
            }
            if matches!(known.stage, Stage::Releasing | Stage::Lost) {
                continue;
            }
            known.stage = Stage::Releasing;
            let slice = self.slice_ref(*number);
            self.send(node, Message::Release { slice }, fx);
        }
        let at = asked.at;
        self.head.retry = Some(Retry {
            asked,
            tasks,
            named: from,
            slices,
        });
        self.refresh(at);
        Ok(())
    }

    /// With those tasks whose outputs these need, and which are not there any more: since the run
    /// was over they went to make room, or with the node that alone had them.
    fn with_what_went(
        &self,
        at: At<'_>,
        mut tasks: BTreeSet<TaskIdx>,
    ) -> Result<BTreeSet<TaskIdx>, Refused> {
        let Some(body) = &self.body else {
            return Ok(tasks);
        };
        let mut work: Vec<TaskIdx> = tasks.iter().copied().collect();
        while let Some(task) = work.pop() {
            let spec = &body.workflow.tasks[task.0 as usize];
            for input in &spec.inputs {
                let (from, output) = match input.source {
                    Source::Task { task, output } => (task, output as usize),
                    Source::Sent { hash, .. } if !at.files.contains_key(&hash) => {
                        let text = format!(
                            "the file of input '{}' of task {} went to make room: submit the \
                             workflow anew",
                            input.name, spec.id
                        );
                        return Err(Refused::State(text));
                    }
                    Source::Sent { .. } | Source::NodeFile(_) => continue,
                };
                let row = &body.tasks[from.0 as usize];
                // a node that gives its part up brings what the part itself was to read
                let apart = row.slice != body.tasks[task.0 as usize].slice;
                let brought = !apart && !self.is_gone(row.slice);
                let went = |f: &OutputFile| !at.files.contains_key(&f.hash);
                if tasks.contains(&from) || brought || !row.outputs.get(output).is_some_and(went) {
                    continue;
                }
                if self.doubtful(from) {
                    let id = &body.workflow.tasks[from.0 as usize].id;
                    let text = format!(
                        "what task {id} made is needed and is not there any more, and it must not \
                         run twice (side_effects: at_most_once)"
                    );
                    return Err(Refused::State(text));
                }
                tasks.insert(from);
                work.push(from);
            }
        }
        Ok(tasks)
    }

    /// Whether no node has a slice any more that it could give up.
    fn is_gone(&self, slice: u32) -> bool {
        let gone = |slice: &Slice| self.head.gone_logs.iter().any(|log| slice.is_of(*log));
        let slice = self.head.slices.get(slice as usize);
        slice.is_none_or(|slice| slice.stage == Stage::Released || gone(slice))
    }

    fn can_retry(&self, at: At<'_>) -> Result<(), Refused> {
        let head = &self.head;
        let text = if !head.known {
            "the run is known only from facts that name it".to_owned()
        } else if head.origin.is_some() {
            "the run was submitted at a gateway and belongs to it: `driftless-agent retry` there"
                .to_owned()
        } else if head.held || at.hold.is_some() && head.state.is_final() {
            // what was over in the backup may run again at a node that was not heard
            "old runs are held after a restore until all nodes were heard: `driftless waits list` \
             names them"
                .to_owned()
        } else if head.forgetting.is_some() {
            "the run is being forgotten".to_owned()
        } else if let Some(retry) = &head.retry {
            format!("a retry by {} is under way", retry.asked.by)
        } else if head.cancel.is_some() && !head.state.is_final() {
            "the run is being cancelled; retry it when that is done".to_owned()
        } else {
            return Ok(());
        };
        Err(Refused::State(text))
    }

    /// What failed, was cancelled or is lost, or was not begun because too many failed, and what
    /// fell with it. Not what is in doubt: that is
    /// for a person to name.
    fn fallen(&self) -> BTreeSet<TaskIdx> {
        let Some(body) = &self.body else {
            return BTreeSet::new();
        };
        use TaskState::{Cancelled, Failed, Lost};
        let rows = (0u32..).zip(&body.tasks);
        let mut work: Vec<TaskIdx> = rows
            .filter(|(_, row)| {
                let unbegun = row.reason == Some(Reason::TooManyFailed);
                matches!(row.state, Failed | Cancelled | Lost) || unbegun
            })
            .map(|(t, _)| TaskIdx(t))
            .filter(|t| !self.doubtful(*t))
            .collect();
        let mut all = BTreeSet::new();
        while let Some(task) = work.pop() {
            if !all.insert(task) {
                continue;
            }
            work.extend(body.dependents[task.0 as usize].iter().filter(|t| {
                let row = &body.tasks[t.0 as usize];
                let skipped = row.state == TaskState::Skipped;
                row.state == TaskState::Aborted || skipped && row.reason != Some(Reason::WhenFalse)
            }));
        }
        all
    }

    /// A task that ended, and all behind it. What must not run twice is not run again by the way.
    fn behind(&self, first: TaskIdx) -> Result<BTreeSet<TaskIdx>, Refused> {
        let Some(body) = &self.body else {
            return Ok(BTreeSet::new());
        };
        let row = &body.tasks[first.0 as usize];
        if !row.state.is_final() {
            let text = format!("the task is {}: only what has ended runs again", row.state);
            return Err(Refused::State(text));
        }
        let mut all = BTreeSet::new();
        let mut work = vec![first];
        while let Some(task) = work.pop() {
            if !all.insert(task) {
                continue;
            }
            let spec = &body.workflow.tasks[task.0 as usize];
            let row = &body.tasks[task.0 as usize];
            let named = task == first && row.state != TaskState::Succeeded;
            if self.doubtful(task) && !named {
                let text = format!(
                    "task {} is {} and must not run twice (side_effects: at_most_once)",
                    spec.id, row.state
                );
                return Err(Refused::State(text));
            }
            work.extend(body.dependents[task.0 as usize].iter().copied());
        }
        Ok(all)
    }

    /// Whether it must not run twice and may have done what it is for, or a part of it.
    fn doubtful(&self, task: TaskIdx) -> bool {
        let Some(body) = &self.body else { return true };
        let spec = &body.workflow.tasks[task.0 as usize];
        let row = &body.tasks[task.0 as usize];
        let idle =
            |a: &super::AttemptRow| matches!(a.outcome, Some(Outcome::Failed | Outcome::NotBegun));
        let in_doubt = row.state == TaskState::Lost && row.reason == Some(Reason::InDoubt);
        let once = spec.side_effects == SideEffects::AtMostOnce;
        once && (in_doubt || self.unheard(row) || !row.history.iter().all(idle))
    }

    /// Whether a task was ended over the head of its owner, which has not confirmed yet that it
    /// gave it up: it may have begun or done the task, and its facts about that are still to come.
    fn unheard(&self, row: &super::TaskRow) -> bool {
        let slice = self.head.slices.get(row.slice as usize);
        slice.is_some_and(|slice| {
            let ended = match row.state {
                TaskState::Lost => true,
                TaskState::Cancelled => !slice.cancelled,
                _ => false,
            };
            ended && slice.stage == Stage::Lost
        })
    }

    /// Everything on an incarnation of a node is gone. Nobody reads what a run made that is over,
    /// unless it is let run again: parts of it that are done there are given up by nobody then.
    pub fn node_gone(&mut self, log: LogId, why: Reason) {
        self.head.gone_logs.insert(log);
        self.head.losses.push((log, why));
    }

    /// Nodes that are gone are lost here, as far as all that they brought is folded.
    pub fn lose(&mut self, at: At<'_>, fx: &mut Effects) {
        for (log, why) in std::mem::take(&mut self.head.losses) {
            if self.keeps(log) {
                self.head.losses.push((log, why));
            } else if !self.head.state.is_final() {
                self.node_lost(at, log.node, log.incarnation, why, fx);
            }
        }
    }

    /// When every slice is given up, the tasks are placed anew.
    pub fn go_on_with_retry(&mut self, at: At<'_>, fx: &mut Effects) {
        let Some(retry) = &self.head.retry else {
            return;
        };
        let held = |n: &u32| self.head.slices[*n as usize].counts();
        if self.head.held || retry.slices.iter().any(held) {
            return;
        }
        let Some(retry) = self.head.retry.take() else {
            return;
        };
        self.lift_cancel(&retry, fx);
        let again: Vec<TaskIdx> = retry
            .tasks
            .iter()
            .copied()
            .filter(|task| retry.named == Some(*task) || !self.doubtful(*task))
            .filter(|task| !self.was_let_run(&retry, *task))
            .collect();
        for task in &again {
            if let Some(body) = &mut self.body {
                body.tasks[task.0 as usize].outputs.clear();
            }
            self.forgive(*task);
            self.own(*task, NONE);
            self.set(*task, TaskState::Blocked, None, at.wall);
        }
        let evidence = vec![
            Evidence::new("by", &retry.asked.by),
            Evidence::new("tasks", again.len()),
        ];
        let decision = super::place::rule(DecisionKind::Retried, Reason::RetriedByPerson, evidence);
        let ranges = again.iter().map(|t| (t.0, t.0)).collect();
        self.decide(at, ranges, None, decision);
        let mut turned = again.clone();
        // what else they read and was only where it was given up is made again
        for gone in retry.slices.iter().copied().chain([NONE]) {
            turned.extend(self.redo(at, gone, again.clone()));
        }
        self.tell(&turned, fx);
        self.settle(at.wall, fx);
        self.refresh(at.wall);
    }

    /// Whether a task runs again already. Nothing is placed while a retry waits, so a slice beside
    /// those that it waits for was made behind it, by a life of the store that is forgotten.
    fn was_let_run(&self, retry: &Retry, task: TaskIdx) -> bool {
        let row = self.body.as_ref().map(|b| &b.tasks[task.0 as usize]);
        row.is_some_and(|row| {
            let slice = self.head.slices.get(row.slice as usize);
            !retry.slices.contains(&row.slice) && slice.is_some_and(Slice::counts)
        })
    }

    /// A cancel that is done no longer stands: not here, and not at the nodes that had a part.
    fn lift_cancel(&mut self, retry: &Retry, fx: &mut Effects) {
        if let Some(cancel) = self.head.cancel.take() {
            self.note(format!(
                "cancelled by {}, let run again by {}",
                cancel.by, retry.asked.by
            ));
        }
        // a word to nobody, whose number is only kept free, would make a node that is never heard
        let had = self.head.slices.iter().filter(|s| s.is_known());
        let nodes: BTreeSet<NodeId> = had.map(|s| s.node).collect();
        let (run, by) = (self.id, retry.asked.by.clone());
        for node in nodes {
            let by = by.clone();
            self.send(node, Message::Retry { run, by }, fx);
        }
    }

    /// Failures so far use up no retry any more: a person let the task run again.
    pub(super) fn forgive(&mut self, task: TaskIdx) {
        let failed = self
            .body
            .as_ref()
            .map(|b| b.tasks[task.0 as usize].failed());
        match failed {
            Some(n) if n > 0 => drop(self.head.forgiven.insert(task, n)),
            _ => drop(self.head.forgiven.remove(&task)),
        }
    }

    /// Executions of a task that failed and use up its retries.
    #[must_use]
    pub fn used(&self, task: TaskIdx) -> u32 {
        let row = self.body.as_ref().map(|b| &b.tasks[task.0 as usize]);
        let forgiven = self.head.forgiven.get(&task).copied().unwrap_or(0);
        row.map_or(0, |row| row.failed().saturating_sub(forgiven))
    }

    /// What a retry waits for, for people.
    pub(super) fn retry_text(&self, silent: &dyn Fn(NodeId) -> Option<String>) -> Option<String> {
        let retry = self.head.retry.as_ref()?;
        let slices = retry.slices.iter().map(|n| &self.head.slices[*n as usize]);
        let all = retry.slices.len();
        let open: Vec<NodeId> = slices.filter(|s| s.counts()).map(|s| s.node).collect();
        let done = all - open.len();
        let (by, at, n) = (&retry.asked.by, retry.asked.at, retry.tasks.len());
        let mut text =
            format!("retry of {n} tasks requested by {by} at {at}, {done} of {all} parts given up");
        for node in open.into_iter().collect::<BTreeSet<_>>() {
            if let Some(silence) = silent(node) {
                text.push_str(", ");
                text.push_str(&silence);
            }
        }
        Some(text)
    }

    /// A cancel ends a retry that has not begun.
    pub(super) fn drop_retry(&mut self, at: Unix) {
        if let Some(retry) = self.head.retry.take() {
            let by = retry.asked.by;
            self.note(format!(
                "the retry by {by} was cancelled at {at} before it began"
            ));
        }
    }
}
