//! The life of an attempt: began, timed out, stopped, ended, and what follows from its end.

use crate::agent::{Agent, Effects, Post, StopWhy, Timer};
use crate::event::{Action, ProcessEnd};
use crate::state::{SliceKey, TaskKey};
use shared::explain::{DecisionKind, Reason};
use shared::fact::{Body, End, Outcome};
use shared::ids::AttemptRef;
use shared::planted::{self, Mistake};
use shared::state::TaskState;
use shared::time::{Mono, Span, Stamp};
use shared::workflow::{OnExhausted, Retry, SideEffects, Task};

impl Agent {
    pub(crate) fn on_began(&mut self, attempt: AttemptRef, at: Stamp) {
        self.leave_queue(attempt);
        let began = if at.boot == self.state.boots {
            Mono(at.mono_ms.saturating_mul(1_000_000))
        } else {
            self.now.mono
        };
        let Some(att) = self.attempts.get_mut(&attempt) else {
            return;
        };
        if att.began.is_none() {
            att.began = Some(began);
            let task = att.task;
            self.arm_timeout(attempt, task, began);
        }
    }

    pub(crate) fn arm_timeout(&mut self, attempt: AttemptRef, key: TaskKey, began: Mono) {
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return;
        };
        if let Some(timeout) = slice.task(key.pos).timeout {
            self.timers
                .insert((began + timeout, Timer::Timeout(attempt)));
        }
        self.arm_deadline(key);
    }

    pub(crate) fn timeout_due(&mut self, attempt: AttemptRef, fx: &mut Effects) {
        if self.attempts.contains_key(&attempt) {
            self.stop(attempt, StopWhy::Timeout, true, fx);
        }
    }

    pub(crate) fn deadline_due(&mut self, key: TaskKey, fx: &mut Effects) {
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return;
        };
        let Some(deadline) = slice.task(key.pos).deadline else {
            return;
        };
        if self.now.wall < deadline {
            self.arm_deadline(key);
            return;
        }
        let (id, task) = (slice.id, slice.index[key.pos as usize]);
        match slice.slot(key.pos).state {
            TaskState::Running => {
                let number = slice.slot(key.pos).attempts;
                let attempt = AttemptRef {
                    slice: id,
                    task,
                    number,
                };
                self.stop(attempt, StopWhy::Deadline, true, fx);
            }
            TaskState::Blocked => self.answer_by_default(key, fx),
            TaskState::Ready | TaskState::Retrying => {
                let (to, reason) = (TaskState::Failed, Reason::DeadlinePassed);
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
            _ => {}
        }
    }

    /// Ends an attempt once; `early` if the wish rests only on what is durable.
    pub(crate) fn stop(&mut self, id: AttemptRef, why: StopWhy, early: bool, fx: &mut Effects) {
        let Some(att) = self.attempts.get_mut(&id) else {
            return;
        };
        if att.stop.is_some() {
            return;
        }
        att.stop = Some(why);
        let key = att.task;
        let grace = match self.state.slices.get(&key.slice) {
            Some(slice) => slice.task(key.pos).kill_grace,
            None => Span(0),
        };
        let action = Action::Stop { attempt: id, grace };
        // A start of this very group is not out yet: its stop must not overtake it.
        if early && fx.entries.is_empty() {
            fx.before.push(action);
        } else {
            fx.after.push(Post::Act(action));
            fx.hurry = true;
        }
    }

    pub(crate) fn on_ended(&mut self, end: ProcessEnd, fx: &mut Effects) {
        let att = self.free_slot(end.attempt);
        if !self.state.running.contains_key(&end.attempt) {
            return;
        }
        let Some(key) = self.state.task_of(end.attempt) else {
            return;
        };
        if end.reason == Reason::InputMissing {
            self.files_lost(key);
        }
        let why = att.and_then(|att| att.stop);
        let record = self.judge(key, &end, why, fx);
        // Until its end is durable a crash would leave it in doubt, for a person to decide.
        fx.hurry |= self.at_most_once(end.attempt);
        self.emit(
            Body::Ended {
                attempt: end.attempt,
                end: record,
            },
            fx,
        );
    }

    /// What the end of a process means for its task.
    fn judge(
        &mut self,
        key: TaskKey,
        end: &ProcessEnd,
        why: Option<StopWhy>,
        fx: &mut Effects,
    ) -> End {
        let mut record = End {
            outcome: Outcome::Failed,
            reason: end.reason,
            exit: end.exit,
            began: end.began,
            outputs: Vec::new(),
            retry_in: None,
            task: TaskState::Failed,
            cpu_ms: end.cpu_ms,
            peak_memory: end.peak_memory,
        };
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return record;
        };
        let once = slice.task(key.pos).side_effects == SideEffects::AtMostOnce;
        let leaving = self.leaving(key.slice);
        let cancelled = self.cancelled(key.slice);
        let never = end.reason == Reason::NeverBegan;
        match why {
            _ if never => {
                record.outcome = Outcome::NotBegun;
                record.task = if cancelled {
                    TaskState::Cancelled
                } else {
                    TaskState::Ready
                };
            }
            None | Some(StopWhy::Pause)
                if end.reason == Reason::ExitedZero
                    || end.reason == Reason::Signalled && planted::on(Mistake::SignalIsGood) =>
            {
                (record.outcome, record.task) = (Outcome::Succeeded, TaskState::Succeeded);
                record.outputs.clone_from(&end.outputs);
            }
            Some(StopWhy::Cancel) => {
                (record.outcome, record.task) = (Outcome::Cancelled, TaskState::Cancelled);
                record.reason = Reason::CancelledByPerson;
            }
            Some(StopWhy::Leave) if once => {
                (record.outcome, record.task) = (Outcome::Lost, TaskState::Lost);
                record.reason = Reason::InDoubt;
            }
            Some(StopWhy::Leave) => {
                (record.outcome, record.task) = (Outcome::Cancelled, TaskState::Ready);
                record.reason = Reason::Superseded;
            }
            Some(StopWhy::Deadline) => record.reason = Reason::DeadlinePassed,
            Some(StopWhy::Timeout) => {
                record.reason = Reason::TimedOut;
                self.after_failure(key, &mut record, cancelled || leaving, fx);
            }
            _ => self.after_failure(key, &mut record, cancelled || leaving, fx),
        }
        record
    }

    /// Whether a failure is followed by another attempt.
    fn after_failure(&mut self, key: TaskKey, end: &mut End, ending: bool, fx: &mut Effects) {
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return;
        };
        let task = slice.task(key.pos);
        let used = slice.slot(key.pos).used + 1;
        let retry = task.retry_under(&self.settings());
        let (max, rule) = (retry.max_attempts, retry.on_exhausted);
        let code = end.exit.filter(|_| end.reason != Reason::TimedOut);
        let numbers = [u64::from(used), u64::from(max), 0];
        if code.is_some_and(|code| excluded(&retry, code)) {
            self.note(
                key,
                DecisionKind::Refused,
                Reason::ExitCodeExcluded,
                numbers,
                fx,
            );
        } else if used >= max && !planted::on(Mistake::NoRetryLimit) {
            self.note(
                key,
                DecisionKind::Refused,
                Reason::AttemptsUsedUp,
                numbers,
                fx,
            );
            if rule == OnExhausted::Pause && !ending {
                end.task = TaskState::Paused;
            }
        } else if ending {
            let cancelled = self.cancelled(key.slice);
            end.task = if cancelled {
                TaskState::Cancelled
            } else {
                TaskState::Ready
            };
        } else {
            let draw = self.rng.next();
            let pause = backoff(&retry, used, draw);
            end.retry_in = Some(pause);
            end.task = TaskState::Retrying;
            let numbers = [u64::from(used), u64::from(max), pause.0];
            self.note(key, DecisionKind::Retried, Reason::AttemptLeft, numbers, fx);
        }
    }

    pub(crate) fn arm_retry(&mut self, key: TaskKey) {
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return;
        };
        let Some((at, pause)) = slice.slot(key.pos).retry else {
            return;
        };
        // The boot clock began anew with the machine: the pause is served again, it is bounded.
        let from = if at.boot == self.state.boots {
            Mono(at.mono_ms.saturating_mul(1_000_000))
        } else {
            self.now.mono
        };
        self.timers.insert((from + pause, Timer::Retry(key)));
        self.arm_deadline(key);
    }

    pub(crate) fn retry_due(&mut self, key: TaskKey, fx: &mut Effects) {
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return;
        };
        let slot = slice.slot(key.pos);
        let Some((at, pause)) = slot.retry.filter(|_| slot.state == TaskState::Retrying) else {
            return;
        };
        let same = at.boot == self.state.boots;
        if same && Mono(at.mono_ms.saturating_mul(1_000_000)) + pause > self.now.mono {
            return;
        }
        let body = Body::Moved {
            slice: slice.id,
            task: slice.index[key.pos as usize],
            to: TaskState::Ready,
            reason: Reason::AttemptLeft,
        };
        self.emit(body, fx);
    }

    /// Whether a cancel of the slice's run is in force.
    pub(crate) fn cancelled(&self, at: SliceKey) -> bool {
        self.state
            .runs
            .get(&at.0)
            .is_some_and(|run| run.cancel.is_some())
    }

    /// Whether the slice is about to leave this node, or its run to be forgotten.
    pub(crate) fn leaving(&self, at: SliceKey) -> bool {
        let Some(slice) = self.state.slices.get(&at) else {
            return true;
        };
        let forget = self.state.runs.get(&at.0).is_some_and(|run| run.forget);
        slice.releasing || forget || self.superseding(slice.id)
    }

    /// Ends a blocked task that will not run, or puts its question to people.
    pub(crate) fn end_without_attempt(&mut self, key: TaskKey, fx: &mut Effects) {
        use crate::slice::Verdict;
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return;
        };
        let at = key.pos as usize;
        if slice.waits[at] > 0 || slice.slots[at].state != TaskState::Blocked {
            return;
        }
        let (to, reason) = match slice.verdict(key.pos) {
            Verdict::Ends(to, reason) => (to, reason),
            Verdict::Ready => (TaskState::Blocked, Reason::WaitsForPerson),
        };
        let asks = to == TaskState::Blocked;
        if !(asks && slice.slots[at].reason == reason) {
            let (slice, task) = (slice.id, slice.index[at]);
            self.emit(
                Body::Moved {
                    slice,
                    task,
                    to,
                    reason,
                },
                fx,
            );
        }
        if asks {
            self.arm_deadline(key);
        }
    }
}

fn excluded(retry: &Retry, code: i32) -> bool {
    retry.no_retry_on.contains(&code)
        || !retry.retry_on.is_empty() && !retry.retry_on.contains(&code)
}

/// The pause before the attempt after the `used`-th: exponential, bounded, with jitter drawn from
/// `draw`.
pub(crate) fn backoff(retry: &Retry, used: u32, draw: u64) -> Span {
    let mut pause = u128::from(retry.initial_interval.0);
    let longest = u128::from(retry.max_interval.0);
    for _ in 1..used {
        pause = pause * u128::from(retry.backoff_milli) / 1000;
        if pause >= longest || pause == 0 {
            break;
        }
    }
    let pause = pause.min(longest);
    let jitter = pause * u128::from(retry.jitter_milli.min(1000)) / 1000;
    let drawn = (u128::from(draw) * (2 * jitter + 1)) >> 64;
    Span(u64::try_from(pause - jitter + drawn).unwrap_or(u64::MAX))
}

/// Whether a task of this kind may be begun again after an unclean stop.
pub(crate) fn repeatable(task: &Task) -> bool {
    task.side_effects != SideEffects::AtMostOnce
}
