//! The vocabulary that coordinator and agents share: identities, time, the compiled workflow, the
//! entries of the two logs (facts up, directives down), the frames on the wire, closed lists of
//! states and reasons, and pure formulas used on both sides.
//!
//! Invariant: nothing here reads a clock, a file, a socket or a random source, and nothing here
//! depends on another crate of this workspace.

pub mod approval;
pub mod codec;
pub mod config;
pub mod directive;
pub mod explain;
pub mod fact;
pub mod figures;
pub mod finding;
pub mod graph;
pub mod ids;
pub mod inventory;
pub mod limits;
pub mod log;
pub mod planted;
pub mod schedule;
pub mod spec;
pub mod state;
pub mod taint;
pub mod telemetry;
pub mod time;
pub mod wire;
pub mod workflow;
