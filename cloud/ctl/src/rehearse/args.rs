//! The arguments of `driftless rehearse`.

use super::expect::Condition;
use crate::commands::spec::Given;
use crate::text::{parse_pair, parse_span};
use clap::Args;
use shared::spec;
use shared::time::Span;
use std::path::PathBuf;

/// Rehearse a workflow on an imagined fleet, under the faults that you fear, in simulated time.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless rehearse flow.yaml --nodes fleet.yaml
  driftless rehearse flow.yaml --nodes fleet.yaml --link-down 2h..10h --power-cut 3 --seeds 200
  driftless rehearse flow.yaml --nodes fleet.yaml --link-down 8h --expect 'succeeded=100%' \\
      --expect 'longest<=12h'                                         for a CI
  driftless rehearse flow.yaml --nodes fleet.yaml --link-down 8h --html worst.html

The workflow runs on the real coordinator and agents in a simulated world: no task is started.
What a task takes is the `estimate` of the specification, what --takes says, or with --history the
median of its last runs, else 1 s; each attempt draws from half of it to half as much again. Each
seed draws when what strikes; the same seed does the same again. docs/rehearsal.md has the keys of
fleet.yaml, and what is not rehearsed.
Exit codes: 0 every condition of --expect is met (without any: every seed succeeded), 1 not")]
pub(crate) struct Rehearse {
    /// The specification (YAML); - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) given: Given,
    /// The fleet (YAML): `nodes: [{name: gw, count: 3, labels: {site: north}}]`
    #[arg(long, value_name = "FLEET")]
    pub(crate) nodes: PathBuf,
    /// How long the link of a gateway is down: 8h, or 2h..10h
    #[arg(long, value_name = "LENGTH", value_parser = parse_lengths, help_heading = "Faults")]
    pub(crate) link_down: Option<(Span, Span)>,
    /// How often the link of each gateway goes down
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = few(), help_heading = "Faults")]
    pub(crate) outages: u32,
    /// How often each gateway loses its power, for up to 10m
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = few(), help_heading = "Faults")]
    pub(crate) power_cut: u32,
    /// How often the agent of each gateway is killed
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = few(), help_heading = "Faults")]
    pub(crate) agent_kill: u32,
    /// How often the coordinator is killed, for up to 10m
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = few(), help_heading = "Faults")]
    pub(crate) coordinator_kill: u32,
    /// Attempts of a hundred that fail
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=100), help_heading = "Faults")]
    pub(crate) task_fails: u32,
    /// Faults strike within so long of the submission [default: twice what the run takes without]
    #[arg(long, value_name = "LENGTH", value_parser = parse_span, help_heading = "Faults")]
    pub(crate) within: Option<Span>,
    /// What the store of a gateway may take: 2GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) disk: Option<u64>,
    /// What the link carries when it is back, for how long a backlog takes: bits a second
    #[arg(long, value_name = "BITS", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) bandwidth: u64,
    /// What a task takes (may be repeated)
    #[arg(long, value_name = "TASK=LENGTH", value_parser = parse_pair)]
    pub(crate) takes: Vec<(String, String)>,
    /// Ask the coordinator what tasks took in the last runs
    #[arg(long)]
    pub(crate) history: bool,
    /// A run is not waited for longer than so many days
    #[arg(long, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=365))]
    pub(crate) days: u64,
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) start: u64,
    /// What must hold (may be repeated): succeeded=100%, median<=4h, longest<=12h, backlog<=1000,
    /// store<=64MiB, attempts<=50
    #[arg(long, value_name = "CONDITION", value_parser = Condition::parse)]
    pub(crate) expect: Vec<Condition>,
    /// Draw the worst seed as a page for browsers
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print the timeline of the worst seed as well
    #[arg(long, conflicts_with = "json")]
    pub(crate) timeline: bool,
}

fn few() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=1000)
}

/// `8h`, or the shortest and the longest: `2h..10h`.
fn parse_lengths(text: &str) -> Result<(Span, Span), String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let (least, most) = (parse_span(least)?, parse_span(most)?);
    if least.0 == 0 || least > most {
        return Err("write the shortest first, longer than nothing: 2h..10h".to_owned());
    }
    Ok((least, most))
}

fn parse_size(text: &str) -> Result<u64, String> {
    spec::size(text).map_err(|(what, mend)| format!("{what}: {mend}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_one_or_two() {
        let hours = |n: u64| Span::secs(n * 3600);
        assert_eq!(parse_lengths("8h"), Ok((hours(8), hours(8))));
        assert_eq!(parse_lengths("2h..10h"), Ok((hours(2), hours(10))));
        for wrong in ["", "..", "10h..2h", "0s", "2h..", "2..3", "2h...3h"] {
            let _ = parse_lengths(wrong).unwrap_err();
        }
    }
}
