//! Runs leave when they are over, and do not come back.

use crate::fault::Kind;
use crate::machine::Machine;
use crate::model::SliceModel;
use crate::truth::{EdgeTruth, Wrong, wrong};
use crate::world::World;
use cloud_core::view;
use shared::directive::{Body as Wanted, Directive};
use shared::ids::{Epoch, RunId, SliceRef, TaskIdx};
use shared::wire::LogId;

/// What it means.
pub const DEFINITION: &str = "A gateway is told to forget a run only when all its tasks there are final, or may be lost by \
    its silence, as far as the coordinator has its facts. The coordinator forgets it when every gateway that has \
    something of it has durably taken that, or is declared gone, as far as a disk that went back without a word still \
    tells; from then on no list shows it, and neither an inventory nor a late fact makes it known again, unless the \
    coordinator's store goes back.";

/// The gateways that are there on the disk that the coordinator knows, with their histories.
fn present(world: &World) -> impl Iterator<Item = (&Machine, &EdgeTruth)> {
    let there = world.machines.iter().filter(|one| {
        let gone = one
            .node
            .is_none_or(|node| world.people.forgotten.contains(&node));
        one.copy_of.is_none() && !one.destroyed && one.life != usize::MAX && !gone
    });
    let pairs = there.map(|one| (one, &world.lives[one.life]));
    pairs.filter(|(_, life)| !life.branched)
}

/// A commit of the coordinator was folded.
pub fn look(world: &mut World) {
    let mut wrongs: Vec<Wrong> = Vec::new();
    for (log, run) in std::mem::take(&mut world.cloud.truth.new_forgets) {
        wrongs.extend(asked(world, log, run));
    }
    for run in std::mem::take(&mut world.cloud.truth.new_buried) {
        world.happened(Kind::RunForgotten);
        wrongs.extend(buried(world, run));
        world.cloud.truth.buried_now.push(run);
    }
    let pruned = std::mem::take(&mut world.cloud.truth.new_pruned);
    (0..pruned).for_each(|_| world.happened(Kind::FactsPruned));
    world.fail_all(crate::trace::Lane::Cloud, wrongs);
}

/// A gateway is told to forget a run.
fn asked(world: &World, log: LogId, run: RunId) -> Option<Wrong> {
    let (one, life) = present(world).find(|(_, life)| life.log == log)?;
    let known = world
        .cloud
        .truth
        .heads
        .get(&log)
        .map_or(0, |head| head.number);
    if known < life.facts.len() as u64 {
        return None;
    }
    let open = life.model.slices.values().find(|model| {
        let mine = model.slice.run == run && !model.released;
        let mut tasks = model.tasks.iter();
        mine && tasks
            .any(|(task, known)| !known.state.is_final() && !may_be_lost(world, run, *task))
    })?;
    let text = format!(
        "{} shall forget {:?}, which is not over",
        one.name, open.slice
    );
    Some(wrong("forgotten", text))
}

/// Whether a silence of its gateway may end a task: the coordinator gives it up, and the run may be
/// over without it.
fn may_be_lost(world: &World, run: RunId, task: TaskIdx) -> bool {
    world.flows.get(&run).is_some_and(|flow| {
        let spec = &flow.workflow.tasks[task.0 as usize];
        spec.disconnect.lost_after.is_some()
    })
}

/// The coordinator forgot a run.
fn buried(world: &World, run: RunId) -> Option<Wrong> {
    let told = |life: &EdgeTruth| {
        let mut read = life.directives.iter().zip(life.directives_base + 1..);
        read.any(|(bytes, number)| {
            let directive = Directive::decode(number, bytes);
            directive.is_ok_and(|one| matches!(one.body, Wanted::Forget { run: of } if of == run))
        })
    };
    let (one, _) = present(world).find(|(_, life)| {
        let mut slices = life.model.slices.values();
        let has = |model: &SliceModel| model.slice.run == run && !model.released;
        slices.any(|model| has(model) && !is_unknown(world, life, model.slice)) && !told(life)
    })?;
    let text = format!("run {run} was forgotten, {} has not done so", one.name);
    Some(wrong("forgotten", text))
}

/// Whether the coordinator cannot know that a gateway has a slice: its disk went back behind the
/// assignment without a word, and so far nobody proved that to it. Who was assigned it calls
/// sooner or later, and is told to forget the run then.
fn is_unknown(world: &World, life: &EdgeTruth, slice: SliceRef) -> bool {
    let (cloud, truth) = (&world.cloud, &world.cloud.truth);
    if !cloud.put_back || truth.held || cloud.heard.contains(&life.log.node) {
        return false;
    }
    let known = truth.heads.get(&life.log).map_or(0, |head| head.number);
    let mut assigned = truth.assigned.iter();
    slice.epoch != Epoch::LOCAL
        && !assigned.any(|one| one.log == life.log && one.slice == slice)
        && !life.claims(slice).any(|number| number <= known)
}

/// The coordinator shows its runs.
pub fn on_runs(world: &mut World, runs: &[view::Run]) {
    let truth = &world.cloud.truth;
    let forgot = |run: RunId| truth.buried.contains(&run) && !truth.buried_now.contains(&run);
    if let Some(run) = runs.iter().find(|run| forgot(run.id)) {
        let text = format!("run {} was forgotten and is shown as {}", run.id, run.state);
        world.fail("forgotten", text);
    }
}
