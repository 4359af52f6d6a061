//! What both programs read from the machine they run on: their configuration, and the room on the
//! disk. `shared` says what these mean, and does no I/O itself.

mod config;
mod disk;

pub use config::Sources;
pub use disk::room;
