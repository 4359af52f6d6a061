//! The contract of a store: the same operations on the store in memory and on redb give the same
//! answers, through snapshots, segments, pruning and opening again.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use edge_core::memory::{Disk, MemStore};
use edge_core::store::{Commit, Store, StoreError};
use edge_store::{Identity, RedbStore, create_file, open_file};
use shared::ids::{Incarnation, NodeId};
use shared::log::{Direction, Head};
use std::path::Path;

const WHO: Identity = Identity {
    node: NodeId([1; 16]),
    incarnation: Incarnation([2; 16]),
};

struct Dice(u64);

impl Dice {
    fn up_to(&mut self, top: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % (top + 1)
    }

    fn bytes(&mut self, top: u64) -> Vec<u8> {
        let fill = self.up_to(255) as u8;
        vec![fill; self.up_to(top) as usize]
    }
}

struct Pair {
    memory: MemStore,
    redb: RedbStore,
    facts: Head,
    directives: Head,
}

impl Pair {
    fn new(path: &Path) -> Self {
        Self {
            memory: MemStore::new(Disk::new(WHO.node, WHO.incarnation)),
            redb: create_file(path, WHO).unwrap(),
            facts: Head::origin(WHO.node, WHO.incarnation, Direction::Up),
            directives: Head::origin(WHO.node, WHO.incarnation, Direction::Down),
        }
    }

    fn commit(&mut self, dice: &mut Dice) {
        let facts: Vec<_> = (0..dice.up_to(60)).map(|_| dice.bytes(200)).collect();
        let directives: Vec<_> = (0..dice.up_to(2)).map(|_| dice.bytes(500)).collect();
        self.facts = self.facts.then_all(&facts);
        self.directives = self.directives.then_all(&directives);
        let mut commit = Commit {
            facts_head: (!facts.is_empty()).then_some(self.facts),
            directives_head: (!directives.is_empty()).then_some(self.directives),
            facts,
            directives,
            ..Commit::default()
        };
        let name = format!("name{}", dice.up_to(5));
        commit.marks.push((name.clone(), dice.bytes(9)));
        commit.details.push((self.facts.number, dice.bytes(30)));
        if dice.up_to(6) == 0 {
            let row = dice.bytes(50);
            commit.rows.push((name, (row.len() > 10).then_some(row)));
            commit.snapshot = Some((self.facts.number, self.directives.number));
        }
        if dice.up_to(20) == 0 {
            commit.prune_directives = Some(self.directives.number / 2);
        }
        self.memory.commit(&commit).unwrap();
        self.redb.commit(&commit).unwrap();
    }

    fn compare(&mut self, dice: &mut Dice) {
        let (one, other) = (self.memory.load().unwrap(), self.redb.load().unwrap());
        assert_eq!(one.marks, other.marks);
        for prefix in ["", "name", "name3", "other"] {
            let (one, other) = (rows(&mut self.memory, prefix), rows(&mut self.redb, prefix));
            assert_eq!(one, other);
        }
        assert_eq!((one.snapshot, one.facts), (other.snapshot, other.facts));
        assert_eq!(one.directives, other.directives);
        let from = dice.up_to(self.facts.number);
        let from = from.max(other.facts_first - 1);
        assert_eq!(self.memory.fact_hash(from), self.redb.fact_hash(from));
        assert_eq!(
            entries(&mut self.memory, from),
            entries(&mut self.redb, from)
        );
        assert_eq!(sent(&mut self.memory, from), sent(&mut self.redb, from));
        let mut told: [Vec<(u64, Vec<u8>)>; 2] = Default::default();
        let mid = self.directives.number / 2;
        self.memory
            .each_directive(mid, &mut |n, b| told[0].push((n, b.to_vec())))
            .unwrap();
        self.redb
            .each_directive(mid, &mut |n, b| told[1].push((n, b.to_vec())))
            .unwrap();
        assert_eq!(told[0], told[1]);
    }
}

fn rows<S: Store>(store: &mut S, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let mut rows = Vec::new();
    store
        .each_row(prefix, &mut |name, bytes| {
            rows.push((name.to_owned(), bytes.to_vec()))
        })
        .unwrap();
    rows
}

fn entries(store: &mut dyn Store, after: u64) -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    store
        .each_fact(after, &mut |number, bytes| {
            out.push((number, bytes.to_vec()))
        })
        .unwrap();
    out
}

/// Everything that goes on the wire behind `after`; batches may be cut at other commits, the chain
/// may not.
fn sent(store: &mut dyn Store, after: u64) -> (Option<u64>, Vec<Vec<u8>>, Option<Head>) {
    let (mut first, mut all, mut head): (Option<Head>, Vec<Vec<u8>>, Option<Head>) =
        (None, Vec::new(), None);
    let mut at = after;
    while let Some(batch) = store.facts_after(at).unwrap() {
        assert_eq!(batch.after.then_all(&batch.entries).hash, batch.hash);
        assert!(head.is_none_or(|head| head == batch.after));
        first.get_or_insert(batch.after);
        head = Some(batch.head());
        at = batch.head().number;
        all.extend(batch.entries);
    }
    (first.map(|head| head.number), all, head)
}

#[test]
fn both_stores_answer_alike_and_so_does_one_that_was_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..2 {
        let path = dir.path().join(format!("store{seed}"));
        let (mut pair, mut dice) = (Pair::new(&path), Dice(seed));
        for round in 0..80 {
            pair.commit(&mut dice);
            if round % 10 == 0 {
                pair.compare(&mut dice);
            }
            if round % 40 == 39 {
                pair.redb.reopen().unwrap();
                pair.compare(&mut dice);
            }
        }
        let last = pair.facts.number / 2;
        let prune = Commit {
            prune_facts: Some(last),
            ..Commit::default()
        };
        pair.redb.commit(&prune).unwrap();
        let first = pair.redb.load().unwrap().facts_first;
        assert!(
            first > 1 && first <= last + 1,
            "whole segments behind {last} go, not {first}"
        );
        for _ in 0..10 {
            pair.compare(&mut dice);
        }
        drop(pair.redb);
        pair.redb = open_file(&path, WHO).unwrap();
        pair.compare(&mut dice);
    }
}

#[test]
fn a_foreign_an_empty_a_cut_and_an_overwritten_file_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut dice = Dice(7);
    let mut pair = Pair::new(&path);
    for _ in 0..30 {
        pair.commit(&mut dice);
    }
    drop(pair);
    let whole = std::fs::read(&path).unwrap();
    let other = Identity {
        incarnation: Incarnation([9; 16]),
        ..WHO
    };
    let error = open_file(&path, other).unwrap_err().to_string();
    assert!(error.contains("it belongs to node"), "{error}");
    assert!(
        matches!(create_file(&path, WHO), Err(StoreError::Damaged(_))),
        "never made anew"
    );
    let mut overwritten = whole.clone();
    overwritten[..4096].fill(0x5a);
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("cut", whole[..whole.len() / 3].to_vec()),
        ("a stump", whole[..100].to_vec()),
        ("overwritten", overwritten),
        ("zeros", vec![0; whole.len()]),
    ] {
        std::fs::write(&path, bytes).unwrap();
        match open_file(&path, WHO) {
            Err(StoreError::Damaged(_)) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(open_file(&path, WHO), Err(StoreError::Damaged(_))));
}

#[test]
fn one_file_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let _held = create_file(&path, WHO).unwrap();
    let error = open_file(&path, WHO).unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
}
