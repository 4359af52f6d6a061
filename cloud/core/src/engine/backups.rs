//! Finished backups: what they hold of each node's facts is safe from then on, and nodes are told.

use super::Engine;
use crate::event::{Cursor, Reply};
use crate::fleet::Backup;
use crate::seal;
use crate::store::{AggregateId, Store};
use shared::ids::NodeId;
use shared::time::Span;
use shared::wire::{BACKUPS, FEATURES};

/// How long after a backup nodes count on the next one, when none are made by themselves.
pub const EXPECTED: Span = Span::secs(30 * 86_400);

impl<S: Store> Engine<S> {
    /// A backup is durable in its place: facts up to its cursors are safe, whichever backup was
    /// made before, and whatever its clock showed. A cursor of an incarnation that is not the
    /// current one any more says nothing about this one.
    pub(super) fn backup_done(&mut self, backup: Backup, cursors: &[Cursor]) -> Reply {
        let now = self.now.wall;
        let newer = |known: &Backup| known.at > backup.at && known.at <= now;
        if !self.fleet.backup.as_ref().is_some_and(newer) {
            self.fleet.backup = Some(backup);
        }
        for cursor in cursors {
            let Some(node) = self.nodes.get_mut(&cursor.node) else {
                continue;
            };
            let safe = cursor.facts.min(node.facts.number);
            if node.incarnation == Some(cursor.incarnation) && safe > node.safe {
                node.safe = safe;
                self.effects
                    .entry(AggregateId::Node(cursor.node))
                    .or_default();
                self.tell_safe(cursor.node);
            }
        }
        Reply::Done
    }

    fn tell_safe(&mut self, id: NodeId) {
        let (Some(node), Some(live)) = (
            self.nodes.get(&id),
            self.links.get(&id).and_then(|link| link.live.as_ref()),
        ) else {
            return;
        };
        let Some(log) = node.log(id) else { return };
        let (key, generation) = (&self.config.seal_key, self.fleet.generation);
        let ack = seal::ack(key, log, generation, node.facts, node.safe);
        self.acks.insert(live.conn, ack);
    }

    /// What this coordinator offers: nodes keep facts for backups only where backups are made.
    pub(super) fn features(&self) -> u64 {
        let recent = |backup: &Backup| self.now.wall.0 - backup.at.0 < EXPECTED.0 as i64;
        match self.config.backups || self.fleet.backup.as_ref().is_some_and(recent) {
            true => FEATURES,
            false => FEATURES & !BACKUPS,
        }
    }
}
