//! How long a node's logs are kept: directives until the node has applied them, facts while a run
//! that is not forgotten names them.

use crate::effects::Effects;
use crate::inbox::Message;
use crate::node::Node;
use crate::store::{AggregateId, Prune};
use shared::directive::Body;
use shared::ids::{Generation, Incarnation, NodeId, RunId};
use shared::time::Unix;
use shared::wire::LogId;
use std::collections::BTreeSet;

/// Confirmed directives, and facts that name no run, that are kept for people.
pub const TAIL: u64 = 1000;
/// First letter of the rows that say which fact names a run first.
pub const NAMED: &str = "n";

/// A row of [`NAMED`]: incarnation, run, number of the fact.
pub type NamedRow = (Incarnation, RunId, u64);

fn row(incarnation: Incarnation, run: RunId) -> String {
    format!("{NAMED}{incarnation}{run}")
}

impl Node {
    /// A fact names a run: it is kept until the run is forgotten.
    pub(crate) fn name_run(
        &mut self,
        incarnation: Incarnation,
        run: RunId,
        number: u64,
        fx: &mut Effects,
    ) {
        if self.named.contains_key(&(incarnation, run)) {
            return;
        }
        self.named.insert((incarnation, run), number);
        let value = shared::codec::encode(&(incarnation, run, number));
        fx.rows.push((row(incarnation, run), Some(value)));
    }

    /// A run is forgotten everywhere: facts that only it needed go.
    pub fn unneeded(&mut self, node: NodeId, run: RunId, fx: &mut Effects) {
        let of_run = |(_, r): &&(Incarnation, RunId)| *r == run;
        let lives: BTreeSet<Incarnation> =
            self.named.keys().filter(of_run).map(|(i, _)| *i).collect();
        for incarnation in lives {
            self.named.remove(&(incarnation, run));
            fx.rows.push((row(incarnation, run), None));
            let needed = self.named.iter().filter(|((i, _), _)| *i == incarnation);
            let needed = needed.map(|(_, first)| first - 1).min();
            let log = LogId { node, incarnation };
            if self.incarnation == Some(incarnation) {
                let upto = needed.unwrap_or_else(|| self.facts.number.saturating_sub(TAIL));
                if upto > self.facts_pruned {
                    self.facts_pruned = upto;
                    fx.prune.push(Prune::Facts(log, upto));
                }
            } else {
                fx.prune.push(Prune::Facts(log, needed.unwrap_or(u64::MAX)));
            }
        }
        // What it may say again is numbered higher.
        self.post.cursors.remove(&AggregateId::Run(run));
    }

    /// Asks the node to forget a run, or answers for it if there is nobody to ask.
    pub fn forget_run(
        &mut self,
        node: NodeId,
        run: RunId,
        (at, generation): (Unix, Generation),
        fx: &mut Effects,
    ) {
        if self.forgotten.is_some() || self.incarnation.is_none() {
            self.has_forgotten(node, run, fx);
            return;
        }
        self.append(node, at, generation, Body::Forget { run }, fx);
        self.forgets.insert(run, self.directives.number);
    }

    pub(crate) fn has_forgotten(&mut self, node: NodeId, run: RunId, fx: &mut Effects) {
        self.forgets.remove(&run);
        self.workflows.remove(&run);
        self.older.remove(&run);
        self.slices.retain(|(of, _), _| *of != run);
        self.accepted.retain(|(of, _)| *of != run);
        let message = Message::Forgotten { node };
        fx.send(&mut self.post, AggregateId::Run(run), message);
    }

    /// Whether a confirmation up to `number` changes more than the cursor.
    #[must_use]
    pub fn confirmation_matters(&self, number: u64) -> bool {
        number >= self.pruned + 2 * TAIL || self.forgets.values().any(|n| *n <= number)
    }

    /// The node has applied its directives up to `number`.
    pub fn confirm(&mut self, node: NodeId, number: u64, fx: &mut Effects) {
        self.confirmed = self.confirmed.max(number);
        let done = self.forgets.iter().filter(|(_, n)| **n <= number);
        let done: Vec<RunId> = done.map(|(run, _)| *run).collect();
        for run in done {
            self.has_forgotten(node, run, fx);
        }
        if let Some(log) = self.log(node)
            && number >= self.pruned + 2 * TAIL
        {
            self.pruned = number - TAIL;
            fx.prune.push(Prune::Directives(log, self.pruned));
        }
    }
}
