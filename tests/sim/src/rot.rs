//! Bit rot (layer 2): what lies on a disk changes while its machine is off. Whoever switches it on
//! verifies the store first, as `store check` does. What is found whole starts as it is, and every
//! promise holds on it as ever: so the verification lets nothing through that matters. What is
//! damaged is replaced: a gateway gets an older copy of its disk or an empty one, the coordinator
//! its newest backup or an older copy.

use crate::disk::SimDisk;
use crate::fault::Kind;
use crate::plan::Back;
use crate::queue::Time;
use crate::trace::Lane;
use crate::world::{Ev, World};
use std::cell::Cell;
use std::panic::{set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// A damaged page may trip an assertion of redb, which is told as damage and not printed.
    static VERIFIES: Cell<bool> = const { Cell::new(false) };
}

impl World {
    /// The disk of `node` rots, or the coordinator's, and is off for `down` at least.
    pub(crate) fn rot(&mut self, node: Option<usize>, down: Time) {
        match node {
            Some(m) => self.rot_gateway(m, down),
            None => self.rot_coordinator(down),
        }
    }

    fn rot_gateway(&mut self, m: usize, down: Time) {
        let machine = &self.machines[m];
        let unused = machine.life == usize::MAX || machine.node.is_none();
        let Some(disk) = machine.medium.disk().cloned() else {
            return;
        };
        if unused || machine.destroyed {
            return;
        }
        self.power_off(m, None);
        if self.rots_unseen(Lane::Node(m), &disk) {
            self.queue.at(self.t + down, Ev::PowerOn(m));
        } else if self.machines[m].image.is_some() {
            self.put_back(m, down);
        } else {
            self.reimage(m, down);
        }
    }

    fn rot_coordinator(&mut self, down: Time) {
        let Some(disk) = self.cloud.medium.disk().cloned() else {
            return;
        };
        let has_backup = !self.cloud.backups.is_empty();
        if !has_backup && self.cloud.image.is_none() {
            return;
        }
        if self.cloud.engine.is_some() {
            self.cloud_power_off(down);
        }
        if self.rots_unseen(Lane::Cloud, &disk) {
            return;
        }
        match has_backup {
            true => self.restore(Back::Places(0), true, down),
            false => self.cloud_put_back(down),
        }
    }

    /// Whether the store is as it was written all the same: what changed is of no page that counts.
    fn rots_unseen(&mut self, lane: Lane, disk: &SimDisk) -> bool {
        disk.rot(&mut self.dice.disk);
        let verified = verify(disk);
        let kind = match verified {
            Ok(_) => Kind::RotUnseen,
            Err(_) => Kind::RotFound,
        };
        self.happened(kind);
        self.trace.say(self.t, lane, || match &verified {
            Ok(_) => "bits of its disk rot; its store is whole".to_owned(),
            Err(damage) => format!("bits of its disk rot; its store is damaged: {damage}"),
        });
        verified.is_ok()
    }
}

fn verify(disk: &SimDisk) -> Result<bool, tablefile::Damage> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !VERIFIES.get() {
                usual(panic);
            }
        }));
    });
    VERIFIES.set(true);
    let verified = tablefile::verify_pages(SimDisk::of(disk.image()));
    VERIFIES.set(false);
    verified
}
