//! Questions to people: who may answer, which answer counts, and what counts when nobody does.

use crate::agent::{Agent, Effects, Post};
use crate::change::change;
use crate::event::Action;
use crate::state::{Open, Row, State, TaskKey, Touch, key};
use shared::approval::{Answer, BY_BYTES, Via};
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{RunId, SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::time::Stamp;
use std::collections::BTreeMap;

/// Answers to one question that are remembered, the one that counts among them.
const ANSWERS: usize = 8;

impl State {
    /// A cancel of a run no longer stands: a person lets some of it run again.
    pub(crate) fn lift_cancel(&mut self, run: RunId, touch: &mut Touch) -> Option<Open> {
        if let Some(held) = self.runs.get_mut(&run) {
            held.cancel = None;
            touch.rows.insert(Row::Run(run));
        }
        None
    }

    /// A question was answered: the task ends with the answer that counts.
    pub(crate) fn answered(
        &mut self,
        (id, task): (SliceRef, TaskIdx),
        answer: &Answer,
        not: Option<Reason>,
        when: Stamp,
        touch: &mut Touch,
    ) {
        let this = |open: &Open| {
            matches!(open, Open::Answer(of, which, held)
                if *of == id && *which == task && held == answer)
        };
        if let Some(number) = self.open.iter().find(|(_, open)| this(open)) {
            let number = *number.0;
            self.open.remove(&number);
            touch.rows.insert(Row::Core);
        }
        let at = key(id);
        let Some(slice) = self.slices.get_mut(&at).filter(|held| held.id == id) else {
            return;
        };
        let Some(pos) = slice.position(task) else {
            return;
        };
        touch.rows.insert(Row::Slice(at));
        touch.slices.insert(at);
        let known = slice.answers.entry(task).or_default();
        if known.len() >= ANSWERS {
            known.remove(usize::from(known[0].1.is_none()));
        }
        known.push((answer.clone(), not));
        if not.is_some() {
            return;
        }
        let at = TaskKey { slice: at, pos };
        let spec = slice.task(pos);
        let outputs = match spec.approval() {
            Some(approval) if answer.yes => vec![approval.output(answer); spec.outputs.len()],
            _ => Vec::new(),
        };
        slice.slots[pos as usize].outputs = outputs;
        let (to, why) = end_of(answer);
        change(slice, at, to, why, when, touch);
        if answer.yes {
            touch.succeeded.push(at);
        }
    }
}

/// State and reason that an answer ends its task with.
fn end_of(answer: &Answer) -> (TaskState, Reason) {
    match (answer.yes, answer.via) {
        (true, Via::Deadline) => (TaskState::Succeeded, Reason::ApprovedByDefault),
        (true, _) => (TaskState::Succeeded, Reason::Approved),
        (false, Via::Deadline) => (TaskState::Failed, Reason::RejectedByDefault),
        (false, _) => (TaskState::Failed, Reason::Rejected),
    }
}

impl Agent {
    /// A person at the gateway answers.
    pub(crate) fn answer_here(
        &mut self,
        (run, task): (RunId, TaskIdx),
        yes: bool,
        input: &BTreeMap<String, String>,
        by: String,
        fx: &mut Effects,
    ) -> Result<(), String> {
        let found = self
            .state
            .slices_of(run)
            .find_map(|(at, slice)| Some((*at, slice.position(task)?)));
        let (at, pos) = found.ok_or_else(|| format!("no such task of {run} here"))?;
        let slice = &self.state.slices[&at];
        let id = &slice.task(pos).id;
        let Some((approval, open)) = slice.question(pos) else {
            return Err(format!("task {id} asks nobody"));
        };
        if let (false, Some(answer)) = (open, slice.answer(pos)) {
            let how = if answer.yes { "yes" } else { "no" };
            let (who, when) = (&answer.by, answer.at);
            return Err(format!(
                "task {id} was answered already: {how}, by {who} at {when}"
            ));
        }
        if !open || self.cancelled(at) {
            let state = slice.slot(pos).state;
            return Err(format!("task {id} is {state} and waits for no answer"));
        }
        if by.len() > BY_BYTES {
            return Err(format!("a name has at most {BY_BYTES} bytes"));
        }
        let answer = Answer {
            yes,
            input: approval.fill_in(yes, input)?,
            by,
            at: self.now.wall,
            via: Via::Gateway,
        };
        let slice = slice.id;
        self.emit(
            Body::Answered {
                slice,
                task,
                answer,
                not: None,
            },
            fx,
        );
        Ok(())
    }

    /// The deadline of a question passed.
    pub(crate) fn answer_by_default(&mut self, at: TaskKey, fx: &mut Effects) {
        let Some(held) = self.state.slices.get(&at.slice) else {
            return;
        };
        let (slice, task) = (held.id, held.index[at.pos as usize]);
        let Some((approval, true)) = held.question(at.pos) else {
            return;
        };
        let filled = |yes| approval.fill_in(yes, &BTreeMap::new()).ok();
        let answer = approval.default.and_then(|yes| {
            Some(Answer {
                yes,
                input: filled(yes)?,
                by: String::new(),
                at: self.now.wall,
                via: Via::Deadline,
            })
        });
        let body = match answer {
            Some(answer) => Body::Answered {
                slice,
                task,
                answer,
                not: None,
            },
            None => Body::Moved {
                slice,
                task,
                to: TaskState::Failed,
                reason: Reason::DeadlinePassed,
            },
        };
        self.emit(body, fx);
    }

    /// What becomes of an answer that came from the coordinator; nothing yet while its slice still
    /// waits to be taken over.
    pub(crate) fn judge_answer(
        &self,
        number: u64,
        (id, task): (SliceRef, TaskIdx),
        answer: &Answer,
    ) -> Option<Body> {
        let refused = |reason, text: String| {
            Some(Body::Refused {
                directive: number,
                slice: Some(id),
                reason,
                text,
            })
        };
        let Some(slice) = self.state.slice_at(id) else {
            let coming = |open: &Open| matches!(open, Open::Assign(assign) if assign.slice == id);
            if self.state.open.values().any(coming) {
                return None;
            }
            let text = "its slice is not here at this epoch".to_owned();
            return refused(Reason::Superseded, text);
        };
        let Some((pos, (approval, open))) = slice
            .position(task)
            .and_then(|pos| Some((pos, slice.question(pos)?)))
        else {
            let text = "it answers what is no question".to_owned();
            return refused(Reason::ImpossibleTransition, text);
        };
        if answer.by.len() > BY_BYTES {
            return refused(
                Reason::Malformed,
                "who answers has too long a name".to_owned(),
            );
        }
        if let Err(text) = approval.fill_in(answer.yes, &answer.input) {
            return refused(Reason::Malformed, text);
        }
        let not = match (open, slice.slot(pos).state) {
            (true, _) if !self.cancelled(key(id)) => None,
            (false, TaskState::Blocked) => Some(Reason::WaitsForTasks),
            _ => Some(Reason::ImpossibleTransition),
        };
        Some(Body::Answered {
            slice: id,
            task,
            answer: answer.clone(),
            not,
        })
    }

    /// Lays down the file of an answer, which follows from the journal alone: after each start
    /// again, so that a crash before it is written loses nothing.
    pub(crate) fn keep_answer(&self, at: TaskKey, fx: &mut Effects) {
        let Some(slice) = self.state.slices.get(&at.slice) else {
            return;
        };
        let (slot, spec) = (slice.slot(at.pos), slice.task(at.pos));
        if let (Some(approval), Some(answer)) = (spec.approval(), slice.answer(at.pos))
            && !slot.outputs.is_empty()
        {
            let bytes = approval.file(answer);
            fx.after.push(Post::Act(Action::Keep { bytes }));
        }
    }
}
