//! Both stores do the same for the same random operations; a bad file gets its specific error.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use cloud_core::memory::MemStore;
use cloud_core::store::{
    AggregateId, Entry, Outcome, Prune, Segment, Store, StoreError, Transaction, request_event,
};
use cloud_store::open_file;
use cloud_store::reader::Reader;
use shared::ids::{Generation, Incarnation, NodeId, RunId};
use shared::log::{Direction, Head};
use shared::wire::LogId;
use std::path::Path;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % n
    }
    fn bytes(&mut self) -> Vec<u8> {
        (0..self.below(900)).map(|n| (n % 7) as u8).collect()
    }
    fn aggregate(&mut self) -> AggregateId {
        match self.below(3) {
            0 => AggregateId::Fleet,
            1 => AggregateId::Node(NodeId([self.below(3) as u8; 16])),
            _ => AggregateId::Run(RunId([self.below(3) as u8; 16])),
        }
    }
    fn log(&mut self) -> LogId {
        LogId {
            node: NodeId([self.below(2) as u8; 16]),
            incarnation: Incarnation([self.below(2) as u8; 16]),
        }
    }
    fn prune(&mut self) -> Prune {
        match self.below(5) {
            0 => Prune::Facts(self.log(), self.below(60)),
            1 => Prune::Directives(self.log(), self.below(6)),
            2 => Prune::Requests(Generation(self.below(4))),
            3 if self.below(4) == 0 => Prune::Aggregate,
            _ => Prune::Event([self.below(9) as u8; 16]),
        }
    }
    fn transaction(&mut self) -> Transaction {
        let log = self.log();
        let after = Head {
            number: self.below(8) * 10,
            ..Head::origin(log.node, log.incarnation, Direction::Up)
        };
        let entries: Vec<Vec<u8>> = (0..10).map(|_| self.bytes()).collect();
        let value = (self.below(3) > 0).then(|| self.bytes());
        Transaction {
            aggregate: self.aggregate(),
            expected: self.below(3),
            events: vec![
                [self.below(9) as u8; 16],
                request_event(Generation(self.below(4)), self.below(3) as u32),
            ],
            head: self.bytes(),
            rows: vec![(format!("t{}", self.below(4)), value)],
            sends: vec![(self.aggregate(), self.below(9), self.bytes())],
            drained: vec![(self.aggregate(), self.below(9))],
            facts: vec![Segment {
                log,
                after,
                head: after.then_all(&entries),
                entries: entries.iter().collect(),
                packed: None,
            }],
            truncate: (self.below(4) == 0).then(|| (self.log(), self.below(9))),
            directives: vec![(
                self.log(),
                Entry {
                    head: Head {
                        number: 1 + self.below(9),
                        hash: after.hash,
                    },
                    bytes: self.bytes(),
                },
            )],
            prune: (0..self.below(2)).map(|_| self.prune()).collect(),
        }
    }
}

/// Everything that can be read, as text.
fn all(store: &mut dyn Store) -> Vec<String> {
    let mut out = Vec::new();
    store
        .aggregates(&mut |id, version, head| out.push(format!("{id:?} {version} {head:?}")))
        .unwrap();
    store
        .inboxes(&mut |to, from, n, bytes| out.push(format!("{to:?} {from:?} {n} {bytes:?}")))
        .unwrap();
    let mut ids = vec![AggregateId::Fleet];
    for n in 0..3 {
        ids.push(AggregateId::Node(NodeId([n; 16])));
        ids.push(AggregateId::Run(RunId([n; 16])));
    }
    for id in ids {
        store
            .rows(id, "t", &mut |name, row| {
                out.push(format!("{id:?} {name} {row:?}"))
            })
            .unwrap();
        out.push(format!("{:?}", store.row(id, "t1").unwrap()));
    }
    for n in 0..9 {
        out.push(format!("{:?}", store.event(&[n; 16]).unwrap()));
    }
    for life in 0..4 {
        for n in 0..3 {
            let id = request_event(Generation(life), n);
            out.push(format!("{:?}", store.event(&id).unwrap()));
        }
    }
    for (node, incarnation) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let log = LogId {
            node: NodeId([node; 16]),
            incarnation: Incarnation([incarnation; 16]),
        };
        for (from, to) in [(1, 100), (5, 15), (33, 33)] {
            store
                .facts(log, from, to, &mut |n, bytes| {
                    out.push(format!("{n} {bytes:?}"))
                })
                .unwrap();
        }
        for (entries, bytes) in [(3, 10_000), (100, 1000)] {
            let list = store.directives(log, 1, entries, bytes).unwrap();
            out.push(format!("{list:?}"));
        }
        out.push(format!("{:?}", store.directive_hash(log, 3).unwrap()));
    }
    out
}

#[test]
fn both_stores_do_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut redb = open_file(&dir.path().join("store"), true).unwrap();
    let mut memory = MemStore::new();
    let mut random = Random(42);
    let mut conflicts = 0;
    for round in 0..60 {
        let batch: Vec<Transaction> = (0..1 + random.below(5))
            .map(|_| random.transaction())
            .collect();
        let outcomes = memory.commit(&batch).unwrap();
        conflicts += outcomes.iter().filter(|o| **o != Outcome::Done).count();
        assert_eq!(redb.commit(&batch).unwrap(), outcomes);
        if round % 10 == 0 {
            redb.reopen().unwrap();
        }
        assert_eq!(all(&mut redb), all(&mut memory), "round {round}");
    }
    assert!(conflicts > 10, "conflicts were tried, too");
}

#[test]
fn what_is_not_a_store_is_said_and_never_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let open = |path: &Path, create| open_file(path, create).map(|_| ()).unwrap_err();
    assert!(matches!(
        open(&path("missing"), false),
        StoreError::Damaged(_)
    ));
    std::fs::write(path("empty"), b"").unwrap();
    assert!(matches!(
        open(&path("empty"), false),
        StoreError::Damaged(_)
    ));
    std::fs::write(path("text"), vec![b'x'; 10_000]).unwrap();
    assert!(matches!(open(&path("text"), true), StoreError::Foreign(_)));
    let error = open(&path("text"), false);
    assert!(!matches!(error, StoreError::Unknown(_)), "{error}");
    drop(open_file(&path("good"), true).unwrap());
    let bytes = std::fs::read(path("good")).unwrap();
    std::fs::write(path("cut"), &bytes[..bytes.len() / 3]).unwrap();
    assert!(matches!(open(&path("cut"), false), StoreError::Damaged(_)));
    let held = open_file(&path("good"), false).unwrap();
    let error = open(&path("good"), false);
    assert!(error.to_string().contains("in use"), "{error}");
    drop(held);
}

#[test]
fn foreign_and_newer_stores_are_told_apart() {
    const META: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("meta");
    let dir = tempfile::tempdir().unwrap();
    for (name, magic) in [("newer", &b"driftless coordinator"[..]), ("foreign", b"?")] {
        let path = dir.path().join(name);
        let database = redb::Database::create(&path).unwrap();
        let tx = database.begin_write().unwrap();
        let format = [magic, &9u32.to_le_bytes()].concat();
        tx.open_table(META)
            .unwrap()
            .insert(&b"format"[..], format.as_slice())
            .unwrap();
        tx.commit().unwrap();
        drop(database);
        match (name, open_file(&path, false).unwrap_err()) {
            ("newer", StoreError::Newer { found: 9, known: 2 }) => {}
            ("foreign", StoreError::Foreign(_)) => {}
            (_, other) => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn the_reader_sees_a_fact_that_was_taken_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut store = open_file(&path, true).unwrap();
    let mut random = Random(1);
    let mut transaction = random.transaction();
    transaction.expected = 0;
    let log = transaction.facts[0].log;
    let first = transaction.facts[0].after.number + 1;
    store.commit(&[transaction]).unwrap();
    drop(store);
    let mut reader = Reader::open(&path).unwrap();
    let numbers = |reader: &mut Reader| {
        let mut out = Vec::new();
        reader.facts(&mut |_, n, _| out.push(n)).unwrap();
        out
    };
    assert_eq!(numbers(&mut reader).len(), 10);
    assert!(reader.remove_fact(log, first + 4).unwrap());
    assert!(!reader.remove_fact(log, first + 4).unwrap());
    let left = numbers(&mut reader);
    assert_eq!(left.len(), 9);
    assert!(!left.contains(&(first + 4)) && left.contains(&(first + 9)));
}
