//! Figures of the state in memory, for those who watch the coordinator.

use super::Engine;
use crate::store::Store;
use crate::view::Figures;
use shared::state::{NodeState, RunState, TaskState};

impl<S: Store> Engine<S> {
    /// Counts what is there now; it reads nothing from the store.
    pub(super) fn figures(&self) -> Figures {
        let mut figures = Figures {
            generation: self.fleet.generation.0,
            events: self.record.last_event(),
            audit: self.record.last_audited(),
            files: self.files.len() as u64,
            file_bytes: self.files.values().sum(),
            ..Figures::default()
        };
        for state in NodeState::ALL {
            figures.nodes.insert(state.text().to_owned(), 0);
        }
        for state in RunState::ALL {
            figures.runs.insert(state.text().to_owned(), 0);
        }
        for state in TaskState::ALL {
            figures.tasks.insert(state.text().to_owned(), 0);
        }
        for (id, node) in &self.nodes {
            *figures
                .nodes
                .entry(self.node_state(*id).text().to_owned())
                .or_default() += 1;
            let link = self.links.get(id);
            figures.sessions += u64::from(link.is_some_and(|link| link.live.is_some()));
            let ahead = link.map_or(0, |link| link.ahead);
            figures.behind += ahead.saturating_sub(node.facts.number);
            figures.unconfirmed += node.directives.number.saturating_sub(node.confirmed);
        }
        for run in self.runs.values().filter(|run| run.head.gone.is_none()) {
            *figures
                .runs
                .entry(run.head.state.text().to_owned())
                .or_default() += 1;
            figures.not_applied += run.head.not_applied;
            for state in TaskState::ALL {
                *figures.tasks.entry(state.text().to_owned()).or_default() +=
                    u64::from(run.count(*state));
            }
        }
        figures
    }
}
