//! Durable appends a second and recovery, against redb alone with the same bytes in the same mode.
//! `cargo run --release -p edge-store --example journal_cost`

use edge_core::store::{Commit, Store};
use edge_store::{Identity, create_file, open_file};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use shared::fact::{Body, Fact};
use shared::ids::{AttemptRef, Epoch, Incarnation, NodeId, RunId, SliceRef, TaskIdx};
use shared::log::{Direction, Head};
use shared::time::Stamp;
use std::path::Path;
use std::time::Instant;

const WHO: Identity = Identity {
    node: NodeId([1; 16]),
    incarnation: Incarnation([2; 16]),
};
const RAW: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("raw");

fn fact(n: u64) -> Fact {
    let slice = SliceRef {
        run: RunId([5; 16]),
        slice: 0,
        epoch: Epoch(7 << 32),
    };
    let attempt = AttemptRef {
        slice,
        task: TaskIdx(n as u32),
        number: 1,
    };
    Fact {
        at: Stamp::default(),
        seen: 3,
        body: Body::Started { attempt },
    }
}

fn ours(path: &Path, each: u64, commits: u64) -> f64 {
    let mut store = create_file(path, WHO).expect("a new store");
    let mut head = Head::origin(WHO.node, WHO.incarnation, Direction::Up);
    let start = Instant::now();
    for n in 0..commits {
        let facts: Vec<_> = (0..each).map(|k| fact(n * each + k).encode()).collect();
        head = head.then_all(&facts);
        let commit = Commit {
            facts,
            facts_head: Some(head),
            ..Commit::default()
        };
        store.commit(&commit).expect("it commits");
    }
    (each * commits) as f64 / start.elapsed().as_secs_f64()
}

fn theirs(path: &Path, each: u64, commits: u64) -> f64 {
    let db = Database::builder()
        .set_cache_size(1 << 20)
        .create(path)
        .expect("a new file");
    let start = Instant::now();
    for n in 0..commits {
        let mut txn = db.begin_write().expect("a transaction");
        txn.set_quick_repair(true);
        {
            let mut table = txn.open_table(RAW).expect("a table");
            for k in 0..each {
                let bytes = fact(n * each + k).encode();
                table
                    .insert(n * each + k, bytes.as_slice())
                    .expect("it inserts");
            }
        }
        txn.commit().expect("it commits");
    }
    (each * commits) as f64 / start.elapsed().as_secs_f64()
}

fn scan(path: &Path) -> f64 {
    let start = Instant::now();
    let db = Database::builder()
        .set_cache_size(1 << 20)
        .open(path)
        .expect("it opens");
    let txn = db.begin_read().expect("a transaction");
    let table = txn.open_table(RAW).expect("a table");
    let mut found = 0;
    for item in table.iter().expect("it reads") {
        let (number, bytes) = item.expect("it reads");
        found += u64::from(Fact::decode(number.value(), bytes.value()).is_ok());
    }
    assert!(found > 0);
    start.elapsed().as_secs_f64() * 1e3
}

fn read(path: &Path) -> f64 {
    let start = Instant::now();
    let mut store = open_file(path, WHO).expect("it opens");
    let mut found = 0;
    store.load().expect("it loads");
    let mut each = |number, bytes: &[u8]| found += u64::from(Fact::decode(number, bytes).is_ok());
    store.each_fact(0, &mut each).expect("it reads");
    assert!(found > 0);
    start.elapsed().as_secs_f64() * 1e3
}

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    for (each, commits) in [(1, 300), (100, 300), (1000, 200)] {
        let (a, b) = (
            dir.path().join(format!("a{each}")),
            dir.path().join(format!("b{each}")),
        );
        let (own, raw) = (ours(&a, each, commits), theirs(&b, each, commits));
        println!(
            "{each} a commit: {own:.0}/s, redb alone {raw:.0}/s, ratio {:.2}",
            own / raw
        );
    }
    let (own, raw) = (
        read(&dir.path().join("a1000")),
        scan(&dir.path().join("b1000")),
    );
    println!(
        "open + read 200,000: {own:.0} ms, redb alone {raw:.0} ms, ratio {:.2}",
        own / raw
    );
}
