//! Notes: the evidence of decisions, kept as numbers and spelled out only when somebody looks or
//! when they travel. Bounded; an unchanged "held" only raises a counter.

use crate::agent::{Agent, Effects};
use crate::state::{SliceKey, TaskKey};
use serde::{Deserialize, Serialize};
use shared::explain::{Decision, DecisionKind, Evidence, Reason};
use shared::ids::{SliceRef, TaskIdx};
use shared::time::{Mono, Unix};
use shared::wire::Detail;
use std::collections::{BTreeMap, VecDeque};

/// Notes kept in memory.
const NOTES: usize = 8192;

/// The numbers that decided; their names follow from action and reason.
pub(crate) type Numbers = [u64; 3];

/// A decision about a task. Also the stored form of a detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The slice.
    pub slice: SliceRef,
    /// The task.
    pub task: TaskIdx,
    /// The last fact when it was decided.
    pub fact: u64,
    /// When, by the node's wall clock.
    pub at: Unix,
    /// What.
    pub action: DecisionKind,
    /// Why.
    pub reason: Reason,
    /// What decided.
    pub numbers: [u64; 3],
    /// How often it was decided the same way again.
    pub repeats: u32,
}

/// Recent notes.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    recent: VecDeque<Note>,
    /// Number of notes ever made; the last of `recent` has this number.
    made: u64,
    /// Notes up to this number went up.
    sent: u64,
    held: BTreeMap<TaskKey, (Note, Mono)>,
}

impl Notes {
    /// The notes about a task, oldest first.
    pub(crate) fn about(&self, key: TaskKey, slice: SliceRef, task: TaskIdx) -> Vec<&Note> {
        let recent = self
            .recent
            .iter()
            .filter(|note| note.slice == slice && note.task == task);
        recent
            .chain(self.held.get(&key).map(|(note, _)| note))
            .collect()
    }

    /// Forgets the counters of a slice that is gone.
    pub(crate) fn forget(&mut self, at: SliceKey) {
        self.held.retain(|key, _| key.slice != at);
    }

    /// Notes that did not go up yet, at most 100.
    pub(crate) fn unsent(&mut self) -> Vec<Detail> {
        let first = self.made - self.recent.len() as u64;
        let from = self.sent.max(first);
        let fresh = self.recent.iter().skip((from - first) as usize).take(100);
        let details: Vec<Detail> = fresh.map(Note::detail).collect();
        self.sent = from + details.len() as u64;
        details
    }

    fn push(&mut self, note: Note) {
        // first of all: one more than there may be would double the room that they take
        if self.recent.len() >= NOTES {
            self.recent.pop_front();
        }
        self.recent.push_back(note);
        self.made += 1;
    }
}

impl Note {
    /// Spelled out.
    #[must_use]
    pub fn decision(&self) -> Decision {
        let names: &[&str] = match (self.action, self.reason) {
            (DecisionKind::Admitted, _) => &["slots_used", "ready_behind"],
            (DecisionKind::Held, Reason::WaitsForFile) => &["files_missing"],
            (DecisionKind::Held, Reason::WaitsForLimit) => &["share", "running"],
            (DecisionKind::Held, Reason::WaitsForDisk) => &["free_bytes"],
            (
                DecisionKind::Held,
                Reason::CpuPressure | Reason::MemoryPressure | Reason::IoPressure | Reason::TooHot,
            ) => &["read_hundredths", "limit_hundredths"],
            (DecisionKind::Held, _) => &["wanted", "free"],
            (DecisionKind::Retried, _) => &["executions", "max_attempts", "pause_ms"],
            _ => &["executions", "max_attempts"],
        };
        let evidence = names
            .iter()
            .zip(self.numbers)
            .map(|(name, n)| Evidence::new(*name, n))
            .collect();
        Decision {
            action: self.action,
            reason: self.reason,
            confidence_milli: 1000,
            evidence,
            repeats: self.repeats,
        }
    }

    fn detail(&self) -> Detail {
        Detail {
            fact: self.fact,
            task: Some((self.slice, self.task)),
            decision: self.decision(),
        }
    }
}

impl Agent {
    /// Notes a decision. Returns since when a task is held like this.
    pub(crate) fn note(
        &mut self,
        key: TaskKey,
        action: DecisionKind,
        reason: Reason,
        numbers: Numbers,
        fx: &mut Effects,
    ) -> Mono {
        let now = self.now.mono;
        if action == DecisionKind::Held
            && let Some((note, since)) = self.notes.held.get_mut(&key)
            && note.reason == reason
        {
            note.repeats = note.repeats.saturating_add(1);
            note.numbers = numbers;
            return *since;
        }
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return now;
        };
        let note = Note {
            slice: slice.id,
            task: slice.index[key.pos as usize],
            fact: self.state.facts,
            at: self.now.wall,
            action,
            reason,
            numbers,
            repeats: 0,
        };
        if let Some((old, _)) = self.notes.held.remove(&key) {
            self.notes.push(old);
        }
        if action == DecisionKind::Held {
            self.notes.held.insert(key, (note, now));
        } else {
            if action != DecisionKind::Admitted {
                fx.details.push((note.fact, shared::codec::encode(&note)));
            }
            self.notes.push(note);
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::{Epoch, RunId};

    #[test]
    fn the_last_notes_take_no_more_room_than_they_need() {
        let mut notes = Notes::default();
        let run = RunId([1; 16]);
        let slice = SliceRef {
            run,
            slice: 0,
            epoch: Epoch(0),
        };
        for fact in 0..=NOTES as u64 {
            notes.push(Note {
                slice,
                task: TaskIdx(0),
                fact,
                at: Unix(0),
                action: DecisionKind::Admitted,
                reason: Reason::ResourcesFree,
                numbers: [0; 3],
                repeats: 0,
            });
        }
        assert_eq!(notes.recent.len(), NOTES);
        assert!(notes.recent.capacity() < 2 * NOTES);
        assert_eq!(notes.unsent()[0].fact, 1, "the oldest one went");
    }
}
