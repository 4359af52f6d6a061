//! What a Byzantine gateway says stays its own affair.

use crate::check::tasks_of;
use crate::truth::{Wrong, wrong};
use crate::world::World;
use cloud_core::run::{RunHead, Slice, TaskRow};
use cloud_core::store::{AggregateId, Transaction};
use shared::fact::{Body, Outcome, OutputFile};
use shared::ids::{NodeId, RunId, TaskIdx};
use shared::state::TaskState;
use std::collections::BTreeMap;

/// What it means.
pub const DEFINITION: &str = "Nothing that a Byzantine gateway says, with a certificate of its own node, changes what is \
    of others: no slice of another node changes its owner or its epoch, and no task of one \
    leaves it for a slice of the Byzantine node, while it counts; such a task runs, succeeds \
    or fails only by a fact of an honest node, with the outputs of that fact; no attempt of \
    the Byzantine node counts at an epoch that it was never given; no run of others becomes \
    its own, is paused by it, or is asked to end without anybody who asked. The head of a node \
    or a run stays below 512 KiB. Excepted are runs that were held because the coordinator's \
    store went back: there it takes a node's word on slices that it does not know.";

/// Bytes of the head of a node or of a run.
const HEAD: usize = 512 << 10;

/// What was durable of a run at its last commit.
#[derive(Debug, Clone)]
struct Before {
    slices: Vec<Slice>,
    tasks: BTreeMap<u32, TaskRow>,
}

/// What is remembered of all runs.
#[derive(Debug, Clone, Default)]
pub struct Contained(BTreeMap<RunId, Before>);

/// A commit of the coordinator is done.
pub fn on_cloud_commit(world: &mut World, transactions: &[Transaction]) {
    let Some(liar) = world
        .liar
        .as_ref()
        .and_then(|liar| world.machines[liar.m].node)
    else {
        return;
    };
    let mut wrongs = Vec::new();
    for tx in transactions {
        if tx.head.len() > HEAD {
            let text = format!("{:?} has a head of {} bytes", tx.aggregate, tx.head.len());
            wrongs.push(wrong("contained", text));
        }
        if let AggregateId::Run(run) = tx.aggregate {
            wrongs.extend(judge(world, liar, run, tx));
        }
    }
    world.fail_all(crate::trace::Lane::Cloud, wrongs);
}

fn judge(world: &mut World, liar: NodeId, run: RunId, tx: &Transaction) -> Vec<Wrong> {
    let Ok(head) = shared::codec::decode_extended::<RunHead>(&tx.head) else {
        return Vec::new();
    };
    let fresh = tasks_of(tx);
    let before = world.contained.0.get(&run);
    let mut out = Vec::new();
    // what a store that went back takes a node's word for is excepted
    let mut excepted = head.went_back.0 != 0 || world.cloud.went_back || world.cloud.put_back;
    // what is forgotten has no slices any more
    excepted |= head.gone.is_some();
    let known = world.flows.contains_key(&run) || world.people.fired.contains(&run);
    if known && !excepted {
        out.extend(owners(&head, before, liar));
        out.extend(requests(world, &head, run, liar));
    }
    if known {
        for (number, row) in &fresh {
            let old = before.and_then(|before| before.tasks.get(number));
            let task = (run, TaskIdx(*number));
            out.extend(outcome(world, &head, task, (old, row), liar));
            out.extend(attempts(&head, task, row, liar));
            if let Some(old) = old.filter(|_| !excepted) {
                out.extend(left(&head, task, (old, row), liar));
            }
        }
    }
    let before = world.contained.0.entry(run).or_insert_with(|| Before {
        slices: Vec::new(),
        tasks: BTreeMap::new(),
    });
    before.slices = head.slices;
    before.tasks.extend(fresh);
    out.into_iter()
        .map(|text| wrong("contained", format!("run {run}: {text}")))
        .collect()
}

/// No slice of another node changes its owner or its epoch: each placement is a new slice.
fn owners(head: &RunHead, before: Option<&Before>, liar: NodeId) -> Option<String> {
    let old = (0u32..).zip(&before?.slices);
    let mut honest = old.filter(|(_, old)| old.node != liar && old.node != NodeId::default());
    honest.find_map(|(number, old)| {
        let new = head.slices.get(number as usize);
        let same = new.is_some_and(|new| {
            (new.epoch, new.node, new.incarnation) == (old.epoch, old.node, old.incarnation)
        });
        (!same).then(|| format!("slice {number} of {} became {new:?}", old.node))
    })
}

/// No run of others becomes the Byzantine node's, and none is paused by it.
fn requests(world: &World, head: &RunHead, run: RunId, liar: NodeId) -> Option<String> {
    if head.origin == Some(liar) {
        return Some("it belongs to the Byzantine node".to_owned());
    }
    let part = head.slices.iter().any(|slice| slice.node == liar);
    if head.paused_at.contains_key(&liar) && !part {
        return Some("it is paused by the Byzantine node".to_owned());
    }
    let asked = world.people.cancelled.contains(&run) || world.people.fired.contains(&run);
    let planned = world
        .flows
        .get(&run)
        .is_some_and(|flow| flow.cancel.is_some());
    (head.cancel.is_some() && !asked && !planned).then(|| "nobody asked for its end".to_owned())
}

/// A task of another node's slice runs, succeeds or fails only because an honest node said so.
fn outcome(
    world: &World,
    head: &RunHead,
    (run, task): (RunId, TaskIdx),
    (old, row): (Option<&TaskRow>, &TaskRow),
    liar: NodeId,
) -> Option<String> {
    let same = old.is_some_and(|old| old.state == row.state && old.outputs == row.outputs);
    let owner = head.slices.get(row.slice as usize)?;
    if same || owner.node == liar || owner.node == NodeId::default() {
        return None;
    }
    let told = match row.state {
        TaskState::Running | TaskState::Succeeded | TaskState::Failed => {
            said(world, run, task, row.state, &row.outputs)
        }
        _ => true,
    };
    (!told).then(|| {
        format!(
            "task {} of {} is {} with {} outputs, which no honest node said",
            task.0,
            owner.node,
            row.state,
            row.outputs.len()
        )
    })
}

/// Whether a durable fact of an honest node says this of a task.
fn said(
    world: &World,
    run: RunId,
    task: TaskIdx,
    state: TaskState,
    outputs: &[OutputFile],
) -> bool {
    let rows = world.lives.iter().flat_map(|life| &life.facts);
    let mut facts = rows.filter_map(|row| row.fact.as_ref());
    facts.any(|fact| match &fact.body {
        Body::Started { attempt } => {
            state == TaskState::Running && (attempt.slice.run, attempt.task) == (run, task)
        }
        Body::Ended { attempt, end } => {
            let succeeded = end.outcome == Outcome::Succeeded && end.outputs == outputs;
            (attempt.slice.run, attempt.task) == (run, task)
                && end.task == state
                && (state != TaskState::Succeeded || succeeded)
        }
        Body::Answered {
            slice, task: of, ..
        } => (slice.run, *of) == (run, task),
        Body::Moved {
            slice,
            task: of,
            to,
            ..
        } => (slice.run, *of, *to) == (run, task, state),
        Body::Reset { slices, .. } => slices.iter().any(|known| {
            let mut tasks = known.tasks.iter();
            known.slice.run == run && tasks.any(|one| one.task == task && one.state == state)
        }),
        _ => false,
    })
}

/// No attempt of the Byzantine node counts at an epoch that it was never given.
fn attempts(
    head: &RunHead,
    (_, task): (RunId, TaskIdx),
    row: &TaskRow,
    liar: NodeId,
) -> Option<String> {
    let mut theirs = row.history.iter().filter(|one| one.node == liar);
    let given = |epoch| {
        let mut slices = head.slices.iter();
        slices.any(|slice| slice.node == liar && slice.epoch == epoch)
    };
    let found = theirs.find(|one| one.not_applied.is_none() && !given(one.epoch))?;
    let (epoch, number) = (found.epoch, found.number);
    let task = task.0;
    Some(format!(
        "attempt {epoch}.{number} of task {task} counts, by who never had it"
    ))
}

/// A task does not leave a slice that counts for one of the Byzantine node.
fn left(
    head: &RunHead,
    (_, task): (RunId, TaskIdx),
    (old, row): (&TaskRow, &TaskRow),
    liar: NodeId,
) -> Option<String> {
    let from = head.slices.get(old.slice as usize)?;
    let to = head.slices.get(row.slice as usize)?;
    let taken = old.slice != row.slice && to.node == liar;
    (taken && from.node != liar && from.live()).then(|| {
        let task = task.0;
        format!(
            "task {task} left {} for the Byzantine node, while it was there",
            from.node
        )
    })
}
