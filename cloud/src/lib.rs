//! The coordinator as a library: data directory, authority, QUIC link, file store, HTTP API around
//! the engine of `cloud-core`.
//!
//! Invariants: decisions are the engine's and are answered after its commit; this crate checks what
//! comes from outside, moves bytes and keeps bounds. One coordinator has a data directory at a
//! time.

mod admission;
pub mod api;
mod app;
mod authorities;
pub mod backup;
mod caller;
mod clock;
pub mod data;
mod enrol;
pub mod host;
mod linked;
mod periodic;
pub mod revoked;
mod room;
mod serve;
mod service;
mod sessions;
mod telemetry;

pub use admission::HELLOS_AT_ONCE;
pub use data::{DataDir, DataError};
pub use enrol::{CERTIFICATE_LIFE, RENEWAL_GRACE};
pub use linked::{Came, Linked, LinkedOptions};
pub use serve::{Guarded, Options, Ready, ServeError, serve, stop_signal};
