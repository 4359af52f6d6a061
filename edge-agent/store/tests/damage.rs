//! Rows that no store of ours wrote, in a file whose pages are whole: opening or reading it says
//! that it is damaged, and never counts on from such a row.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use edge_core::store::{Commit, Store, StoreError};
use edge_store::{Identity, create_file, look, open_file};
use redb::{Database, TableDefinition};
use shared::codec;
use shared::ids::{Hash, Incarnation, NodeId};
use shared::log::{Direction, Head, LAST_NUMBER, PackedBatch};
use std::path::Path;

const WHO: Identity = Identity {
    node: NodeId([1; 16]),
    incarnation: Incarnation([2; 16]),
};
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const FACTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("facts");
const SEGMENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("segments");
const DIRECTIVES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("directives");

type Numbered = TableDefinition<'static, u64, &'static [u8]>;

/// A store with 1,200 facts, of which 1,000 are packed, and three directives.
fn make(path: &Path) {
    let mut store = create_file(path, WHO).unwrap();
    let mut facts = Head::origin(WHO.node, WHO.incarnation, Direction::Up);
    let mut directives = Head::origin(WHO.node, WHO.incarnation, Direction::Down);
    for round in 0..12_u8 {
        let new = vec![vec![round; 20]; 100];
        facts = facts.then_all(&new);
        let mut commit = Commit {
            facts: new,
            facts_head: Some(facts),
            ..Commit::default()
        };
        if round < 3 {
            commit.directives = vec![vec![round; 9]];
            directives = directives.then_all(&commit.directives);
            commit.directives_head = Some(directives);
        }
        if round == 9 {
            commit.rows = vec![("core".to_owned(), Some(vec![1; 30]))];
            commit.snapshot = Some((facts.number, directives.number));
        }
        store.commit(&commit).unwrap();
    }
}

fn put(path: &Path, table: Numbered, key: u64, value: &[u8]) {
    let database = Database::open(path).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(table).unwrap().insert(key, value).unwrap();
    txn.commit().unwrap();
}

fn remove(path: &Path, table: Numbered, key: u64) {
    let database = Database::open(path).unwrap();
    let txn = database.begin_write().unwrap();
    let old = txn
        .open_table(table)
        .unwrap()
        .remove(key)
        .unwrap()
        .is_some();
    assert!(old);
    txn.commit().unwrap();
}

fn meta(path: &Path, key: &str, value: &[u8]) {
    let database = Database::open(path).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(META).unwrap().insert(key, value).unwrap();
    txn.commit().unwrap();
}

/// Reads all that a start, a session and `store check` read; the first error.
fn read(path: &Path) -> Result<(), StoreError> {
    let mut store = look(path, WHO)?;
    let loaded = store.load()?;
    store.each_row("", &mut |_, _| {})?;
    for after in [0, 1, 500, 999, 1000, 1100, LAST_NUMBER, u64::MAX] {
        store.each_fact(after, &mut |_, _| {})?;
        store.each_directive(after, &mut |_, _| {})?;
        store.facts_after(after)?;
        store.packed_after(after)?;
        store.fact_hash(after)?;
        store.directives_after(after)?;
    }
    let mut after = loaded.facts_first - 1;
    while let Some(batch) = store.facts_after(after)? {
        assert!(batch.head().number > after);
        after = batch.head().number;
    }
    Ok(())
}

/// The same with what a working agent writes: more facts, a snapshot, which packs, and pruning.
fn work(path: &Path) -> Result<(), StoreError> {
    read(path)?;
    let mut store = open_file(path, WHO)?;
    let mut head = store.load()?.facts;
    for _ in 0..12 {
        let facts = vec![vec![7; 20]; 100];
        head = head.then_all(&facts);
        store.commit(&Commit {
            facts,
            facts_head: Some(head),
            ..Commit::default()
        })?;
    }
    let directives = store.load()?.directives.number;
    store.commit(&Commit {
        snapshot: Some((head.number, directives)),
        ..Commit::default()
    })?;
    store.commit(&Commit {
        prune_facts: Some(head.number),
        prune_directives: Some(directives),
        ..Commit::default()
    })?;
    drop(store);
    read(path)
}

/// A row that ends a commit.
fn end(bytes: &[u8]) -> Vec<u8> {
    [&[1][..], &[3; 32], bytes].concat()
}

/// A segment of so many entries whose commits end there.
fn segment(ends: &[u32], entries: usize) -> Vec<u8> {
    let head = Head::default();
    let packed = PackedBatch::new(head, head, &vec![vec![5; 20]; entries]).entries;
    codec::encode(&(Hash([1; 32]), Hash([2; 32]), ends, packed))
}

#[track_caller]
fn damaged(what: &str, spoil: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    make(&path);
    spoil(&path);
    match work(&path) {
        Err(StoreError::Damaged(_)) => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn a_store_without_such_rows_is_read_and_worked_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    make(&path);
    work(&path).unwrap();
}

/// Numbers at the ends made `first - 1`, `oldest - 1` and the sums of number and entries overflow.
#[test]
fn a_number_that_no_entry_has_is_damage() {
    for number in [0, LAST_NUMBER + 1, u64::MAX - 1, u64::MAX] {
        damaged("facts", |path| put(path, FACTS, number, &end(&[7])));
        damaged("directives", |path| {
            put(path, DIRECTIVES, number, &end(&[7]))
        });
        damaged("segments", |path| {
            put(path, SEGMENTS, number, &segment(&[1], 1))
        });
    }
    damaged("the end of a segment", |path| {
        put(path, SEGMENTS, LAST_NUMBER, &segment(&[1, u32::MAX], 1));
    });
    damaged("snapshot", |path| {
        meta(path, "snapshot", &codec::encode(&(u64::MAX, u64::MAX)));
    });
    damaged("pruned", |path| {
        let head = Head {
            number: LAST_NUMBER,
            ..Head::default()
        };
        meta(path, "pruned", &codec::encode(&head));
    });
}

#[test]
fn a_segment_that_is_not_what_it_says_is_damage() {
    for (what, value) in [
        ("no commit", segment(&[], 0)),
        ("no commit, but entries", segment(&[], 1000)),
        ("a commit without entries", segment(&[0, 1000], 1000)),
        ("commits in the wrong order", segment(&[1000, 100], 1000)),
        ("fewer entries", segment(&[1000], 999)),
        ("more entries than commits", segment(&[999], 1000)),
        ("more entries than any", segment(&[1001], 1001)),
        ("no entries", segment(&[1000], 1000)[..100].to_vec()),
        ("nothing", Vec::new()),
    ] {
        damaged(what, |path| put(path, SEGMENTS, 1, &value));
    }
}

#[test]
fn an_entry_that_is_missing_or_has_no_end_is_damage() {
    damaged("a fact", |path| remove(path, FACTS, 1050));
    damaged("the first fact behind the segments", |path| {
        remove(path, FACTS, 1001)
    });
    damaged("the segments", |path| remove(path, SEGMENTS, 1));
    damaged("a directive", |path| remove(path, DIRECTIVES, 2));
    damaged("the end of the last commit", |path| {
        remove(path, FACTS, 1200)
    });
    damaged("a fact without its flag", |path| {
        put(path, FACTS, 1050, &[])
    });
    damaged("a flag without its hash", |path| {
        put(path, FACTS, 1050, &[1; 32])
    });
    damaged("a fact far behind the others", |path| {
        put(path, FACTS, 5000, &end(&[7]))
    });
    damaged("a directive far behind the others", |path| {
        put(path, DIRECTIVES, 5000, &end(&[7]));
    });
}

/// All of such a commit was read into memory, be it as long as the table.
#[test]
fn a_commit_without_its_end_is_damage_before_it_is_read_to_the_end() {
    damaged("endless", |path| {
        let database = Database::open(path).unwrap();
        let txn = database.begin_write().unwrap();
        {
            let mut facts = txn.open_table(FACTS).unwrap();
            for number in 1201..300_000 {
                facts.insert(number, &[0][..]).unwrap();
            }
            facts.insert(300_000, end(&[7]).as_slice()).unwrap();
        }
        txn.commit().unwrap();
    });
}

#[test]
fn a_table_that_is_gone_or_another_is_damage() {
    for table in ["facts", "segments", "directives"] {
        let gone = TableDefinition::<u64, &[u8]>::new(table);
        damaged(table, |path| drop_table(path, gone));
    }
    for table in ["marks", "rows"] {
        let gone = TableDefinition::<&str, &[u8]>::new(table);
        damaged(table, |path| drop_table(path, gone));
    }
    damaged("other keys", |path| {
        drop_table(path, FACTS);
        let other = TableDefinition::<&str, &[u8]>::new("facts");
        let database = Database::open(path).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(other)
            .unwrap()
            .insert("a", &[1][..])
            .unwrap();
        txn.commit().unwrap();
    });
}

fn drop_table<K: redb::Key + 'static>(path: &Path, table: TableDefinition<'_, K, &[u8]>) {
    let database = Database::open(path).unwrap();
    let txn = database.begin_write().unwrap();
    assert!(txn.delete_table(table).unwrap());
    txn.commit().unwrap();
}
