//! What operators keep off nodes stays off them.

use crate::world::World;
use cloud_core::view::NodeWork;
use shared::directive::Assign;
use shared::ids::{Generation, NodeId};
use shared::taint::{Effect, Taint};
use shared::wire::LogId;

/// What it means.
pub const DEFINITION: &str = "From the answer to a cordon or a drain on, until somebody asks for its end (or what asked \
    for that before is done once more, as it was asked again before the answer), no slice is \
    newly assigned to the node, unless that was decided before the coordinator started anew; \
    from the answer to a taint that refuses on, within the life of the coordinator's process, \
    none with a task that does not tolerate it. What is left on a drained node is on its way \
    elsewhere, or what keeps it there is said.";

/// A commit of the coordinator is done.
pub fn on_cloud_commit(world: &mut World, assigned: &[(LogId, Generation, Assign)]) {
    let mut found = None;
    for (log, generation, assign) in assigned {
        // what was decided before a restart may have been under way
        if assign.slice.epoch.generation() != *generation {
            continue;
        }
        // the same assignment is said again after a reset of the log, or a restore
        let said = |one: &&crate::truth::Assigned| one.slice == assign.slice;
        if world.cloud.truth.assigned.iter().filter(said).count() > 1 {
            continue;
        }
        if let Some(why) = kept_off(world, log.node, assign) {
            found = Some(format!(
                "{:?} was assigned to a node that {why}",
                assign.slice
            ));
        }
    }
    if let Some(text) = found {
        world.fail("placed", text);
    }
}

/// What keeps the assignment off the node.
fn kept_off(world: &World, node: NodeId, assign: &Assign) -> Option<String> {
    let closed = &world.people.closed;
    if closed.nodes.contains(&node) {
        return Some("is given no new work".to_owned());
    }
    let workflow = &world.flows.get(&assign.slice.run)?.workflow;
    let refuses = |(taint, process): &&(Taint, u64)| {
        let tolerates = |task: &shared::ids::TaskIdx| {
            let place = &workflow.tasks[task.0 as usize].placement;
            taint.tolerated(place)
        };
        *process == world.cloud.process
            && taint.effect == Effect::Refuse
            && !assign.tasks.iter().all(tolerates)
    };
    let taint = closed.taints.get(&node)?.iter().find(refuses)?;
    Some(format!("has the taint {}", taint.0))
}

/// Somebody looks at what is left on a node.
pub fn on_left(world: &mut World, work: &NodeWork) {
    let unsaid = |slice: &&cloud_core::view::SliceLeft| {
        !slice.moves && (slice.why.is_empty() || slice.why == "may go elsewhere")
    };
    if work.draining
        && let Some(slice) = work.slices.iter().find(unsaid)
    {
        let text = format!("{} is drained and keeps {slice:?}", work.node);
        world.fail("placed", text);
    }
}
