//! The benchmarks: each measures the product beside its physical limit in the same run and judges
//! by the ratio. `docs/bench.md` says what each row measures.
//!
//! Invariant: rounds of ours and of the reference alternate, and medians are compared, so that a
//! busy machine disturbs both alike.

mod bare;
mod cloud;
mod figure;
mod gateway;
mod place;
mod proc;
mod raw;
mod rows;
mod spawn;
mod stats;
mod swarm;
mod virtually;
mod workload;

use anyhow::{Result, bail};
use clap::Parser;
use figure::Figure;
use place::Place;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measures the agent beside its physical limits.
#[derive(Debug, Parser)]
#[command(name = "bench", bin_name = "cargo xtask bench")]
struct Args {
    /// Rows: tasks chain core journal bytes idle start recovery resync fleet disk
    /// storm endurance; all if absent.
    names: Vec<String>,
    /// Print one JSON object a figure and line.
    #[arg(long)]
    json: bool,
    /// Rounds of ours and the reference, one after the other.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that an idle agent is watched.
    #[arg(long, default_value_t = 130)]
    watch: u64,
    /// Where to measure: a directory on a disk, that every user may pass through.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The gateway with 1,000,000 outcomes that `resync` and `fleet` start from: made in DIR if it
    /// is not there, and kept for the next time. Else it is made in each run.
    #[arg(long, value_name = "DIR")]
    filled: Option<PathBuf>,
    /// Days without a link in the row `endurance`; a day takes 96 s, mostly of waiting for the
    /// disk.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// Say on standard error how much CPU each thread used (`resync`).
    #[arg(long)]
    threads: bool,
    /// Only for the row `recovery` itself: fill the journal in DIR, then wait to be killed.
    #[arg(long, hide = true, value_name = "DIR")]
    fill: Option<PathBuf>,
    /// Only for the row `fleet` itself: serve bare QUIC connections until killed.
    #[arg(long, hide = true)]
    bare_server: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every goal was met.
fn run(args: &Args) -> Result<bool> {
    if let Some(dir) = &args.fill {
        return rows::recovery::fill(dir).map(|()| true);
    }
    if args.bare_server {
        return bare::serve().map(|()| true);
    }
    for name in &args.names {
        if !rows::NAMES.contains(&name.as_str()) {
            bail!("no row {name}; there are: {}", rows::NAMES.join(" "));
        }
    }
    let wanted = |name: &str| args.names.is_empty() || args.names.iter().any(|n| n == name);
    let place = Place::new(
        args.dir.as_deref(),
        args.rounds.max(1),
        Duration::from_secs(args.watch),
    )?;
    let place = place.with(args.filled.clone(), args.threads);
    let place = place.lasting(args.days);
    let mut all = Vec::new();
    for name in rows::NAMES.into_iter().filter(|name| wanted(name)) {
        let figures = rows::measure(name, &place)?;
        let mut out = std::io::stdout().lock();
        if args.json {
            for figure in &figures {
                writeln!(out, "{}", serde_json::to_string(figure)?)?;
            }
        } else if !figures.is_empty() {
            writeln!(out, "{}", figure::table(&figures, all.is_empty()))?;
        }
        all.extend(figures);
    }
    Ok(all.iter().all(|figure: &Figure| figure.met))
}
