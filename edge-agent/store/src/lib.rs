//! The agent's journal on redb: durable commits with quick repair, segments behind the snapshot,
//! and an identity that is checked at every opening. `docs/storage.md` describes the tables.
//!
//! Invariant: an entry's bytes are never encoded again, and an error never leaves half a commit
//! behind.

mod open;
mod prune;
mod redb_store;
mod reserve;
mod rows;
mod segment;

pub use open::{CACHE, Identity, MakeBackend, create_file, look, open_beside, open_file};
pub use redb_store::RedbStore;
pub use reserve::{RESERVE, Reserve, give_back};
