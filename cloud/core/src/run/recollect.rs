//! What a store that went back learns from facts alone: slices that their nodes gave up behind the
//! backup, for a retry or a move, so that no inventory names them.

use super::{At, Run};
use shared::fact::{Body, Fact};
use shared::ids::{SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::wire::LogId;

impl Run {
    /// Whether facts may show slices that this store forgot: of a run that began at its gateway all
    /// are there.
    pub fn may_recollect(&self) -> bool {
        self.head.known && self.head.held && self.head.origin.is_none()
    }

    /// Takes over what facts that were kept back show of slices and owners; nothing counts yet. Of
    /// a log that still has something to tell here the inventory comes first.
    pub fn claim_kept(
        &mut self,
        at: At<'_>,
        log: LogId,
        facts: &mut dyn Iterator<Item = (u64, &Fact)>,
    ) {
        if !self.has_told(at, log) {
            return;
        }
        let id = self.id;
        for (_, fact) in facts.filter(|(_, fact)| fact.body.run() == Some(id)) {
            self.recollect(at, log, fact);
        }
    }

    /// Takes over the slice that a fact shows and this store forgot, or the task that a fact of
    /// such a slice is about. Else what it says would not count, and what must not run twice would
    /// be placed again although it was done there.
    pub(super) fn recollect(&mut self, at: At<'_>, log: LogId, fact: &Fact) {
        match &fact.body {
            Body::Accepted { slice } => self.recollect_slice(log, *slice),
            Body::Started { attempt } | Body::Ended { attempt, .. } => {
                self.recollect_task(at, log, attempt.slice, attempt.task);
            }
            Body::Moved { slice, task, .. } | Body::Answered { slice, task, .. } => {
                self.recollect_task(at, log, *slice, *task);
            }
            _ => {}
        }
    }

    fn recollect_slice(&mut self, log: LogId, slice: SliceRef) {
        let known = self.head.slices.get(slice.slice as usize);
        let forgotten = known.is_none_or(|s| !s.is_known());
        if self.may_recollect() && forgotten && self.may_number(slice) {
            self.adopt_slice(log, slice);
            self.head.recollected.insert(slice);
            // a hole in the facts before this one says nothing of it
            self.head.adopted.insert(slice);
        }
    }

    /// Such a fact says whose a task was, unless a newer slice has it, or had it.
    fn recollect_task(&mut self, at: At<'_>, log: LogId, slice: SliceRef, task: TaskIdx) {
        if !self.head.recollected.contains(&slice) || self.mine(log, slice).is_err() {
            return;
        }
        let Some(row) = self.row(task) else { return };
        let owner = self.head.slices.get(row.slice as usize);
        let newer = owner.is_some_and(|s| s.epoch >= slice.epoch);
        if newer || row.history.iter().any(|a| a.epoch > slice.epoch) {
            return;
        }
        let (before, over) = (row.slice, row.state.is_final());
        let parted = owner.is_some_and(super::Slice::counts);
        self.own(task, slice.slice);
        if over {
            self.set(task, TaskState::Blocked, None, at.wall);
        }
        if parted {
            self.note_parted(&[before].into());
        }
    }
}
