//! The coordinator's decisions as deterministic aggregates (node, run, fleet), and the engine that feeds them,
//! commits and acts.
//!
//! Invariant: no I/O, no threads, no clock and no randomness of its own; one transaction changes one aggregate
//! and appends messages to the inboxes of others.

pub mod event;
pub mod view;
