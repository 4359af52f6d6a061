//! Promise 6: old runs stand still behind a restored backup until everybody was heard.

use crate::trace::Lane;
use crate::truth::wrong;
use crate::world::World;
use cloud_core::store::{AggregateId, Transaction};
use shared::directive::{Body as Wanted, Directive};
use shared::ids::{NodeId, RunId, SliceRef};
use std::collections::BTreeSet;

/// What it means.
pub const DEFINITION: &str = "Behind a restored backup no run that the backup knows is placed at a new epoch, taken away or \
    forgotten at any gateway before each gateway that it knows has called, was declared gone, or was named as one that never comes back. \
    What was decided before is told again: an assignment at its old epoch, that a slice is to be given up, and that a run \
    is to be forgotten. Cancels are not looked at.";

/// What stands still behind a restore.
#[derive(Debug, Default)]
pub struct Standing {
    /// Runs of the backup.
    runs: BTreeSet<RunId>,
    /// Slices that some gateway was told to give up.
    released: BTreeSet<SliceRef>,
    /// Runs that some gateway was told to forget.
    forgotten: BTreeSet<RunId>,
    /// Gateways of the backup that nobody heard.
    unheard: BTreeSet<NodeId>,
}

/// A backup took the place of the coordinator's disk.
pub fn on_restore(world: &mut World, without: &[NodeId]) {
    let gone = &world.people.forgotten;
    let truth = &world.cloud.truth;
    let (mut runs, mut unheard) = (BTreeSet::new(), BTreeSet::new());
    for one in truth.versions.keys() {
        match one {
            AggregateId::Run(run) => drop(runs.insert(*run)),
            AggregateId::Node(node) if !gone.contains(node) && !without.contains(node) => {
                unheard.insert(*node);
            }
            _ => {}
        }
    }
    world.cloud.standing = Standing {
        runs,
        released: truth.releases.clone(),
        forgotten: truth.forgets.clone(),
        unheard,
    };
}

/// A gateway called, or somebody declared it gone.
pub fn on_heard(world: &mut World, node: NodeId) {
    world.cloud.standing.unheard.remove(&node);
}

/// The coordinator's disk went back again, without a word: nothing tells it to wait.
pub fn on_put_back(world: &mut World) {
    world.cloud.standing = Standing::default();
}

/// A commit of the coordinator is done.
pub fn on_cloud_commit(world: &mut World, transactions: &[Transaction]) {
    let standing = &world.cloud.standing;
    let Some(unheard) = standing.unheard.first() else {
        return;
    };
    let mut entries = transactions.iter().flat_map(|tx| &tx.directives);
    let moved = entries.find_map(|(_, entry)| {
        let moved = moved(
            &Directive::decode(entry.head.number, &entry.bytes).ok()?,
            standing,
        )?;
        standing.runs.contains(&moved.0).then_some(moved)
    });
    let Some((run, what)) = moved else {
        return;
    };
    let text = format!("run {run} is {what} before {unheard} was heard");
    world.fail_all(Lane::Cloud, vec![wrong("held", text)]);
}

/// Which run a directive does something new to, and what.
fn moved(directive: &Directive, standing: &Standing) -> Option<(RunId, &'static str)> {
    match &directive.body {
        // what the backup had decided may still be under way, and is told again
        Wanted::Assign(assign) if assign.slice.epoch.generation() != directive.generation => None,
        Wanted::Release { slice } if standing.released.contains(slice) => None,
        Wanted::Forget { run } if standing.forgotten.contains(run) => None,
        Wanted::Assign(assign) => Some((assign.slice.run, "placed")),
        Wanted::Release { slice } => Some((slice.run, "taken away")),
        Wanted::Forget { run } => Some((*run, "forgotten")),
        _ => None,
    }
}
