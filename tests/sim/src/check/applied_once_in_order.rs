//! Promise 3: outcomes are applied exactly once, in order.

use crate::model::{SliceModel, TaskModel};
use crate::truth::{EdgeTruth, wrong};
use crate::world::World;
use cloud_core::store::Transaction;
use cloud_core::view;
use shared::ids::{RunId, TaskIdx};
use shared::state::TaskState;
use shared::wire::LogId;
use std::collections::BTreeSet;

/// What it means.
pub const DEFINITION: &str = "What the coordinator records of a node is, entry by entry, a prefix of one history that \
    the node committed, each fact once; after both sides are at rest the state and the outputs that it shows for \
    a task are those of an independent fold of its owner's facts (where a disk was copied or put back: of the branch \
    that the coordinator holds), and no attempt is shown twice.";

/// A commit of the coordinator is done.
pub fn on_cloud_commit(world: &mut World, transactions: &[Transaction]) {
    let mut wrongs = Vec::new();
    for segment in transactions.iter().flat_map(|tx| &tx.facts) {
        let known = world.ends.get(&segment.log);
        let is_end = |head: shared::log::Head| {
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

/// The history of the owner of a task, and the task in its fold.
fn at_owner(world: &World, run: RunId, task: TaskIdx) -> Option<(&EdgeTruth, &TaskModel)> {
    let flow = world.flows.get(&run)?;
    // of a disk that was copied or put back, the branch that the coordinator holds counts
    let counts = |truth: &&EdgeTruth| {
        let head = world.cloud.truth.heads.get(&truth.log);
        let last = head.and_then(|head| (head.number as usize).checked_sub(1));
        let row = last.and_then(|last| truth.facts.get(last));
        head.zip(row)
            .is_some_and(|(head, row)| row.hash == head.hash)
    };
    if flow.local.is_some() {
        let has = |truth: &&EdgeTruth| truth.model.slices.contains_key(&(run, 0));
        let truth = world.lives.iter().rev().filter(has).find(counts)?;
        let model = truth.model.slices.get(&(run, 0))?;
        // a person may let it run again, and then it is placed like any other
        if !model.released {
            return Some((truth, model.tasks.get(&task)?));
        }
    }
    let owner = world.cloud.truth.owner(run, task)?;
    // what a closed incarnation did may be done again where its files are missing
    is_current(world, owner.log).then_some(())?;
    let theirs = |truth: &&EdgeTruth| truth.log == owner.log;
    let truth = world.lives.iter().rev().filter(theirs).find(counts)?;
    let model = truth.model.slices.get(&(run, owner.slice.slice))?;
    (model.slice == owner.slice && !model.released).then_some(())?;
    Some((truth, model.tasks.get(&task)?))
}

/// All is at rest: the coordinator shows these tasks of a run.
pub fn at_rest(world: &mut World, run: RunId, tasks: &[view::Task]) {
    let Some(flow) = world.flows.get(&run).cloned() else {
        return;
    };
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
        let Some((truth, known)) = at_owner(world, run, TaskIdx(idx as u32)) else {
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
        let task = TaskIdx(idx as u32);
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
