//! When the inboxes are folded: whatever is small at once, facts of runs within a budget a turn, so
//! that a node which brings a long backlog is acknowledged as fast as its facts can be stored, and
//! nobody else waits behind it. What is left lies in the store's inboxes and in memory.

use super::Engine;
use crate::inbox::Message;
use crate::store::{AggregateId, Store, StoreError};
use shared::ids::{NodeId, RunId};
use std::collections::BTreeMap;

/// Messages to one aggregate, by sender and number.
pub(super) type Inbox = BTreeMap<(AggregateId, u64), Message>;

/// Transactions in one commit of the drain.
const DRAIN: usize = 512;
/// So many times the budget is folded in a turn that brings no facts.
const IDLE: usize = 32;
/// Messages that may wait; beyond, whoever brings facts waits until they are folded.
const WAITING: usize = 20_000;
/// Facts that were read and are not folded yet stay in memory up to so many.
const DECODED: usize = 32 * 1024;

impl<S: Store> Engine<S> {
    /// Folds messages, facts of runs within this turn's budget, and places what can be placed.
    /// `arriving`: facts came with this turn.
    pub(super) fn drain(&mut self, arriving: bool) -> Result<(), StoreError> {
        let waiting: usize = self.inbox.values().map(BTreeMap::len).sum();
        let mut budget = match arriving {
            _ if waiting > WAITING => usize::MAX,
            true => self.config.fold_facts,
            false => self.config.fold_facts.saturating_mul(IDLE),
        };
        loop {
            self.seal_round();
            let mut inbox = self.take_messages(&mut budget);
            if inbox.is_empty() {
                // only when all that is known of a run is folded
                self.configure_nodes();
                self.place()?;
                self.seal_round();
                inbox = self.take_messages(&mut budget);
            }
            if inbox.is_empty() {
                break;
            }
            // a run is made of what its schedule knows
            let later = |(to, _): &(AggregateId, _)| !matches!(to, AggregateId::Schedule(_));
            let mut order: Vec<_> = inbox.into_iter().collect();
            order.sort_by_key(later);
            for (to, messages) in order {
                self.fold_inbox(to, messages)?;
            }
            self.seal_round();
            if self.batch.len() >= DRAIN {
                self.commit()?;
            }
        }
        if self.inbox.is_empty() {
            self.decoded.clear();
            self.folded_at.clear();
            self.drop_tombstones();
            self.collect_files()?;
        } else if self.decoded.values().map(Vec::len).sum::<usize>() > DECODED {
            self.decoded.clear();
        }
        self.seal_round();
        self.commit()
    }

    /// Takes the messages that are folded now out of the inboxes: runs take turns, and each gets
    /// its messages in order.
    fn take_messages(&mut self, budget: &mut usize) -> BTreeMap<AggregateId, Inbox> {
        let mut taken = BTreeMap::new();
        let mut left = std::mem::take(&mut self.inbox);
        // behind the run that came last in the turn before
        let behind = left.split_off(&self.folded_last);
        let (first, second) = (behind.into_iter(), left.into_iter());
        for (to, mut messages) in first.chain(second) {
            let mut now = Inbox::new();
            let held = matches!(to, AggregateId::Run(run) if self.is_held(run));
            let mut ends = match held {
                true => ends_of_hold(&mut messages),
                false => Inbox::new(),
            };
            loop {
                // what its nodes told of before they were heard comes first
                if messages.is_empty() && now.is_empty() {
                    messages.append(&mut ends);
                }
                let Some(next) = messages.first_entry() else {
                    break;
                };
                let facts = match (to, next.get()) {
                    (AggregateId::Run(_), Message::Facts { ranges, .. }) => count(ranges),
                    (AggregateId::Run(run), Message::Hold { on: false }) => self.kept_facts(run),
                    _ => 0,
                };
                if facts > 0 && *budget == 0 {
                    break;
                }
                *budget = budget.saturating_sub(facts);
                if facts > 0 {
                    self.folded_last = to;
                }
                let (key, message) = next.remove_entry();
                now.insert(key, message);
            }
            messages.append(&mut ends);
            if !messages.is_empty() {
                self.inbox.insert(to, messages);
            }
            if !now.is_empty() {
                taken.insert(to, now);
            }
        }
        // that a node was heard may end the hold: runs take in before what it told
        let mut folding = self.inbox.keys().chain(taken.keys());
        if folding.any(|to| matches!(to, AggregateId::Run(_)))
            && let Some(heard) = taken.remove(&AggregateId::Fleet)
        {
            self.inbox.insert(AggregateId::Fleet, heard);
        }
        taken
    }

    pub(super) fn is_held(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|run| run.head.held)
    }

    fn kept_facts(&self, run: RunId) -> usize {
        self.runs.get(&run).map_or(0, |run| run.head.kept_facts())
    }

    /// Whether facts wait to be folded.
    pub(super) fn has_backlog(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Number of the first fact of a node that waits to be folded into a run.
    pub(super) fn unfolded(&self, run: RunId, node: NodeId) -> Option<u64> {
        let messages = self.inbox.get(&AggregateId::Run(run))?;
        let of_node = (AggregateId::Node(node), 0)..=(AggregateId::Node(node), u64::MAX);
        messages.range(of_node).find_map(|(_, message)| {
            let Message::Facts { ranges, .. } = message else {
                return None;
            };
            ranges.first().map(|(from, _)| *from)
        })
    }
}

/// Takes the messages out that end the hold of a run.
fn ends_of_hold(messages: &mut Inbox) -> Inbox {
    let ends = |message: &Message| matches!(message, Message::Hold { on: false });
    let taken = messages.extract_if(.., |_, message| ends(message));
    taken.collect()
}

fn count(ranges: &[(u64, u64)]) -> usize {
    let facts: u64 = ranges.iter().map(|(from, to)| to - from + 1).sum();
    usize::try_from(facts).unwrap_or(usize::MAX)
}
