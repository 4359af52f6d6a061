//! A store in memory for tests and the simulator: durable on commit. The disk is apart from the
//! handle, so that it survives a crash, can be copied, and can be told to fail.

#![expect(
    clippy::disallowed_types,
    reason = "handles of a disk share it; no step ever sees it"
)]

use crate::store::{Commit, Loaded, Page, Store, StoreError};
use shared::ids::{Incarnation, NodeId};
use shared::limits::{BYTES_PER_COMMIT, ENTRIES_PER_COMMIT};
use shared::log::{Batch, Direction, Head, PackedBatch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What fails next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fail {
    /// There is no room: surely not done.
    Full,
    /// It reports a failure, and was done or not.
    Unknown {
        /// Whether it was done.
        done: bool,
    },
    /// Not a commit fails but the next look at a fact's hash, and the handle with it.
    Read,
}

#[derive(Clone, Debug)]
struct Contents {
    origin: (Head, Head),
    facts: BTreeMap<u64, (Vec<u8>, Head)>,
    ends: BTreeSet<u64>,
    first: u64,
    facts_head: Head,
    directives: BTreeMap<u64, Vec<u8>>,
    directives_head: Head,
    marks: BTreeMap<String, Vec<u8>>,
    rows: BTreeMap<String, Vec<u8>>,
    snapshot: (u64, u64),
    details: BTreeMap<u64, Vec<Vec<u8>>>,
    before_first: Head,
    commits: u64,
    fail: Option<Fail>,
    broken: bool,
}

/// A disk in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<Contents>>);

impl Disk {
    /// An empty disk of a node's incarnation.
    #[must_use]
    pub fn new(node: NodeId, incarnation: Incarnation) -> Self {
        let up = Head::origin(node, incarnation, Direction::Up);
        let down = Head::origin(node, incarnation, Direction::Down);
        Self(Arc::new(Mutex::new(Contents {
            origin: (up, down),
            facts: BTreeMap::new(),
            ends: BTreeSet::new(),
            first: 1,
            facts_head: up,
            directives: BTreeMap::new(),
            directives_head: down,
            marks: BTreeMap::new(),
            rows: BTreeMap::new(),
            snapshot: (0, 0),
            details: BTreeMap::new(),
            before_first: up,
            commits: 0,
            fail: None,
            broken: false,
        })))
    }

    /// A copy that goes its own way: a backup, or a disk that later goes back.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.contents().clone())))
    }

    /// Makes the next commit (or look) fail.
    pub fn fail_next(&self, fail: Fail) {
        self.contents().fail = Some(fail);
    }

    /// Number of commits so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.contents().commits
    }

    /// Every fact that is durable, with its number.
    #[must_use]
    pub fn facts(&self) -> Vec<(u64, Vec<u8>)> {
        self.contents()
            .facts
            .iter()
            .map(|(n, (bytes, _))| (*n, bytes.clone()))
            .collect()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle of a [`Disk`].
#[derive(Clone, Debug)]
pub struct MemStore {
    disk: Disk,
}

impl MemStore {
    /// Opens a disk.
    #[must_use]
    pub fn new(disk: Disk) -> Self {
        disk.contents().broken = false;
        Self { disk }
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }
}

impl Contents {
    fn apply(&mut self, commit: &Commit) {
        self.commits += 1;
        let mut head = self.facts_head;
        for bytes in &commit.facts {
            head = head.then(bytes);
            self.facts.insert(head.number, (bytes.clone(), head));
        }
        if !commit.facts.is_empty() {
            self.ends.insert(head.number);
        }
        self.facts_head = head;
        let first = self.directives_head.number + 1;
        for (n, bytes) in commit.directives.iter().enumerate() {
            self.directives.insert(first + n as u64, bytes.clone());
        }
        self.directives_head = commit.directives_head.unwrap_or(self.directives_head);
        self.marks.extend(commit.marks.iter().cloned());
        for (name, row) in &commit.rows {
            match row {
                Some(bytes) => drop(self.rows.insert(name.clone(), bytes.clone())),
                None => drop(self.rows.remove(name)),
            }
        }
        self.snapshot = commit.snapshot.unwrap_or(self.snapshot);
        for (fact, bytes) in &commit.details {
            self.details.entry(*fact).or_default().push(bytes.clone());
        }
        self.prune(commit);
    }

    fn prune(&mut self, commit: &Commit) {
        if let Some(last) = commit.prune_facts
            && let Some(end) = self.ends.range(..=last).next_back().copied()
            && end >= self.first
        {
            self.before_first = self
                .facts
                .get(&end)
                .map_or(self.before_first, |(_, head)| *head);
            self.facts = self.facts.split_off(&(end + 1));
            self.ends = self.ends.split_off(&(end + 1));
            self.details = self.details.split_off(&(end + 1));
            self.first = end + 1;
        }
        if let Some(last) = commit.prune_directives {
            self.directives = self.directives.split_off(&(last + 1));
        }
    }

    fn head_at(&self, number: u64) -> Option<Head> {
        if number == 0 {
            return Some(self.origin.0);
        }
        if number == self.before_first.number {
            return Some(self.before_first);
        }
        self.facts.get(&number).map(|(_, head)| *head)
    }

    /// The end of a commit at or before `number`, from which sending can go on.
    fn end_before(&self, number: u64) -> Head {
        let end = self.ends.range(..=number).next_back();
        end.and_then(|end| self.head_at(*end))
            .unwrap_or(self.before_first)
    }
}

impl Store for MemStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let disk = self.disk.contents();
        Ok(Loaded {
            marks: disk.marks.clone().into_iter().collect(),
            snapshot: disk.snapshot,
            facts_first: disk.first,
            facts: disk.facts_head,
            directives: disk.directives_head,
        })
    }

    fn each_row(
        &mut self,
        prefix: &str,
        each: &mut dyn FnMut(&str, &[u8]),
    ) -> Result<(), StoreError> {
        let rows = &self.disk.contents().rows;
        let from = rows.range(prefix.to_owned()..);
        for (name, bytes) in from.take_while(|(name, _)| name.starts_with(prefix)) {
            each(name, bytes);
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        let mut disk = self.disk.contents();
        if disk.broken {
            return Err(StoreError::Failed("the handle failed before".to_owned()));
        }
        match disk.fail.take_if(|fail| *fail != Fail::Read) {
            None | Some(Fail::Read) => disk.apply(commit),
            Some(Fail::Full) => return Err(StoreError::Full("told to be full".to_owned())),
            Some(Fail::Unknown { done }) => {
                if done {
                    disk.apply(commit);
                }
                disk.broken = true;
                return Err(StoreError::Failed("told to fail".to_owned()));
            }
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.disk.contents().broken = false;
        Ok(())
    }

    fn facts_after(&mut self, after: u64) -> Result<Option<Batch>, StoreError> {
        let disk = self.disk.contents();
        let from = disk.end_before(after);
        let (mut entries, mut bytes, mut last) = (Vec::new(), 0, from.number);
        for end in disk.ends.range(from.number + 1..) {
            let part: Vec<_> = disk.facts.range(last + 1..=*end).collect();
            let size: usize = part.iter().map(|(_, (bytes, _))| bytes.len()).sum();
            let many = entries.len() + part.len() > ENTRIES_PER_COMMIT;
            if !entries.is_empty() && (many || bytes + size > BYTES_PER_COMMIT) {
                break;
            }
            entries.extend(part.into_iter().map(|(_, (bytes, _))| bytes.clone()));
            (bytes, last) = (bytes + size, *end);
        }
        let Some(head) = disk.head_at(last) else {
            return Ok(None);
        };
        let batch = Batch {
            after: from,
            entries,
            hash: head.hash,
        };
        Ok((!batch.entries.is_empty()).then_some(batch))
    }

    /// What the snapshot describes counts as packed, as on the real disk.
    fn packed_after(&mut self, after: u64) -> Result<Option<PackedBatch>, StoreError> {
        let last = self.disk.contents().snapshot.0;
        let batch = self.facts_after(after)?;
        let packed = batch.filter(|b| b.after.number == after && b.head().number <= last);
        Ok(packed.map(|b| PackedBatch::new(b.after, b.head(), &b.entries)))
    }

    fn fact_hash(&mut self, number: u64) -> Result<Option<Head>, StoreError> {
        let mut disk = self.disk.contents();
        if disk.fail.take_if(|fail| *fail == Fail::Read).is_some() {
            disk.broken = true;
            return Err(StoreError::Failed("told not to read".to_owned()));
        }
        Ok(disk.head_at(number))
    }

    fn each_fact(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), StoreError> {
        let disk = self.disk.contents();
        for (number, (bytes, _)) in disk.facts.range(after + 1..) {
            each(*number, bytes);
        }
        Ok(())
    }

    fn each_directive(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), StoreError> {
        for (number, bytes) in self.disk.contents().directives.range(after + 1..) {
            each(*number, bytes);
        }
        Ok(())
    }

    fn directives_after(&mut self, after: u64) -> Result<Option<Page>, StoreError> {
        let disk = self.disk.contents();
        let rest: Vec<_> = disk.directives.range(after + 1..).collect();
        let Some(first) = rest.first().map(|(number, _)| **number) else {
            return Ok(None);
        };
        Ok(Some(Page {
            first,
            before: (first == 1).then_some(disk.origin.1),
            entries: rest.into_iter().map(|(_, bytes)| bytes.clone()).collect(),
            end: disk.directives_head,
        }))
    }

    fn room_needed(&self, entry_bytes: usize) -> u64 {
        entry_bytes as u64
    }
}
