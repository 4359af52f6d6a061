//! Room in the file store: when something new needs it, files go that only runs name which are
//! over, those of the runs first that ended longest ago.
//!
//! Invariant: what a run that is not over names stays, what a schedule names, and what has just
//! been sent, since a submission may follow. While old runs are held after a restore nothing goes.

use super::Engine;
use crate::store::{Store, StoreError};
use shared::ids::{Hash, RunId};
use shared::time::Span;
use std::collections::BTreeSet;

/// So long it is not looked again after too little could go: it reads the rows of every run.
const AGAIN: Span = Span::secs(60);

impl<S: Store> Engine<S> {
    /// Lets files of at least so many bytes go, if there are as many that may. How many bytes went.
    pub(super) fn make_room(&mut self, bytes: u64) -> Result<u64, StoreError> {
        if self.fleet.hold.is_some() || self.no_room.is_some_and(|at| at + AGAIN > self.now.mono) {
            return Ok(0);
        }
        let mut going = BTreeSet::new();
        let mut freed = 0;
        for hash in self.may_go()? {
            if freed >= bytes {
                break;
            }
            freed += self.files.get(&hash).copied().unwrap_or(0);
            going.insert(hash);
        }
        self.no_room = (freed < bytes).then_some(self.now.mono);
        self.drop_files(going);
        Ok(freed)
    }

    /// The files that may go, the first one first. One that several runs name is of the last.
    fn may_go(&mut self) -> Result<Vec<Hash>, StoreError> {
        let here = self.files.keys().copied();
        let mut free: BTreeSet<Hash> = here.filter(|hash| !self.is_sent(hash)).collect();
        for schedule in self.schedules.values() {
            schedule.spare(&mut free);
        }
        let over: Vec<RunId> = self.ended.iter().map(|(_, run)| *run).collect();
        let all: BTreeSet<RunId> = over.iter().copied().collect();
        let live = self.runs.keys().filter(|id| !all.contains(id));
        for id in live.copied().collect::<Vec<_>>() {
            for hash in self.names(id)? {
                free.remove(&hash);
            }
        }
        let mut newest_first = Vec::new();
        for id in over.into_iter().rev() {
            let names = self.names(id)?.into_iter();
            newest_first.extend(names.filter(|hash| free.remove(hash)));
        }
        newest_first.reverse();
        Ok(newest_first)
    }

    /// Whether it was sent a moment ago. What was found at the start of this process was not.
    fn is_sent(&self, hash: &Hash) -> bool {
        !self.found.contains(hash) && self.is_fresh(hash)
    }
}
