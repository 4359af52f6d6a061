//! Promise 6: convergence.

use crate::world::World;
use cloud_core::event::Reply;
use cloud_core::view;
use shared::ids::RunId;
use shared::state::RunState;
use std::collections::BTreeSet;

/// What it means.
pub const DEFINITION: &str = "Faults stop, every node is back or forgotten, people free what is in quarantine: within the \
    idle timeout, the longest backoff and the work that is left every run is final or waits for a person, each \
    coordinator cursor equals its node's head, both sides agree, and no process, queue or request is left.";

/// What is not at rest at the edge and between the sides.
#[must_use]
pub fn restless(world: &World) -> Vec<String> {
    let mut out = Vec::new();
    let waiting: BTreeSet<RunId> = world
        .machines
        .iter()
        .filter(|one| !one.destroyed && one.life != usize::MAX)
        .flat_map(|one| world.lives[one.life].model.waiting_runs())
        .chain(world.people.waiting.iter().copied())
        .collect();
    for (m, machine) in world.machines.iter().enumerate() {
        if machine.destroyed || machine.node.is_none() {
            continue;
        }
        if machine
            .node
            .is_some_and(|node| world.people.forgotten.contains(&node))
        {
            continue;
        }
        if machine.life == usize::MAX {
            out.push(format!("gw-{} is not enrolled again", m + 1));
            continue;
        }
        if !machine.procs.is_empty() {
            out.push(format!(
                "gw-{} has {} processes",
                m + 1,
                machine.procs.len()
            ));
        }
        let truth = &world.lives[machine.life];
        out.extend(
            truth
                .model
                .unfinished(&waiting)
                .into_iter()
                .filter(|_| !machine.destroyed)
                .map(|text| format!("gw-{}: {text}", m + 1)),
        );
        let known = world
            .cloud
            .truth
            .heads
            .get(&truth.log)
            .map_or(0, |head| head.number);
        if known != truth.facts.len() as u64 {
            out.push(format!(
                "gw-{}: {known} of {} facts recorded",
                m + 1,
                truth.facts.len()
            ));
        }
        let written = world
            .cloud
            .truth
            .directives
            .get(&truth.log)
            .map_or(0, |head| head.number);
        if written != truth.last_directive() {
            out.push(format!(
                "gw-{}: {} of {written} directives arrived",
                m + 1,
                truth.last_directive()
            ));
        }
    }
    if !world.people.asks.is_empty() {
        out.push(format!(
            "{} requests without an answer",
            world.people.asks.len()
        ));
    }
    out
}

/// Runs that are neither final nor wait for somebody.
#[must_use]
pub fn unsettled(runs: &[view::Run]) -> Vec<String> {
    runs.iter()
        .filter(|run| {
            let is_final = RunState::from_text(&run.state).is_some_and(RunState::is_final);
            !is_final && run.waits.is_empty()
        })
        .map(|run| format!("run {} is {} ({:?})", run.id, run.state, run.tasks))
        .collect()
}

/// The runs in an answer.
#[must_use]
pub fn runs(reply: &Reply) -> Option<&[view::Run]> {
    match reply {
        Reply::Runs(runs) => Some(runs),
        _ => None,
    }
}
