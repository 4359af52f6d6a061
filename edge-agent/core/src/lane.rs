//! Slots: which attempts hold one, which wait in the executor's queue, and which follow another one
//! in its slot.

use crate::agent::{Agent, Att};
use crate::ready::Class;
use crate::state::TaskKey;
use shared::ids::AttemptRef;

/// Attempts of one batch in one slot at most: their starts share a commit.
pub(crate) const LANE: usize = 256;

/// When an attempt that has started begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// At once.
    Now,
    /// When a slot falls free.
    Queue,
    /// In the slot of this one, after it.
    Behind(AttemptRef),
}

impl Turn {
    /// Whom it follows.
    pub(crate) fn behind(self) -> Option<AttemptRef> {
        match self {
            Self::Behind(id) => Some(id),
            Self::Now | Self::Queue => None,
        }
    }
}

impl Agent {
    /// Books an attempt that has started.
    pub(crate) fn hold_slot(&mut self, id: AttemptRef, task: TaskKey, class: Class, turn: Turn) {
        let att = Att {
            task,
            class,
            began: None,
            queued: turn != Turn::Now,
            behind: turn.behind(),
            stop: None,
        };
        self.attempts.insert(id, att);
        match turn {
            Turn::Now => self.usage.take(class, self.ready.wants(class)),
            Turn::Queue => self.queued.push_back(id),
            Turn::Behind(before) => drop(self.lanes.insert(before, id)),
        }
    }

    /// Frees what an attempt held. The next one of its lane takes its place; else the oldest one in
    /// the executor's queue does.
    pub(crate) fn free_slot(&mut self, id: AttemptRef) -> Option<Att> {
        let att = self.attempts.remove(&id)?;
        let next = self.lanes.remove(&id);
        if let Some(next) = next.and_then(|next| self.attempts.get_mut(&next)) {
            next.behind = att.behind;
        }
        if let Some(before) = att.behind {
            self.lanes.remove(&before);
            self.lanes.extend(next.map(|next| (before, next)));
        } else if att.queued {
            let place = self.queued.iter().position(|other| *other == id);
            match (place, next) {
                (Some(place), Some(next)) => self.queued[place] = next,
                _ => self.queued.retain(|other| *other != id),
            }
        } else {
            self.usage.give(att.class, self.ready.wants(att.class));
            next.into_iter().for_each(|next| self.leave_queue(next));
        }
        while self.usage.slots < self.config.slots
            && let Some(next) = self.queued.front().copied()
        {
            self.leave_queue(next);
        }
        Some(att)
    }

    /// The executor begins an attempt that waited.
    pub(crate) fn leave_queue(&mut self, id: AttemptRef) {
        if let Some(att) = self.attempts.get_mut(&id).filter(|att| att.queued) {
            att.queued = false;
            let class = att.class;
            self.ahead.begun += 1;
            match att.behind.take() {
                Some(before) => drop(self.lanes.remove(&before)),
                // Nearly always the oldest one: no look at the hundreds behind it.
                None if self.queued.front() == Some(&id) => drop(self.queued.pop_front()),
                None => self.queued.retain(|other| *other != id),
            }
            self.usage.take(class, self.ready.wants(class));
        }
    }
}
