//! The engine with agents played by hand: each rule of the protocol on the coordinator's side.

mod common;
mod forgetting;
mod logs;
mod moves;
mod runs;
mod sessions;
