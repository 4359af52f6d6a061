//! Deterministic simulation of both cores: the real decisions of agents and coordinator on a
//! simulated network, clock, power supply, executor and disk, all from one seed.
//!
//! Invariant: the same seed gives the same trace hash, in every process and on every machine.
//! Nothing here reads a clock or a random source but the seed.

pub mod accidents;
pub mod authority;
pub mod backup;
pub mod bandwidth;
pub mod byzantine;
pub mod calm;
pub mod campaign;
pub mod carried;
pub mod check;
pub mod cloud;
pub mod cut;
pub mod deed;
pub mod disk;
pub mod drawing;
pub mod edge;
pub mod exec;
pub mod fault;
pub mod freeze;
pub mod machine;
pub mod measure;
pub mod medium;
pub mod memory;
pub mod model;
pub mod modes;
pub mod net;
pub mod operate;
pub mod people;
pub mod plan;
#[cfg(feature = "planted")]
pub mod planted;
pub mod queue;
pub mod record;
pub mod recorded;
pub mod rehearsal;
pub mod renewal;
pub mod report;
pub mod rng;
pub mod rot;
pub mod runner;
pub mod schedule;
pub mod shell;
pub mod shrink;
pub mod slots;
mod stop;
pub mod strike;
pub mod tap;
pub mod tell;
pub mod thinned;
pub mod trace;
pub mod truth;
pub mod wire;
pub mod workload;
pub mod world;
