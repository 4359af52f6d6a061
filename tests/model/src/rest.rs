//! Convergence: when faults stop, the world comes to rest.
//!
//! Every step of the protocol itself is explored as well, so it is enough to look where the
//! protocol has nothing left to do: there either all is at rest, or a slice can be placed and
//! that leads on.

use crate::action::Action;
use crate::state::{Link, MACHINES, NODES, Place, SLICES, Stage, State, node_of};
use crate::world::World;

/// More than any way to rest takes.
const STEPS: usize = 200;
/// Epochs that may be drawn on the way, behind those that are explored.
const MORE_EPOCHS: u8 = 2;

impl World {
    /// Whether the protocol leads to rest from a state in which it has nothing left to do.
    pub(crate) fn comes_to_rest(&self, state: &State) -> bool {
        let mut now = *state;
        let mut list = Vec::new();
        self.protocol(&now, &mut list);
        if !list.is_empty() {
            return true;
        }
        for _ in 0..STEPS {
            list.clear();
            self.protocol(&now, &mut list);
            let next = list.first().copied().or_else(|| self.placement(&now));
            let Some(action) = next else {
                return at_rest(&now);
            };
            now = self.step(&now, action).0;
            if now.truth.broken != 0 {
                return true; // explored as such
            }
        }
        false
    }

    fn placement(&self, state: &State) -> Option<Action> {
        let slice = (0..SLICES)
            .find(|slice| self.may_place(state, *slice, self.config.epochs + MORE_EPOCHS))?;
        let node = (0..NODES).find(|node| state.linked(*node).is_some())?;
        Some(Action::Assign(slice, node))
    }
}

fn at_rest(state: &State) -> bool {
    let store = &state.coordinator.store;
    let absent = |node: usize| state.linked(node).is_none();
    // who does not call waits for a person: everything else dials until it is let in
    let excused = (0..MACHINES).all(|at| {
        let machine = &state.machines[at];
        !machine.exists || machine.waits || machine.link == Link::Live
    });
    let agreed = (0..NODES).all(|node| {
        state.linked(node).is_none_or(|machine| {
            let disk = &state.machines[machine].disk;
            let known = &store.nodes[node];
            disk.facts == known.facts && disk.directives == known.directives
        })
    });
    let waits = store.hold && (0..NODES).any(absent);
    let settled = (0..SLICES).all(|slice| match store.places[slice] {
        Place::Done(_) | Place::InDoubt => true,
        Place::Owned { node, .. } => waits || absent(usize::from(node)),
        Place::Unplaced => waits || (0..NODES).all(absent),
        Place::Unknown => waits || nobody_holds(state, slice),
    });
    excused && agreed && settled && (!store.hold || waits)
}

/// Whether no node that is heard holds a slice: it was never placed, or this is known to be lost.
fn nobody_holds(state: &State, slice: usize) -> bool {
    (0..MACHINES).all(|at| {
        let heard = state.linked(node_of(at)) == Some(at);
        let held = state.machines[at].disk.held(slice);
        !heard || held.is_none_or(|held| held.stage == Stage::Released)
    })
}
