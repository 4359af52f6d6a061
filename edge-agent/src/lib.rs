//! The agent of one gateway: runs slices of workflows from its own disk, with or without a link.
//!
//! This crate is the shell around [`edge_core`]: one loop decides, commits and acts, on its
//! own thread or one that is lent to it; the executor's threads run processes; one thread with a
//! small tokio runtime carries the link; a few serve local commands.
//!
//! Invariant: resuming work never waits for the network.

mod asked;
pub mod begin;
mod check;
pub mod cli;
pub mod clock;
mod commands;
pub mod config;
pub mod control;
pub mod data;
mod enrolling;
mod journal;
mod launch;
pub mod linking;
pub mod local;
mod log_wishes;
pub mod looping;
pub mod mailbox;
mod memory;
mod metrics;
pub mod reading;
pub mod renewing;
mod room;
pub mod run;
mod schedule;
mod schedule_commands;
mod service;
mod store_commands;
mod support;
pub mod sweep;
mod sync_commands;
mod tail;
mod talk;
pub mod telemetry;
pub mod turns;
