//! Plays scenarios of layer 4 from any seeds; `docs/simulation.md` says what they are.

use clap::Parser;
use e2e::chaos::{Fault, Plan, play_all};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Plays scenarios of the built binaries under faults: cut and poor links, kill -9, processes that
/// stand still, full disks, clocks that step.
#[derive(Debug, Parser)]
#[command(after_help = "Build the programs first: cargo build --workspace")]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// How many at once.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Only prints the plans.
    #[arg(long)]
    plan: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seeds = args.seed..args.seed.saturating_add(args.count);
    if args.plan {
        seeds.for_each(|seed| print!("{}", Plan::draw(seed)));
        return ExitCode::SUCCESS;
    }
    let (mut failed, mut struck) = (Vec::new(), BTreeMap::<Fault, [usize; 2]>::new());
    play_all(seeds, args.jobs.max(1), |outcome| {
        println!("{}", outcome.report());
        for (fault, at_work) in outcome.struck() {
            let counts = struck.entry(fault).or_default();
            counts[0] += 1;
            counts[1] += usize::from(at_work);
        }
        if !outcome.broken.is_empty() {
            failed.push(outcome.plan.seed);
        }
    });
    println!("{:>17} {:>6} {:>13}", "fault", "drawn", "during work");
    for fault in Fault::ALL {
        let [drawn, at_work] = struck.get(&fault).copied().unwrap_or_default();
        println!("{:>17} {drawn:>6} {at_work:>13}", fault.name());
    }
    if failed.is_empty() {
        println!("{} seeds, none failed", args.count);
        return ExitCode::SUCCESS;
    }
    println!("{} seeds, failed: {failed:?}", args.count);
    ExitCode::FAILURE
}
