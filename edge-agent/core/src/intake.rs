//! What others ask for: the answers to recorded directives, and the requests of people at the
//! gateway.

use crate::agent::{Agent, Effects, Post, StopWhy};
use crate::event::{Action, Local, LocalReply};
use crate::state::{Open, SliceKey, TaskKey, key};
use shared::directive::Assign;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{AttemptRef, Epoch, RunId, SliceRef, TaskIdx};
use shared::planted::{self, Mistake};
use shared::state::TaskState;

impl Agent {
    /// Answers recorded directives that can be answered now. Whether one was.
    pub(crate) fn answer_open(&mut self, fx: &mut Effects) -> bool {
        let mut any = false;
        let numbers: Vec<u64> = self.state.open.keys().copied().collect();
        for number in numbers {
            if let Some(body) = self.answer(number) {
                self.emit(body, fx);
                any = true;
            }
        }
        any
    }

    fn answer(&self, number: u64) -> Option<Body> {
        let refused = |slice, reason, text| {
            Some(Body::Refused {
                directive: number,
                slice,
                reason,
                text,
            })
        };
        match self.state.open.get(&number)? {
            Open::Refuse(slice, reason, text) => refused(*slice, *reason, text.clone()),
            Open::Answer(slice, task, answer) => self.judge_answer(number, (*slice, *task), answer),
            Open::Schedule {
                schedule,
                epoch,
                order,
                cursor,
                refused,
            } => Some(Body::ScheduleDone {
                schedule: *schedule,
                epoch: *epoch,
                order: *order,
                cursor: *cursor,
                refused: refused.clone(),
            }),
            Open::Release(slice) => Some(Body::Released {
                slice: *slice,
                in_doubt: Vec::new(),
            }),
            Open::Limit(limit) => {
                let early = |open: &Open| match open {
                    Open::Assign(assign) => assign.slice == limit.slice,
                    _ => false,
                };
                let text = "the slice is not here at this epoch".to_owned();
                match self.state.open.values().any(early) {
                    true => None,
                    false => refused(None, Reason::Superseded, text),
                }
            }
            Open::Assign(assign) => match self.judge_assign(assign) {
                Ok(true) => Some(Body::Accepted {
                    slice: assign.slice,
                }),
                Ok(false) => None,
                Err((reason, text)) => refused(Some(assign.slice), reason, text),
            },
        }
    }

    /// Whether a slice is taken over now; not yet, while attempts of the epoch before have not
    /// ended.
    fn judge_assign(&self, assign: &Assign) -> Result<bool, (Reason, String)> {
        let id = assign.slice;
        if self.state.slice_at(id).is_some() {
            return Ok(true);
        }
        if self.state.forgotten.contains(&id.run) {
            let text = "the run was over everywhere, and is forgotten here".to_owned();
            return Err((Reason::ForgottenRun, text));
        }
        if let Some(known) = self.state.epochs.get(&key(id))
            && *known >= id.epoch
        {
            return Err((
                Reason::Superseded,
                format!("epoch {known} of it was here already"),
            ));
        }
        if !self.has_room() {
            let free = self.room.map_or(0, |(free, _)| free);
            return Err((Reason::NoRoom, format!("{free} bytes are free on the disk")));
        }
        let slice = self.state.build(assign)?;
        for pos in 0..slice.slots.len() as u32 {
            let task = slice.task(pos);
            if let Some((what, want, have)) = self.config.capacity.lacks(&task.resources) {
                let text = format!(
                    "task {} asks for {want} of {what}, here are {have}",
                    task.id
                );
                return Err((Reason::DoesNotFit, text));
            }
        }
        let old = self.state.slices.get(&key(id));
        Ok(old.is_none_or(|old| old.running == 0) && !self.runs_any(id.run, &assign.tasks))
    }

    /// Whether an attempt of one of these tasks has not ended here, in whatever slice: the same
    /// work never runs twice at once, also when the coordinator cut the run anew.
    fn runs_any(&self, run: RunId, tasks: &[TaskIdx]) -> bool {
        let mine = |attempt: &&AttemptRef| attempt.slice.run == run;
        let attempts = self.state.running.keys().filter(mine);
        attempts
            .into_iter()
            .any(|attempt| tasks.binary_search(&attempt.task).is_ok())
    }

    /// Whether an assignment of a later epoch waits for this one to end.
    pub(crate) fn superseding(&self, id: SliceRef) -> bool {
        self.state.open.values().any(|open| match open {
            Open::Assign(assign) => key(assign.slice) == key(id) && assign.slice.epoch > id.epoch,
            _ => false,
        })
    }

    /// Looks at the conditions of a slice: what is to be stopped, and what can be confirmed.
    pub(crate) fn check_slice(&mut self, at: SliceKey, fx: &mut Effects) {
        if self.leaving(at) {
            for task in self.ready.of_slice(at) {
                self.ready.remove(task);
            }
            self.stop_slice(at, StopWhy::Leave, false, fx);
        } else if self.cancelled(at) {
            self.cancel_slice(at, fx);
        } else if self.state.paused(at.0) {
            self.stop_slice(at, StopWhy::Pause, true, fx);
        }
        let Some(slice) = self.state.slices.get(&at) else {
            return;
        };
        let id = slice.id;
        let quiet = slice.releasing && slice.running == 0;
        if quiet && !self.owes_outputs(at, fx) {
            let in_doubt = self.state.slices.get(&at).map_or_else(Vec::new, in_doubt);
            self.emit(
                Body::Released {
                    slice: id,
                    in_doubt,
                },
                fx,
            );
            return;
        }
        let Some(slice) = self.state.slices.get(&at) else {
            return;
        };
        if !slice.groups.is_empty() && !slice.releasing {
            self.check_limits(at, fx);
        }
        let Some(slice) = self.state.slices.get(&at) else {
            return;
        };
        let cancel = slice.cancel_ask && slice.running == 0 && slice.unfinal == 0;
        let done = slice.unfinal == 0 && !slice.done;
        let pause = slice.pause_ask;
        if done {
            self.emit(Body::SliceDone { slice: id }, fx);
        }
        if cancel {
            self.emit(Body::CancelDone { slice: id }, fx);
        }
        if let Some(on) = pause
            && !(on && self.any_queued(id))
        {
            self.emit(Body::PauseDone { slice: id, on }, fx);
        }
    }

    fn any_queued(&self, id: SliceRef) -> bool {
        self.queued.iter().any(|attempt| attempt.slice == id)
    }

    fn attempts_of(&self, id: SliceRef) -> Vec<AttemptRef> {
        let bound = |task, number| AttemptRef {
            slice: id,
            task: TaskIdx(task),
            number,
        };
        let range = bound(0, 0)..=bound(u32::MAX, u32::MAX);
        self.attempts
            .range(range)
            .map(|(attempt, _)| *attempt)
            .collect()
    }

    fn stop_slice(&mut self, at: SliceKey, why: StopWhy, queued_only: bool, fx: &mut Effects) {
        let Some(id) = self.state.slices.get(&at).map(|slice| slice.id) else {
            return;
        };
        for attempt in self.attempts_of(id) {
            let queued = self.attempts.get(&attempt).is_some_and(|att| att.queued);
            if queued || !queued_only {
                self.stop(attempt, why, false, fx);
            }
        }
    }

    /// Ends everything of a slice that has not begun, and asks what runs to end.
    fn cancel_slice(&mut self, at: SliceKey, fx: &mut Effects) {
        if !planted::on(Mistake::CancelNothing) {
            self.stop_slice(at, StopWhy::Cancel, false, fx);
        }
        let Some(slice) = self.state.slices.get(&at) else {
            return;
        };
        if slice.unfinal == slice.running {
            return;
        }
        let id = slice.id;
        let stands = |pos: &u32| {
            let state = slice.slots[*pos as usize].state;
            !state.is_final() && state != TaskState::Running
        };
        let standing: Vec<u32> = (0..slice.slots.len() as u32).filter(stands).collect();
        let tasks: Vec<TaskIdx> = standing
            .iter()
            .map(|pos| slice.index[*pos as usize])
            .collect();
        for task in tasks {
            let (to, reason) = (TaskState::Cancelled, Reason::CancelledByPerson);
            self.emit(
                Body::Moved {
                    slice: id,
                    task,
                    to,
                    reason,
                },
                fx,
            );
        }
    }

    pub(crate) fn on_local(&mut self, request: u64, what: Local, fx: &mut Effects) {
        if let Some(run) = what.run() {
            self.state.wake(None, Some(run));
        }
        let reply = match what {
            Local::Submit { run, workflow, by } => self.submit(run, workflow, by, fx),
            Local::Cancel { run, by, why } => self.known(run).map(|()| {
                self.emit(Body::CancelledHere { run, by, why }, fx);
            }),
            Local::Pause { run, on, by } => self.known(run).map(|()| {
                self.emit(Body::PausedHere { run, on, by }, fx);
            }),
            Local::Resume { run, task, .. } => self.resume(run, task, fx),
            Local::Answer {
                run,
                task,
                yes,
                input,
                by,
            } => self
                .known(run)
                .and_then(|()| self.answer_here((run, task), yes, &input, by, fx)),
            Local::Schedule { schedule, what, by } => self.ask_schedule(schedule, what, by, fx),
            Local::PauseSync { length, by } => self.pause_sync(length, by, fx),
            Local::ResumeSync { by } => {
                self.resume_sync(by, fx);
                Ok(())
            }
        };
        let reply = match reply {
            Ok(()) => LocalReply::Done,
            Err(text) => LocalReply::Refused(text),
        };
        fx.after.push(Post::Act(Action::Reply { request, reply }));
        fx.hurry = true;
    }

    fn known(&self, run: RunId) -> Result<(), String> {
        match self.state.runs.get(&run) {
            Some(held) if !held.forget => Ok(()),
            _ => Err(format!("no run {run} here")),
        }
    }

    fn submit(
        &mut self,
        run: RunId,
        workflow: Vec<u8>,
        by: String,
        fx: &mut Effects,
    ) -> Result<(), String> {
        if self.state.runs.contains_key(&run) || self.state.forgotten.contains(&run) {
            return Err(format!("run {run} is known here already"));
        }
        if !self.has_room() {
            return Err("there is no room on the disk for more work".to_owned());
        }
        let opened = self.state.unpack(&workflow);
        let (compiled, hash) = opened.map_err(|error| error.to_string())?;
        if compiled.schedule.is_some() {
            return Err("the workflow has a schedule; use `schedule create`".to_owned());
        }
        let tasks: Vec<_> = (0..compiled.tasks.len() as u32).map(TaskIdx).collect();
        for task in &compiled.tasks {
            if let Some((what, want, have)) = self.config.capacity.lacks(&task.resources) {
                let text = format!(
                    "task {} asks for {want} of {what}, here are {have}",
                    task.id
                );
                return Err(text);
            }
        }
        let slice = SliceRef {
            run,
            slice: 0,
            epoch: Epoch::LOCAL,
        };
        crate::slice::Slice::new(slice, compiled.clone(), hash, tasks).map_err(|(_, text)| text)?;
        // The fold opens it in this very step: known already, it is not decoded a second time.
        self.state.workflows.entry(hash).or_insert(compiled);
        self.emit(
            Body::Submitted {
                slice,
                workflow,
                by,
            },
            fx,
        );
        Ok(())
    }

    /// Lets a paused or lost task run again, and the tasks that fell with it wait for it again.
    fn resume(&mut self, run: RunId, task: TaskIdx, fx: &mut Effects) -> Result<(), String> {
        self.known(run)?;
        let found = self
            .state
            .slices_of(run)
            .find_map(|(at, slice)| slice.position(task).map(|pos| TaskKey { slice: *at, pos }));
        let key = found.ok_or_else(|| format!("no task {} of run {run} here", task.0))?;
        if self.cancelled(key.slice) || self.leaving(key.slice) {
            return Err("the run was cancelled or leaves this node".to_owned());
        }
        let slice = self
            .state
            .slices
            .get(&key.slice)
            .ok_or("the slice is gone")?;
        let (id, state) = (slice.id, slice.slot(key.pos).state);
        use TaskState::{Failed, Lost, Paused};
        if !matches!(state, Paused | Lost | Failed) {
            return Err(format!(
                "the task is {state}; only a paused, lost or failed one runs again"
            ));
        }
        let (to, reason) = (TaskState::Ready, Reason::ResumedByPerson);
        self.emit(
            Body::Moved {
                slice: id,
                task,
                to,
                reason,
            },
            fx,
        );
        self.revive(key, fx);
        Ok(())
    }

    fn revive(&mut self, key: TaskKey, fx: &mut Effects) {
        let mut fallen = vec![key.pos];
        while let Some(pos) = fallen.pop() {
            let Some(slice) = self.state.slices.get(&key.slice) else {
                return;
            };
            let id = slice.id;
            let fell = |reader: &u32| {
                let slot = slice.slot(*reader);
                slot.state == TaskState::Aborted
                    || slot.state == TaskState::Skipped && slot.reason != Reason::WhenFalse
            };
            let readers: Vec<u32> = slice
                .readers(pos)
                .map(|at| slice.reader(at))
                .filter(fell)
                .collect();
            for reader in readers {
                let Some(task) = self.task_idx(TaskKey {
                    slice: key.slice,
                    pos: reader,
                }) else {
                    continue;
                };
                let (to, reason) = (TaskState::Blocked, Reason::WaitsForTasks);
                self.emit(
                    Body::Moved {
                        slice: id,
                        task,
                        to,
                        reason,
                    },
                    fx,
                );
                fallen.push(reader);
            }
        }
    }
}

/// Tasks that began, whose end is not known, and that may not run twice.
fn in_doubt(slice: &crate::slice::Slice) -> Vec<TaskIdx> {
    let lost = |pos: &usize| slice.slots[*pos].state == TaskState::Lost;
    (0..slice.slots.len())
        .filter(lost)
        .map(|pos| slice.index[pos])
        .collect()
}
