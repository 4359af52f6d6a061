//! The executor against real processes.

mod common;
mod endings;
mod processes;
