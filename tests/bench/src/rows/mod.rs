//! The rows, each in a module of its own.

mod bytes;
mod chain;
mod core;
mod disk;
mod endurance;
mod fleet;
mod idle;
mod journal;
pub(crate) mod recovery;
mod resync;
mod start;
mod storm;
mod tasks;

use crate::figure::Figure;
use crate::place::Place;
use anyhow::{Context, Result};

/// All rows, in the order of the table.
pub(crate) const NAMES: [&str; 13] = [
    "tasks",
    "chain",
    "core",
    "journal",
    "bytes",
    "idle",
    "start",
    "recovery",
    "resync",
    "fleet",
    "disk",
    "storm",
    "endurance",
];

/// Measures a row.
pub(crate) fn measure(name: &'static str, place: &Place) -> Result<Vec<Figure>> {
    let figures = match name {
        "tasks" => tasks::measure(place),
        "chain" => chain::measure(place),
        "core" => core::measure(place),
        "journal" => journal::measure(place),
        "bytes" => bytes::measure(place),
        "idle" => idle::measure(place),
        "start" => start::measure(place),
        "recovery" => recovery::measure(place),
        "resync" => resync::measure(place),
        "fleet" => fleet::measure(place),
        "disk" => disk::measure(place),
        "endurance" => endurance::measure(place),
        _ => storm::measure(place),
    };
    figures.with_context(|| format!("row {name}"))
}
