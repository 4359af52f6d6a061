//! The engine with agents played by hand: each rule of the protocol on the coordinator's side.
//! `cloud-store` runs the same modules over redb.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod apart;
mod asking;
mod balance;
mod bounds;
mod byzantine;
mod common;
mod details;
mod drawn_again;
mod exchange;
mod forgetting;
mod inventories;
mod limits;
mod logs;
mod losses;
mod medium;
mod moves;
mod owners;
mod plans;
mod recollect;
mod record;
mod refusals;
mod restore;
mod retries;
mod runs;
mod schedules;
mod sessions;
mod settings;
mod skew;
mod told;
mod window;
