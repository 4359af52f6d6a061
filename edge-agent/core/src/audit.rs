//! The agent checks itself: what is derived must agree with what it is derived from. Used by tests,
//! the simulator and debug builds.

use crate::agent::Agent;
use crate::state::{State, TaskKey};
use shared::state::TaskState;

/// Above so many tasks the check would cost more than it tells.
const TASKS: usize = 2000;

impl State {
    /// Checks counters against states.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn sanity_check(&self) -> Result<(), String> {
        for (at, slice) in &self.slices {
            let mut counted = slice.clone();
            counted.recount();
            if counted != *slice {
                return Err(format!("slice {}/{}: a counter is off", at.0, at.1));
            }
            if !self.runs.contains_key(&at.0) || !self.workflows.contains_key(&slice.hash) {
                return Err(format!(
                    "slice {}/{}: its run or workflow is gone",
                    at.0, at.1
                ));
            }
        }
        for at in self.resting.keys() {
            if self.slices.contains_key(at) || !self.runs.contains_key(&at.0) {
                return Err(format!("slice {}/{} is not really at rest", at.0, at.1));
            }
        }
        let running: u32 = self.slices.values().map(|slice| slice.running).sum();
        if running as usize != self.running.len() {
            return Err(format!(
                "{} attempts run, {running} are counted",
                self.running.len()
            ));
        }
        for attempt in self.running.keys() {
            let slot = self
                .task_of(*attempt)
                .map(|key| self.slices[&key.slice].slot(key.pos));
            let right = slot.is_some_and(|slot| {
                slot.state == TaskState::Running && slot.attempts == attempt.number
            });
            if !right {
                return Err(format!("{attempt:?} runs, its task does not"));
            }
        }
        Ok(())
    }
}

impl Agent {
    /// Checks the state and the indexes over it.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn sanity_check(&self) -> Result<(), String> {
        let tasks: usize = self
            .state
            .slices
            .values()
            .map(|slice| slice.slots.len())
            .sum();
        if !self.booted || tasks > TASKS {
            return Ok(());
        }
        self.state.sanity_check()?;
        for attempt in self.state.running.keys() {
            if !self.attempts.contains_key(attempt) {
                return Err(format!("{attempt:?} runs and is not booked"));
            }
        }
        let holding = self.attempts.values().filter(|att| !att.queued).count();
        if holding != self.usage.slots as usize {
            return Err(format!(
                "{holding} attempts hold {} slots",
                self.usage.slots
            ));
        }
        if self.attempts.len() - holding != self.queued.len() + self.lanes.len() {
            return Err("the queue of the executor is off".to_owned());
        }
        if self
            .state
            .resting
            .keys()
            .any(|at| !self.ready.of_slice(*at).is_empty())
        {
            return Err("a task at rest is ready".to_owned());
        }
        for (at, slice) in &self.state.slices {
            for pos in 0..slice.slots.len() as u32 {
                self.check_task(TaskKey { slice: *at, pos })?;
            }
        }
        Ok(())
    }

    fn check_task(&self, key: TaskKey) -> Result<(), String> {
        let slice = &self.state.slices[&key.slice];
        let state = slice.slot(key.pos).state;
        let waits = self.files.missing(key).next().is_some();
        let right = match (state, self.may_start(key)) {
            (TaskState::Ready, true) => self.ready.holds(key) != waits,
            _ => !self.ready.holds(key),
        };
        if !right {
            let id = &slice.task(key.pos).id;
            return Err(format!("task {id} is {state} and in the wrong place"));
        }
        let asks = slice.question(key.pos).is_some_and(|(_, open)| open);
        let stuck = state == TaskState::Blocked && slice.waits[key.pos as usize] == 0 && !asks;
        if stuck {
            return Err(format!(
                "task {} is blocked and waits for nothing",
                slice.task(key.pos).id
            ));
        }
        Ok(())
    }
}
