//! What would become of a workflow if it was submitted now. Nothing is written, nothing changes.
//!
//! The engine tells how things stand; what follows from it may take long for a large workflow and
//! is computed by whoever asks, while the engine goes on.

use crate::run::RunBody;
use crate::run::definition::Definition;
use crate::run::fit::fits;
use crate::run::place::{Candidate, Choice, Question, choose};
use crate::view::{CriticalPath, Elsewhere, Plan, PlannedSlice, PlannedTask};
use serde::{Deserialize, Serialize};
use shared::graph;
use shared::ids::TaskIdx;
use shared::workflow::{Task, Workflow};
use std::collections::{BTreeMap, VecDeque};

/// Other nodes that are named for each task.
const OTHERS: usize = 20;
/// Other nodes that are named for all tasks together, but for the one that is asked for: with very
/// many tasks the answer would be larger than whoever asks can hold.
const OTHERS_OF_ALL: usize = 20_000;

/// How long tasks took, in milliseconds, by id; and in how many runs.
pub type History = (BTreeMap<String, u64>, u64);

/// How long each task of the workflow takes, as far as anybody knows.
type Takes = Vec<Option<(u64, Known)>>;

/// How it is known how long a task takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// From earlier runs.
    Runs,
    /// From the specification.
    Estimate,
    /// Its condition does not hold.
    Skipped,
}

impl Known {
    fn text(self) -> Option<String> {
        let text = match self {
            Self::Runs => "runs",
            Self::Estimate => "estimate",
            Self::Skipped => return None,
        };
        Some(text.to_owned())
    }
}

/// What a task took in earlier runs; where there is nothing, what the specification expects.
fn takes(workflow: &Workflow, took: &BTreeMap<String, u64>) -> Takes {
    let known = |(task, estimate): (&Task, Option<u64>)| match (took.get(&task.id), estimate) {
        _ if !runs(task) => Some((0, Known::Skipped)),
        (Some(ms), _) => Some((*ms, Known::Runs)),
        (None, Some(ms)) => Some((ms, Known::Estimate)),
        (None, None) => None,
    };
    let estimates = graph::estimates(workflow);
    workflow.tasks.iter().zip(estimates).map(known).collect()
}

fn runs(task: &Task) -> bool {
    task.when.as_ref().is_none_or(|when| when.holds)
}

/// What a plan starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// Nodes that may be given work.
    pub nodes: Vec<Candidate>,
    /// Nodes that are given none at all, and why.
    pub others: Vec<Elsewhere>,
    /// What its tasks took before.
    pub history: History,
}

/// Where tasks would go, and how long the longest path is. `asked`: the task for which other nodes
/// are named however many there are.
///
/// # Errors
/// What is wrong with the workflow, for people.
pub fn plan(workflow: Workflow, ground: &Ground, asked: Option<&str>) -> Result<Plan, String> {
    crate::audit::workflow(&workflow)?;
    let nodes = &ground.nodes;
    let body = RunBody::new(Definition::new(workflow), Vec::new(), VecDeque::new());
    let tasks: Vec<TaskIdx> = (0u32..)
        .zip(&body.workflow.tasks)
        .filter(|(_, task)| runs(task))
        .map(|(at, _)| TaskIdx(at))
        .collect();
    let choice = choose(&Question {
        workflow: &body.workflow,
        deps: &body.deps,
        dependents: &body.dependents,
        tasks: &tasks,
        there: &BTreeMap::new(),
        nodes,
    });
    let (took, runs_seen) = &ground.history;
    let takes = takes(&body.workflow, took);
    Ok(Plan {
        workflow: body.workflow.name.clone(),
        tasks: planned(&body.workflow, ground, &choice, (&takes, asked)),
        slices: slices(&body, nodes, &choice),
        critical_path: critical_path(&body, &takes, *runs_seen),
    })
}

fn planned(
    workflow: &Workflow,
    ground: &Ground,
    choice: &Choice,
    (takes, asked): (&Takes, Option<&str>),
) -> Vec<PlannedTask> {
    let nodes = &ground.nodes;
    let mut left = OTHERS_OF_ALL;
    let waits: BTreeMap<TaskIdx, &String> =
        choice.waiting.iter().map(|(t, why)| (*t, why)).collect();
    let mut last: Option<(&Task, Vec<Option<String>>)> = None;
    let mut out = Vec::with_capacity(workflow.tasks.len());
    for (at, task) in (0u32..).zip(&workflow.tasks) {
        let takes = takes[at as usize].filter(|(_, known)| *known != Known::Skipped);
        let at = TaskIdx(at);
        // what speaks against each node; most tasks are alike
        let alike = |known: &Task| {
            known.placement == task.placement
                && known.resources == task.resources
                && known.disconnect == task.disconnect
        };
        let against = match last.take().filter(|(known, _)| alike(known)) {
            Some((_, against)) => against,
            None => nodes
                .iter()
                .map(|node| fits(task, std::slice::from_ref(node)).err())
                .collect(),
        };
        let placed = choice.placed.get(&at);
        let why = match (placed, waits.get(&at)) {
            (Some((_, reason)), _) => reason.text().to_owned(),
            (None, Some(why)) => format!("waits for a node: {why}"),
            (None, None) => "its condition does not hold: it would be skipped".to_owned(),
        };
        let elsewhere = (0..nodes.len()).filter(|n| placed.is_none_or(|(chosen, _)| chosen != n));
        let elsewhere = elsewhere.map(|n| Elsewhere {
            node: nodes[n].name.clone(),
            why: match (&against[n], placed) {
                (Some(against), _) => against.clone(),
                (None, Some(_)) => format!("it fits, too; chosen: {why}"),
                (None, None) => "it fits by itself".to_owned(),
            },
        });
        let most = match asked == Some(task.id.as_str()) {
            true => OTHERS,
            false => OTHERS.min(left),
        };
        let others = ground.others.iter().cloned();
        let elsewhere: Vec<Elsewhere> = elsewhere.chain(others).take(most).collect();
        left = left.saturating_sub(elsewhere.len());
        out.push(PlannedTask {
            task: task.id.clone(),
            node: placed.map(|(node, _)| nodes[*node].name.clone()),
            takes_ms: takes.map(|(ms, _)| ms),
            takes_by: takes.and_then(|(_, known)| known.text()),
            elsewhere,
            why: why.clone(),
        });
        last = Some((task, against));
    }
    out
}

fn slices(body: &RunBody, nodes: &[Candidate], choice: &Choice) -> Vec<PlannedSlice> {
    let node_of = |task: &TaskIdx| choice.placed.get(task).map(|(node, _)| *node);
    let mut slices: BTreeMap<usize, PlannedSlice> = BTreeMap::new();
    for (task, (node, _)) in &choice.placed {
        let slice = slices.entry(*node).or_insert_with(|| PlannedSlice {
            node: nodes[*node].name.clone(),
            online: nodes[*node].online,
            tasks: 0,
            edges_out: 0,
            open_there: nodes[*node].load,
        });
        let at = task.0 as usize;
        let linked = body.deps[at].iter().chain(&body.dependents[at]);
        let away = linked.filter(|other| node_of(other) != Some(*node));
        slice.tasks += 1;
        slice.edges_out += away.count() as u64;
    }
    slices.into_values().collect()
}

/// The longest path, by what tasks take; one of which nobody knows counts as the median of the
/// others, and without any all count alike.
fn critical_path(body: &RunBody, takes: &Takes, runs: u64) -> CriticalPath {
    let tasks = &body.workflow.tasks;
    let ms_of = |at: usize| takes[at].map(|(ms, _)| ms);
    let is = |at: usize, by: Known| takes[at].is_some_and(|(_, known)| known == by);
    let work = (0..tasks.len()).filter(|at| !is(*at, Known::Skipped));
    let mut known: Vec<u64> = work.filter_map(ms_of).collect();
    known.sort_unstable();
    let usual = known.get(known.len() / 2).copied().unwrap_or(1).max(1);
    // what takes no time is on the path, too
    let weight = |at: usize| match is(at, Known::Skipped) {
        true => 0,
        false => ms_of(at).map_or(usual, |ms| ms.max(1)),
    };
    let mut waiting: Vec<usize> = body.deps.iter().map(Vec::len).collect();
    let mut ready: Vec<usize> = (0..tasks.len()).filter(|at| waiting[*at] == 0).collect();
    // the longest way to the end of each task, and the task before it on that way
    let mut longest: Vec<(u64, Option<usize>)> = vec![(0, None); tasks.len()];
    while let Some(at) = ready.pop() {
        longest[at].0 = longest[at].0.saturating_add(weight(at));
        for next in body.dependents[at].iter().map(|t| t.0 as usize) {
            if longest[next].0 < longest[at].0 {
                longest[next] = (longest[at].0, Some(at));
            }
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready.push(next);
            }
        }
    }
    let mut at = (0..tasks.len()).max_by_key(|at| (longest[*at].0, std::cmp::Reverse(*at)));
    let mut path = Vec::new();
    while let Some(task) = at {
        path.push(task);
        at = longest[task].1;
    }
    path.reverse();
    path.retain(|at| !is(*at, Known::Skipped));
    let count = |all: &dyn Fn(usize) -> bool| path.iter().filter(|at| all(**at)).count() as u64;
    let unknown = count(&|at| takes[at].is_none());
    let sum = path.iter().filter_map(|at| ms_of(*at));
    CriticalPath {
        takes_ms: (unknown < path.len() as u64).then(|| sum.fold(0, u64::saturating_add)),
        tasks: path.iter().map(|at| tasks[*at].id.clone()).collect(),
        unknown,
        estimated: count(&|at| is(at, Known::Estimate)),
        runs,
    }
}
