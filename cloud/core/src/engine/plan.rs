//! What a plan of a workflow starts from; [`crate::plan`] makes it, beside the engine.

use super::Engine;
use super::requests::Answered;
use crate::event::Reply;
use crate::plan::{Ground, History};
use crate::run::Run;
use crate::run::place::Candidate;
use crate::store::{Store, StoreError};
use crate::view::Elsewhere;
use shared::ids::RunId;
use shared::state::TaskState;
use std::collections::BTreeMap;

/// Earlier runs that are looked at for how long tasks take.
const RUNS: usize = 5;

impl<S: Store> Engine<S> {
    /// The nodes as they are, and what tasks of the workflow of this name took.
    pub(super) fn read_ground(&mut self, workflow: &str) -> Result<Answered, StoreError> {
        let history = self.history(workflow)?;
        let nodes = self.takers();
        let others = self.unusable(&nodes);
        Ok(Ok(Reply::Ground(Box::new(Ground {
            nodes,
            others,
            history,
        }))))
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
