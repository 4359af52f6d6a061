//! Recovery: what becomes of attempts that had started when the agent or the machine went down. All
//! work is resumed first; then the link is dialled.

use crate::agent::{Agent, Effects};
use crate::attempt::repeatable;
use crate::event::{Action, Boot};
use crate::lane::Turn;
use crate::rng::Rng;
use shared::explain::Reason;
use shared::fact::{Body, End, Outcome};
use shared::ids::{AttemptRef, SliceRef};
use shared::planted::{self, Mistake};
use shared::state::TaskState;
use std::collections::BTreeSet;

impl Agent {
    pub(crate) fn on_boot(&mut self, boot: Boot, fx: &mut Effects) {
        self.booted = true;
        self.boot = boot.boot;
        self.rng = Rng(boot.seed);
        self.clock_trusted = boot.clock_trusted;
        self.begin_schedules();
        let rebooted = self.state.boot.is_some_and(|known| known != boot.boot);
        let unclean = self.state.boot.is_some() && !boot.clean_stop;
        self.emit(
            Body::Booted {
                boot: boot.boot,
                unclean,
                rebooted,
            },
            fx,
        );
        let started = |attempt| self.state.running.get(attempt).copied();
        let mut alive: Vec<_> = boot.alive.iter().map(|id| (started(id), *id)).collect();
        alive.sort_unstable();
        for (_, attempt) in alive {
            self.adopt(attempt, boot.directories.contains(&attempt), fx);
        }
        for end in boot.ended {
            self.on_ended(end, fx);
        }
        self.resolve(&boot.directories, rebooted, fx);
        self.tell_settings(fx);
        self.look_at_all(fx);
        self.settle(fx);
        self.tidy_soon();
        self.link.since = self.now.mono;
        self.follow_sync(fx);
    }

    /// Takes an attempt that the executor still has back into the books; one that the journal does
    /// not know is ended. One without a directory still waits there.
    fn adopt(&mut self, attempt: AttemptRef, begun: bool, fx: &mut Effects) {
        let known = self.state.running.contains_key(&attempt);
        let Some(key) = self.state.task_of(attempt).filter(|_| known) else {
            let grace = shared::time::Span(0);
            fx.before.push(Action::Stop { attempt, grace });
            return;
        };
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return;
        };
        let within = slice.group_of(key.pos).map(|matrix| (key.slice, matrix));
        let class = self.ready.class(&slice.task(key.pos).resources, within);
        if !begun {
            self.hold_slot(attempt, key, class, Turn::Queue);
            return;
        }
        self.hold_slot(attempt, key, class, Turn::Now);
        if planted::on(Mistake::AdoptedTakeNone) {
            self.usage.slots -= 1;
        }
        let now = self.now.mono;
        if let Some(att) = self.attempts.get_mut(&attempt) {
            att.began = Some(now);
        }
        self.arm_timeout(attempt, key, now);
    }

    /// Ends every attempt that nobody runs any more.
    fn resolve(&mut self, present: &BTreeSet<AttemptRef>, rebooted: bool, fx: &mut Effects) {
        let mut open: Vec<(u64, AttemptRef)> = Vec::new();
        for (attempt, started) in &self.state.running {
            if !self.attempts.contains_key(attempt) {
                open.push((*started, *attempt));
            }
        }
        open.sort_unstable();
        let (mut place, mut last) = (0, None);
        for (started, attempt) in open {
            // Of those that follow one another in a slot only the first can have been running.
            let lane = self.batch_of(attempt).map(|batch| (started, batch));
            let follows = lane.is_some_and(|(n, batch)| last == Some((n - 1, batch)));
            last = lane;
            let once = self.at_most_once(attempt);
            // After a power loss directories prove nothing; only so many can have been running.
            let may_have_begun = if rebooted {
                once || !follows && place < self.config.slots
            } else {
                present.contains(&attempt)
            };
            place += u32::from(!follows);
            let end = self.interrupted(attempt, may_have_begun, once);
            self.emit(Body::Ended { attempt, end }, fx);
        }
    }

    /// The batch that an attempt's task belongs to, with its slice.
    fn batch_of(&self, attempt: AttemptRef) -> Option<(SliceRef, u32)> {
        let slice = self.state.slice_at(attempt.slice)?;
        let task = slice.task(slice.position(attempt.task)?);
        task.batch.map(|batch| (attempt.slice, batch))
    }

    pub(crate) fn at_most_once(&self, attempt: AttemptRef) -> bool {
        let Some(slice) = self.state.slice_at(attempt.slice) else {
            return false;
        };
        slice
            .position(attempt.task)
            .is_some_and(|pos| !repeatable(slice.task(pos)))
    }

    fn interrupted(&self, attempt: AttemptRef, begun: bool, once: bool) -> End {
        let (outcome, reason, task) = if !begun {
            (Outcome::NotBegun, Reason::NeverBegan, self.again(attempt))
        } else if once && !planted::on(Mistake::BeginInDoubt) {
            (Outcome::Lost, Reason::InDoubt, TaskState::Lost)
        } else if self.crashed_too_often(attempt) {
            (Outcome::Lost, Reason::CrashLimit, TaskState::Failed)
        } else {
            (Outcome::Lost, Reason::AgentDied, self.again(attempt))
        };
        End {
            outcome,
            reason,
            exit: None,
            began: None,
            outputs: Vec::new(),
            retry_in: None,
            task,
            cpu_ms: 0,
            peak_memory: 0,
        }
    }

    fn again(&self, attempt: AttemptRef) -> TaskState {
        let at = crate::state::key(attempt.slice);
        if self.cancelled(at) {
            TaskState::Cancelled
        } else {
            TaskState::Ready
        }
    }

    fn crashed_too_often(&self, attempt: AttemptRef) -> bool {
        let Some(key) = self.state.task_of(attempt) else {
            return false;
        };
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return false;
        };
        self.state.unclean && slice.slot(key.pos).crashes + 1 >= slice.task(key.pos).crash_limit
    }
}
