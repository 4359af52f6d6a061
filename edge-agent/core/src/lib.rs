//! The agent's decisions as a deterministic state machine, and the loop that decides, commits and acts.
//!
//! Invariant: no I/O, no threads, no clock and no randomness of its own; the same events give the same records
//! and actions. State is a fold over the entries of the node's two logs.

pub mod driver;
pub mod event;
pub mod store;
