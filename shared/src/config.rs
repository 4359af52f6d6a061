//! Configuration of both programs: a table of keys each, and values from flags, the environment, a
//! TOML file and the defaults, in this order. Every mistake is found at once, with its place and
//! its mend. Durations and sizes are written as in a specification.
//!
//! Invariant: no text makes this panic; a value that is not understood changes nothing.

mod file;
mod key;
mod layers;
pub mod scheduler;

pub use key::{Key, Kind, Value};
pub use layers::{Flag, From, Reader, Settings};

/// Bytes of a configuration file, at most.
pub const FILE_BYTES: usize = 1 << 20;
