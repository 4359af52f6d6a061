//! Promise 3 again, across restores: what counted once counts for ever, and alone.

use crate::check::acknowledged_is_durable::branch_of;
use crate::check::tasks_of;
use crate::people::Purpose;
use crate::truth::{Hole, wrong};
use crate::world::World;
use cloud_core::event::Request;
use cloud_core::run::{AttemptRow, TaskRow};
use cloud_core::store::{AggregateId, Transaction};
use cloud_core::view;
use shared::fact::Outcome;
use shared::ids::{Epoch, RunId, SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::wire::LogId;
use std::collections::BTreeMap;

/// What it means.
pub const DEFINITION: &str = "An attempt whose success was shown to count before the coordinator began with a restored \
    backup counts behind it, too, if it is shown at all, and so does one that was recorded to count while old runs were held (of several of a task the one of the newest epoch): none is superseded by what a former owner of its slice ended, nor \
    by work that was placed anew while its gateway still had it to tell; and no success of an older epoch counts behind one \
    that counted. Not for gateways whose disk was copied, put back, emptied or is gone, nor for a coordinator whose older \
    disk was put back without a word. While old runs are held, no success counts of a task that was given away at a newer \
    epoch, be it by a life of the store that is forgotten, unless the word never came there or can be told by nobody any more (the disk went back behind it, or only a newer backup held the facts), or to a node that was declared gone, that lies, or whose disk is gone.";

/// An attempt: of which task of which run, where, which one.
type Named = (RunId, String, String, u64, u32);

/// Attempts that counted, each with how many restores there had been.
pub type Counted = BTreeMap<Named, u32>;

/// A success by where it was: run, task, epoch, attempt.
pub type Success = (RunId, u32, u64, u32);

/// A commit of the coordinator is done: what counts while old runs are held is remembered at once,
/// since a hold is short, and none may count of which somebody else has a newer claim.
pub fn on_cloud_commit(world: &mut World, transactions: &[Transaction]) {
    if !world.plan.goes_back() {
        return;
    }
    let held = world.cloud.truth.held;
    for tx in transactions {
        let AggregateId::Run(run) = tx.aggregate else {
            continue;
        };
        for (number, one) in counting(tx) {
            let success = (run, number, one.epoch.0, one.number);
            let fresh = world.successes.insert(success);
            if held
                && fresh
                && let Some(log) = claimed_since(world, (run, number), one.epoch)
            {
                let text = format!(
                    "attempt {}.{} of task {number} of run {run} counts while old runs are held, \
                     although it was given to {} since",
                    one.epoch, one.number, log.node
                );
                world.fail("counted_once", text);
            }
            if held && world.plan.restores() {
                remember(world, (run, number), &one);
            }
        }
    }
}

/// The attempts that count in what a commit says of a run, each with its task.
fn counting(tx: &Transaction) -> Vec<(u32, AttemptRow)> {
    let counts =
        |one: &AttemptRow| one.outcome == Some(Outcome::Succeeded) && one.not_applied.is_none();
    let rows = tasks_of(tx).into_iter();
    let good = rows.filter(|(_, row)| row.state == TaskState::Succeeded);
    let of = |(number, row): (u32, TaskRow)| {
        let history = row.history.into_iter().filter(counts);
        history.map(move |one| (number, one)).collect::<Vec<_>>()
    };
    good.flat_map(of).collect()
}

/// To whom a task was given at a newer epoch, by whatever life of the coordinator's store, if
/// somebody can tell.
fn claimed_since(world: &World, (run, task): (RunId, u32), epoch: Epoch) -> Option<LogId> {
    let from = (run, Epoch(epoch.0 + 1), 0);
    let newer = world.epochs.range(from..=(run, Epoch(u64::MAX), u32::MAX));
    // who was declared gone, or whose disk is gone, claims nothing any more, and the hold does not
    // wait for it; who lies need not claim what it has
    let there = |log: &LogId| {
        let mut machines = world.machines.iter();
        machines.any(|one| !one.destroyed && one.log() == *log)
    };
    let gone = |log: &LogId| {
        world.people.forgotten.contains(&log.node) || !there(log) || world.is_liar_node(log.node)
    };
    let mut claims = newer.map(|((run, epoch, slice), (log, tasks))| {
        let (run, slice, epoch) = (*run, *slice, *epoch);
        (SliceRef { run, slice, epoch }, log, tasks)
    });
    let claim = claims.find(|(slice, log, tasks)| {
        !gone(log) && tasks.contains(&TaskIdx(task)) && can_be_told(world, *slice, **log)
    });
    claim.map(|(_, log, _)| *log)
}

/// Whether anybody can tell that a slice was given to `log` and came there: the coordinator's store
/// as it is, or the disk of that gateway as it is, by facts that it does not declare gone.
fn can_be_told(world: &World, slice: SliceRef, log: LogId) -> bool {
    let mut lives = world.lives.iter().filter(|life| life.log == log);
    if !lives.any(|life| life.model.taken.contains(&slice)) {
        return false;
    }
    let store = &world.cloud.truth;
    let given = store.assigned.iter().any(|one| one.slice == slice);
    let head = store.heads.get(&log).map_or(0, |head| head.number);
    let holes = store.holes.get(&log).map_or(&[][..], Vec::as_slice);
    let lost = |hole: &Hole, number: u64| hole.known < number && number <= hole.to.number;
    let recorded = |n: u64| n <= head && !holes.iter().any(|hole| lost(hole, n));
    let recorded = branch_of(world, log).is_some_and(|life| life.claims(slice).any(recorded));
    let mut there = world.machines.iter().filter(|one| !one.destroyed);
    let kept = there.any(|one| {
        let life = world.lives.get(one.life).filter(|life| life.log == log);
        life.is_some_and(|life| life.claims(slice).any(|n| !life.is_declared_gone(n)))
    });
    given || recorded || kept
}

fn remember(world: &mut World, (run, number): (RunId, u32), one: &AttemptRow) {
    let tasks = world.flows.get(&run).map(|flow| &flow.workflow.tasks);
    let Some(task) = tasks.and_then(|tasks| tasks.get(number as usize)) else {
        return;
    };
    let mut machines = world.machines.iter();
    let node = machines.find(|machine| machine.node == Some(one.node));
    let name = node.map(|node| node.name.clone()).unwrap_or_default();
    let counted = (run, task.id.clone(), name, one.epoch.0, one.number);
    world.counted.insert(counted, world.cloud.backups.restores);
}

/// People look at the tasks of all runs, where a restore is planned.
pub fn look(world: &mut World) {
    if !world.plan.restores() {
        return;
    }
    for run in world.people.submitted.clone() {
        world.ask(Request::Tasks { run, state: None }, Purpose::Count(run));
    }
}

fn is_success(one: &view::Attempt) -> bool {
    one.outcome == "succeeded" && one.not_applied.is_none()
}

/// The coordinator shows the tasks of a run.
pub fn on_tasks(world: &mut World, run: RunId, tasks: &[view::Task]) {
    let restores = world.cloud.backups.restores;
    for task in tasks {
        for one in &task.history {
            let name = named(run, task, one);
            if is_success(one) && task.state == "succeeded" {
                world.counted.insert(name, restores);
            } else if world.counted.get(&name) == Some(&restores) {
                // it was done again elsewhere since, and no restore is to blame
                world.counted.remove(&name);
            }
        }
    }
}

fn named(run: RunId, task: &view::Task, one: &view::Attempt) -> Named {
    let (id, node) = (task.task.clone(), one.node.clone());
    (run, id, node, one.epoch, one.number)
}

/// Whether a gateway has one history, and still works on it.
fn is_plain(world: &World, name: &str) -> bool {
    let mut machines = world.machines.iter().filter(|one| one.name == name);
    let (Some(one), None) = (machines.next(), machines.next()) else {
        return false;
    };
    let lives = world.lives.iter();
    let mut lives = lives.filter(|life| Some(life.log.node) == one.node);
    let only = lives
        .next()
        .is_some_and(|life| !life.branched && !life.emptied);
    only && lives.next().is_none() && !one.destroyed
}

/// All is at rest: the coordinator shows these tasks of a run.
pub fn at_rest(world: &mut World, run: RunId, tasks: &[view::Task]) {
    if world.cloud.put_back {
        return;
    }
    let mut wrongs = Vec::new();
    let text = |task: &view::Task, one: &view::Attempt| {
        let view::Attempt {
            epoch,
            number,
            node,
            ..
        } = one;
        format!(
            "attempt {epoch}.{number} of task {} of run {run} at {node}",
            task.task
        )
    };
    for task in tasks {
        let before = |one: &&view::Attempt| world.counted.contains_key(&named(run, task, one));
        let counted = task.history.iter().filter(before);
        let newest = counted.map(|one| one.epoch).max();
        // what was done again, since nobody could fetch what it left, has a newer one beside it,
        // which need not be shown any more
        let last = |one: &&view::Attempt| {
            let mut counted = world.counted.keys();
            let again = |name: &Named| (name.0, &name.1) == (run, &task.task) && name.3 > one.epoch;
            before(one) && !counted.any(again)
        };
        let plain = task.history.iter().filter(|one| is_plain(world, &one.node));
        for one in plain.filter(last) {
            if let Some(why) = &one.not_applied {
                let what = text(task, one);
                let text = format!("{what} counted before a restore, and does not any more: {why}");
                wrongs.push(wrong("counted_once", text));
            }
        }
        let late = |one: &&view::Attempt| is_success(one) && !before(one);
        let late = task.history.iter().filter(late);
        for one in late.filter(|one| newest.is_some_and(|newest| one.epoch < newest)) {
            let what = text(task, one);
            let text = format!("{what} counts, although one of epoch {newest:?} counted before");
            wrongs.push(wrong("counted_once", text));
        }
    }
    world.fail_all(crate::trace::Lane::Cloud, wrongs);
}
