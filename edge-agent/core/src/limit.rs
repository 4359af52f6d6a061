//! Limits of matrices within a slice: how many members may run at once, and when no more begin.
//!
//! A slice that the coordinator cut has of a matrix's `max_parallel` the share that it was told
//! last, none before; one of a run that belongs to this node has all of it. A share that is no
//! longer needed is given back by a fact, and then not used again.

use crate::agent::{Agent, Effects, StopWhy};
use crate::slice::Slice;
use crate::state::{Open, SliceKey, State, TaskKey, Touch, key};
use serde::{Deserialize, Serialize};
use shared::directive::Limit;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{AttemptRef, Epoch, SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::workflow::Matrix;
use std::collections::BTreeMap;

/// A matrix with limits, in a slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Group {
    /// What was told.
    pub told: Told,
    /// Members that are not final.
    pub open: u32,
    /// Members that have started and not ended.
    pub running: u32,
    /// Members that failed.
    pub failed: u32,
}

/// What the coordinator told of a matrix, and what it was answered. Part of the snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// Number of the last word.
    pub seq: u64,
    /// So many members may run at once.
    pub share: u32,
    /// No more members begin.
    pub stop: bool,
    /// The word that was answered last.
    pub answered: u64,
    /// What was said to be held then.
    pub held: u32,
}

/// The limits of the matrix that a task belongs to; a question runs nothing, and has none.
fn limits(slice: &Slice, pos: u32) -> Option<(u32, &Matrix)> {
    let at = slice.index[pos as usize];
    let (number, matrix) = slice.workflow.matrix_of(at)?;
    let limited = matrix.max_parallel.is_some() || matrix.max_fails.is_some();
    (limited && slice.task(pos).approval().is_none()).then_some((number, matrix))
}

impl Slice {
    /// The limited matrix that a task belongs to.
    pub(crate) fn group_of(&self, pos: u32) -> Option<u32> {
        if self.groups.is_empty() {
            return None;
        }
        limits(self, pos).map(|(number, _)| number)
    }

    /// Finds the limited matrices of a new slice.
    pub(crate) fn find_groups(&mut self) {
        let mut groups = BTreeMap::new();
        let ours = self.id.epoch == Epoch::LOCAL;
        for pos in 0..self.index.len() as u32 {
            if let Some((number, matrix)) = limits(self, pos) {
                let share = match matrix.max_parallel {
                    Some(most) if ours => most,
                    Some(_) => 0,
                    None => u32::MAX,
                };
                let told = Told {
                    share,
                    ..Told::default()
                };
                let group = Group {
                    told,
                    ..Group::default()
                };
                groups.entry(number).or_insert(group);
            }
        }
        self.groups = groups;
        self.count_groups();
    }

    /// What was told of each.
    pub(crate) fn limits(&self) -> Vec<(u32, Told)> {
        let groups = self.groups.iter();
        groups
            .map(|(matrix, group)| (*matrix, group.told))
            .collect()
    }

    /// Counts anew what the groups count.
    pub(crate) fn count_groups(&mut self) {
        if self.groups.is_empty() {
            return;
        }
        for group in self.groups.values_mut() {
            (group.open, group.running, group.failed) = (0, 0, 0);
        }
        for pos in 0..self.slots.len() as u32 {
            let state = self.slot(pos).state;
            if let Some(group) = self.group_of(pos).and_then(|n| self.groups.get_mut(&n)) {
                group.count(state, 1);
            }
        }
    }

    /// A task changes its state.
    pub(crate) fn regroup(&mut self, pos: u32, from: TaskState, to: TaskState) {
        if let Some(group) = self.group_of(pos).and_then(|n| self.groups.get_mut(&n)) {
            group.count(from, -1);
            group.count(to, 1);
        }
    }

    /// Whether no more members of a matrix may begin here for now: its share, and how many run.
    pub(crate) fn full(&self, matrix: u32) -> Option<(u32, u32)> {
        let group = self.groups.get(&matrix)?;
        (group.running >= group.told.share).then_some((group.told.share, group.running))
    }

    /// Whether no more members of a matrix begin at all.
    fn stopped(&self, matrix: u32) -> bool {
        let Some(group) = self.groups.get(&matrix) else {
            return false;
        };
        let most = self.workflow.matrices.get(matrix as usize);
        let most = most.and_then(|matrix| matrix.max_fails);
        group.told.stop || most.is_some_and(|most| group.failed > most)
    }
}

impl Group {
    fn count(&mut self, state: TaskState, by: i32) {
        let counts = [
            (!state.is_final(), &mut self.open),
            (state == TaskState::Running, &mut self.running),
            (state == TaskState::Failed, &mut self.failed),
        ];
        for (is, count) in counts {
            if is {
                *count = count.saturating_add_signed(by);
            }
        }
    }

    /// What of the share is needed still.
    fn held(&self) -> u32 {
        if self.told.share == u32::MAX {
            return 0;
        }
        self.told.share.min(self.open).max(self.running)
    }
}

impl State {
    /// The coordinator's word on a matrix. Whether its slice is here.
    pub(crate) fn limit(&mut self, limit: &Limit, touch: &mut Touch) -> bool {
        let at = key(limit.slice);
        let held = self.slices.get_mut(&at);
        let Some(slice) = held.filter(|held| held.id == limit.slice) else {
            return false;
        };
        if let Some(group) = slice.groups.get_mut(&limit.matrix) {
            (group.told.seq, group.told.stop) = (limit.seq, limit.stop);
            if group.told.share != u32::MAX {
                group.told.share = limit.share;
            }
        }
        touch.rows.insert(crate::state::Row::Slice(at));
        touch.slices.insert(at);
        true
    }

    /// What was told of a slice before it was taken over.
    pub(crate) fn limit_early(&mut self, id: SliceRef, touch: &mut Touch) {
        let early = self.open.iter().filter_map(|(number, open)| match open {
            Open::Limit(limit) if limit.slice == id => Some((*number, *limit)),
            _ => None,
        });
        for (number, limit) in early.collect::<Vec<_>>() {
            self.open.remove(&number);
            self.limit(&limit, touch);
        }
    }

    /// What is held of a share was said.
    pub(crate) fn limited(&mut self, said: &Body, touch: &mut Touch) {
        let Body::Limited {
            slice,
            matrix,
            seq,
            held,
        } = *said
        else {
            return;
        };
        self.with(slice, touch, |slice| {
            if let Some(group) = slice.groups.get_mut(&matrix) {
                (group.told.answered, group.told.held) = (seq, held);
                if group.told.share != u32::MAX {
                    group.told.share = group.told.share.min(held);
                }
            }
        });
    }
}

impl Agent {
    /// Answers what was told of limits, gives back what is not needed, ends what begins no more.
    pub(crate) fn check_limits(&mut self, at: SliceKey, fx: &mut Effects) {
        let Some(slice) = self.state.slices.get(&at) else {
            return;
        };
        let id = slice.id;
        for matrix in slice.groups.keys().copied().collect::<Vec<u32>>() {
            let stopped = self.state.slices.get(&at).map(|held| held.stopped(matrix));
            if stopped == Some(true) {
                self.stop_matrix(at, matrix, fx);
            }
            let group = self.state.slices.get(&at).map(|held| held.groups[&matrix]);
            let Some(group) = group else { return };
            let (told, held) = (group.told, group.held());
            if told.seq > 0 && (told.answered != told.seq || held < told.held) {
                let seq = told.seq;
                self.emit(
                    Body::Limited {
                        slice: id,
                        matrix,
                        seq,
                        held,
                    },
                    fx,
                );
            }
        }
    }

    /// Ends the members of a matrix that have not begun, and those that wait for another attempt.
    fn stop_matrix(&mut self, at: SliceKey, matrix: u32, fx: &mut Effects) {
        let Some(slice) = self.state.slices.get(&at) else {
            return;
        };
        let id = slice.id;
        let (mut queued, mut ends): (Vec<AttemptRef>, Vec<(TaskIdx, TaskState)>) =
            Default::default();
        for pos in (0..slice.slots.len() as u32).filter(|pos| slice.group_of(*pos) == Some(matrix))
        {
            let (slot, task) = (slice.slot(pos), slice.index[pos as usize]);
            match slot.state {
                TaskState::Running => queued.push(AttemptRef {
                    slice: id,
                    task,
                    number: slot.attempts,
                }),
                TaskState::Blocked | TaskState::Ready | TaskState::Retrying => {
                    let to = match slot.used {
                        0 => TaskState::Skipped,
                        _ => TaskState::Failed,
                    };
                    ends.push((task, to));
                }
                _ => {}
            }
        }
        for attempt in queued {
            if self.attempts.get(&attempt).is_some_and(|att| att.queued) {
                self.stop(attempt, StopWhy::Pause, false, fx);
            }
        }
        for (task, to) in ends {
            let reason = Reason::TooManyFailed;
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

    /// The limit that keeps a ready task from starting: its matrix's share, and how many run.
    pub(crate) fn limit_of(&self, task: TaskKey) -> Option<(u32, u32)> {
        let slice = self.state.slices.get(&task.slice)?;
        slice.full(slice.group_of(task.pos)?)
    }
}
