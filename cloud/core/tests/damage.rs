//! What lies in a store and no engine wrote: it is told when the engine opens it.

use cloud_core::engine::Engine;
use cloud_core::event::{Config, RETENTION};
use cloud_core::memory::MemStore;
use cloud_core::record::{self, Limits};
use cloud_core::run::{Run, RunHead};
use cloud_core::store::{AggregateId, Store, StoreError, Transaction};
use shared::codec;
use shared::config::scheduler::Scheduler;
use shared::ids::RunId;
use shared::log::LAST_NUMBER;
use shared::time::{Mono, Now, Unix};

const RUN: RunId = RunId([7; 16]);

fn opened(aggregate: AggregateId, head: Vec<u8>) -> Result<(), StoreError> {
    let mut store = MemStore::new();
    store.commit(&[Transaction::of(aggregate, 0, head)])?;
    let config = Config {
        seal_key: [7; 32],
        retention: RETENTION,
        decisions_per_run: 100,
        fold_facts: 1000,
        record: Limits::default(),
        backups: false,
        scheduler: Scheduler::default(),
    };
    let now = Now {
        mono: Mono(1_000_000_000),
        wall: Unix(1_700_000_000_000),
    };
    Engine::open(store, config, now, 1).map(|_| ())
}

/// Found by hostile rows: a run without numbers of its tasks made whoever asked for runs panic.
#[test]
fn a_run_whose_counts_are_none_is_damage() {
    let with = |change: &dyn Fn(&mut RunHead)| {
        let mut head = Run::unknown(RUN, Unix(5)).head;
        change(&mut head);
        opened(AggregateId::Run(RUN), codec::encode(&head))
    };
    with(&|_| {}).unwrap();
    let changes: [&dyn Fn(&mut RunHead); 3] = [
        &|head| head.counts.clear(),
        &|head| head.counts.push(0),
        &|head| head.counts.fill(u32::MAX),
    ];
    for change in changes {
        let done = with(change);
        assert!(matches!(done, Err(StoreError::Damaged(_))), "{done:?}");
    }
}

/// The number of the next event overflowed.
#[test]
fn a_record_that_ends_at_no_number_is_damage() {
    let with = |events| {
        let head = record::Head { events, audit: 3 };
        opened(AggregateId::Record, codec::encode(&head))
    };
    with(7).unwrap();
    for number in [LAST_NUMBER + 1, u64::MAX] {
        let done = with(number);
        assert!(matches!(done, Err(StoreError::Damaged(_))), "{done:?}");
    }
}
