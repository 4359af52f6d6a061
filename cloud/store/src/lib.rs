//! The coordinator's store on redb: aggregates, inboxes, event ids, facts and directive logs in one
//! file.
//!
//! Invariants: one `Store::commit` is one durable redb transaction in quick-repair mode; facts keep
//! the bytes that were received. After any error of a commit the handle is dropped
//! (`Store::reopen`).
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | `format` | `driftless coordinator`, format (u32 LE) |
//! | `aggregates` | aggregate (17 bytes) | version (u64 LE), head |
//! | `rows` | aggregate, name | row |
//! | `inboxes` | receiver, sender, number (u64 BE) | message |
//! | `events` | event (16 bytes) | aggregate, version (u64 LE) |
//! | `facts` | node, incarnation, first number (u64 BE) | segment (`segment.rs`) |
//! | `directives` | node, incarnation, number (u64 BE) | chained hash, bytes |

mod commit;
pub mod journal;
mod open;
pub mod reader;
mod segment;
pub mod snapshot;

pub use open::{MakeBackend, RedbStore, open_file};

use cloud_core::store::{AggregateId, StoreError};
use redb::TableDefinition;
use shared::ids::Hash;
use shared::log::{Head, LAST_NUMBER};
use shared::wire::LogId;

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

const META: Table = TableDefinition::new("meta");
const AGGREGATES: Table = TableDefinition::new("aggregates");
const ROWS: Table = TableDefinition::new("rows");
const INBOXES: Table = TableDefinition::new("inboxes");
const EVENTS: Table = TableDefinition::new("events");
const FACTS: Table = TableDefinition::new("facts");
const DIRECTIVES: Table = TableDefinition::new("directives");

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

fn log_key(log: LogId, number: u64) -> [u8; 40] {
    let mut key = [0; 40];
    key[..16].copy_from_slice(&log.node.0);
    key[16..32].copy_from_slice(&log.incarnation.0);
    key[32..].copy_from_slice(&number.to_be_bytes());
    key
}

fn inbox_key(to: AggregateId, from: AggregateId, number: u64) -> [u8; 42] {
    let mut key = [0; 42];
    key[..17].copy_from_slice(&to.key());
    key[17..34].copy_from_slice(&from.key());
    key[34..].copy_from_slice(&number.to_be_bytes());
    key
}

fn row_key(id: AggregateId, name: &str) -> Vec<u8> {
    [&id.key()[..], name.as_bytes()].concat()
}

fn number_be(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn number_le(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Whether an entry can have this number.
fn is_number(number: u64) -> bool {
    (1..=LAST_NUMBER).contains(&number)
}

/// Version and head of an aggregate's row. There are as many versions as there can be entries.
fn split_version(row: &[u8]) -> Result<(u64, &[u8]), StoreError> {
    let read = || {
        let (version, head) = row.split_first_chunk()?;
        let version = u64::from_le_bytes(*version);
        is_number(version).then_some((version, head))
    };
    read().ok_or_else(|| damaged("an aggregate's row cannot be read"))
}

fn split_hash(bytes: &[u8]) -> Option<(Hash, &[u8])> {
    let (hash, rest) = bytes.split_at_checked(32)?;
    Some((Hash(hash.try_into().ok()?), rest))
}

fn head(number: u64, hash: Hash) -> Head {
    Head { number, hash }
}
