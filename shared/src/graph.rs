//! The graph of a workflow: order, reduction, ranks, the critical path, and drawings of it.
//!
//! Invariant: an edge is removed only where no end of any task could change for it (see `reduce`).
//! An input keeps naming the task that writes it even where the edge to that task was removed.

mod json;
mod layout;
pub(crate) mod order;
mod reduce;
mod svg;
mod text;

use crate::ids::TaskIdx;
use crate::time::Span;
use crate::workflow::{Task, Workflow};
use order::Order;
use std::fmt;
use std::str::FromStr;

/// Milliseconds that a task counts on a path while nobody knows how long it takes.
const UNIT_WEIGHT: u64 = 1000;

/// What a task counts on a path by the specification's `estimate`, in milliseconds. An estimate
/// is never [`UNIT_WEIGHT`] itself, so that [`estimates`] can tell it from none.
pub(crate) fn weight(estimate: Option<Span>) -> u64 {
    match estimate {
        None => UNIT_WEIGHT,
        Some(Span(UNIT_WEIGHT)) => UNIT_WEIGHT + 1,
        Some(Span(ms)) => ms.max(1),
    }
}

/// How long the specification says that each task takes, in milliseconds; `Some(0)` for one that
/// is skipped. A compiled workflow carries it in its ranks: a task's own share of its rank is what
/// the largest rank behind it leaves.
#[must_use]
pub fn estimates(workflow: &Workflow) -> Vec<Option<u64>> {
    let tasks = &workflow.tasks;
    let mut behind = vec![0; tasks.len()];
    for task in tasks {
        for need in &task.needs {
            let most: &mut u64 = &mut behind[need.0 as usize];
            *most = (*most).max(task.upward_rank);
        }
    }
    let own = |(task, behind): (&Task, u64)| task.upward_rank.saturating_sub(behind);
    let own = tasks.iter().zip(behind).map(own);
    own.map(|ms| (ms != UNIT_WEIGHT).then_some(ms)).collect()
}

/// Removes redundant edges and fills in ranks and batches. The edges must have no cycle, and each
/// rank must be the task's [`weight`]. Members of `limited` matrices are not merged: a batch
/// occupies one slot for many.
///
/// # Panics
/// If they have one.
pub(crate) fn arrange(tasks: &mut [Task], merge_leaves: usize, limited: &[bool]) {
    let order = order_of(tasks).expect("cycles were refused before");
    reduce::reduce(tasks, &order);
    reduce::rank(tasks, &order);
    reduce::merge_leaves(tasks, merge_leaves, limited);
}

fn order_of(tasks: &[Task]) -> Option<Order> {
    let needs: Vec<&[TaskIdx]> = tasks.iter().map(|task| task.needs.as_slice()).collect();
    order::sort(&needs).ok()
}

/// The longest path, weighted by estimated work, from its first task to its last.
#[must_use]
pub fn critical_path(workflow: &Workflow) -> Vec<TaskIdx> {
    let tasks = &workflow.tasks;
    let needs: Vec<&[TaskIdx]> = tasks.iter().map(|task| task.needs.as_slice()).collect();
    let successors = order::Successors::of(&needs);
    let longest = |among: &mut dyn Iterator<Item = TaskIdx>| {
        // Of equals the first, so that the answer never changes.
        among.max_by_key(|t| (tasks[t.0 as usize].upward_rank, std::cmp::Reverse(*t)))
    };
    let first = (0_u32..)
        .zip(tasks)
        .filter(|(_, t)| t.needs.is_empty())
        .map(|(i, _)| TaskIdx(i));
    let mut path: Vec<TaskIdx> = longest(&mut first.into_iter()).into_iter().collect();
    while let Some(last) = path.last() {
        match longest(&mut successors.get(*last).iter().copied()) {
            Some(next) if path.len() < tasks.len() => path.push(next),
            _ => break,
        }
    }
    path
}

/// A way to draw a graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A table for a terminal.
    Text,
    /// For Graphviz.
    Dot,
    /// For Mermaid.
    Mermaid,
    /// A drawing.
    Svg,
    /// For programs.
    Json,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Text, Self::Dot, Self::Mermaid, Self::Svg, Self::Json];

    /// As it is written on the command line.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Dot => "dot",
            Self::Mermaid => "mermaid",
            Self::Svg => "svg",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

/// Not the name of a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no format of graphs; use text, dot, mermaid, svg or json")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;
    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let found = Self::ALL.into_iter().find(|format| format.text() == text);
        found.ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// Draws the graph. The text ends with a line break.
#[must_use]
pub fn render(workflow: &Workflow, format: Format) -> String {
    let picture = Picture::of(workflow);
    match format {
        Format::Text => text::table(&picture),
        Format::Dot => text::dot(&picture),
        Format::Mermaid => text::mermaid(&picture),
        Format::Svg => svg::draw(&picture),
        Format::Json => json::write(&picture),
    }
}

/// What every drawing needs.
struct Picture<'w> {
    workflow: &'w Workflow,
    level: Vec<u32>,
    critical: Vec<TaskIdx>,
    is_critical: Vec<bool>,
}

impl<'w> Picture<'w> {
    fn of(workflow: &'w Workflow) -> Self {
        let level = order_of(&workflow.tasks).map(|order| order.level);
        let critical = critical_path(workflow);
        let mut is_critical = vec![false; workflow.tasks.len()];
        for task in &critical {
            is_critical[task.0 as usize] = true;
        }
        let level = level.unwrap_or_else(|| vec![0; workflow.tasks.len()]);
        Self {
            workflow,
            level,
            critical,
            is_critical,
        }
    }

    fn task(&self, index: TaskIdx) -> &'w Task {
        &self.workflow.tasks[index.0 as usize]
    }

    fn level(&self, index: TaskIdx) -> usize {
        self.level[index.0 as usize] as usize
    }

    fn is_critical(&self, index: TaskIdx) -> bool {
        self.is_critical[index.0 as usize]
    }

    /// Whether the edge lies on the critical path.
    fn is_critical_edge(&self, from: TaskIdx, to: TaskIdx) -> bool {
        self.is_critical(from)
            && self.is_critical(to)
            && self
                .critical
                .binary_search_by_key(&self.level(from), |t| self.level(*t))
                .is_ok_and(|i| self.critical[i] == from && self.critical.get(i + 1) == Some(&to))
    }

    fn indices(&self) -> impl Iterator<Item = TaskIdx> + use<> {
        (0..u32::try_from(self.workflow.tasks.len()).unwrap_or(u32::MAX)).map(TaskIdx)
    }

    /// Tasks of each level, in the order of the specification.
    fn levels(&self) -> Vec<Vec<TaskIdx>> {
        let depth = self
            .level
            .iter()
            .max()
            .map_or(0, |deepest| *deepest as usize + 1);
        let mut levels = vec![Vec::new(); depth];
        for index in self.indices() {
            levels[self.level(index)].push(index);
        }
        levels
    }

    fn edges(&self) -> impl Iterator<Item = (TaskIdx, TaskIdx)> + '_ {
        self.indices()
            .flat_map(|to| self.task(to).needs.iter().map(move |from| (*from, to)))
    }
}

#[cfg(test)]
mod tests;
