//! Which nodes carry the certificates of which authority, and the exchange of the fleet's authority
//! as far as it is decided here. Keys and files are the shell's.

use super::Engine;
use super::requests::Answered;
use crate::event::{Exchange, Refused, Reply};
use crate::store::Store;
use crate::view;
use shared::ids::{Hash, NodeId};
use shared::planted::{self, Mistake};
use shared::wire::RENEW;

/// So many nodes are named where some are left.
const NAMED: usize = 5;

impl<S: Store> Engine<S> {
    /// How many nodes carry a certificate of this authority, and those that do not. What a node
    /// showed before the store went back counts for nothing until it is heard: it may carry a newer
    /// one since.
    pub(super) fn carriers(&self, authority: &[u8; 32]) -> view::Carriers {
        let mut found = view::Carriers::default();
        for (id, node) in &self.nodes {
            if node.forgotten.is_some() {
                continue;
            }
            found.nodes += 1;
            let known = node.certificate.filter(|_| !self.is_waited_for(*id));
            let shown = known.map(|known| known.authority);
            if shown.as_ref() == Some(authority) {
                found.carry += 1;
                continue;
            }
            found.left.push(view::Left {
                node: node.name.clone(),
                id: *id,
                state: self.node_state(*id).text().to_owned(),
                heard: self.heard_last(*id),
                authority: shown.map(|shown| Hash(shown).hex()),
                until: known.map(|known| known.until),
                asked: node.features & RENEW != 0,
                unconfirmed: node.unconfirmed_key.is_some(),
            });
        }
        found.left.sort_by(|a, b| a.node.cmp(&b.node));
        found
    }

    /// Whether the store went back and the node was not heard since.
    fn is_waited_for(&self, id: NodeId) -> bool {
        let hold = self.fleet.hold.as_ref();
        hold.is_some_and(|hold| hold.nodes.contains(&id))
    }

    /// When a node was heard last: in this life of the store, or as its last fact says.
    fn heard_last(&self, id: NodeId) -> Option<shared::time::Unix> {
        let known = self.as_of(id);
        known.heard.or(known.at)
    }

    /// Decides on a step of the exchange.
    pub(super) fn exchange(&mut self, step: Exchange, authority: &[u8; 32]) -> Answered {
        let left = match step {
            Exchange::Begin => return Ok(Reply::Done),
            Exchange::Finish { .. } if planted::on(Mistake::ShutOut) => Vec::new(),
            Exchange::Finish { .. } => self.carriers(authority).left,
        };
        if let (Exchange::Finish { force: false }, false) = (step, left.is_empty()) {
            let names: Vec<&str> = left.iter().map(|left| left.node.as_str()).collect();
            let more = match names.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let names = names[..names.len().min(NAMED)].join(", ");
            let unheard = match left
                .iter()
                .filter(|left| self.is_waited_for(left.id))
                .count()
            {
                0 => String::new(),
                n => {
                    format!("; {n} of them were not heard since the coordinator's store went back")
                }
            };
            let text = format!(
                "{} of the nodes do not carry a certificate of the next authority yet: \
                 {names}{more}{unheard}",
                left.len()
            );
            return Err(Refused::State(text));
        }
        let void = self.fleet.void_tokens(
            "the fleet changed its authority, and this names the one before",
            self.now.wall,
        );
        let left = left.into_iter().map(|left| left.node).collect();
        Ok(Reply::Exchanged { left, void })
    }
}
