//! The agent's decisions as a deterministic state machine, and the loop that decides, commits and
//! acts.
//!
//! Invariant: no I/O, no threads, no clock and no randomness of its own; the same events give the
//! same records and actions. State is a fold over the entries of the node's two logs.

mod admit;
pub mod agent;
mod ages;
mod asking;
mod attempt;
mod audit;
mod boot;
mod change;
pub mod driver;
pub mod event;
pub mod explain;
mod files;
mod hole;
mod intake;
mod inventory;
mod lane;
mod limit;
mod link;
pub mod memory;
pub mod pressure;
pub mod ready;
pub mod rest;
mod rng;
pub mod scheduled;
mod schedules;
pub mod slice;
mod snapshot;
pub mod state;
pub mod store;
pub mod sync;
pub mod telemetry;
mod tidy;
pub mod view;
pub mod waits;
