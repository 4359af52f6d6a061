//! Backups that the coordinator makes by itself while it runs, and restores of them.

use crate::cloud::CloudImage;
use crate::fault::Kind;
use crate::plan::Back;
use crate::queue::{SEC, Time};
use crate::tap::Ended;
use crate::trace::{Lane, Sort};
use crate::world::{Ev, World};
use cloud_core::event::{Cursor, Input, Request, RequestId};
use cloud_core::node::Node;
use cloud_core::store::{AggregateId, RESTORED, RESTORED_WITHOUT, Transaction};
use shared::ids::{Hash, NodeId};
use shared::time::Unix;
use shared::wire::LogId;
use std::collections::BTreeMap;

/// A backup.
#[derive(Debug)]
pub struct Backup {
    /// When the coordinator says that it was made.
    at: Unix,
    /// When that was.
    made: Time,
    /// What is in it.
    image: CloudImage,
    /// How far it holds the facts of each node.
    cursors: Vec<Cursor>,
}

/// Where backups lie.
#[derive(Debug, Default)]
pub struct Shelf {
    /// Finished ones, the newest last.
    list: Vec<Backup>,
    /// One that is being made, of which life of the coordinator's process.
    making: Option<(u64, Backup)>,
    /// How far finished backups hold each log, those that were removed included.
    pub hold: BTreeMap<LogId, u64>,
    /// How often one was restored.
    pub restores: u32,
    /// Gateways that a restore did not wait for.
    pub without: Vec<NodeId>,
}

impl Shelf {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether one is being made.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.making.is_some()
    }
}

impl World {
    /// A backup begins: what is committed by now will be in it, and the coordinator goes on.
    pub(crate) fn backup_begins(&mut self) {
        let Some(plan) = self.plan.backups else {
            return;
        };
        self.queue.at(self.t + plan.every, Ev::BackupBegins);
        if self.cloud.engine.is_none() || self.cloud.backups.making.is_some() {
            return;
        }
        let image = CloudImage {
            medium: self.cloud.medium.copy(),
            truth: self.cloud.truth.clone(),
            files: self.cloud.files.clone(),
            authorities: self.cloud.authorities,
        };
        let backup = Backup {
            at: self.cloud.clocks.now(self.t).wall,
            made: self.t,
            cursors: cursors(&image),
            image,
        };
        self.cloud.backups.making = Some((self.cloud.process, backup));
        let takes = SEC + self.dice.disk.below(plan.takes);
        self.queue.at(self.t + takes, Ev::BackupEnds);
    }

    /// A backup is in its place and the coordinator counts it, unless its process ended meanwhile.
    pub(crate) fn backup_ends(&mut self) {
        let Some((process, mut backup)) = self.cloud.backups.making.take() else {
            return;
        };
        if process != self.cloud.process || self.cloud.engine.is_none() {
            self.happened(Kind::BackupCutShort);
            return;
        }
        let there = &self.cloud.files;
        backup
            .image
            .files
            .retain(|hash, _| there.contains_key(hash));
        self.happened(Kind::BackupMade);
        self.trace.note(self.t, Lane::Cloud, Sort::Backup, || {
            format!("a backup holds {:?}", backup.cursors)
        });
        for cursor in &backup.cursors {
            let log = LogId {
                node: cursor.node,
                incarnation: cursor.incarnation,
            };
            let hold = self.cloud.backups.hold.entry(log).or_insert(0);
            *hold = cursor.facts.max(*hold);
        }
        // whoever counts it ends with the process: nobody asks again
        self.people.last += 1;
        let request = Request::BackupDone {
            at: backup.at,
            place: format!("{}.backup", self.t / SEC),
            cursors: backup.cursors.clone(),
            by: "coordinator".to_owned(),
        };
        self.tell_cloud(Input::Request {
            id: RequestId(self.people.last),
            request: Box::new(request),
            caller: crate::people::caller(),
        });
        let keep = self.plan.backups.map_or(1, |plan| plan.keep);
        let list = &mut self.cloud.backups.list;
        list.push(backup);
        let spare = list.len().saturating_sub(keep);
        list.drain(..spare);
    }

    /// The coordinator's machine is lost; what is restored of a backup takes its place.
    pub(crate) fn restore(&mut self, back: Back, accept: bool, down: Time) {
        let list = &self.cloud.backups.list;
        let Some(position) = list.len().checked_sub(1) else {
            return;
        };
        let chosen = match back {
            Back::Places(back) => position.saturating_sub(back),
            Back::Before(time) => list.iter().rposition(|b| b.made < time).unwrap_or(0),
        };
        if self.cloud.engine.is_some() {
            self.cloud_power_off(down);
        }
        let gone = |node: &NodeId| {
            let here = |one: &&crate::machine::Machine| one.node == Some(*node);
            let mut all = self.machines.iter().filter(here);
            all.all(|one| one.destroyed)
        };
        let backup = &self.cloud.backups.list[chosen];
        let known = backup.cursors.iter().map(|cursor| cursor.node);
        let without: Vec<NodeId> = known.filter(|node| accept && gone(node)).collect();
        let grown = self.cloud.truth.versions != backup.image.truth.versions;
        self.cloud.medium = backup.image.medium.copy();
        self.cloud.truth = backup.image.truth.clone();
        self.cloud.files = backup.image.files.clone();
        self.cloud.authorities = backup.image.authorities;
        self.cloud.went_back = true;
        self.cloud.heard.clear();
        self.cloud.backups.restores += 1;
        self.cloud.older |= chosen < position;
        self.people.closed.forget();
        if !without.is_empty() {
            self.happened(Kind::RestoredWithout);
        }
        if grown {
            let newest = chosen == position;
            self.happened(if newest {
                Kind::Restored
            } else {
                Kind::RestoredOlder
            });
        }
        self.trace.note(self.t, Lane::Cloud, Sort::Backup, || {
            format!(
                "restored from a backup of {}, without {without:?}",
                position - chosen
            )
        });
        crate::check::held::on_restore(self, &without);
        self.mark_restored(without);
    }

    /// The restored store says so to its next start, and that files that it names are missing.
    fn mark_restored(&mut self, without: Vec<NodeId>) {
        let Ok(mut store) = self.cloud.medium.open() else {
            return;
        };
        let mut fleet = None;
        let read = store.aggregates(&mut |id, version, head| {
            if id == AggregateId::Fleet {
                fleet = Some((version, head.to_vec()));
            }
        });
        let (Ok(()), Some((expected, head))) = (read, fleet) else {
            return;
        };
        let mut rows = vec![
            (
                RESTORED.to_owned(),
                Some(b"restored from a backup".to_vec()),
            ),
            (
                RESTORED_WITHOUT.to_owned(),
                Some(shared::codec::encode(&without)),
            ),
        ];
        let files = &self.cloud.files;
        let read = store.rows(AggregateId::Fleet, "f", &mut |name, _| {
            let hash = name[1..].parse::<Hash>();
            if hash.is_ok_and(|hash| !files.contains_key(&hash)) {
                rows.push((name.to_owned(), None));
            }
        });
        let transaction = Transaction {
            rows,
            ..Transaction::of(AggregateId::Fleet, expected, head)
        };
        if read.is_ok() && store.commit(std::slice::from_ref(&transaction)).is_ok() {
            let wrongs = self.cloud.truth.commit(Ended::Done, vec![transaction]);
            self.fail_all(Lane::Cloud, wrongs);
            self.cloud.backups.without.extend(without);
        } else {
            self.fail("acknowledged_is_durable", "a backup cannot be restored");
        }
    }
}

/// How far an image holds the facts of each node.
fn cursors(image: &CloudImage) -> Vec<Cursor> {
    let mut out = Vec::new();
    let Ok(mut store) = image.medium.open() else {
        return out;
    };
    // what cannot be read is noticed by the start that reads it
    let _ = store.aggregates(&mut |id, _, head| {
        let AggregateId::Node(node) = id else {
            return;
        };
        let Ok(known) = shared::codec::decode_extended::<Node>(head) else {
            return;
        };
        out.extend(known.incarnation.map(|incarnation| Cursor {
            node,
            incarnation,
            facts: known.facts.number,
        }));
    });
    out
}
