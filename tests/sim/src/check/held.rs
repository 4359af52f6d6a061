//! Promise 6: old runs stand still behind a restored backup until everybody was heard.

use crate::trace::Lane;
use crate::truth::wrong;
use crate::world::World;
use cloud_core::store::AggregateId;
use shared::directive::Assign;
use shared::ids::{Generation, NodeId, RunId};
use shared::wire::LogId;
use std::collections::BTreeSet;

/// What it means.
pub const DEFINITION: &str = "Behind a restored backup no task of a run that the backup knows is given to a gateway before \
    each gateway that it knows has called, was declared gone, or was named as one that never comes back.";

/// What stands still behind a restore.
#[derive(Debug, Default)]
pub struct Standing {
    /// Runs of the backup.
    runs: BTreeSet<RunId>,
    /// Gateways of the backup that nobody heard.
    unheard: BTreeSet<NodeId>,
}

/// A backup took the place of the coordinator's disk.
pub fn on_restore(world: &mut World, without: &[NodeId]) {
    let gone = &world.people.forgotten;
    let (mut runs, mut unheard) = (BTreeSet::new(), BTreeSet::new());
    for one in world.cloud.truth.versions.keys() {
        match one {
            AggregateId::Run(run) => drop(runs.insert(*run)),
            AggregateId::Node(node) if !gone.contains(node) && !without.contains(node) => {
                unheard.insert(*node);
            }
            _ => {}
        }
    }
    world.cloud.standing = Standing { runs, unheard };
}

/// A gateway called, or somebody declared it gone.
pub fn on_heard(world: &mut World, node: NodeId) {
    world.cloud.standing.unheard.remove(&node);
}

/// The coordinator's disk went back again, without a word: nothing tells it to wait.
pub fn on_put_back(world: &mut World) {
    world.cloud.standing = Standing::default();
}

/// Assignments became durable.
pub fn on_cloud_commit(world: &mut World, assigned: &[(LogId, Generation, Assign)]) {
    let standing = &world.cloud.standing;
    let Some(unheard) = standing.unheard.first() else {
        return;
    };
    let mut runs = assigned.iter().map(|(_, _, assign)| assign.slice.run);
    let Some(run) = runs.find(|run| standing.runs.contains(run)) else {
        return;
    };
    let text = format!("a task of run {run} is given away before {unheard} was heard");
    world.fail_all(Lane::Cloud, vec![wrong("held", text)]);
}
