//! Promise 8: every decision can be explained from the record.

use crate::world::World;
use cloud_core::event::Reply;
use cloud_core::view;
use shared::ids::{RunId, TaskIdx};

/// What it means.
pub const DEFINITION: &str = "Every start is admissible by the records before it: its needs are final as its trigger rule \
    wants, its run is neither cancelled nor paused, its slice is there and not given up, and its number is new; \
    every start has exactly one end. The agent explains each of its tasks at any moment, offline too: a state with \
    a reason, and for a task that waits what it waits for. At rest the coordinator explains any task, too: in a sentence, with \
    a reason where somebody decided it (but for a coordinator whose store went back: an inventory tells states \
    without reasons), and with one for each decision that it shows.";

/// Whether somebody decided that a task is in this state: the others follow from what it needs and
/// from where it is.
fn is_decided(state: &str) -> bool {
    matches!(
        state,
        "failed" | "aborted" | "skipped" | "lost" | "cancelled"
    )
}

/// The coordinator was asked about a task at rest.
pub fn on_explain(world: &mut World, task: &view::Task, reply: Option<Reply>) {
    let id = &task.task;
    let Some(Reply::Explain(why)) = reply else {
        let text = format!("the coordinator does not explain task {id}: {reply:?}");
        world.fail("explained", text);
        return;
    };
    let unsaid = why.decisions.iter().find(|one| one.reason.is_empty());
    let wrong = if why.summary.is_empty() || why.task != *task {
        Some(format!("{:?} is no explanation of {task:?}", why.summary))
    } else if is_decided(&task.state) && why.task.reason.is_none() && !world.cloud.went_back {
        Some(format!(
            "the coordinator has no reason for {id}, which is {}",
            task.state
        ))
    } else {
        unsaid.map(|one| format!("the coordinator does not say why {} of {id}", one.action))
    };
    if let Some(text) = wrong {
        world.fail("explained", text);
    }
}

/// Every some minutes: one gateway explains its tasks.
pub fn look(world: &mut World) {
    let count = world.machines.len() as u64;
    let m = world.dice.people.fork("look", world.t).below(count) as usize;
    let machine = &world.machines[m];
    let Some(agent) = &machine.agent else {
        return;
    };
    let model = &world.lives[machine.life].model;
    let tasks = model
        .slices
        .values()
        .filter(|slice| !slice.released)
        .flat_map(|slice| {
            slice
                .tasks
                .iter()
                .map(|(task, known)| (slice.slice.run, *task, known))
        })
        .filter(|(run, _, known)| {
            !known.state.is_final() && !model.runs.get(run).is_some_and(|marks| marks.forgotten)
        });
    let wanted: Vec<(RunId, TaskIdx)> = tasks.map(|(run, task, _)| (run, task)).take(30).collect();
    let mut found = None;
    for (run, task) in wanted {
        let Some(flow) = world.flows.get(&run) else {
            continue;
        };
        let id = &flow.workflow.tasks[task.0 as usize].id;
        match agent.shell.agent().explain(run, id) {
            None => {
                found = Some(format!(
                    "gw-{} cannot explain task {id} of run {run}",
                    m + 1
                ))
            }
            Some(why) if why.summary.is_empty() || why.task.reason.is_empty() => {
                found = Some(format!(
                    "gw-{} has no reason for task {id} of run {run}",
                    m + 1
                ));
            }
            Some(_) => {}
        }
    }
    if let Some(text) = found {
        world.fail("explained", text);
    }
}
