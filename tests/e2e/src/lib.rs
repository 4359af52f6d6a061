//! What the end-to-end tests share: they start the built binaries as real processes, each test in a
//! temporary directory of its own, and look at them from outside only.

pub mod agent;
pub mod chaos;
pub mod clock;
pub mod disk;
pub mod fleet;
pub mod sandbox;
pub mod systemd;
pub mod unit;
