//! What a run sees of the rest of the store.

use super::definition::Definitions;
use crate::node::Node;
use crate::schedule::Schedule;
use shared::ids::{Generation, Hash, NodeId, ScheduleId};
use shared::time::Unix;
use std::collections::BTreeMap;

/// What a step of a run may look at besides the run itself.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Wall clock.
    pub wall: Unix,
    /// Life of the store.
    pub generation: Generation,
    /// Since when old runs stand still, while they do.
    pub hold: Option<Unix>,
    /// Nodes.
    pub nodes: &'a BTreeMap<NodeId, Node>,
    /// Files that are in the file store.
    pub files: &'a BTreeMap<Hash, u64>,
    /// Decisions kept.
    pub decisions: usize,
    /// Schedules, of whose workflows runs are made.
    pub schedules: &'a BTreeMap<ScheduleId, Schedule>,
    /// Workflows that runs in memory are made of.
    pub definitions: &'a Definitions,
}
