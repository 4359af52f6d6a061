//! Answers to questions of tasks: a person's answer here is a wish; the owner's fact says which
//! answer counts, and every other one is kept with who gave it and when.

use super::{Run, Stage};
use crate::effects::Effects;
use crate::event::Refused;
use crate::inbox::Message;
use serde::{Deserialize, Serialize};
use shared::approval::{Answer, Approval, BY_BYTES, Via};
use shared::explain::Reason;
use shared::ids::{Epoch, NodeId, SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::time::Unix;
use shared::wire::LogId;
use std::collections::BTreeMap;

/// Answers to one question that are remembered, the one that counts among them.
const ANSWERS: usize = 16;

/// An answer with what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Given {
    /// The answer.
    pub answer: Answer,
    /// The node whose fact told of it, and the epoch of its slice; none while it is on its way.
    pub told: Option<(NodeId, Epoch)>,
    /// Why it does not count; none if it does, or while it is on its way.
    pub not: Option<Reason>,
}

impl Given {
    /// On its way: no fact says what became of it.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.told.is_none() && self.not.is_none()
    }
}

impl Run {
    /// The question of a task, if it is one.
    #[must_use]
    pub fn question(&self, task: TaskIdx) -> Option<&Approval> {
        let body = self.body.as_ref()?;
        body.workflow.tasks.get(task.0 as usize)?.approval()
    }

    /// A person answers here.
    ///
    /// # Errors
    /// [`Refused`]: the run stands still after a restore, the task asks nothing, or not now.
    pub fn answer(
        &mut self,
        task: TaskIdx,
        yes: bool,
        input: &BTreeMap<String, String>,
        (by, at): (String, Unix),
        fx: &mut Effects,
    ) -> Result<(), Refused> {
        let state = |text: String| Err(Refused::State(text));
        let Some(approval) = self.question(task) else {
            return state("the task asks nobody".to_owned());
        };
        if by.len() > BY_BYTES {
            let text = format!("a name has at most {BY_BYTES} bytes");
            return Err(Refused::Malformed(text));
        }
        if self.head.held {
            let text = "the run is held after a restore; answer at the gateway, or later";
            return state(text.to_owned());
        }
        let answer = Answer {
            yes,
            input: approval.fill_in(yes, input).map_err(Refused::Malformed)?,
            by,
            at,
            via: Via::Coordinator,
        };
        let given = self.head.answers.get(&task).map_or(&[][..], Vec::as_slice);
        if let Some(first) = given.iter().find(|given| given.pending()) {
            let (who, when) = (&first.answer.by, first.answer.at);
            return state(format!(
                "an answer by {who} of {when} is on its way to the gateway already"
            ));
        }
        if !self.head.asking.contains_key(&task) {
            return state(self.why_not_asking(task, given));
        }
        self.remember(
            task,
            Given {
                answer,
                told: None,
                not: None,
            },
        );
        self.send_answers(task, fx);
        Ok(())
    }

    fn why_not_asking(&self, task: TaskIdx, given: &[Given]) -> String {
        let told = |g: &&Given| g.told.is_some() && g.not.is_none();
        if let Some(given) = given.iter().rev().find(told) {
            let how = if given.answer.yes { "yes" } else { "no" };
            let (who, when) = (&given.answer.by, given.answer.at);
            return format!("the task was answered already: {how}, by {who} at {when}");
        }
        let row = self.body.as_ref().map(|b| &b.tasks[task.0 as usize]);
        let state = row.map_or(TaskState::Blocked, |row| row.state);
        match state {
            TaskState::Blocked => {
                "the task does not wait for an answer yet, as far as is known here".to_owned()
            }
            _ => format!("the task is {state} and waits for no answer"),
        }
    }

    fn remember(&mut self, task: TaskIdx, given: Given) {
        let known = self.head.answers.entry(task).or_default();
        if known.len() >= ANSWERS {
            let idle = |g: &Given| g.not.is_some();
            let oldest = known.iter().position(idle).unwrap_or(0);
            known.remove(oldest);
        }
        known.push(given);
    }

    /// Sends an answer that is on its way to whoever owns the task now.
    pub(super) fn send_answers(&mut self, task: TaskIdx, fx: &mut Effects) {
        let Some(body) = &self.body else { return };
        let row = &body.tasks[task.0 as usize];
        let owner = self.head.slices.get(row.slice as usize);
        let Some(owner) = owner.filter(|s| s.live() && s.stage != Stage::Releasing) else {
            return;
        };
        if row.state.is_final() {
            return;
        }
        let (node, slice) = (owner.node, self.slice_ref(row.slice));
        let given = self.head.answers.get(&task).into_iter().flatten();
        let pending: Vec<Answer> = given
            .filter(|given| given.pending())
            .map(|given| given.answer.clone())
            .collect();
        for answer in pending {
            let message = Message::Answer {
                slice,
                task,
                answer,
            };
            self.send(node, message, fx);
        }
    }

    /// Says again what answers are on their way to a slice.
    pub(super) fn repeat_answers(&mut self, slice: u32, fx: &mut Effects) {
        let waiting = self.head.answers.iter();
        let waiting: Vec<TaskIdx> = waiting
            .filter(|(_, all)| all.iter().any(Given::pending))
            .map(|(task, _)| *task)
            .collect();
        for task in waiting {
            let row = self.body.as_ref().map(|b| &b.tasks[task.0 as usize]);
            if row.is_some_and(|row| row.slice == slice) {
                self.send_answers(task, fx);
            }
        }
    }

    /// The owner tells of an answer: its end if it counts.
    pub(super) fn answered(
        &mut self,
        log: LogId,
        (slice, task): (SliceRef, TaskIdx),
        answer: &Answer,
        not: Option<Reason>,
        wall: Unix,
        turned: &mut Vec<TaskIdx>,
    ) -> Result<(), Reason> {
        let mut verdict = self.mine_task(log, slice, task);
        let body = self.body.as_ref().ok_or(Reason::ImpossibleTransition)?;
        let spec = body.workflow.tasks.get(task.0 as usize);
        let spec = spec.ok_or(Reason::ImpossibleTransition)?;
        let approval = spec.approval().ok_or(Reason::ImpossibleTransition)?;
        let over = body.tasks[task.0 as usize].state.is_final();
        if verdict.is_ok() && not.is_none() && over {
            verdict = Err(Reason::ImpossibleTransition);
        }
        let outputs = match answer.yes {
            true => vec![approval.output(answer); spec.outputs.len()],
            false => Vec::new(),
        };
        let told = Some((log.node, slice.epoch));
        let not = not.or_else(|| verdict.err());
        let known = self.head.answers.entry(task).or_default();
        let same = |g: &&mut Given| g.answer == *answer && (g.told == told || g.told.is_none());
        match known.iter_mut().rev().find(same) {
            // a former owner's word does not stop it from reaching the present one
            Some(given) if given.pending() && verdict == Err(Reason::Superseded) => {}
            // it was sent twice: that the second one does not count says nothing of the first
            Some(given) if given.told == told && given.not.is_none() && not.is_some() => {}
            Some(given) => (given.told, given.not) = (told, not),
            None => self.remember(
                task,
                Given {
                    answer: answer.clone(),
                    told,
                    not,
                },
            ),
        }
        verdict?;
        if not.is_some() {
            return Ok(());
        }
        if let Some(body) = &mut self.body {
            body.tasks[task.0 as usize].outputs = outputs;
        }
        self.head.outcomes += 1;
        let (to, why) = match (answer.yes, answer.via) {
            (true, Via::Deadline) => (TaskState::Succeeded, Reason::ApprovedByDefault),
            (true, _) => (TaskState::Succeeded, Reason::Approved),
            (false, Via::Deadline) => (TaskState::Failed, Reason::RejectedByDefault),
            (false, _) => (TaskState::Failed, Reason::Rejected),
        };
        self.set(task, to, Some(why), wall);
        turned.push(task);
        Ok(())
    }

    /// The task is over: what is on its way will not count, and is not taken for an answer when it
    /// asks again.
    fn drop_pending(&mut self, task: TaskIdx, why: Reason) {
        let given = self.head.answers.get_mut(&task).into_iter().flatten();
        for given in given.filter(|given| given.pending()) {
            given.not = Some(why);
        }
    }

    /// Whether a blocked task asks by now, as far as is known here.
    fn asks_now(&self, task: TaskIdx) -> bool {
        let Some(body) = &self.body else { return false };
        let deps = &body.deps[task.0 as usize];
        let over = |t: &TaskIdx| body.tasks[t.0 as usize].state.is_final();
        let row = &body.tasks[task.0 as usize];
        self.question(task).is_some() && row.state == TaskState::Blocked && deps.iter().all(over)
    }

    /// A hole in the facts does not tell whether a blocked task asks by now: it does as soon as all
    /// that it needs is over, which later facts may tell, also those of other nodes.
    pub(super) fn may_ask(&mut self, task: TaskIdx, at: Unix) {
        if self.question(task).is_none() || self.head.asking.contains_key(&task) {
            return;
        }
        let why = match self.asks_now(task) {
            true => Reason::WaitsForPerson,
            false => Reason::WaitsForTasks,
        };
        self.set(task, TaskState::Blocked, Some(why), at);
    }

    /// Keeps the list of questions that are open: `to` is the task's state from now on.
    pub(super) fn note_asking(
        &mut self,
        task: TaskIdx,
        to: TaskState,
        why: Option<Reason>,
        at: Unix,
    ) {
        if to == TaskState::Blocked && why == Some(Reason::WaitsForPerson) {
            self.head.asking.entry(task).or_insert(at);
            return;
        }
        self.head.asking.remove(&task);
        if to.is_final() {
            self.drop_pending(task, Reason::ImpossibleTransition);
        }
        let Some(body) = &self.body else { return };
        for dependent in body.dependents[task.0 as usize].clone() {
            self.note_need(dependent, at);
        }
    }

    /// What a task needs is over, or no longer: it asks only while all of that is.
    fn note_need(&mut self, task: TaskIdx, at: Unix) {
        let Some(row) = self.row(task).filter(|r| r.state == TaskState::Blocked) else {
            return;
        };
        let since = row.since.unwrap_or(at);
        match (row.reason, self.asks_now(task)) {
            (Some(Reason::WaitsForPerson), true) => {
                self.head.asking.entry(task).or_insert(since);
            }
            (Some(Reason::WaitsForPerson), false) => {
                self.head.asking.remove(&task);
            }
            (Some(Reason::WaitsForTasks), true) => {
                self.set(task, TaskState::Blocked, Some(Reason::WaitsForPerson), at);
            }
            _ => {}
        }
    }
}
