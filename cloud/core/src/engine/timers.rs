//! What happens by itself when time passes: probes without an answer, silence that lasted too long.

use super::Engine;
use crate::store::{Store, StoreError};
use shared::ids::{NodeId, RunId};
use shared::planted::{self, Mistake};
use shared::time::{Mono, Span};

impl<S: Store> Engine<S> {
    /// When the engine wants to be run again, whatever comes in.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Mono> {
        let probes = self.links.values().filter_map(|l| l.probe.as_ref());
        let silences = self.lost_after.values().flatten();
        let silences = silences.filter_map(|(node, span)| Some(self.silent_since(*node)? + *span));
        probes
            .map(|p| p.until)
            .chain(silences)
            .chain(self.refused.values().copied())
            .chain(self.next_aged())
            .chain(self.next_collection())
            .chain(self.next_telling())
            .chain(self.has_backlog().then_some(self.now.mono))
            .chain(self.slots_due)
            .min()
            .map(|due| self.stalled.map_or(due, |until| due.max(until)))
    }

    /// Since when a node is silent, if it has no session.
    pub(super) fn silent_since(&self, node: NodeId) -> Option<Mono> {
        let link = self.links.get(&node)?;
        link.live.is_none().then_some(link.heard)
    }

    pub(super) fn timers(&mut self) -> Result<(), StoreError> {
        let now = self.now.mono;
        let due: Vec<NodeId> = self
            .links
            .iter()
            .filter(|(_, l)| l.probe.as_ref().is_some_and(|p| p.until <= now))
            .map(|(id, _)| *id)
            .collect();
        for node in due {
            self.no_pong(node)?;
        }
        let silent: Vec<(RunId, NodeId, Span)> = self
            .lost_after
            .iter()
            .flat_map(|(run, slices)| slices.iter().map(|(node, span)| (*run, *node, *span)))
            .filter_map(|(run, node, span)| {
                let since = self.silent_since(node)?;
                let due = since + span <= now && !planted::on(Mistake::NeverLost);
                due.then_some((run, node, now - since))
            })
            .collect();
        for (run, node, silence) in silent {
            self.step_run(run, |run, at, fx| run.node_silent(at, node, silence, fx))?;
        }
        self.offer_again(None)?;
        self.look_at_schedules()?;
        self.look_at_files();
        self.age()
    }

    /// Offers runs that wait to nodes that refused them: to this one, or to all whose pause is
    /// over.
    pub(super) fn offer_again(&mut self, node: Option<NodeId>) -> Result<(), StoreError> {
        let now = self.now.mono;
        let due = |(run, at): (&RunId, &Mono)| (node.is_some() || *at <= now).then_some(*run);
        let runs: Vec<RunId> = self.refused.iter().filter_map(due).collect();
        for id in runs {
            self.step_run(id, |run, _, _| run.offer_again(node))?;
            self.plan.insert(id);
        }
        Ok(())
    }

    /// The live session did not answer: it is dead, the newcomer is judged by its logs.
    fn no_pong(&mut self, node: NodeId) -> Result<(), StoreError> {
        let Some(link) = self.links.get_mut(&node) else {
            return Ok(());
        };
        let Some(probe) = link.probe.take() else {
            return Ok(());
        };
        if let Some(dead) = link.live.take() {
            self.record.touch(node);
            self.conns.remove(&dead.conn);
            self.outputs.push(crate::event::Output::Close {
                conn: dead.conn,
                why: "it did not answer, another session took over".to_owned(),
            });
        }
        self.admit(probe.conn, node, probe.hello, probe.secret)
    }
}
