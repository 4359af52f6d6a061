//! Tests of the agent's core through its driver, on a store in memory.

mod ahead;
mod asking;
mod batch;
mod damage;
mod env;
mod inventory;
mod limits;
mod link;
mod marks;
mod pressed;
mod reading;
mod replay;
mod rest;
mod returns;
mod rules;
mod schedules;
mod settings;
mod sync;
mod tidy;
