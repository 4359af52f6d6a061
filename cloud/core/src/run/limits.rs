//! Limits of matrices over slices: who may run how many members at once, and when no more begin.
//!
//! Invariant: over the slices that count, what they were told and have not given back is never more
//! than `max_parallel`. So no slice runs what another one was promised, however long it is silent.

use super::{At, NONE, Run, Stage};
use crate::effects::Effects;
use crate::inbox::Message;
use crate::run::place::Candidate;
use serde::{Deserialize, Serialize};
use shared::directive::Limit;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{Epoch, NodeId, TaskIdx};
use shared::state::TaskState;
use shared::wire::LogId;
use shared::workflow::Matrix;
use std::collections::{BTreeMap, BTreeSet};

/// What a slice may run of a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Share {
    /// Number of the last word.
    pub seq: u64,
    /// What it was told last, less what it gave back of that.
    pub told: u32,
    /// What it may hold, whichever of the words has reached it.
    pub held: u32,
    /// It was told that no more members begin.
    pub stop: bool,
}

/// The members of a matrix as they stand.
#[derive(Debug, Default)]
struct Members {
    failed: u32,
    /// Not final, by slice.
    open: BTreeMap<u32, u32>,
    /// On no node and not final.
    unplaced: Vec<TaskIdx>,
}

impl Run {
    /// Whether shares may have to be given out.
    #[must_use]
    pub fn wants_shares(&self) -> bool {
        let head = &self.head;
        head.limited && !head.held && head.origin.is_none() && !head.state.is_final()
    }

    fn members(&self, matrix: u32) -> Members {
        let mut members = Members::default();
        let Some(body) = &self.body else {
            return members;
        };
        for (at, row) in (0u32..).zip(&body.tasks) {
            let spec = &body.workflow.tasks[at as usize];
            if spec.matrix != Some(matrix) || spec.approval().is_some() {
                continue;
            }
            members.failed += u32::from(row.state == TaskState::Failed);
            match row.state.is_final() {
                true => {}
                false if row.slice == NONE => members.unplaced.push(TaskIdx(at)),
                false => *members.open.entry(row.slice).or_default() += 1,
            }
        }
        members
    }

    /// Gives out what is free, and says where no more members begin.
    pub fn share_out(&mut self, at: At<'_>, nodes: &[Candidate], fx: &mut Effects) {
        if !self.wants_shares() {
            return;
        }
        let slices = &self.head.slices;
        let counts = |slice: u32| slices.get(slice as usize).is_some_and(super::Slice::counts);
        self.head.shares.retain(|(slice, _), _| counts(*slice));
        let limited = self.body.iter().flat_map(|body| &body.workflow.matrices);
        let limited: Vec<(u32, Matrix)> = (0u32..).zip(limited.cloned()).collect();
        let online: BTreeSet<NodeId> = nodes.iter().filter(|n| n.online).map(|n| n.id).collect();
        for (number, matrix) in limited {
            let mut members = self.members(number);
            if matrix.max_fails.is_some_and(|most| members.failed > most) {
                self.stop_members(at, number, &mut members, fx);
            }
            if let Some(most) = matrix.max_parallel {
                self.give(at, (number, most), &members, &online, fx);
            }
        }
        self.refresh(at.wall);
    }

    /// Too many failed: no more of them begin, wherever they are.
    fn stop_members(&mut self, at: At<'_>, matrix: u32, members: &mut Members, fx: &mut Effects) {
        let unplaced = std::mem::take(&mut members.unplaced);
        for task in &unplaced {
            let began = self
                .body
                .as_ref()
                .is_some_and(|b| b.tasks[task.0 as usize].failed() > 0);
            let to = match began {
                false => TaskState::Skipped,
                true => TaskState::Failed,
            };
            self.set(*task, to, Some(Reason::TooManyFailed), at.wall);
        }
        self.tell(&unplaced, fx);
        if !unplaced.is_empty() {
            self.settle(at.wall, fx);
        }
        for slice in members.open.keys().copied().collect::<Vec<u32>>() {
            let share = self
                .head
                .shares
                .get(&(slice, matrix))
                .copied()
                .unwrap_or_default();
            if self.takes_words(slice) && !share.stop {
                self.tell_share(at, (slice, matrix), share.told, true, fx);
            }
        }
    }

    fn takes_words(&self, slice: u32) -> bool {
        let known = self.head.slices.get(slice as usize);
        known.is_some_and(|s| matches!(s.stage, Stage::Assigned | Stage::Accepted))
    }

    /// Gives what is free to slices that have too little and can be told now, the poorest first.
    fn give(
        &mut self,
        at: At<'_>,
        (matrix, most): (u32, u32),
        members: &Members,
        online: &BTreeSet<NodeId>,
        fx: &mut Effects,
    ) {
        let mut free = most.saturating_sub(self.held(matrix));
        let share = |slice: u32| self.head.shares.get(&(slice, matrix)).copied();
        let mut wants: BTreeMap<u32, (u32, u32)> = members
            .open
            .iter()
            .filter(|(slice, _)| {
                let here = online.contains(&self.head.slices[**slice as usize].node);
                here && self.takes_words(**slice) && !share(**slice).is_some_and(|s| s.stop)
            })
            .map(|(slice, open)| (*slice, (share(*slice).map_or(0, |s| s.told), *open)))
            .filter(|(_, (told, open))| told < open)
            .collect();
        let mut given = BTreeSet::new();
        while free > 0
            && let Some((slice, (told, open))) = wants
                .iter_mut()
                .min_by_key(|(slice, (told, _))| (*told, **slice))
        {
            *told += 1;
            free -= 1;
            given.insert((*slice, *told));
            if told >= open {
                let full = *slice;
                wants.remove(&full);
            }
        }
        let last: BTreeMap<u32, u32> = given.into_iter().collect();
        for (slice, share) in last {
            self.tell_share(at, (slice, matrix), share, false, fx);
        }
    }

    /// What slices may hold of a matrix, all together.
    #[must_use]
    pub fn held(&self, matrix: u32) -> u32 {
        let shares = self.head.shares.iter();
        let ours = shares.filter(|((_, of), _)| *of == matrix);
        ours.map(|(_, share)| share.held)
            .fold(0, u32::saturating_add)
    }

    /// A life of a node is over: nothing runs there, and what a slice that had ended held is free,
    /// whether that was said or not.
    pub(super) fn drop_shares(&mut self, log: LogId) {
        let slices = &self.head.slices;
        let there = |slice: u32| {
            let slice = slices.get(slice as usize);
            slice.is_some_and(|s| s.is_of(log))
        };
        self.head.shares.retain(|(slice, _), _| !there(*slice));
    }

    fn tell_share(
        &mut self,
        at: At<'_>,
        (slice, matrix): (u32, u32),
        share: u32,
        stop: bool,
        fx: &mut Effects,
    ) {
        let known = self.head.shares.entry((slice, matrix)).or_default();
        // a store that went back does not use a number again
        let seq = (known.seq + 1).max(Epoch::new(at.generation, 0).0);
        *known = Share {
            seq,
            told: share,
            held: known.held.max(share),
            stop: known.stop || stop,
        };
        let stop = known.stop;
        let limit = Limit {
            slice: self.slice_ref(slice),
            matrix,
            seq,
            share,
            stop,
        };
        let node = self.head.slices[slice as usize].node;
        self.send(node, Message::Limit(limit), fx);
    }

    /// A node says what a slice holds since a word.
    pub(super) fn limited(&mut self, log: LogId, said: &Body) -> Result<(), Reason> {
        let Body::Limited {
            slice,
            matrix,
            seq,
            held,
        } = *said
        else {
            return Ok(());
        };
        self.mine(log, slice)?;
        let known = self.head.shares.entry((slice.slice, matrix)).or_default();
        if seq >= known.seq {
            (known.seq, known.told, known.held) = (seq, held, held);
        } else {
            known.held = held.max(known.told);
        }
        Ok(())
    }

    /// Says a slice's shares again: words to it may be lost, and nobody knows what it holds.
    pub(super) fn repeat_shares(&mut self, at: At<'_>, slice: u32, fx: &mut Effects) {
        let shares = self.head.shares.range((slice, 0)..=(slice, u32::MAX));
        let shares: Vec<_> = shares.map(|(key, share)| (*key, *share)).collect();
        for (key, share) in shares {
            self.tell_share(at, key, share.told, share.stop, fx);
        }
    }

    /// After a restore: what slices hold is known when they have said it.
    pub(super) fn ask_shares(&mut self, at: At<'_>, fx: &mut Effects) {
        if !self.wants_shares() {
            return;
        }
        let matrices = self.body.iter().flat_map(|body| &body.workflow.matrices);
        let limits = (0u32..).zip(matrices.map(|matrix| matrix.max_parallel));
        let limits: Vec<(u32, u32)> = limits.filter_map(|(n, most)| Some((n, most?))).collect();
        for (matrix, most) in limits {
            let open = self.members(matrix).open;
            for slice in open
                .into_keys()
                .filter(|slice| self.takes_words(*slice))
                .collect::<Vec<u32>>()
            {
                let known = self.head.shares.entry((slice, matrix)).or_default();
                known.held = most;
                let (told, stop) = (known.told, known.stop);
                self.tell_share(at, (slice, matrix), told, stop, fx);
            }
        }
    }

    /// Why a placed task that could run waits for others of its matrix, for people; `name` says
    /// what a node is called.
    #[must_use]
    pub fn limit_text(&self, task: TaskIdx, name: &dyn Fn(NodeId) -> String) -> Option<String> {
        let body = self.body.as_ref()?;
        let (number, matrix) = body.workflow.matrix_of(task)?;
        let most = matrix.max_parallel.filter(|_| self.head.origin.is_none())?;
        let row = &body.tasks[task.0 as usize];
        if !matches!(row.state, TaskState::Blocked | TaskState::Ready) {
            return None;
        }
        let mine = self
            .head
            .shares
            .get(&(row.slice, number))
            .map_or(0, |s| s.told);
        let others = self.head.shares.iter();
        let others =
            others.filter(|((s, m), share)| *m == number && *s != row.slice && share.held > 0);
        let others: Vec<String> = others
            .filter_map(|((slice, _), share)| {
                let node = self.head.slices.get(*slice as usize)?.node;
                Some(format!("{} holds {}", name(node), share.held))
            })
            .collect();
        let id = &matrix.id;
        let others = match others.is_empty() {
            true => String::new(),
            false => format!("; {}", others.join(", ")),
        };
        Some(format!(
            "of {id} at most {most} run at once, {mine} of them in its slice{others}"
        ))
    }
}
