//! Operators who keep work off nodes: cordon, drain, labels, taints; and what they were told holds.

use crate::fault::Kind;
use crate::people::Purpose;
use crate::queue::MIN;
use crate::workload::TAINTS;
use crate::world::{Ev, World};
use cloud_core::change::NodeChange;
use cloud_core::event::{Input, Reply, Request};
use cloud_core::view;
use shared::ids::NodeId;
use shared::taint::{Effect, Taint};
use std::collections::{BTreeMap, BTreeSet};

/// So long after a drain somebody looks at what is left.
const LOOK_AFTER: u64 = 10 * MIN;

/// What was promised to people, and is not taken back: they were told so, and asked for nothing
/// else since.
#[derive(Debug, Default)]
pub struct Closed {
    /// Nodes that are given no new work.
    pub nodes: BTreeSet<NodeId>,
    /// Nodes that are gone.
    pub gone: BTreeSet<NodeId>,
    /// Taints of nodes, each with the process of the coordinator that took it.
    pub taints: BTreeMap<NodeId, Vec<(Taint, u64)>>,
}

impl Closed {
    /// Somebody asks for something: what it may end is no longer promised.
    pub fn asked(&mut self, request: &Request) {
        match request {
            Request::ChangeNode {
                node,
                change: NodeChange::Uncordon,
                ..
            }
            | Request::Drain {
                node, on: false, ..
            } => drop(self.nodes.remove(node)),
            Request::ChangeNode {
                node,
                change: NodeChange::Taint { add, remove },
                ..
            } => {
                let named = |key: &str| remove.iter().any(|k| k == key) || has(add, key);
                if let Some(taints) = self.taints.get_mut(node) {
                    taints.retain(|(taint, _)| !named(&taint.key));
                }
            }
            _ => {}
        }
    }

    /// Somebody was told that it is done.
    fn done(&mut self, request: &Request, process: u64) {
        match request {
            Request::ChangeNode {
                node,
                change: NodeChange::Cordon,
                ..
            }
            | Request::Drain { node, on: true, .. } => drop(self.nodes.insert(*node)),
            Request::ForgetNode { node, .. } => drop(self.gone.insert(*node)),
            Request::ChangeNode {
                node,
                change: NodeChange::Taint { add, .. },
                ..
            } => {
                let taints = self.taints.entry(*node).or_default();
                taints.retain(|(taint, _)| !has(add, &taint.key));
                taints.extend(add.iter().map(|taint| (taint.clone(), process)));
            }
            _ => {}
        }
    }

    /// The coordinator forgot what it had said.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The node that a request is about.
fn operated_on(request: &Request) -> Option<NodeId> {
    match request {
        Request::ChangeNode { node, .. } | Request::Drain { node, .. } => Some(*node),
        _ => None,
    }
}

/// What is done with nodes in a turn that is told this, in order, with what was asked twice.
pub(crate) fn operations(inputs: &[Input]) -> Vec<(u64, NodeId)> {
    let operation = |input: &Input| match input {
        Input::Request { id, request, .. } => Some((id.0, operated_on(request)?)),
        _ => None,
    };
    inputs.iter().filter_map(operation).collect()
}

fn has(taints: &[Taint], key: &str) -> bool {
    taints.iter().any(|taint| taint.key == key)
}

impl World {
    /// An operator does something with a node, which may be away.
    pub(crate) fn operate(&mut self, n: u64) {
        let mut dice = self.dice.people.fork("operation", n);
        let machine = &self.machines[dice.below(self.machines.len() as u64) as usize];
        let (m, Some(node)) = (machine.n, machine.node) else {
            return;
        };
        let by = "operator".to_owned();
        let change = match dice.below(8) {
            0 => NodeChange::Cordon,
            1 | 2 => {
                let on = true;
                self.ask(Request::Drain { node, on, by }, Purpose::Act);
                let look = self.t + LOOK_AFTER + dice.below(10 * MIN);
                self.queue.at(look, Ev::LookLeft(m));
                return;
            }
            3 | 4 => NodeChange::Uncordon,
            5 => {
                let site = dice.chance(500).then(|| "elsewhere".to_owned());
                NodeChange::Label([("site".to_owned(), site)].into())
            }
            6 => NodeChange::Taint {
                add: Vec::new(),
                remove: TAINTS.map(str::to_owned).to_vec(),
            },
            _ => NodeChange::Taint {
                add: vec![Taint {
                    key: TAINTS[dice.below(TAINTS.len() as u64) as usize].to_owned(),
                    value: String::new(),
                    effect: [Effect::Refuse, Effect::Avoid][dice.below(2) as usize],
                }],
                remove: Vec::new(),
            },
        };
        self.ask(Request::ChangeNode { node, change, by }, Purpose::Act);
    }

    /// An operator drains a gateway, or ends that.
    pub(crate) fn drain(&mut self, m: usize, on: bool) {
        if let Some(node) = self.machines[m].node {
            let by = "operator".to_owned();
            self.ask(Request::Drain { node, on, by }, Purpose::Act);
        }
    }

    /// Somebody looks at what a drain left.
    pub(crate) fn look_left(&mut self, m: usize) {
        let name = self.machines[m].name.clone();
        self.ask(Request::NodeWork { name }, Purpose::Left);
    }

    /// The coordinator answered an operator's request of this number.
    pub(crate) fn operated(&mut self, id: u64, request: &Request, reply: &Reply) {
        if !matches!(reply, Reply::Done) {
            return;
        }
        let kind = match request {
            Request::Drain { node, on: true, .. } => {
                let away = |one: &crate::machine::Machine| one.node == Some(*node);
                let m = self.machines.iter().position(away);
                match m.is_some_and(|m| !self.has_session(m)) {
                    true => Kind::DrainedAway,
                    false => Kind::Drained,
                }
            }
            Request::ChangeNode { change, .. } => match change {
                NodeChange::Cordon => Kind::Cordoned,
                NodeChange::Taint { add, .. } if !add.is_empty() => Kind::Tainted,
                NodeChange::Label(_) => Kind::Labelled,
                _ => return,
            },
            _ => return,
        };
        self.happened(kind);
        // whoever asked for the end of it meanwhile is promised nothing
        let node = operated_on(request);
        let meanwhile = |ask: &crate::people::Ask| operated_on(&ask.request) == node;
        // nor is anybody where what was asked before, and is answered, was asked again and that
        // came behind this one in the same turn: it was done once more, after this
        let turn = self.people.operations.iter().rev();
        let mut behind = turn.take_while(|(other, _)| *other != id);
        let once_more = behind.any(|(_, other)| Some(*other) == node);
        if !once_more && !self.people.asks.values().any(meanwhile) {
            self.people.closed.done(request, self.cloud.process);
        }
    }

    /// Faults stop: the node is given work again, like it was before.
    pub(crate) fn open_node(&mut self, shown: &view::Node) {
        let node = shown.id;
        let Some(machine) = self.machines.iter().find(|one| one.node == Some(node)) else {
            return;
        };
        if shown.state == "forgotten" {
            return;
        }
        let mut changes = Vec::new();
        if shown.cordoned || shown.state == "draining" {
            changes.push(NodeChange::Uncordon);
        }
        if !shown.taints.is_empty() {
            let remove = TAINTS.map(str::to_owned).to_vec();
            let add = Vec::new();
            changes.push(NodeChange::Taint { add, remove });
        }
        if let Some(site) = machine.labels.get("site")
            && shown.labels.get("site") != Some(site)
        {
            let site = Some(site.clone());
            changes.push(NodeChange::Label([("site".to_owned(), site)].into()));
        }
        for change in changes {
            let by = "operator".to_owned();
            self.ask(Request::ChangeNode { node, change, by }, Purpose::Act);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Layer, Plan};

    const NODE: NodeId = NodeId([1; 16]);

    /// Whether a drain is promised in a turn that is told requests of these numbers: the first one
    /// asks for the end of a drain, the second one drains, the third one is of another node.
    fn promised(turn: &[u64]) -> bool {
        let mut world = World::new(Plan::small(1, Layer::Cores), None);
        let (first, by) = (world.people.last, "operator".to_owned());
        for (node, on) in [(NODE, false), (NODE, true), (NodeId([2; 16]), true)] {
            let by = by.clone();
            world.ask(Request::Drain { node, on, by }, Purpose::Act);
        }
        let asks = &world.people.asks;
        let told = turn.iter().map(|n| (first + n, &asks[&(first + n)]));
        let inputs: Vec<Input> = told
            .map(|(id, ask)| Input::Request {
                id: cloud_core::event::RequestId(id),
                request: Box::new(ask.request.clone()),
                caller: crate::people::caller(),
            })
            .collect();
        world.people.operations = operations(&inputs);
        for n in turn {
            world.answered(first + n, Reply::Done);
        }
        world.people.closed.nodes.contains(&NODE)
    }

    #[test]
    fn a_drain_is_promised_but_where_its_end_is_done_once_more_behind_it() {
        assert!(promised(&[1, 2]));
        assert!(promised(&[1, 1, 2]), "the end came before, twice");
        assert!(promised(&[1, 2, 2, 3]), "the drain came last, twice");
        assert!(promised(&[1, 2, 1, 2]));
        assert!(!promised(&[1, 2, 1]));
        assert!(!promised(&[2, 1]));
        assert!(!promised(&[2]), "its end is under way");
    }
}
