//! Bytes that one commit writes to the device at most, by the bytes of its entries: `room_needed`
//! stands on it. `cargo run --release -p edge-store --example room_cost`

use edge_core::store::{Commit, Store};
use edge_store::{Identity, RedbStore};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use shared::ids::{Incarnation, NodeId};
use shared::log::{Direction, Head};
use std::io::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const WHO: Identity = Identity {
    node: NodeId([1; 16]),
    incarnation: Incarnation([2; 16]),
};

#[derive(Debug, Clone)]
struct Counted(Arc<InMemoryBackend>, Arc<AtomicU64>);

impl StorageBackend for Counted {
    fn len(&self) -> Result<u64, Error> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> Result<(), Error> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.1.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.0.write(offset, data)
    }
}

/// Largest number of bytes written by one of `commits` commits of `count` facts with `bytes` each.
fn largest(count: usize, bytes: usize, commits: u64) -> u64 {
    let disk = Counted(Arc::default(), Arc::default());
    let written = Arc::clone(&disk.1);
    let make = Box::new(move || Ok(Box::new(disk.clone()) as Box<dyn StorageBackend>));
    let mut store = RedbStore::create(make, WHO).expect("a new store");
    let mut head = Head::origin(WHO.node, WHO.incarnation, Direction::Up);
    let mut most = 0;
    for n in 0..commits {
        let facts = vec![vec![7; bytes]; count];
        head = head.then_all(&facts);
        // Every tenth packs segments and writes rows, as a snapshot does.
        let snapshot = n % 10 == 9;
        let rows = if snapshot {
            vec![("tasks/x".to_owned(), Some(vec![1; 16 * 1024]))]
        } else {
            Vec::new()
        };
        let commit = Commit {
            facts,
            facts_head: Some(head),
            rows,
            snapshot: snapshot.then_some((head.number, 0)),
            ..Commit::default()
        };
        written.store(0, Ordering::Relaxed);
        store.commit(&commit).expect("it commits");
        most = most.max(written.load(Ordering::Relaxed));
    }
    most
}

fn main() {
    for (count, bytes) in [
        (1, 100),
        (10, 100),
        (100, 100),
        (1000, 100),
        (1000, 256),
        (64, 4096),
        (4, 65_536),
        (1, 262_144),
        (1, 4_194_304),
    ] {
        let entries = count * bytes;
        let most = largest(count, bytes, 200.min(40_000_000 / entries as u64));
        let (times, kib) = (most as f64 / entries as f64, most / 1024);
        println!(
            "{count} x {bytes} = {entries} bytes: {kib} KiB written at most, {times:.1} times"
        );
    }
}
