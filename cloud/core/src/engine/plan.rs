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
        let history = self.history(&workflow.name)?;
        let nodes = self.candidates();
        let others = self.unusable(&nodes);
        let body = RunBody::new(Definition::new(workflow), Vec::new(), VecDeque::new());
        let runs = |task: &Task| task.when.as_ref().is_none_or(|when| when.holds);
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
        let plan = Plan {
            workflow: body.workflow.name.clone(),
            tasks: planned(&body.workflow, &nodes, &others, &choice, &history.0),
            slices: slices(&body, &nodes, &choice),
            critical_path: critical_path(&body, &history),
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
    took: &BTreeMap<String, u64>,
) -> Vec<PlannedTask> {
    let waits: BTreeMap<TaskIdx, &String> =
        choice.waiting.iter().map(|(t, why)| (*t, why)).collect();
    let mut last: Option<(&Task, Vec<Option<String>>)> = None;
    let mut out = Vec::with_capacity(workflow.tasks.len());
    for (at, task) in (0u32..).zip(&workflow.tasks) {
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
            takes_ms: took.get(&task.id).copied(),
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

/// The longest path, by what tasks took; one that never ran counts as the median of the others,
/// and without any all count alike.
fn critical_path(body: &RunBody, (took, runs): &History) -> CriticalPath {
    let tasks = &body.workflow.tasks;
    let mut known: Vec<u64> = took.values().copied().collect();
    known.sort_unstable();
    let usual = known.get(known.len() / 2).copied().unwrap_or(1).max(1);
    // what takes no time is on the path, too
    let weight = |at: usize| took.get(&tasks[at].id).map_or(usual, |ms| *ms.max(&1));
    let mut waiting: Vec<usize> = body.deps.iter().map(Vec::len).collect();
    let mut ready: Vec<usize> = (0..tasks.len()).filter(|at| waiting[*at] == 0).collect();
    // the longest way to the end of each task, and the task before it on that way
    let mut longest: Vec<(u64, Option<usize>)> = vec![(0, None); tasks.len()];
    while let Some(at) = ready.pop() {
        longest[at].0 += weight(at);
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
    let of_path = path.iter().filter_map(|at| took.get(&tasks[*at].id));
    let unknown = path.len() as u64 - of_path.clone().count() as u64;
    CriticalPath {
        takes_ms: (unknown < path.len() as u64).then(|| of_path.sum()),
        tasks: path.iter().map(|at| tasks[*at].id.clone()).collect(),
        unknown,
        runs: *runs,
    }
}
