//! `cargo xtask sim --layer 3`: many seeds on layer 3, or one again. See `docs/simulation.md`.

use clap::{Parser, Subcommand};
use sim::cut::Cut;
use sim::report::{Report, complaint, core_seconds};
use sim::runner::{self, Verdict};
use sim::trace::Sink;
use stack::{Figures, plan, run};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// Simulation with the real link of the shells. Without a command it runs many seeds.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    run: Seeds,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Which seeds to run.
#[derive(clap::Args)]
struct Seeds {
    /// How many.
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Always 3.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=3))]
    layer: u8,
    /// Worker threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// End with one line for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds.
    Run(Seeds),
    /// Run one seed again and print what happened.
    Replay {
        /// The seed.
        seed: u64,
        /// Always 3.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=3))]
        layer: u8,
        /// Draw what happened into this file, as a page for browsers.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// Print only the hash of the trace and of all datagrams.
        #[arg(long)]
        hash: bool,
        /// Without what this text names.
        #[arg(long, default_value = "")]
        cut: Cut,
    },
}

/// Ends the process over a world in which a step does not end.
fn endless(seed: u64) {
    eprintln!("seed {seed}: bounded: a step does not end");
    eprintln!("  cargo xtask sim replay {seed} --layer 3");
    std::process::exit(1);
}

fn run_seeds(seeds: &Seeds) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    let figures: Mutex<Figures> = Mutex::default();
    let begun = core_seconds();
    let mut each = |verdict: Verdict| {
        if !verdict.violations.is_empty() {
            eprintln!("{}", complaint(&verdict));
        }
        report.add(&verdict);
    };
    let one = |seed, pulse: &Arc<_>| {
        let ran = run(plan(seed), None, Arc::clone(pulse), None);
        let mut sum = figures.lock().unwrap_or_else(PoisonError::into_inner);
        sum.add(ran.figures);
        ran.verdict
    };
    runner::watched(seeds.threads, &endless, |pulses| {
        runner::run_each((seeds.start, seeds.seeds), pulses, &one, &mut each);
    });
    let line = report.line(core_seconds() - begun);
    println!("{}", report.faults());
    let figures = *figures.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{figures}");
    println!(
        "{} seeds on layer 3, {} failed, {} agent-hours, {} attempts, {} core-seconds",
        line.seeds, line.violations, line.agent_hours, line.attempts, line.core_seconds
    );
    if seeds.json {
        println!("{}", serde_json::to_string(&line)?);
    }
    Ok(match report.failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn replay(seed: u64, cut: &Cut, html: Option<PathBuf>, hash: bool) -> anyhow::Result<ExitCode> {
    // a reader that has seen enough closes the pipe; the seed runs on without it
    let out: Sink = Box::new(|line| drop(writeln!(std::io::stdout(), "{line}")));
    let lines = (!hash).then_some(out);
    let ran = run(plan(seed).without(cut), lines, Arc::default(), None);
    if let (Some(file), Some(drawing)) = (html, &ran.drawing) {
        std::fs::write(file, drawing.html())?;
    }
    if !hash {
        println!("{}", ran.figures);
    }
    println!("{:016x}", ran.verdict.hash);
    if ran.verdict.violations.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{}", complaint(&ran.verdict));
    Ok(ExitCode::FAILURE)
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match args.command.unwrap_or(Command::Run(args.run)) {
        Command::Run(seeds) => run_seeds(&seeds),
        Command::Replay {
            seed,
            cut,
            html,
            hash,
            ..
        } => replay(seed, &cut, html, hash),
    }
}
