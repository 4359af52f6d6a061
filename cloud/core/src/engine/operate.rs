//! What people do with nodes: keep new work off them, empty them, change their labels and taints;
//! and what they see of it.

use super::Engine;
use super::requests::{Answered, no_node};
use crate::change::NodeChange;
use crate::event::{Refused, Reply, Request};
use crate::run::place::Candidate;
use crate::run::{Run, Stage};
use crate::store::{AggregateId, Store, StoreError};
use crate::view;
use shared::directive::Directive;
use shared::ids::{NodeId, RunId};
use shared::taint;
use shared::time::Unix;
use std::collections::BTreeSet;

/// Labels of one node that a person set, at most.
const LABELS: usize = 256;
/// Slices that are listed one by one.
const LISTED: usize = 1000;

impl<S: Store> Engine<S> {
    /// Changes what a person says of a node.
    pub(super) fn change_node(&mut self, id: NodeId, change: NodeChange, by: &str) -> Answered {
        let wall = self.now.wall;
        let Some(node) = self.nodes.get_mut(&id) else {
            return Err(no_node(&id.to_string()));
        };
        if node.forgotten.is_some() {
            let text = format!("node {} was declared gone", node.name);
            return Err(Refused::State(text));
        }
        match change {
            NodeChange::Cordon => {
                node.cordoned.get_or_insert_with(|| (wall, by.to_owned()));
            }
            NodeChange::Uncordon => {
                node.cordoned = None;
                node.draining = false;
                self.draining.remove(&id);
            }
            NodeChange::Label(set) => {
                let mut all = node.set_labels.clone();
                for (name, value) in set {
                    match value.is_some() || node.labels.contains_key(&name) {
                        true => all.insert(name, value),
                        // it says no such label: there is nothing to hide
                        false => all.remove(&name),
                    };
                }
                if all.len() > LABELS {
                    let text = format!("a node has at most {LABELS} labels set by people");
                    return Err(Refused::NoRoom(text));
                }
                node.set_labels = all;
                self.configure.insert(id);
            }
            NodeChange::Taint { add, remove } => {
                let mut all = node.set_taints.clone();
                let named = |key: &str| add.iter().any(|t| t.key == key);
                all.retain(|t| !named(&t.key) && !remove.contains(&t.key));
                all.extend(add);
                if all.len() > taint::MOST {
                    let text = format!("a node has at most {} taints", taint::MOST);
                    return Err(Refused::NoRoom(text));
                }
                node.set_taints = all;
            }
        }
        self.effects.entry(AggregateId::Node(id)).or_default();
        self.plan_all = true;
        Ok(Reply::Done)
    }

    /// A node gives back what may run elsewhere and is given nothing new; or that ends.
    pub(super) fn drain_node(&mut self, id: NodeId, on: bool, by: &str) -> Answered {
        let wall = self.now.wall;
        let Some(node) = self.nodes.get_mut(&id) else {
            return Err(no_node(&id.to_string()));
        };
        node.draining = on;
        match on {
            true => {
                node.cordoned.get_or_insert_with(|| (wall, by.to_owned()));
                self.draining.insert(id);
            }
            false => {
                node.cordoned = None;
                self.draining.remove(&id);
            }
        }
        self.effects.entry(AggregateId::Node(id)).or_default();
        self.plan_all = true;
        self.slots_due = Some(self.now.mono);
        Ok(Reply::Done)
    }

    /// Whether a run has slices that a drained node might give back.
    pub(super) fn is_leaving(&self, run: &Run) -> bool {
        let slices = &run.head.slices;
        !self.draining.is_empty()
            && slices
                .iter()
                .any(|s| s.live() && s.stage != Stage::Releasing && self.draining.contains(&s.node))
    }

    /// Asks drained nodes for what has somewhere else to go.
    pub(super) fn empty_drained(
        &mut self,
        runs: BTreeSet<RunId>,
        nodes: &[Candidate],
    ) -> Result<(), StoreError> {
        let draining = self.draining.clone();
        for id in runs {
            self.load_body(id)?;
            for node in &draining {
                let Some(run) = self.runs.get(&id) else {
                    continue;
                };
                let goes = run.leaving(*node, &self.node_name(*node), nodes).0;
                if !goes.is_empty() {
                    self.step_run(id, |run, _, fx| run.release(&goes, fx))?;
                }
            }
        }
        Ok(())
    }

    /// What operators see of a node.
    pub(super) fn read_of_node(&mut self, asked: Request) -> Result<Answered, StoreError> {
        let (Request::NodeWork { name } | Request::SyncStatus { name }) = &asked else {
            return Ok(Err(Refused::Malformed("not a request".to_owned())));
        };
        let Some(id) = self.node_named(name) else {
            return Ok(Err(no_node(name)));
        };
        Ok(Ok(match asked {
            Request::NodeWork { .. } => Reply::NodeWork(Box::new(self.view_work(id)?)),
            _ => Reply::SyncStatus(Box::new(self.view_sync(id)?)),
        }))
    }

    /// What is left on a node, and what keeps it there.
    pub(super) fn view_work(&mut self, id: NodeId) -> Result<view::NodeWork, StoreError> {
        let candidates = self.takers();
        let there = |run: &Run| run.head.slices.iter().any(|s| s.node == id && s.live());
        let runs: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, run)| there(run))
            .map(|(id, _)| *id)
            .collect();
        let name = self.node_name(id);
        let silent = self.silence_text(id);
        let mut work = view::NodeWork {
            node: name.clone(),
            draining: self.draining.contains(&id),
            left: 0,
            moving: 0,
            slices: Vec::new(),
            schedules: self.fired_there(id),
        };
        for run_id in runs {
            self.load_body(run_id)?;
            let Some(run) = self.runs.get(&run_id) else {
                continue;
            };
            let (goes, stays) = run.leaving(id, &name, &candidates);
            let live = (0u32..).zip(&run.head.slices);
            for (number, slice) in live.filter(|(_, s)| s.node == id && s.live()) {
                let asked = slice.stage == Stage::Releasing;
                let why = stays.iter().find(|(n, _)| *n == number);
                let why = match (asked, why, &silent) {
                    (true, _, Some(silent)) => format!("asked to give it back, {silent}"),
                    (true, _, None) => "asked to give it back".to_owned(),
                    (false, Some((_, why)), _) => why.clone(),
                    (false, None, _) => "may go elsewhere".to_owned(),
                };
                let moves = asked || work.draining && goes.contains(&number);
                work.left += 1;
                work.moving += u64::from(moves);
                if work.slices.len() < LISTED {
                    work.slices.push(view::SliceLeft {
                        run: run_id,
                        workflow: run.head.workflow.clone(),
                        tasks: u64::from(slice.open),
                        moves,
                        why,
                    });
                }
            }
        }
        Ok(work)
    }

    /// How far both logs of a node are across.
    pub(super) fn view_sync(&mut self, id: NodeId) -> Result<view::SyncStatus, StoreError> {
        let as_of = self.as_of(id);
        let now = self.now;
        let mut oldest = None;
        if let Some((log, confirmed)) = self
            .nodes
            .get(&id)
            .and_then(|n| Some((n.log(id)?, n.confirmed)))
        {
            let next = self.store.directives(log, confirmed, 1, usize::MAX)?;
            let read = |e: &crate::store::Entry| Directive::decode(e.head.number, &e.bytes).ok();
            oldest = next.first().and_then(read).map(|d| d.at);
        }
        let node = self.nodes.get(&id).cloned().unwrap_or_default();
        let link = self.links.get(&id);
        let live = link.and_then(|l| l.live.as_ref());
        let age = |at: Option<Unix>| {
            at.map(|at| u64::try_from(now.wall.0.saturating_sub(at.0)).unwrap_or(0))
        };
        let rate = link.map_or(0, |l| l.rate.per_second(now.mono));
        let facts = view::SyncClass {
            class: "facts".to_owned(),
            last: as_of.fact,
            behind: as_of.behind,
            age_ms: age(as_of.at).filter(|_| as_of.behind > 0),
            per_second: rate,
        };
        let directives = view::SyncClass {
            class: "directives".to_owned(),
            last: node.directives.number,
            behind: node.directives.number.saturating_sub(node.confirmed),
            age_ms: age(oldest),
            per_second: 0,
        };
        Ok(view::SyncStatus {
            node: self.node_name(id),
            state: self.node_state(id).text().to_owned(),
            session: live.map(|l| l.session),
            last_session: node.session,
            heard: as_of.heard,
            silence_ms: self.silent_since(id).map(|since| (now.mono - since).0),
            as_of,
            classes: vec![facts, directives],
        })
    }

    /// The text of why nothing may be given to a node, as candidates carry it.
    pub(super) fn closed(&self, id: NodeId) -> Option<String> {
        self.nodes.get(&id).and_then(crate::node::Node::closed_by)
    }

    /// Drained nodes, after the store was read.
    pub(super) fn find_drained(&mut self) {
        let drained = self.nodes.iter().filter(|(_, n)| n.draining);
        self.draining = drained.map(|(id, _)| *id).collect();
    }
}
