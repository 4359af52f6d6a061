//! What the engine's store lies on in these scenarios: redb on a disk in memory.

use cloud_core::memory::Fail;
use cloud_core::store::{
    AggregateId, EachEntry, EachMessage, Entry, EventId, Outcome, Store, StoreError, Transaction,
};
use cloud_store::RedbStore;
use redb::StorageBackend;
use shared::ids::Hash;
use shared::wire::LogId;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Disk {
    bytes: Vec<u8>,
    /// Number of the process that has it open; what an earlier one still writes never arrives.
    process: u64,
    fail: Option<Fail>,
}

/// A disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Medium(Arc<Mutex<Disk>>);

impl Medium {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store as a process that starts now finds it; the one before was killed.
    pub(crate) fn open(&self) -> Opened {
        let process = {
            let mut disk = self.disk();
            disk.process += 1;
            disk.process
        };
        let medium = self.clone();
        let make = move || {
            let medium = medium.clone();
            Ok(Box::new(Handle { medium, process }) as Box<dyn StorageBackend>)
        };
        Opened {
            store: RedbStore::open(Box::new(make)).unwrap(),
            medium: self.clone(),
        }
    }

    /// A copy of what is written now (a backup).
    pub(crate) fn image(&self) -> Self {
        let bytes = self.disk().bytes.clone();
        Self(Arc::new(Mutex::new(Disk {
            bytes,
            ..Disk::default()
        })))
    }

    /// The next commit fails like this.
    pub(crate) fn fail_next(&self, how: Fail) {
        self.disk().fail = Some(how);
    }
}

/// A process's way to the disk.
#[derive(Debug)]
struct Handle {
    medium: Medium,
    process: u64,
}

impl Handle {
    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.medium.disk();
        match disk.process == self.process {
            true => Ok(disk),
            false => Err(io::Error::other("this process was killed")),
        }
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk()?.bytes.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = offset as usize;
        let disk = self.disk()?;
        let found = disk.bytes.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk()?.bytes.resize(len as usize, 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk().map(drop)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let from = offset as usize;
        let mut disk = self.disk()?;
        let place = disk.bytes.get_mut(from..from + data.len());
        place
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        Ok(())
    }
}

/// The store on it, whose commits fail when they are told to.
#[derive(Debug)]
pub(crate) struct Opened {
    store: RedbStore,
    medium: Medium,
}

impl Store for Opened {
    fn aggregates(
        &mut self,
        each: &mut dyn FnMut(AggregateId, u64, &[u8]),
    ) -> Result<(), StoreError> {
        self.store.aggregates(each)
    }
    fn row(&mut self, id: AggregateId, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.row(id, name)
    }
    fn rows(
        &mut self,
        id: AggregateId,
        prefix: &str,
        each: &mut dyn FnMut(&str, &[u8]),
    ) -> Result<(), StoreError> {
        self.store.rows(id, prefix, each)
    }
    fn inboxes(&mut self, each: &mut EachMessage<'_>) -> Result<(), StoreError> {
        self.store.inboxes(each)
    }
    fn event(&mut self, id: &EventId) -> Result<Option<(AggregateId, u64)>, StoreError> {
        self.store.event(id)
    }
    fn facts(
        &mut self,
        log: LogId,
        from: u64,
        to: u64,
        each: &mut EachEntry<'_>,
    ) -> Result<(), StoreError> {
        self.store.facts(log, from, to, each)
    }
    fn directives(
        &mut self,
        log: LogId,
        after: u64,
        entries: usize,
        bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.store.directives(log, after, entries, bytes)
    }
    fn directive_hash(&mut self, log: LogId, number: u64) -> Result<Option<Hash>, StoreError> {
        self.store.directive_hash(log, number)
    }
    fn commit(&mut self, transactions: &[Transaction]) -> Result<Vec<Outcome>, StoreError> {
        let fail = self.medium.disk().fail.take();
        let told = || "told to fail".to_owned();
        match fail {
            None => self.store.commit(transactions),
            Some(Fail::SurelyNot) => Err(StoreError::NotDone(told())),
            Some(Fail::UnknownNotDone) => Err(StoreError::Unknown(told())),
            Some(Fail::UnknownDone) => {
                let _: Vec<Outcome> = self.store.commit(transactions)?;
                Err(StoreError::Unknown(told()))
            }
        }
    }
    fn reopen(&mut self) -> Result<(), StoreError> {
        self.store.reopen()
    }
}
