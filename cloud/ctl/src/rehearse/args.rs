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
  driftless rehearse flow.yaml --nodes fleet.yaml --link-down 8h --html report.html
  driftless rehearse flow.yaml --nodes fleet.yaml --faults faults.yaml --seeds 1000
  driftless rehearse nightly.yaml --nodes fleet.yaml --days 30 --link-down 8h --outages 3 \\
      --expect 'skipped=0'                                            slots of a schedule

The workflow runs on the real coordinator and agents in a simulated world: no task is started.
What a task takes is the `estimate` of the specification, what --takes says, or with --history the
median of its last runs, else 1 s; each attempt draws from half of it to half as much again. Each
seed draws when what strikes; the same seed does the same again. docs/rehearsal.md has the keys of
fleet.yaml and faults.yaml, and what is not rehearsed.
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
    /// Flags in a file, those under Faults and from --telemetry-budget to --expect: `link-down:
    /// 2h..10h`; what is given here counts instead
    #[arg(long, value_name = "FAULTS")]
    pub(crate) faults: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// Ask the coordinator what tasks took in the last runs
    #[arg(long)]
    pub(crate) history: bool,
    /// Write a page for browsers: the summary, how the seeds spread, the worst one drawn
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print the timeline of the worst seed as well
    #[arg(long, conflicts_with = "json")]
    pub(crate) timeline: bool,
}

/// What is feared and asked: everything of it may stand in a file as well.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Asked {
    /// How long the link of a gateway is down: 8h, or 2h..10h
    #[arg(long, value_name = "LENGTH", value_parser = parse_lengths, help_heading = "Faults")]
    pub(crate) link_down: Option<(Span, Span)>,
    /// How often the link of each gateway goes down [default: 1]
    #[arg(long, value_name = "N", value_parser = few(), help_heading = "Faults")]
    pub(crate) outages: Option<u32>,
    /// How often each gateway loses its power, for up to 10m
    #[arg(long, value_name = "N", value_parser = few(), help_heading = "Faults")]
    pub(crate) power_cut: Option<u32>,
    /// How often the agent of each gateway is killed
    #[arg(long, value_name = "N", value_parser = few(), help_heading = "Faults")]
    pub(crate) agent_kill: Option<u32>,
    /// How often the coordinator is killed, for up to 10m
    #[arg(long, value_name = "N", value_parser = few(), help_heading = "Faults")]
    pub(crate) coordinator_kill: Option<u32>,
    /// Attempts of a hundred that fail
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100),
          help_heading = "Faults")]
    pub(crate) task_fails: Option<u32>,
    /// Faults strike within so long of the submission [default: twice what the run takes without]
    #[arg(long, value_name = "LENGTH", value_parser = parse_span, help_heading = "Faults")]
    pub(crate) within: Option<Span>,
    /// What the store of a gateway may take: 2GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Faults")]
    pub(crate) disk: Option<u64>,
    /// What a gateway keeps of what it measures of itself [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) telemetry_budget: Option<u64>,
    /// What each link carries in each direction while it is up: bits a second [default: 1000000]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) bandwidth: Option<u64>,
    /// What a task takes (may be repeated)
    #[arg(long, value_name = "TASK=LENGTH", value_parser = parse_pair)]
    pub(crate) takes: Vec<(String, String)>,
    /// How long a person takes to answer what a task asks: 1h, or 10m..2h [default: 10m..2h]
    #[arg(long, value_name = "LENGTH", value_parser = parse_lengths)]
    pub(crate) answers: Option<(Span, Span)>,
    /// A run is not waited for longer than so many days [default: 30]; of a workflow with a
    /// schedule its slots in so many days run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=365))]
    pub(crate) days: Option<u64>,
    /// How many seeds [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) seeds: Option<u64>,
    /// The first seed [default: 0]
    #[arg(long, value_name = "SEED")]
    pub(crate) start: Option<u64>,
    /// What must hold (may be repeated): succeeded=100%, median<=4h, longest<=12h, late=0,
    /// skipped=0, backlog<=1000, store<=64MiB, attempts<=50, unthinned=100%
    #[arg(long, value_name = "CONDITION", value_parser = Condition::parse)]
    pub(crate) expect: Vec<Condition>,
}

impl Asked {
    /// What is not given here counts as it is in `file`.
    #[must_use]
    pub(crate) fn or(self, file: Self) -> Self {
        fn some<T>(here: Vec<T>, there: Vec<T>) -> Vec<T> {
            if here.is_empty() { there } else { here }
        }
        Self {
            link_down: self.link_down.or(file.link_down),
            outages: self.outages.or(file.outages),
            power_cut: self.power_cut.or(file.power_cut),
            agent_kill: self.agent_kill.or(file.agent_kill),
            coordinator_kill: self.coordinator_kill.or(file.coordinator_kill),
            task_fails: self.task_fails.or(file.task_fails),
            within: self.within.or(file.within),
            disk: self.disk.or(file.disk),
            telemetry_budget: self.telemetry_budget.or(file.telemetry_budget),
            bandwidth: self.bandwidth.or(file.bandwidth),
            takes: some(self.takes, file.takes),
            answers: self.answers.or(file.answers),
            days: self.days.or(file.days),
            seeds: self.seeds.or(file.seeds),
            start: self.start.or(file.start),
            expect: some(self.expect, file.expect),
        }
    }

    /// Bits a second.
    pub(crate) fn bandwidth(&self) -> u64 {
        self.bandwidth.unwrap_or(1_000_000)
    }

    /// Bytes that telemetry may take at a gateway.
    pub(crate) fn telemetry_budget(&self) -> u64 {
        self.telemetry_budget.unwrap_or(8 << 20)
    }

    /// How many seeds.
    pub(crate) fn seeds(&self) -> u64 {
        self.seeds.unwrap_or(100)
    }

    /// The first seed.
    pub(crate) fn start(&self) -> u64 {
        self.start.unwrap_or(0)
    }
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
