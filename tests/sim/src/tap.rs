//! Between each core and its store: passes everything on, tells the world what became durable, and
//! makes commits fail when the plan says so.

use cloud_core::store as cloud;
use edge_core::store as edge;
use shared::log::{Batch, Head, PackedBatch};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How the next commits go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ailment {
    /// Well.
    #[default]
    None,
    /// The next one is refused for want of room; so are some after it, until somebody cleans up.
    Full,
    /// The next one fails; it is stored or not.
    Fails {
        /// Whether it is stored.
        stored: bool,
    },
    /// The machine dies in the middle of the next one; it is stored or not.
    Dies {
        /// Whether it is stored.
        stored: bool,
    },
    /// The next one says that it is done and is not (negative control).
    Lies,
}

/// How a commit ended, as far as its caller knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Durable.
    Done,
    /// Surely not there.
    Refused,
    /// There or not.
    Unknown,
}

/// What went through the tap of an agent's store.
#[derive(Debug, Clone)]
pub enum EdgeNote {
    /// The store was read from the start.
    Loaded {
        /// The first fact that is there.
        first: u64,
        /// The last fact.
        facts: Head,
        /// The last directive.
        directives: Head,
        /// The facts that are there: number, bytes.
        entries: Vec<(u64, Vec<u8>)>,
    },
    /// A commit.
    Commit {
        /// How it ended.
        ended: Ended,
        /// New facts.
        facts: Vec<Vec<u8>>,
        /// New directives.
        directives: Vec<Vec<u8>>,
        /// Facts up to this number may go.
        pruned: Option<u64>,
    },
}

/// What the world and a tap share.
#[derive(Debug)]
pub struct Shared<N> {
    /// What went through and was not looked at yet.
    pub notes: Vec<N>,
    /// How the next commit goes.
    pub ailment: Ailment,
    /// The machine died in a commit; nothing works any more.
    pub dead: bool,
    /// The last commit was not done: the core may remember what the store does not.
    pub ahead: bool,
    /// Commits that were done.
    pub done: u64,
}

impl<N> Default for Shared<N> {
    fn default() -> Self {
        Self {
            notes: Vec::new(),
            ailment: Ailment::None,
            dead: false,
            ahead: false,
            done: 0,
        }
    }
}

/// The world's end of a tap.
#[derive(Debug)]
pub struct Handle<N>(Arc<Mutex<Shared<N>>>);

impl<N> Clone for Handle<N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<N> Default for Handle<N> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<N> Handle<N> {
    /// Looks at what is shared.
    pub fn lock(&self) -> MutexGuard<'_, Shared<N>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What went through since the last look.
    pub fn take(&self) -> Vec<N> {
        std::mem::take(&mut self.lock().notes)
    }

    /// Somebody cleaned up before a commit met the full disk.
    pub fn no_longer_full(&self) {
        let mut shared = self.lock();
        if shared.ailment == Ailment::Full {
            shared.ailment = Ailment::None;
        }
    }

    fn note(&self, note: N) {
        self.lock().notes.push(note);
    }

    /// A commit ended.
    fn note_commit(&self, ended: Ended, note: N) {
        let mut shared = self.lock();
        shared.done += u64::from(ended == Ended::Done);
        shared.ahead = ended != Ended::Done;
        shared.notes.push(note);
    }

    /// Takes what is to happen to this commit.
    fn ailment(&self) -> Ailment {
        std::mem::take(&mut self.lock().ailment)
    }
}

/// An agent's store behind its tap.
pub struct EdgeTap {
    inner: Box<dyn edge::Store>,
    handle: Handle<EdgeNote>,
    thorough: bool,
}

impl std::fmt::Debug for EdgeTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EdgeTap")
    }
}

const GONE: &str = "the machine is off";

impl EdgeTap {
    /// A tap on `inner`; `thorough` reads every fact at each start.
    #[must_use]
    pub fn new(inner: Box<dyn edge::Store>, handle: Handle<EdgeNote>, thorough: bool) -> Self {
        Self {
            inner,
            handle,
            thorough,
        }
    }

    fn alive(&self) -> Result<(), edge::StoreError> {
        if self.handle.lock().dead {
            return Err(edge::StoreError::Failed(GONE.to_owned()));
        }
        Ok(())
    }

    fn note_commit(&self, ended: Ended, commit: &edge::Commit) {
        let note = EdgeNote::Commit {
            ended,
            facts: commit.facts.clone(),
            directives: commit.directives.clone(),
            pruned: commit.prune_facts,
        };
        self.handle.note_commit(ended, note);
    }

    fn dies(&mut self, commit: &edge::Commit, stored: bool) -> edge::StoreError {
        if stored {
            // what the disk makes of it is the disk's affair
            let _ = self.inner.commit(commit);
        }
        self.note_commit(Ended::Unknown, commit);
        self.handle.lock().dead = true;
        edge::StoreError::Failed(GONE.to_owned())
    }
}

impl edge::Store for EdgeTap {
    fn load(&mut self) -> Result<edge::Loaded, edge::StoreError> {
        self.alive()?;
        let loaded = self.inner.load()?;
        let mut entries = Vec::new();
        if self.thorough {
            let after = loaded.facts_first.saturating_sub(1);
            self.inner.each_fact(after, &mut |number, bytes| {
                entries.push((number, bytes.to_vec()));
            })?;
        }
        self.handle.note(EdgeNote::Loaded {
            first: loaded.facts_first,
            facts: loaded.facts,
            directives: loaded.directives,
            entries,
        });
        Ok(loaded)
    }

    fn each_row(
        &mut self,
        prefix: &str,
        each: &mut dyn FnMut(&str, &[u8]),
    ) -> Result<(), edge::StoreError> {
        self.alive()?;
        self.inner.each_row(prefix, each)
    }

    fn commit(&mut self, commit: &edge::Commit) -> Result<(), edge::StoreError> {
        self.alive()?;
        let failed = || edge::StoreError::Failed("input/output error".to_owned());
        match self.handle.ailment() {
            Ailment::None => {}
            Ailment::Full => {
                self.note_commit(Ended::Refused, commit);
                return Err(edge::StoreError::Full("no space left on device".to_owned()));
            }
            Ailment::Fails { stored } => {
                if stored {
                    self.inner.commit(commit)?;
                }
                self.note_commit(Ended::Unknown, commit);
                return Err(failed());
            }
            Ailment::Dies { stored } => return Err(self.dies(commit, stored)),
            Ailment::Lies => {
                self.note_commit(Ended::Done, commit);
                return Ok(());
            }
        }
        let result = self.inner.commit(commit);
        let ended = match &result {
            Ok(()) => Ended::Done,
            Err(edge::StoreError::Full(_)) => Ended::Refused,
            Err(_) => Ended::Unknown,
        };
        self.note_commit(ended, commit);
        result
    }

    fn reopen(&mut self) -> Result<(), edge::StoreError> {
        self.alive()?;
        self.inner.reopen()
    }

    fn facts_after(&mut self, after: u64) -> Result<Option<Batch>, edge::StoreError> {
        self.alive()?;
        self.inner.facts_after(after)
    }

    fn packed_after(&mut self, after: u64) -> Result<Option<PackedBatch>, edge::StoreError> {
        self.alive()?;
        self.inner.packed_after(after)
    }

    fn fact_hash(&mut self, number: u64) -> Result<Option<Head>, edge::StoreError> {
        self.alive()?;
        self.inner.fact_hash(number)
    }

    fn each_fact(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), edge::StoreError> {
        self.alive()?;
        self.inner.each_fact(after, each)
    }

    fn each_directive(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), edge::StoreError> {
        self.alive()?;
        self.inner.each_directive(after, each)
    }

    fn directives_after(&mut self, after: u64) -> Result<Option<edge::Page>, edge::StoreError> {
        self.alive()?;
        self.inner.directives_after(after)
    }

    fn room_needed(&self, entry_bytes: usize) -> u64 {
        self.inner.room_needed(entry_bytes)
    }

    fn note_room(&mut self, free: u64) {
        if self.alive().is_ok() {
            self.inner.note_room(free);
        }
    }
}

/// What went through the tap of the coordinator's store.
#[derive(Debug, Clone)]
pub enum CloudNote {
    /// The store was read from the start: the version of each aggregate.
    Loaded(BTreeMap<cloud::AggregateId, u64>),
    /// A commit.
    Commit {
        /// How it ended.
        ended: Ended,
        /// Its transactions that met no conflict.
        transactions: Vec<cloud::Transaction>,
    },
}

/// The coordinator's store behind its tap.
pub struct CloudTap {
    inner: Box<dyn cloud::Store>,
    handle: Handle<CloudNote>,
}

impl std::fmt::Debug for CloudTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CloudTap")
    }
}

impl CloudTap {
    /// A tap on `inner`.
    #[must_use]
    pub fn new(inner: Box<dyn cloud::Store>, handle: Handle<CloudNote>) -> Self {
        Self { inner, handle }
    }

    fn alive(&self) -> Result<(), cloud::StoreError> {
        if self.handle.lock().dead {
            return Err(cloud::StoreError::Unknown(GONE.to_owned()));
        }
        Ok(())
    }

    fn note_commit(&self, ended: Ended, transactions: Vec<cloud::Transaction>) {
        let note = CloudNote::Commit {
            ended,
            transactions,
        };
        self.handle.note_commit(ended, note);
    }
}

fn done_ones(all: &[cloud::Transaction], outcomes: &[cloud::Outcome]) -> Vec<cloud::Transaction> {
    all.iter()
        .zip(outcomes)
        .filter(|(_, outcome)| **outcome == cloud::Outcome::Done)
        .map(|(transaction, _)| transaction.clone())
        .collect()
}

impl cloud::Store for CloudTap {
    fn aggregates(
        &mut self,
        each: &mut dyn FnMut(cloud::AggregateId, u64, &[u8]),
    ) -> Result<(), cloud::StoreError> {
        self.alive()?;
        let mut found = BTreeMap::new();
        self.inner.aggregates(&mut |id, version, head| {
            found.insert(id, version);
            each(id, version, head);
        })?;
        self.handle.note(CloudNote::Loaded(found));
        Ok(())
    }

    fn row(
        &mut self,
        id: cloud::AggregateId,
        name: &str,
    ) -> Result<Option<Vec<u8>>, cloud::StoreError> {
        self.alive()?;
        self.inner.row(id, name)
    }

    fn rows(
        &mut self,
        id: cloud::AggregateId,
        prefix: &str,
        each: &mut dyn FnMut(&str, &[u8]),
    ) -> Result<(), cloud::StoreError> {
        self.alive()?;
        self.inner.rows(id, prefix, each)
    }

    fn inboxes(&mut self, each: &mut cloud::EachMessage<'_>) -> Result<(), cloud::StoreError> {
        self.alive()?;
        self.inner.inboxes(each)
    }

    fn event(
        &mut self,
        id: &cloud::EventId,
    ) -> Result<Option<(cloud::AggregateId, u64)>, cloud::StoreError> {
        self.alive()?;
        self.inner.event(id)
    }

    fn facts(
        &mut self,
        log: shared::wire::LogId,
        from: u64,
        to: u64,
        each: &mut cloud::EachEntry<'_>,
    ) -> Result<(), cloud::StoreError> {
        self.alive()?;
        self.inner.facts(log, from, to, each)
    }

    fn directives(
        &mut self,
        log: shared::wire::LogId,
        after: u64,
        entries: usize,
        bytes: usize,
    ) -> Result<Vec<cloud::Entry>, cloud::StoreError> {
        self.alive()?;
        self.inner.directives(log, after, entries, bytes)
    }

    fn directive_hash(
        &mut self,
        log: shared::wire::LogId,
        number: u64,
    ) -> Result<Option<shared::ids::Hash>, cloud::StoreError> {
        self.alive()?;
        self.inner.directive_hash(log, number)
    }

    fn commit(
        &mut self,
        transactions: &[cloud::Transaction],
    ) -> Result<Vec<cloud::Outcome>, cloud::StoreError> {
        self.alive()?;
        let unknown = || cloud::StoreError::Unknown("input/output error".to_owned());
        let (fails, stored, dead) = match self.handle.ailment() {
            Ailment::None | Ailment::Lies => (false, true, false),
            Ailment::Full => {
                self.note_commit(Ended::Refused, Vec::new());
                let text = "no space left on device".to_owned();
                return Err(cloud::StoreError::NotDone(text));
            }
            Ailment::Fails { stored } => (true, stored, false),
            Ailment::Dies { stored } => (true, stored, true),
        };
        if !fails {
            let result = self.inner.commit(transactions);
            match &result {
                Ok(outcomes) => self.note_commit(Ended::Done, done_ones(transactions, outcomes)),
                Err(cloud::StoreError::NotDone(_)) => self.note_commit(Ended::Refused, Vec::new()),
                Err(_) => self.note_commit(Ended::Unknown, transactions.to_vec()),
            }
            return result;
        }
        if stored {
            let _ = self.inner.commit(transactions);
        }
        self.note_commit(Ended::Unknown, transactions.to_vec());
        self.handle.lock().dead = dead;
        Err(unknown())
    }

    fn reopen(&mut self) -> Result<(), cloud::StoreError> {
        self.alive()?;
        self.inner.reopen()
    }
}
