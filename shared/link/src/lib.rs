//! The link between an agent and the coordinator: QUIC endpoints, frames, sessions, enrolment,
//! files.
//!
//! This is transport for both sides and decides nothing: who may enrol, which file may be read,
//! when to dial again is said by its callers. `docs/protocol.md` describes what travels.
//!
//! Invariant: nothing that a peer sends is believed before it is bounded: no frame, file or stream
//! makes this side allocate or write more than a named limit.

pub mod backoff;
pub mod bulk;
pub mod endpoint;
pub mod enrol;
pub mod error;
pub mod frame;
pub mod ground;
pub mod logs;
pub mod session;

pub use endpoint::{Connection, Endpoint, Handshake, Settings};
pub use error::{Close, LinkError};
pub use ground::Ground;

#[cfg(test)]
mod tests;
