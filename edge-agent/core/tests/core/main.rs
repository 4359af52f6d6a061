//! Tests of the agent's core through its driver, on a store in memory.

mod env;
mod replay;
mod rules;
