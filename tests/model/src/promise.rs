//! The promises of the contract, as conditions that no reachable state may break.

use crate::log::{Entry, Epoch, Kind};
use crate::rule::Rule;
use crate::state::{MACHINES, NODES, State, Truth, node_of};
use crate::world::World;

/// What must hold in every state. Some are broken by a step and remembered as a bit, the others
/// are read off the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Promise {
    /// What a side acknowledged is on its disk, unless that disk went back.
    AcknowledgedIsDurable,
    /// A fact that the edge removed is in the coordinator's store.
    NothingLost,
    /// What the two sides of a session have of a log is one history, each entry once.
    AppliedOnceInOrder,
    /// A slice has one outcome, and it stays.
    CountedOnce,
    /// An epoch of a slice is worked on by one node.
    OneOwner,
    /// What is at most once begins at most once.
    AtMostOnce,
    /// A machine whose session lives is not put out by another.
    OriginalStays,
    /// Work at the edge is stopped only by what names it.
    WorkIsKept,
    /// Runs are held only if the store went back.
    HeldForAReason,
    /// An exclusive task runs on one machine at a time.
    Exclusive,
    /// When faults stop, every slice comes to its end or waits for a person, and both sides agree.
    ComesToRest,
}

impl Promise {
    /// Its name, as in the simulator's list of invariants where the promise is the same.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AcknowledgedIsDurable => "acknowledged_is_durable",
            Self::NothingLost => "nothing_lost",
            Self::AppliedOnceInOrder => "applied_once_in_order",
            Self::CountedOnce => "counted_once",
            Self::OneOwner => "one_owner",
            Self::AtMostOnce => "at_most_once",
            Self::OriginalStays => "original_stays",
            Self::WorkIsKept => "work_is_kept",
            Self::HeldForAReason => "held_for_a_reason",
            Self::Exclusive => "exclusive",
            Self::ComesToRest => "convergence",
        }
    }
}

const AT_A_STEP: [Promise; 6] = [
    Promise::CountedOnce,
    Promise::OneOwner,
    Promise::AtMostOnce,
    Promise::OriginalStays,
    Promise::WorkIsKept,
    Promise::HeldForAReason,
];

impl Truth {
    /// Notes that a step broke a promise.
    pub(crate) fn breaks(&mut self, promise: Promise) {
        self.broken |= 1 << promise as u8;
    }

    /// A process begins; earlier ones of its slice are compared.
    pub(crate) fn begins(&mut self, slice: usize, node: usize, epoch: Epoch) {
        let bit = 1u64 << epoch.index();
        let before = self.begun[slice];
        if before[1 - node] & bit != 0 {
            self.breaks(Promise::OneOwner);
        }
        let all = before[0] | before[1];
        let excused = self.disk_accident || self.blind & 1 << slice != 0;
        if slice == 0 && all != 0 && !excused {
            self.breaks(Promise::AtMostOnce);
        }
        self.begun[slice][node] |= bit;
    }

    /// An outcome counts.
    pub(crate) fn counts(&mut self, outcome: Entry) {
        let first = self.counted[outcome.slice()].get_or_insert(outcome);
        if *first != outcome && self.blind & 1 << outcome.slice() == 0 {
            self.breaks(Promise::CountedOnce);
        }
    }
}

impl World {
    /// The first promise that a state breaks.
    pub(crate) fn breaks(&self, state: &State) -> Option<Promise> {
        let at_a_step = |p: &Promise| state.truth.broken & 1 << *p as u8 != 0;
        if let Some(promise) = AT_A_STEP.into_iter().find(at_a_step) {
            return Some(promise);
        }
        (0..NODES)
            .find_map(|node| one_history(state, node))
            .or_else(|| (0..MACHINES).find_map(|machine| self.kept(state, machine)))
            .or_else(|| (!self.comes_to_rest(state)).then_some(Promise::ComesToRest))
    }

    fn kept(&self, state: &State, machine: usize) -> Option<Promise> {
        let disk = &state.machines[machine].disk;
        let node = &state.coordinator.store.nodes[node_of(machine)];
        if disk.incarnation != node.incarnation || state.machines[machine].waits {
            return None;
        }
        if disk.acked > node.durable && !state.truth.went_back {
            return Some(Promise::AcknowledgedIsDurable);
        }
        let removed = if self.rules.has(Rule::Safe) {
            disk.safe
        } else {
            disk.acked
        };
        (removed > node.facts.len()).then_some(Promise::NothingLost)
    }
}

fn one_history(state: &State, node: usize) -> Option<Promise> {
    let disk = &state.machines[state.linked(node)?].disk;
    let known = &state.coordinator.store.nodes[node];
    let facts = known.facts.is_prefix_of(&disk.facts);
    let directives = disk.directives.is_prefix_of(&known.directives);
    let holes = known.facts.entries().any(|e| e.kind() == Kind::Hole);
    (!facts || !directives || holes).then_some(Promise::AppliedOnceInOrder)
}
