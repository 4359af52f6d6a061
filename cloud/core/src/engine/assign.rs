//! Assignments: a slice becomes a directive in its node's log, with the workflow in a format that
//! the node reads.
//!
//! This is where the bytes of an assignment are decided. What a node was given once keeps its hash
//! there, also when the node runs a later version afterwards.

use super::Engine;
use crate::inbox::Message;
use crate::store::{AggregateId, Store, StoreError};
use shared::codec;
use shared::directive::{Assign, Body};
use shared::explain::Reason;
use shared::ids::{Epoch, Incarnation, NodeId, RunId};
use shared::wire::WORKFLOW_2;

impl<S: Store> Engine<S> {
    /// Puts an assignment into the node's log, with the workflow where this incarnation has not got
    /// it.
    pub(super) fn assign(
        &mut self,
        id: NodeId,
        incarnation: Incarnation,
        mut assign: Assign,
    ) -> Result<(), StoreError> {
        let run = AggregateId::Run(assign.slice.run);
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let fx = self.effects.entry(AggregateId::Node(id)).or_default();
        let slice = assign.slice;
        // one of an older generation may have been under way when the store went back
        let known = node.slices.get(&(slice.run, slice.slice)) == Some(&slice.epoch)
            || slice.epoch < Epoch::new(self.fleet.generation, 0);
        let closed = node.closed_by().is_some() && !known;
        if node.forgotten.is_some() || node.incarnation != Some(incarnation) || closed {
            let why = match node.forgotten {
                Some(_) => Reason::NodeForgotten,
                None if closed => Reason::NodeClosed,
                None => Reason::NodeReimaged,
            };
            let message = Message::AssignRefused { slice, why };
            fx.send(&mut node.post, run, message);
            return Ok(());
        }
        if !node.workflows.contains(&slice.run) {
            let packed = match self.batch_row(run, "w") {
                Some(packed) => Some(packed),
                None => self.store.row(run, "w")?,
            };
            assign.workflow = packed.map(|packed| self.as_read_by(id, slice.run, packed));
        }
        if let Some(older) = self.nodes.get(&id).and_then(|n| n.older.get(&slice.run)) {
            assign.workflow_hash = *older;
        }
        let (wall, generation) = (self.now.wall, self.fleet.generation);
        let fx = self.effects.entry(AggregateId::Node(id)).or_default();
        if let Some(node) = self.nodes.get_mut(&id) {
            node.workflows.insert(slice.run);
            node.slices.insert((slice.run, slice.slice), slice.epoch);
            node.append(id, wall, generation, Body::Assign(assign), fx);
        }
        Ok(())
    }

    /// A run's workflow as a node reads it. One that cannot be said in its format goes as it is:
    /// the agent refuses it, and the slice goes elsewhere.
    fn as_read_by(&mut self, id: NodeId, run: RunId, packed: Vec<u8>) -> Vec<u8> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return packed;
        };
        if node.features & WORKFLOW_2 != 0 {
            return packed;
        }
        let Ok((workflow, hash)) = codec::unpack(&packed) else {
            return packed;
        };
        let Ok(older) = workflow.for_first_release() else {
            return packed;
        };
        let (packed, older) = codec::pack(&older);
        if older != hash {
            node.older.insert(run, older);
        }
        packed
    }
}
