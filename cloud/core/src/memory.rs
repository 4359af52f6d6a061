//! A store in memory: what is committed survives as long as a clone of its disk does. For tests and
//! the simulator.

#![expect(clippy::disallowed_types, reason = "clones of a store share one disk")]

use crate::store::{
    AggregateId, EachEntry, EachMessage, Entry, EventId, Outcome, Prune, Segment, Store,
    StoreError, Transaction, request_event,
};
use shared::ids::{Generation, Hash};
use shared::wire::LogId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a commit that is told to fail does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fail {
    /// Nothing is stored, and the error says so.
    SurelyNot,
    /// Nothing is stored, and the error leaves it open.
    UnknownNotDone,
    /// Everything is stored, and the error leaves it open.
    UnknownDone,
}

#[derive(Clone, Default, Debug)]
struct Disk {
    aggregates: BTreeMap<AggregateId, (u64, Vec<u8>)>,
    rows: BTreeMap<(AggregateId, String), Vec<u8>>,
    inboxes: BTreeMap<(AggregateId, AggregateId, u64), Vec<u8>>,
    events: BTreeMap<EventId, (AggregateId, u64)>,
    facts: BTreeMap<(LogId, u64), Segment>,
    directives: BTreeMap<(LogId, u64), Entry>,
}

/// A [`Store`] in memory. Clones share one disk; [`MemStore::image`] copies it.
#[derive(Clone, Default, Debug)]
pub struct MemStore {
    disk: Arc<Mutex<Disk>>,
    fail: Arc<Mutex<Option<Fail>>>,
    broken: bool,
}

impl MemStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of what is committed now, on a disk of its own (a backup).
    #[must_use]
    pub fn image(&self) -> Self {
        Self {
            disk: Arc::new(Mutex::new(self.disk().clone())),
            ..Self::default()
        }
    }

    /// The next commit fails like this.
    pub fn fail_next(&self, how: Fail) {
        *self.fail.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self) -> Result<MutexGuard<'_, Disk>, StoreError> {
        if self.broken {
            return Err(StoreError::Unknown("an earlier commit failed".to_owned()));
        }
        Ok(self.disk())
    }
}

impl Disk {
    fn apply(&mut self, tx: &Transaction) -> Outcome {
        let version = self.aggregates.get(&tx.aggregate).map_or(0, |(v, _)| *v);
        if version != tx.expected {
            return Outcome::Conflict { version };
        }
        let next = version + 1;
        self.aggregates
            .insert(tx.aggregate, (next, tx.head.clone()));
        for event in &tx.events {
            self.events.insert(*event, (tx.aggregate, next));
        }
        for (name, value) in &tx.rows {
            let key = (tx.aggregate, name.clone());
            match value {
                Some(value) => self.rows.insert(key, value.clone()),
                None => self.rows.remove(&key),
            };
        }
        for (from, upto) in &tx.drained {
            let first = (tx.aggregate, *from, 0);
            let last = (tx.aggregate, *from, *upto);
            let gone: Vec<_> = self.inboxes.range(first..=last).map(|(k, _)| *k).collect();
            for key in gone {
                self.inboxes.remove(&key);
            }
        }
        for (to, number, bytes) in &tx.sends {
            self.inboxes
                .insert((*to, tx.aggregate, *number), bytes.clone());
        }
        for segment in &tx.facts {
            self.facts
                .insert((segment.log, segment.after.number + 1), segment.clone());
        }
        if let Some((log, above)) = tx.truncate {
            self.directives
                .retain(|(l, number), _| *l != log || *number <= above);
        }
        for (log, entry) in &tx.directives {
            self.directives
                .insert((*log, entry.head.number), entry.clone());
        }
        for prune in &tx.prune {
            self.prune(tx.aggregate, prune);
        }
        Outcome::Done
    }

    fn prune(&mut self, own: AggregateId, prune: &Prune) {
        match *prune {
            Prune::Facts(log, upto) => self
                .facts
                .retain(|(l, _), segment| *l != log || segment.head.number > upto),
            Prune::Directives(log, upto) => self
                .directives
                .retain(|(l, number), _| *l != log || *number > upto),
            Prune::Event(id) => drop(self.events.remove(&id)),
            Prune::Requests(generation) => {
                let gone = request_event(Generation(0), 0)..request_event(generation, 0);
                self.events.retain(|id, _| !gone.contains(id));
            }
            Prune::Aggregate => {
                self.aggregates.remove(&own);
                self.rows.retain(|(id, _), _| *id != own);
                self.inboxes.retain(|(to, ..), _| *to != own);
            }
        }
    }
}

impl Store for MemStore {
    fn aggregates(
        &mut self,
        each: &mut dyn FnMut(AggregateId, u64, &[u8]),
    ) -> Result<(), StoreError> {
        for (id, (version, head)) in &self.usable()?.aggregates {
            each(*id, *version, head);
        }
        Ok(())
    }

    fn row(&mut self, id: AggregateId, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.usable()?.rows.get(&(id, name.to_owned())).cloned())
    }

    fn rows(
        &mut self,
        id: AggregateId,
        prefix: &str,
        each: &mut dyn FnMut(&str, &[u8]),
    ) -> Result<(), StoreError> {
        let disk = self.usable()?;
        let from = (id, prefix.to_owned());
        for ((owner, name), value) in disk.rows.range(from..) {
            if *owner != id || !name.starts_with(prefix) {
                break;
            }
            each(name, value);
        }
        Ok(())
    }

    fn inboxes(&mut self, each: &mut EachMessage<'_>) -> Result<(), StoreError> {
        for ((to, from, number), bytes) in &self.usable()?.inboxes {
            each(*to, *from, *number, bytes);
        }
        Ok(())
    }

    fn event(&mut self, id: &EventId) -> Result<Option<(AggregateId, u64)>, StoreError> {
        Ok(self.usable()?.events.get(id).copied())
    }

    fn facts(
        &mut self,
        log: LogId,
        from: u64,
        to: u64,
        each: &mut EachEntry<'_>,
    ) -> Result<(), StoreError> {
        let disk = self.usable()?;
        let start = disk
            .facts
            .range(..=(log, from))
            .next_back()
            .map_or((log, from), |(key, _)| *key);
        for ((owner, first), segment) in disk.facts.range(start..=(log, to)) {
            if *owner != log {
                continue;
            }
            for (number, bytes) in (*first..).zip(segment.entries.iter()) {
                if (from..=to).contains(&number) {
                    each(number, bytes);
                }
            }
        }
        Ok(())
    }

    fn directives(
        &mut self,
        log: LogId,
        after: u64,
        entries: usize,
        bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let disk = self.usable()?;
        let mut out: Vec<Entry> = Vec::new();
        let mut size = 0;
        for (_, entry) in disk.directives.range((log, after + 1)..=(log, u64::MAX)) {
            size += entry.bytes.len();
            if out.len() >= entries || (!out.is_empty() && size > bytes) {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn directive_hash(&mut self, log: LogId, number: u64) -> Result<Option<Hash>, StoreError> {
        Ok(self
            .usable()?
            .directives
            .get(&(log, number))
            .map(|entry| entry.head.hash))
    }

    fn commit(&mut self, transactions: &[Transaction]) -> Result<Vec<Outcome>, StoreError> {
        drop(self.usable()?);
        let fail = self
            .fail
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let apply = |disk: &mut Disk| transactions.iter().map(|tx| disk.apply(tx)).collect();
        match fail {
            None => Ok(apply(&mut self.disk())),
            Some(Fail::SurelyNot) => Err(StoreError::NotDone("told to fail".to_owned())),
            Some(how) => {
                if how == Fail::UnknownDone {
                    let _: Vec<Outcome> = apply(&mut self.disk());
                }
                self.broken = true;
                Err(StoreError::Unknown("told to fail".to_owned()))
            }
        }
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.broken = false;
        Ok(())
    }
}
