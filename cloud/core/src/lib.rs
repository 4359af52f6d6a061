//! The coordinator's decisions as deterministic aggregates (node, run, fleet), and the engine that
//! feeds them, commits and acts.
//!
//! Invariant: no I/O, no threads, no clock and no randomness of its own; one transaction changes
//! one aggregate and appends messages to the inboxes of others.

pub mod access;
pub mod audit;
pub mod certificate;
pub mod change;
pub mod effects;
pub mod engine;
pub mod event;
pub mod fleet;
pub mod inbox;
pub mod keep;
pub mod memory;
pub mod node;
pub mod offered;
pub mod plan;
pub mod record;
pub mod run;
pub mod schedule;
pub mod seal;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod trust;
pub mod view;
