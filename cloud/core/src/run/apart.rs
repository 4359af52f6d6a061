//! Tasks that shall not all be on one node: spread over a label, or kept away from each other.

use super::place::{Candidate, Question};
use shared::ids::TaskIdx;
use std::collections::{BTreeMap, BTreeSet};

type Ranges = [(TaskIdx, TaskIdx)];

/// Whether a task is in one of the ranges.
pub(super) fn within(ranges: &Ranges, task: TaskIdx) -> bool {
    ranges
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&task))
}

/// One `anti_affinity` and where it keeps others from.
#[derive(Debug)]
struct Rule<'a> {
    ranges: &'a Ranges,
    /// Nodes with a task that it names.
    named: BTreeSet<usize>,
    /// Nodes with a task that has it.
    holders: BTreeSet<usize>,
}

/// Where tasks are that must not be together, and how many of those that are spread.
#[derive(Debug, Default)]
pub(super) struct Apart<'a> {
    rules: Vec<Rule<'a>>,
    of: BTreeMap<&'a Ranges, usize>,
    /// By matrix (or none) and label: how many are at each of its values.
    spread: BTreeMap<(Option<u32>, &'a str), BTreeMap<String, u64>>,
}

impl<'a> Apart<'a> {
    /// What holds before anything is chosen.
    pub(super) fn new(q: &Question<'a>, index: &BTreeMap<shared::ids::NodeId, usize>) -> Self {
        let mut apart = Self::default();
        for task in &q.workflow.tasks {
            let ranges = task.placement.anti_affinity.as_slice();
            if !ranges.is_empty() && !apart.of.contains_key(ranges) {
                apart.of.insert(ranges, apart.rules.len());
                apart.rules.push(Rule {
                    ranges,
                    named: BTreeSet::new(),
                    holders: BTreeSet::new(),
                });
            }
        }
        let spread = |t: &TaskIdx| q.workflow.tasks[t.0 as usize].placement.spread.is_some();
        for (task, node) in q.there {
            if let Some(node) = index
                .get(node)
                .filter(|_| !apart.rules.is_empty() || spread(task))
            {
                apart.note(q, *task, *node);
            }
        }
        apart
    }

    /// Whether a task is placed by itself, whatever it is linked with.
    pub(super) fn alone(&self, q: &Question<'_>, task: TaskIdx) -> bool {
        let place = &q.workflow.tasks[task.0 as usize].placement;
        place.spread.is_some()
            || !place.anti_affinity.is_empty()
            || self.rules.iter().any(|rule| within(rule.ranges, task))
    }

    /// A task is on a node.
    pub(super) fn note(&mut self, q: &Question<'a>, task: TaskIdx, node: usize) {
        let spec = &q.workflow.tasks[task.0 as usize];
        for rule in self.rules.iter_mut().filter(|r| within(r.ranges, task)) {
            rule.named.insert(node);
        }
        if let Some(own) = self.of.get(spec.placement.anti_affinity.as_slice()) {
            self.rules[*own].holders.insert(node);
        }
        if let Some(label) = &spec.placement.spread {
            let at = domain(&q.nodes[node], label);
            let counts = self.spread.entry((spec.matrix, label)).or_default();
            *counts.entry(at).or_default() += 1;
        }
    }

    /// Nodes that a task must keep away from.
    pub(super) fn kept_from(&self, q: &Question<'_>, task: TaskIdx) -> BTreeSet<usize> {
        let own = &q.workflow.tasks[task.0 as usize].placement.anti_affinity;
        let own = self.of.get(own.as_slice()).map(|at| &self.rules[*at].named);
        let others = self.rules.iter().filter(|r| within(r.ranges, task));
        let others = others.flat_map(|rule| &rule.holders);
        own.into_iter().flatten().chain(others).copied().collect()
    }

    /// How many of those that `task` is spread with are where a node is.
    pub(super) fn crowd(&self, q: &Question<'_>, task: TaskIdx, node: usize) -> u64 {
        let spec = &q.workflow.tasks[task.0 as usize];
        let Some(label) = &spec.placement.spread else {
            return 0;
        };
        let counts = self.spread.get(&(spec.matrix, label.as_str()));
        let at = domain(&q.nodes[node], label);
        counts.and_then(|c| c.get(&at)).copied().unwrap_or(0)
    }
}

/// What a node counts as where tasks are spread over a label.
fn domain(node: &Candidate, label: &str) -> String {
    match label {
        "node" => node.name.clone(),
        _ => node.labels.get(label).cloned().unwrap_or_default(),
    }
}
