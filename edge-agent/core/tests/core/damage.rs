//! What lies in a store and no agent wrote: it is told when the store is opened, so that nobody
//! counts on from it later.

use crate::env::*;
use edge_core::driver::Driver;
use edge_core::memory::{Disk, MemStore};
use edge_core::store::{Commit, Store, StoreError};
use shared::codec;
use shared::log::LAST_NUMBER;

fn opened(name: &str, value: Vec<u8>) -> Result<(), StoreError> {
    let mut store = MemStore::new(Disk::new(NODE, LIFE));
    store.commit(&Commit {
        marks: vec![(name.to_owned(), value)],
        ..Commit::default()
    })?;
    Driver::open(store, config()).map(|_| ())
}

/// The next session number overflowed; the age of what is newer than the newest, too.
#[test]
fn marks_that_no_agent_wrote_are_damage() {
    let ages = |served: u64, points: &[(u64, u64, u64)]| {
        codec::encode(&(served, points.to_vec(), (0_u64, 0_u64)))
    };
    for (name, value) in [
        ("sessions", codec::encode(&(LAST_NUMBER + 1))),
        ("sessions", codec::encode(&u64::MAX)),
        ("ages", ages(7, &[(u64::MAX, 1, 1)])),
        ("ages", ages(7, &[(6, 1, 1), (5, 2, 2)])),
    ] {
        let error = opened(name, value).unwrap_err();
        assert!(matches!(error, StoreError::Damaged(_)), "{name}: {error}");
    }
    opened("sessions", codec::encode(&1001_u64)).unwrap();
    opened("ages", ages(7, &[(5, 1, 1), (5, 2, 1), (7, 3, 1)])).unwrap();
}
