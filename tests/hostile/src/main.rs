//! `cargo xtask hostile`: hostile input for every decoder, see `docs/hostile.md`.
//!
//! Owns how inputs are made, given and watched; the decoders are those of the other packages.

mod alloc;
mod campaign;
mod cli;
mod fire;
#[path = "../../../shared/tests/compat/samples.rs"]
#[expect(dead_code, reason = "the tests of compatibility use all of it")]
mod first_release;
mod mutate;
mod rng;
mod samples;
mod target;
mod targets;
mod watch;

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static MEMORY: alloc::Counting = alloc::Counting;

fn main() -> ExitCode {
    match cli::Args::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
