//! `driftless schedule`: its commands, flags and help texts.

use super::Given;
use clap::{Args, Subcommand};
use shared::time::Unix;
use std::path::PathBuf;

/// Schedules: workflows that run by themselves.
#[derive(Subcommand, Debug)]
#[command(after_help = SCHEDULE_EXAMPLES)]
pub(crate) enum Schedule {
    /// Make a schedule of a workflow that has one. It is fired by the node that may run all its
    /// tasks, also without a link; else by the coordinator.
    Create(NewSchedule),
    /// List the schedules.
    List,
    /// Show one: its rules, its last slots, and why it waits.
    Get(ScheduleName),
    /// Show its next slots.
    Next {
        #[command(flatten)]
        name: ScheduleName,
        /// How many
        #[arg(default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
    },
    /// Fire nothing until `resume`; what runs goes on.
    Pause(ScheduleName),
    /// Fire again; slots that passed meanwhile do not.
    Resume(ScheduleName),
    /// Run it once, now.
    Trigger(ScheduleName),
    /// Run past slots, one after another; those that fired before do not run again.
    Backfill {
        #[command(flatten)]
        name: ScheduleName,
        /// From this instant on: 2026-11-24T03:00:00Z, or a date
        #[arg(long, value_parser = instant)]
        from: Unix,
        /// Up to this instant
        #[arg(long, value_parser = instant)]
        to: Unix,
    },
    /// Take it away; its runs go on.
    Delete(ScheduleName),
}

const SCHEDULE_EXAMPLES: &str = "\
Examples:
  driftless schedule create nightly.yaml --node gw-7
  driftless schedule next nightly 10
  driftless schedule backfill nightly --from 2026-11-01 --to 2026-11-08";

/// Which schedule.
#[derive(Args, Debug)]
pub(crate) struct ScheduleName {
    /// Its name, or a beginning of its id that only one has
    pub(crate) schedule: String,
}

/// A schedule to make.
#[derive(Args, Debug)]
pub(crate) struct NewSchedule {
    /// The specification, or - for standard input
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) given: Given,
    /// The node that fires it
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Make it the next revision of the schedule with the same name
    #[arg(long)]
    pub(crate) replace: bool,
}

fn instant(text: &str) -> Result<Unix, String> {
    shared::schedule::instant(text).map_err(|error| error.to_string())
}
