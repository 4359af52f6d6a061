//! Messages of live sessions, ends of connections, arrivals of files.

use super::Engine;
use crate::event::{Conn, Output};
use crate::inbox::Message;
use crate::node::Ingested;
use crate::offered::Offered;
use crate::seal;
use crate::store::{AggregateId, Store, StoreError};
use shared::fact::{self, Fact, Outcome};
use shared::ids::{Hash, NodeId, RunId};
use shared::log::Head;
use shared::wire::{Detail, Down, Refusal, Up};
use std::collections::BTreeMap;

impl<S: Store> Engine<S> {
    /// A message of a connection; only the live session of a node is listened to.
    pub(super) fn heard(&mut self, conn: Conn, message: Up) -> Result<(), StoreError> {
        let Some(node) = self.live_node(conn) else {
            return Ok(());
        };
        self.heard_now(node);
        match message {
            Up::Hello(_) => {
                self.refuse(conn, Refusal::Malformed, "hello was said already");
                self.drop_live(node);
                Ok(())
            }
            Up::Facts(batch) => {
                self.facts(conn, node, batch.into());
                Ok(())
            }
            Up::Packed(batch) => {
                match Offered::unpack(batch) {
                    Ok(batch) => self.facts(conn, node, batch),
                    Err(error) => {
                        let text = format!("packed facts cannot be read: {error}");
                        self.refuse(conn, Refusal::Malformed, &text);
                        self.drop_live(node);
                    }
                }
                Ok(())
            }
            Up::Applied(head) => self.applied(node, head),
            Up::Pong { nonce } => {
                self.pong(node, nonce);
                Ok(())
            }
            Up::Inventory(inventory) => {
                self.inventory(node, inventory);
                Ok(())
            }
            Up::InventoryPart(part) => {
                if let Err(error) = self.inventory_part(node, &part) {
                    let text = format!("its inventory is not taken: {error}");
                    self.refuse(conn, Refusal::Malformed, &text);
                    self.drop_live(node);
                }
                Ok(())
            }
            Up::Details(details) => {
                self.details(node, details);
                Ok(())
            }
            // Kept outside the store, by the shell.
            Up::Telemetry(_) => Ok(()),
            Up::Room { enough } => self.room_told(node, enough),
            Up::WantDirectives { from } => {
                let head = self.directive_head(node, from.saturating_sub(1))?;
                let live = self.links.get_mut(&node).and_then(|l| l.live.as_mut());
                if let (Some(head), Some(live)) = (head, live) {
                    live.sent = head;
                    self.pump.insert(node);
                }
                Ok(())
            }
        }
    }

    /// A node that has room again is offered at once what waits, also what it refused.
    fn room_told(&mut self, node: NodeId, enough: bool) -> Result<(), StoreError> {
        let link = self.links.entry(node).or_default();
        let was_full = std::mem::replace(&mut link.full, !enough);
        if was_full && enough {
            self.plan_all = true;
            self.offer_again(Some(node))?;
        }
        Ok(())
    }

    pub(super) fn live_node(&self, conn: Conn) -> Option<NodeId> {
        let node = *self.conns.get(&conn)?;
        let live = self.links.get(&node)?.live.as_ref()?;
        (live.conn == conn).then_some(node)
    }

    fn drop_live(&mut self, node: NodeId) {
        if let Some(link) = self.links.get_mut(&node) {
            link.live = None;
        }
        self.record.touch(node);
    }

    /// A connection is gone. An old one's end never removes a newer one.
    pub(super) fn gone(&mut self, conn: Conn) -> Result<(), StoreError> {
        let Some(node) = self.conns.remove(&conn) else {
            return Ok(());
        };
        let mono = self.now.mono;
        let link = self.links.entry(node).or_default();
        if link.probe.as_ref().is_some_and(|p| p.conn == conn) {
            link.probe = None;
        }
        if link.live.as_ref().is_some_and(|l| l.conn == conn) {
            link.live = None;
            self.record.touch(node);
            link.heard = mono;
            if let Some(probe) = link.probe.take() {
                return self.admit(probe.conn, node, probe.hello, probe.secret);
            }
        }
        Ok(())
    }

    pub(super) fn facts(&mut self, conn: Conn, node: NodeId, batch: Offered) {
        let Some(known) = self.nodes.get_mut(&node) else {
            return;
        };
        let before = (known.facts.number, known.notes.len());
        let log = known.log(node);
        let ahead = batch.last();
        let mut fx = self
            .effects
            .remove(&AggregateId::Node(node))
            .unwrap_or_default();
        let (result, mut decoded) = known.ingest(node, batch, &mut fx);
        let (ended, failed) = ends(&decoded);
        known.trust.ends(self.now.wall, ended, failed);
        if known.owes > 0 {
            known.tell_heard(node, &mut fx);
        }
        let came = decoded.len() as u64;
        let (head, safe) = (known.facts, known.safe);
        let changed = before != (head.number, known.notes.len())
            || matches!(result, Ingested::Fork(_))
            || !is_idle(&fx);
        if changed {
            self.effects.insert(AggregateId::Node(node), fx);
        }
        if let Some(log) = log {
            self.decoded.entry(log).or_default().append(&mut decoded);
        }
        let link = self.links.entry(node).or_default();
        link.rate.add(self.now.mono, came);
        link.ahead = link.ahead.max(ahead).max(head.number);
        let message = match result {
            Ingested::Recorded => {
                let (key, generation) = (&self.config.seal_key, self.fleet.generation);
                if let Some(log) = log {
                    let ack = seal::ack(key, log, generation, head, safe);
                    self.acks.insert(conn, ack);
                }
                return;
            }
            Ingested::Want(from) => Down::WantFacts { from },
            Ingested::Fork(number) => {
                let text = format!("fact {number} belongs to another history");
                self.refuse(conn, Refusal::NewIncarnation, &text);
                self.drop_live(node);
                return;
            }
        };
        self.outputs.push(Output::Send { conn, message });
    }

    /// The node confirmed directives. Worth no commit: its next hello says it again.
    fn applied(&mut self, node: NodeId, head: Head) -> Result<(), StoreError> {
        let ours = self.directive_head(node, head.number)?;
        if ours.is_some_and(|ours| ours.hash == head.hash)
            && let Some(known) = self.nodes.get_mut(&node)
        {
            if known.confirmation_matters(head.number) {
                let fx = self.effects.entry(AggregateId::Node(node)).or_default();
                known.confirm(node, head.number, fx);
            }
            known.confirmed = known.confirmed.max(head.number);
            self.pump.insert(node);
        }
        Ok(())
    }

    fn pong(&mut self, node: NodeId, nonce: u64) {
        let link = self.links.entry(node).or_default();
        if link.probe.as_ref().is_some_and(|p| p.nonce == nonce)
            && let Some(probe) = link.probe.take()
        {
            let why = "a second machine calls under its identity while its session is live";
            self.suspect(probe.conn, node, why);
        }
    }

    fn details(&mut self, node: NodeId, details: Vec<Detail>) {
        let at = self.now.wall;
        let Some(known) = self.nodes.get_mut(&node) else {
            return;
        };
        let mut by_run: BTreeMap<RunId, Vec<_>> = BTreeMap::new();
        for detail in details {
            if let Some((slice, task)) = detail.task {
                let list = by_run.entry(slice.run).or_default();
                list.push((task, detail.fact, detail.decision));
            }
        }
        by_run.retain(|run, _| self.runs.contains_key(run));
        if by_run.is_empty() {
            return;
        }
        let fx = self.effects.entry(AggregateId::Node(node)).or_default();
        for (run, details) in by_run {
            let message = Message::Details { at, details };
            fx.send(&mut known.post, AggregateId::Run(run), message);
        }
    }

    /// A file is in the file store: those who may wait for it are told.
    pub(super) fn file_stored(&mut self, hash: Hash, size: u64) {
        self.stored.insert(hash, self.now.mono);
        if self.files.insert(hash, size).is_none() {
            let fx = self.effects.entry(AggregateId::Fleet).or_default();
            let row = Some(shared::codec::encode(&size));
            fx.rows.push((format!("f{hash}"), row));
        }
        for (node, link) in &self.links {
            let busy = self.nodes.get(node).is_some_and(|n| !n.slices.is_empty());
            if let (true, Some(live)) = (busy, &link.live) {
                self.outputs.push(Output::Send {
                    conn: live.conn,
                    message: Down::FileReady { hash },
                });
            }
        }
    }
}

/// How many attempts succeeded or failed by these facts, and how many of those failed.
fn ends(facts: &[(u64, Fact)]) -> (u64, u64) {
    let outcomes = facts.iter().filter_map(|(_, fact)| match &fact.body {
        fact::Body::Ended { end, .. } => Some(end.outcome),
        _ => None,
    });
    outcomes.fold((0, 0), |(ended, failed), outcome| match outcome {
        Outcome::Succeeded => (ended + 1, failed),
        Outcome::Failed => (ended + 1, failed + 1),
        Outcome::Cancelled | Outcome::Lost | Outcome::NotBegun => (ended, failed),
    })
}

fn is_idle(fx: &crate::effects::Effects) -> bool {
    fx.sends.is_empty()
        && fx.drained.is_empty()
        && fx.events.is_empty()
        && fx.rows.is_empty()
        && fx.facts.is_empty()
        && fx.truncate.is_none()
        && fx.directives.is_empty()
        && fx.prune.is_empty()
}
