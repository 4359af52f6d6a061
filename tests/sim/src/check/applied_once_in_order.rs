//! Promise 3: outcomes are applied exactly once, in order.

use crate::model::{Model, SliceModel, TaskModel};
use crate::truth::{EdgeTruth, wrong};
use crate::world::World;
use cloud_core::store::Transaction;
use cloud_core::view;
use shared::ids::{RunId, TaskIdx};
use shared::log::Head;
use shared::state::TaskState;
use shared::wire::LogId;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// What it means.
pub const DEFINITION: &str = "What the coordinator records of a node is, entry by entry, a prefix of one history that \
    the node committed, each fact once; after both sides are at rest the state and the outputs that it shows for \
    a task are those of an independent fold of its owner's facts (where a disk was copied or put back: of the branch \
    that the coordinator holds; where it is gone: of what was recorded of it), and no attempt is shown twice.";

/// A commit of the coordinator is done.
pub fn on_cloud_commit(world: &mut World, transactions: &[Transaction]) {
    let mut wrongs = Vec::new();
    for segment in transactions.iter().flat_map(|tx| &tx.facts) {
        let known = world.ends.get(&segment.log);
        let is_end = |head: Head| {
            head.number == 0
                || known
                    .and_then(|ends| ends.get(&head.number))
                    .is_some_and(|hashes| hashes.contains(&head.hash))
        };
        if !is_end(segment.head) || !is_end(segment.after) {
            let text = format!(
                "facts {}..={} of {} are not what the node committed",
                segment.after.number + 1,
                segment.head.number,
                segment.log.node
            );
            wrongs.push(wrong("applied_once_in_order", text));
        }
    }
    world.fail_all(crate::trace::Lane::Cloud, wrongs);
}

/// Whether a gateway still works on the disk that this log is on.
fn is_current(world: &World, log: LogId) -> bool {
    let mut machines = world.machines.iter();
    machines.any(|one| !one.destroyed && one.log() == log)
}

/// The head that the coordinator holds of a history, if it holds this one: of a disk that was
/// copied or put back one branch counts.
fn held_head(world: &World, truth: &EdgeTruth) -> Option<Head> {
    let head = world.cloud.truth.heads.get(&truth.log)?;
    let last = (head.number as usize).checked_sub(1)?;
    (truth.facts.get(last)?.hash == head.hash).then_some(*head)
}

/// A gateway's history, and its fold as far as the coordinator holds it: what came behind that is
/// gone with its disk.
type Told<'a> = (&'a EdgeTruth, Cow<'a, Model>);

/// The history of the gateway at which a run was submitted.
fn of_its_gateway(world: &World, run: RunId) -> Option<Told<'_>> {
    world.flows.get(&run)?.local?;
    let has = |truth: &&EdgeTruth| truth.model.slices.contains_key(&(run, 0));
    let mut lives = world.lives.iter().rev().filter(has);
    let (truth, head) = lives.find_map(|truth| Some((truth, held_head(world, truth)?)))?;
    Some((truth, truth.model_at(head.number, &world.flows)))
}

/// The history of the owner of a task, and the task in its fold; `own` is that of the gateway at
/// which its run was submitted.
fn at_owner<'a>(
    world: &'a World,
    own: Option<&'a Told<'a>>,
    (run, task): (RunId, TaskIdx),
) -> Option<(&'a EdgeTruth, &'a TaskModel)> {
    let owner = world.cloud.truth.owner(run, task);
    // a person may let it run again, and then it is placed like any other; who has lost its disk
    // cannot give it up before
    if let Some((truth, model)) = own
        && let Some(model) = model.slices.get(&(run, 0))
        && !model.released
        && (owner.is_none() || is_current(world, truth.log))
    {
        return Some((truth, model.tasks.get(&task)?));
    }
    let owner = owner?;
    // what a closed incarnation did may be done again where its files are missing
    is_current(world, owner.log).then_some(())?;
    let theirs = |truth: &&EdgeTruth| truth.log == owner.log && held_head(world, truth).is_some();
    let truth = world.lives.iter().rev().find(theirs)?;
    let model = truth.model.slices.get(&(run, owner.slice.slice))?;
    (model.slice == owner.slice && !model.released).then_some(())?;
    Some((truth, model.tasks.get(&task)?))
}

/// All is at rest: the coordinator shows these tasks of a run.
pub fn at_rest(world: &mut World, run: RunId, tasks: &[view::Task]) {
    let Some(flow) = world.flows.get(&run).cloned() else {
        return;
    };
    let own = of_its_gateway(world, run);
    let mut wrongs = Vec::new();
    for shown in tasks {
        let idx = flow
            .workflow
            .tasks
            .iter()
            .position(|task| task.id == shown.task);
        let Some(idx) = idx else {
            wrongs.push(wrong(
                "no_invented_history",
                format!("run {run} has no task {}", shown.task),
            ));
            continue;
        };
        wrongs.extend(same_history(run, shown));
        let task = TaskIdx(idx as u32);
        let Some((truth, known)) = at_owner(world, own.as_ref(), (run, task)) else {
            continue;
        };
        let lost_there = shown.state == TaskState::Lost.text();
        if known.state.is_final() && known.state.text() != shown.state && !lost_there {
            let text = format!(
                "task {} of run {run} is {} at its owner {} and {} at the coordinator",
                shown.task, known.state, truth.log.node, shown.state
            );
            wrongs.push(wrong("applied_once_in_order", text));
        }
        let asks = |model: &SliceModel| {
            let here = model.slice.run == run && !model.released;
            here && model.asks(&flow.workflow, task)
        };
        // with a disk that is gone the question is gone: nobody can answer it there
        if is_current(world, truth.log)
            && truth.model.slices.values().any(asks)
            && shown.reason.as_deref() != Some("waits_for_person")
        {
            let text = format!(
                "task {} of run {run} asks a person at {} and is {} ({}) at the coordinator",
                shown.task,
                truth.log.node,
                shown.state,
                shown.reason.as_deref().unwrap_or("no reason")
            );
            wrongs.push(wrong("convergence", text));
        }
        let mut counting = shown.answers.iter().filter(|a| a.counts == Some(true));
        let asked = flow.workflow.tasks[idx].approval().is_some();
        // what was declared to be gone is told by states only, which name no answer
        let told = !world.cloud.truth.holes.contains_key(&truth.log);
        let succeeded = known.state == TaskState::Succeeded && !lost_there;
        if asked && told && succeeded && counting.next().is_none() {
            let text = format!("task {} of run {run} has no answer that counts", shown.task);
            wrongs.push(wrong("applied_once_in_order", text));
        }
        if known.state == TaskState::Succeeded && !lost_there {
            let theirs: BTreeSet<String> = shown.outputs.iter().map(|o| o.hash.clone()).collect();
            let ours: BTreeSet<String> = known.outputs.iter().map(|o| o.hash.to_string()).collect();
            if theirs != ours {
                let text = format!("outputs of task {} of run {run} differ", shown.task);
                wrongs.push(wrong("applied_once_in_order", text));
            }
        }
    }
    world.fail_all(crate::trace::Lane::Cloud, wrongs);
}

fn same_history(run: RunId, shown: &view::Task) -> Option<crate::truth::Wrong> {
    let mut seen = BTreeSet::new();
    let twice = shown
        .history
        .iter()
        .find(|one| !seen.insert((one.node.clone(), one.epoch, one.number)))?;
    let text = format!(
        "attempt {}.{} of task {} of run {run} is shown twice",
        twice.epoch, twice.number, shown.task
    );
    Some(wrong("applied_once_in_order", text))
}
