//! The protocol between coordinator and agents as a small model: its rules, its accidents, and
//! the promises that no reachable state may break. `docs/model.md` says what is in it.
//!
//! The model shares no code with the cores. A state is a value, a step makes the next one, and
//! `check` goes through all of them.

mod action;
mod check;
mod config;
mod handshake;
mod lease;
mod log;
mod promise;
pub mod report;
mod rest;
pub mod rule;
mod sight;
mod state;
mod step;
mod world;
