//! Promise 1: the agent schedules by itself, link or no link.

use crate::queue::MIN;
use crate::world::World;
use shared::ids::{Hash, SliceRef, TaskIdx};
use shared::workflow::Source;

/// What it means.
pub const DEFINITION: &str = "A gateway that is up, has room, runs nothing and has a task whose trigger rule holds by \
    its own records, whose input files are on its disk and whose slice was not asked back \
    never stands idle for two minutes without a commit, whatever its link does; this includes \
    cold boots without a link.";

/// Idle for longer than this with work to do is a violation.
const PATIENCE: u64 = 2 * MIN;

/// Once a minute.
pub fn look(world: &mut World) {
    for m in 0..world.machines.len() {
        if !could_work(world, m) {
            world.machines[m].idle_since = None;
            continue;
        }
        let since = *world.machines[m].idle_since.get_or_insert(world.t);
        if world.t - since > PATIENCE {
            let life = world.machines[m].life;
            let ready = world.lives[life].model.startable(&world.flows);
            let first = ready
                .iter()
                .find(|(slice, task)| files_here(world, m, *slice, *task));
            let link = if world.machines[m].link.whole() {
                "whole"
            } else {
                "cut"
            };
            let excuse = first.and_then(|(slice, task)| {
                let id = &world.flows.get(&slice.run)?.workflow.tasks[task.0 as usize].id;
                let agent = world.machines[m].agent.as_ref()?.shell.agent();
                agent.explain(slice.run, id).map(|why| why.summary)
            });
            let needs = first.and_then(|(slice, task)| {
                let model = world.lives[life]
                    .model
                    .slices
                    .get(&(slice.run, slice.slice))?;
                Some(model.needs(&world.flows.get(&slice.run)?.workflow, *task))
            });
            let text = format!(
                "gw-{} idles with {first:?} to start, link {link}; it says {excuse:?}; {needs:?}",
                m + 1
            );
            world.fail("no_offline_mode", text);
        }
    }
}

fn could_work(world: &World, m: usize) -> bool {
    let machine = &world.machines[m];
    let idle = machine
        .agent
        .as_ref()
        .is_some_and(|agent| agent.waiting.is_empty())
        && machine.procs.is_empty()
        && !machine.full;
    idle && world.lives[machine.life]
        .model
        .startable(&world.flows)
        .iter()
        .any(|(slice, task)| files_here(world, m, *slice, *task))
}

/// Whether all files that a task reads are on the disk of `m`.
#[must_use]
pub fn files_here(world: &World, m: usize, slice: SliceRef, task: TaskIdx) -> bool {
    let machine = &world.machines[m];
    let Some(flow) = world.flows.get(&slice.run) else {
        return false;
    };
    let Some(model) = world.lives[machine.life]
        .model
        .slices
        .get(&(slice.run, slice.slice))
    else {
        return false;
    };
    flow.workflow.tasks[task.0 as usize]
        .inputs
        .iter()
        .all(|input| {
            let Source::Task { task, output } = input.source else {
                return true;
            };
            let hash: Option<Hash> = model.output(task, output);
            hash.is_none_or(|hash| machine.files.contains_key(&hash))
        })
}
