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
//! | `facts` | node, incarnation, first number (u64 BE) | 0 or 1 (zstd), segment |
//! | `directives` | node, incarnation, number (u64 BE) | chained hash, bytes |

mod commit;
mod open;
pub mod reader;

pub use open::{MakeBackend, RedbStore, open_file};

use cloud_core::store::{AggregateId, Segment, StoreError};
use redb::TableDefinition;
use shared::ids::Hash;
use shared::log::Head;
use shared::wire::LogId;

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

const META: Table = TableDefinition::new("meta");
const AGGREGATES: Table = TableDefinition::new("aggregates");
const ROWS: Table = TableDefinition::new("rows");
const INBOXES: Table = TableDefinition::new("inboxes");
const EVENTS: Table = TableDefinition::new("events");
const FACTS: Table = TableDefinition::new("facts");
const DIRECTIVES: Table = TableDefinition::new("directives");

/// Segments below this many bytes are not compressed.
const SMALL: usize = 512;
/// Bound of a decompressed segment: the largest batch that a frame can carry, with room for its
/// framing.
const SEGMENT_BYTES: usize = 2 * shared::limits::FRAME_BYTES;

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

fn encode_segment(segment: &Segment) -> Vec<u8> {
    let plain = shared::codec::encode(segment);
    let (flag, body) = if plain.len() < SMALL {
        (0, plain)
    } else {
        (1, shared::codec::compress(&plain))
    };
    let mut out = Vec::with_capacity(body.len() + 1);
    out.push(flag);
    out.extend(body);
    out
}

fn decode_segment(bytes: &[u8]) -> Result<Segment, StoreError> {
    let bad = || damaged("a segment of facts cannot be read");
    let (flag, body) = bytes.split_first().ok_or_else(bad)?;
    let segment = if *flag == 0 {
        shared::codec::decode(body)
    } else {
        shared::codec::decompress(body, SEGMENT_BYTES).and_then(|b| shared::codec::decode(&b))
    };
    segment.map_err(|_| bad())
}

fn split_hash(bytes: &[u8]) -> Option<(Hash, &[u8])> {
    let (hash, rest) = bytes.split_at_checked(32)?;
    Some((Hash(hash.try_into().ok()?), rest))
}

fn head(number: u64, hash: Hash) -> Head {
    Head { number, hash }
}
