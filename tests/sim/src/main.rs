//! `sim run` and `sim replay`: see `docs/simulation.md`.

use clap::{Parser, Subcommand};
use sim::plan::Layer;
use sim::report::{Report, complaint};
use sim::trace::Sink;
use std::io::Write as _;
use std::process::ExitCode;

/// Deterministic simulation of both cores. Without a command it runs many seeds.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    run: Seeds,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Which seeds to run, and how.
#[derive(clap::Args)]
struct Seeds {
    /// How many: 200, or 2,000 with `--planted`.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// 1: stores in memory; 2: redb on simulated disks; absent: both, every third seed on disks.
    #[arg(long)]
    layer: Option<u8>,
    /// Worker threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// End with one line for programs; with `--planted`, one for each mistake.
    #[arg(long)]
    json: bool,
    /// Switch mistakes in the cores on, one after the other, and count the seeds until a named
    /// invariant notices it: all, or the one named.
    #[arg(long, value_name = "MISTAKE", num_args = 0..=1, default_missing_value = "all")]
    planted: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds.
    Run(Seeds),
    /// Run one seed again and print what happened.
    Replay {
        /// The seed.
        seed: u64,
        /// 1 or 2; absent: as `run` would choose.
        #[arg(long)]
        layer: Option<u8>,
        /// Print only the hash of the trace.
        #[arg(long)]
        hash: bool,
    },
}

fn layer(number: Option<u8>) -> Result<Option<Layer>, String> {
    match number {
        None => Ok(None),
        Some(1) => Ok(Some(Layer::Cores)),
        Some(2) => Ok(Some(Layer::Disk)),
        Some(other) => Err(format!(
            "layer {other} is not simulated here; layers are 1 and 2"
        )),
    }
}

fn core_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn run(start: u64, seeds: u64, layer: Option<Layer>, threads: usize, json: bool) -> ExitCode {
    let mut report = Report::default();
    let begun = core_seconds();
    let endless = |seed| {
        let layer = sim::runner::layer_of(seed, layer).number();
        eprintln!("seed {seed}: bounded: a step does not end");
        eprintln!("  cargo xtask sim replay {seed} --layer {layer}");
        std::process::exit(1);
    };
    let mut each = |verdict: sim::runner::Verdict| {
        if !verdict.violations.is_empty() {
            eprintln!("{}", complaint(&verdict));
        }
        report.add(&verdict);
        if report.seeds % 100 == 0 {
            eprintln!(
                "{} of {seeds} seeds, {} failed",
                report.seeds,
                report.failed.len()
            );
        }
    };
    sim::runner::run_many(start, seeds, layer, threads, &mut each, &endless);
    let line = report.line(core_seconds() - begun);
    println!("{}", report.table());
    println!(
        "{} seeds, {} failed, {} agent-hours, {} attempts, {} core-seconds",
        line.seeds, line.violations, line.agent_hours, line.attempts, line.core_seconds
    );
    if json {
        match serde_json::to_string(&line) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("the line for programs cannot be written: {error}"),
        }
    }
    if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn replay(seed: u64, layer: Option<Layer>, hash: bool) -> ExitCode {
    let layer = sim::runner::layer_of(seed, layer);
    // a reader that has seen enough closes the pipe; the seed runs on without it
    let sink: Sink = Box::new(|line| drop(writeln!(std::io::stdout(), "{line}")));
    let verdict = sim::runner::run_seed(seed, layer, (!hash).then_some(sink));
    println!("{:016x}", verdict.hash);
    if verdict.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        eprintln!("{}", complaint(&verdict));
        ExitCode::FAILURE
    }
}

/// Seeds without faults that each planted mistake must pass.
#[cfg(feature = "planted")]
const CALM: u64 = 20;

#[cfg(feature = "planted")]
fn planted(which: &str, seeds: &Seeds, layer: Option<Layer>) -> Result<ExitCode, String> {
    use shared::planted::Mistake;
    let wanted = |one: &&Mistake| which == "all" || one.name() == which;
    let mistakes: Vec<Mistake> = Mistake::ALL.iter().filter(wanted).copied().collect();
    if mistakes.is_empty() {
        let names: Vec<_> = Mistake::ALL.iter().map(|one| one.name()).collect();
        return Err(format!(
            "no mistake {which}; there are: {}",
            names.join(", ")
        ));
    }
    let range = (seeds.start, seeds.seeds.unwrap_or(2000));
    let mut rows = Vec::new();
    for mistake in mistakes {
        let row = sim::planted::measure(mistake, range, CALM, layer, seeds.threads);
        if seeds.json {
            println!(
                "{}",
                serde_json::to_string(&row).map_err(|e| e.to_string())?
            );
        }
        eprintln!(
            "{}: {} after {} seeds",
            row.planted,
            row.invariant.unwrap_or("nobody"),
            row.seeds
        );
        rows.push(row);
    }
    if !seeds.json {
        println!("{}", sim::planted::table(&rows));
    }
    Ok(match rows.iter().all(|row| row.caught) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

#[cfg(not(feature = "planted"))]
fn planted(_: &str, _: &Seeds, _: Option<Layer>) -> Result<ExitCode, String> {
    Err(
        "this simulator was built without mistakes: `cargo xtask sim --planted` builds one with"
            .to_owned(),
    )
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.command.unwrap_or(Command::Run(args.run)) {
        Command::Run(seeds) => layer(seeds.layer).and_then(|layer| match &seeds.planted {
            Some(which) => planted(which, &seeds, layer),
            None => {
                let count = seeds.seeds.unwrap_or(200);
                Ok(run(seeds.start, count, layer, seeds.threads, seeds.json))
            }
        }),
        Command::Replay {
            seed,
            layer: number,
            hash,
        } => layer(number).map(|layer| replay(seed, layer, hash)),
    };
    outcome.unwrap_or_else(|why| {
        eprintln!("{why}");
        ExitCode::from(2)
    })
}
