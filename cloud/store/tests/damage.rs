//! Rows that no coordinator wrote, in a file whose pages are whole: whoever reads them says so, and
//! never counts on from them.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use cloud_core::record::{AUDIT, Audited, EVENTS, row};
use cloud_core::store::{AggregateId, Store, StoreError, Transaction};
use cloud_store::journal::{Verdict, Walk};
use cloud_store::{RedbStore, open_file};
use redb::{Database, TableDefinition};
use shared::codec;
use shared::ids::{Incarnation, NodeId};
use shared::log::LAST_NUMBER;
use shared::time::Unix;
use shared::wire::LogId;
use std::path::Path;

const LOG: LogId = LogId {
    node: NodeId([1; 16]),
    incarnation: Incarnation([2; 16]),
};
/// Numbers of tables in a snapshot.
const ROWS: u8 = 2;
const DIRECTIVES: u8 = 6;

fn put(path: &Path, table: &str, key: &[u8], value: &[u8]) {
    drop(open_file(path, !path.exists()).unwrap());
    let database = Database::open(path).unwrap();
    let txn = database.begin_write().unwrap();
    let table = TableDefinition::<&[u8], &[u8]>::new(table);
    txn.open_table(table).unwrap().insert(key, value).unwrap();
    txn.commit().unwrap();
}

fn directive(number: u64) -> Vec<u8> {
    [&LOG.node.0[..], &LOG.incarnation.0, &number.to_be_bytes()].concat()
}

fn change(expected: u64) -> Transaction {
    Transaction::of(AggregateId::Fleet, expected, Vec::new())
}

#[test]
fn a_version_that_no_aggregate_has_is_damage() {
    for bytes in [&u64::MAX.to_le_bytes()[..], &[1; 7], &[]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        put(&path, "aggregates", &AggregateId::Fleet.key(), bytes);
        let mut store = open_file(&path, false).unwrap();
        let read = store.aggregates(&mut |_, _, _| {});
        assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
        for expected in [0, u64::MAX] {
            let done = store.commit(&[change(expected)]);
            assert!(matches!(done, Err(StoreError::Damaged(_))), "{done:?}");
            store.reopen().unwrap();
        }
    }
}

#[test]
fn keys_that_are_cut_or_number_nothing_are_not_directives() {
    let read = |store: &mut RedbStore, after| store.directives(LOG, after, 10, 1000);
    for key in [&[0xff][..], &[1; 20]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        put(&path, "directives", key, &[3; 40]);
        let mut store = open_file(&path, false).unwrap();
        for after in [0, LAST_NUMBER, u64::MAX] {
            assert_eq!(read(&mut store, after), Ok(Vec::new()), "{key:?}");
        }
    }
    for key in [directive(u64::MAX), [&directive(7)[..32], &[9]].concat()] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        put(&path, "directives", &key, &[3; 40]);
        let mut store = open_file(&path, false).unwrap();
        let found = read(&mut store, 0);
        assert!(matches!(found, Err(StoreError::Damaged(_))), "{found:?}");
    }
}

fn walk(rows: &[(u8, Vec<u8>, Vec<u8>)]) -> Vec<Verdict> {
    let mut walk = Walk::default();
    for (table, key, value) in rows {
        walk.row::<()>(*table, key, value, &mut |_| Ok(())).unwrap();
    }
    walk.finish()
}

#[test]
fn a_journal_with_numbers_that_no_entry_has_is_broken() {
    for number in [0, LAST_NUMBER + 1, u64::MAX] {
        let rows = [number, number.wrapping_add(1)].map(directive);
        let logs = walk(&rows.map(|key| (DIRECTIVES, key, vec![3; 40])));
        let log = logs.iter().find(|log| log.log == "directive").unwrap();
        assert!(log.broken.is_some(), "{log:?}");
    }
    let entry = Audited {
        at: Unix(0),
        who: String::new(),
        token: false,
        from: String::new(),
        what: String::new(),
        about: String::new(),
        detail: String::new(),
        refused: None,
    };
    for number in [0, LAST_NUMBER + 1, u64::MAX] {
        for prefix in [AUDIT, EVENTS] {
            let key = |n| [&AggregateId::Record.key(), row(prefix, n).as_bytes()].concat();
            let value = codec::encode(&[entry.clone(), entry.clone()]);
            let rows = [number, number.wrapping_add(1)];
            let logs = walk(&rows.map(|n| (ROWS, key(n), value.clone())));
            let name = if prefix == AUDIT { "audit" } else { "event" };
            let log = logs.iter().find(|log| log.log == name).unwrap();
            assert!(log.broken.is_some(), "{log:?}");
        }
    }
}
