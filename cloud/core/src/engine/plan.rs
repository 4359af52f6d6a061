//! What would become of a workflow if it was submitted now. Nothing is written, nothing changes.

use super::Engine;
use super::requests::Answered;
use crate::event::{Refused, Reply};
use crate::run::definition::Definition;
use crate::run::fit::fits;
use crate::run::place::{Candidate, Choice, Question, choose};
use crate::run::{Run, RunBody};
use crate::store::{Store, StoreError};
use crate::view::{CriticalPath, Elsewhere, Plan, PlannedSlice, PlannedTask};
use shared::graph;
use shared::ids::{RunId, TaskIdx};
use shared::state::TaskState;
use shared::workflow::{Task, Workflow};
use std::collections::{BTreeMap, VecDeque};

/// Earlier runs that are looked at for how long tasks take.
const RUNS: usize = 5;
/// Other nodes that are named for each task.
const OTHERS: usize = 20;

/// How long tasks took, in milliseconds, by id; and in how many runs.
type History = (BTreeMap<String, u64>, u64);

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

impl<S: Store> Engine<S> {
    /// Where tasks would go, and how long the longest path is.
    pub(super) fn read_plan(&mut self, packed: &[u8]) -> Result<Answered, StoreError> {
        let bad = |text: String| Ok(Err(Refused::Malformed(text)));
        let workflow = match shared::codec::unpack(packed) {
            Ok((workflow, _)) => workflow,
            Err(error) => return bad(error.to_string()),
        };
        if let Err(text) = crate::audit::workflow(&workflow) {
            return bad(text);
        }
        let (took, runs_seen) = self.history(&workflow.name)?;
        let nodes = self.candidates();
        let others = self.unusable(&nodes);
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
            nodes: &nodes,
        });
        let takes = takes(&body.workflow, &took);
        let plan = Plan {
            workflow: body.workflow.name.clone(),
            tasks: planned(&body.workflow, &nodes, &others, &choice, &takes),
            slices: slices(&body, &nodes, &choice),
            critical_path: critical_path(&body, &takes, runs_seen),
        };
        Ok(Ok(Reply::Plan(Box::new(plan))))
    }

    /// Nodes that are given no work at all, and why.
    fn unusable(&self, nodes: &[Candidate]) -> Vec<Elsewhere> {
        let known = self.nodes.keys();
        let others = known.filter(|id| nodes.iter().all(|node| node.id != **id));
        let others = others.map(|id| Elsewhere {
            node: self.node_name(*id),
            why: format!("it is {} and takes no work", self.node_state(*id)),
        });
        others.collect()
    }

    /// The medians of what tasks of the workflow took in its last runs.
    fn history(&mut self, workflow: &str) -> Result<History, StoreError> {
        let over = |run: &Run| run.head.state.is_final() && run.head.gone.is_none();
        let alike = self
            .runs
            .iter()
            .filter(|(_, run)| run.head.workflow == workflow && over(run));
        let mut runs: Vec<(_, RunId)> = alike.map(|(id, run)| (run.head.ended, *id)).collect();
        runs.sort_unstable();
        let mut took: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut seen = 0;
        for (_, id) in runs.into_iter().rev().take(RUNS) {
            self.load_body(id)?;
            let Some(body) = self.runs.get(&id).and_then(|run| run.body.as_ref()) else {
                continue;
            };
            seen += 1;
            for (task, row) in body.workflow.tasks.iter().zip(&body.tasks) {
                let last = row
                    .history
                    .last()
                    .filter(|_| row.state == TaskState::Succeeded);
                if let Some((began, ended)) = last.and_then(|a| Some((a.began?, a.ended?))) {
                    let ms = u64::try_from(ended.0.saturating_sub(began.0)).unwrap_or(0);
                    took.entry(task.id.clone()).or_default().push(ms);
                }
            }
        }
        let median = |mut all: Vec<u64>| {
            all.sort_unstable();
            all[all.len() / 2]
        };
        let took = took.into_iter().map(|(task, all)| (task, median(all)));
        Ok((took.collect(), seen))
    }
}

fn planned(
    workflow: &Workflow,
    nodes: &[Candidate],
    others: &[Elsewhere],
    choice: &Choice,
    takes: &Takes,
) -> Vec<PlannedTask> {
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
        out.push(PlannedTask {
            task: task.id.clone(),
            node: placed.map(|(node, _)| nodes[*node].name.clone()),
            takes_ms: takes.map(|(ms, _)| ms),
            takes_by: takes.and_then(|(_, known)| known.text()),
            elsewhere: elsewhere
                .chain(others.iter().cloned())
                .take(OTHERS)
                .collect(),
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
