//! Layer 3 of the simulator: the world of `sim`, in which the real link of the shells carries what
//! is said. The agent's link task and the coordinator's door and sessions run with real quinn and
//! real mutual TLS, on a network and a time that are simulated.
//!
//! Invariant: the same seed gives the same hash, over the world's trace and over every datagram's
//! time, ends, length and fate. Keys and connection ids are the system's random numbers: what is
//! encrypted differs from run to run, and nothing that is hashed depends on it.

mod carrier;
mod datagrams;
mod pace;
mod run;
mod turns;

pub use carrier::{Figures, Mistake, Shells};
pub use run::{Ran, plan, run, settled};
