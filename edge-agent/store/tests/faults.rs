//! A disk that fails: without room nothing is half stored and the store says so; after any other
//! error the truth is what is found when it is opened again.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use edge_core::store::{Commit, Store, StoreError};
use edge_store::{Identity, MakeBackend, RESERVE, RedbStore, Reserve};
use redb::StorageBackend;
use shared::ids::{Incarnation, NodeId};
use shared::log::{Direction, Head};
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex};

const WHO: Identity = Identity {
    node: NodeId([1; 16]),
    incarnation: Incarnation([2; 16]),
};

#[derive(Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    /// Writes that end behind this find no room.
    room: Option<usize>,
    /// So many more writes succeed, then all fail.
    writes: Option<u32>,
}

#[derive(Debug, Clone, Default)]
struct Faulty(Arc<Mutex<Contents>>);

impl Faulty {
    fn change(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut self.0.lock().unwrap());
    }

    fn make(&self) -> MakeBackend {
        let disk = self.clone();
        Box::new(move || Ok(Box::new(disk.clone())))
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let disk = self.0.lock().unwrap();
        let from = offset as usize;
        out.copy_from_slice(&disk.bytes[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.0.lock().unwrap().bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut disk = self.0.lock().unwrap();
        let (from, to) = (offset as usize, offset as usize + data.len());
        if disk.room.is_some_and(|room| to > room) {
            return Err(ErrorKind::StorageFull.into());
        }
        match &mut disk.writes {
            Some(0) => return Err(Error::other("told to fail")),
            Some(left) => *left -= 1,
            None => {}
        }
        disk.bytes[from..to].copy_from_slice(data);
        Ok(())
    }
}

fn commit(head: &mut Head, facts: usize, bytes: usize) -> Commit {
    let facts = vec![vec![7; bytes]; facts];
    *head = head.then_all(&facts);
    Commit {
        facts,
        facts_head: Some(*head),
        ..Commit::default()
    }
}

fn numbers(store: &mut RedbStore) -> u64 {
    let mut last = 0;
    let each = &mut |number, _: &[u8]| {
        assert_eq!(number, last + 1);
        last = number;
    };
    store.each_fact(0, each).unwrap();
    last
}

#[test]
fn without_room_nothing_is_stored_and_with_room_it_goes_on() {
    let disk = Faulty::default();
    let mut store = RedbStore::create(disk.make(), WHO).unwrap();
    let mut head = Head::origin(WHO.node, WHO.incarnation, Direction::Up);
    store.commit(&commit(&mut head, 10, 100)).unwrap();
    disk.change(|disk| disk.room = Some(disk.bytes.len()));
    let mut full = 0;
    for _ in 0..40 {
        let before = head;
        match store.commit(&commit(&mut head, 200, 1000)) {
            Ok(()) => assert_eq!(full, 0, "no room comes from nowhere"),
            Err(StoreError::Full(_)) => {
                (full, head) = (full + 1, before);
                assert_eq!(store.load().unwrap().facts, head);
                disk.change(|disk| disk.room = None);
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(full, 1, "it was never full");
    store.commit(&commit(&mut head, 200, 1000)).unwrap();
    drop(store);
    let mut store = RedbStore::open(disk.make(), WHO).unwrap();
    assert_eq!(store.load().unwrap().facts, head);
    assert_eq!(numbers(&mut store), head.number);
}

/// Room behind the end of the disk.
#[derive(Debug)]
struct Aside {
    disk: Faulty,
    held: Mutex<bool>,
}

impl Reserve for Aside {
    fn is_held(&self) -> bool {
        *self.held.lock().unwrap()
    }

    fn take(&self) {
        *self.held.lock().unwrap() = self.disk.0.lock().unwrap().room.is_none();
    }

    fn give_back(&self) -> bool {
        let more = |disk: &mut Contents| disk.room = disk.room.map(|room| room + RESERVE as usize);
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        if held {
            self.disk.change(more);
        }
        held
    }
}

#[test]
fn a_reserve_is_given_back_before_a_commit_is_refused_and_taken_again_with_room() {
    let disk = Faulty::default();
    let held = Mutex::new(false);
    let reserve = Aside {
        disk: disk.clone(),
        held,
    };
    let store = RedbStore::create(disk.make(), WHO).unwrap();
    let mut store = store.with_reserve(Box::new(reserve));
    let mut head = Head::origin(WHO.node, WHO.incarnation, Direction::Up);
    for _ in 0..2 {
        let full = disk.0.lock().unwrap().bytes.len();
        disk.change(|disk| disk.room = Some(full));
        while disk.0.lock().unwrap().room == Some(full) {
            store.commit(&commit(&mut head, 200, 1000)).unwrap();
        }
        let given_back = Some(full + RESERVE as usize);
        store.note_room(4 * RESERVE);
        while store.commit(&commit(&mut head, 200, 1000)).is_ok() {}
        head = store.load().unwrap().facts;
        assert_eq!(disk.0.lock().unwrap().room, given_back, "there is one");
        disk.change(|disk| disk.room = None);
        store.note_room(4 * RESERVE);
    }
    assert_eq!(numbers(&mut store), head.number);
}

#[test]
fn after_an_error_at_any_write_the_store_opens_again_with_all_or_nothing() {
    for writes in 0..24 {
        let disk = Faulty::default();
        let mut store = RedbStore::create(disk.make(), WHO).unwrap();
        let mut head = Head::origin(WHO.node, WHO.incarnation, Direction::Up);
        store.commit(&commit(&mut head, 10, 100)).unwrap();
        disk.change(|disk| disk.writes = Some(writes));
        let before = head;
        let result = store.commit(&commit(&mut head, 20, 3000));
        if let Err(error) = &result {
            assert!(matches!(error, StoreError::Failed(_)), "{error}");
        }
        disk.change(|disk| disk.writes = None);
        store.reopen().unwrap();
        let found = store.load().unwrap().facts;
        assert!(
            found == before && result.is_err() || found == head,
            "write {writes}"
        );
        head = found;
        store.commit(&commit(&mut head, 5, 10)).unwrap();
        assert_eq!(numbers(&mut store), head.number);
    }
}
