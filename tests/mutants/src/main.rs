//! `cargo xtask mutants`: see `docs/mutants.md`.

use anyhow::{Context as _, Result};
use clap::Parser;
use mutants::campaign::{self, Wanted};
use mutants::project::Project;
use std::path::PathBuf;
use std::process::ExitCode;

/// Small mistakes in the two cores and what they share, one at a time: does any check notice?
#[derive(Parser)]
#[command(bin_name = "cargo xtask mutants", version, after_help = EXIT_CODES)]
struct Args {
    /// How many mutants are drawn; more where there are more modules.
    #[arg(long, default_value_t = 300)]
    sample: usize,
    /// The seed of the draw.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only those of the sample whose name holds this text.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How many seeds of the simulator a mutant must pass that no test notices.
    #[arg(long, value_name = "K", default_value_t = 60)]
    sim_seeds: usize,
    /// Checks that run at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Judge again what the ledger knows.
    #[arg(long)]
    again: bool,
    /// Believe the ledger's kills although the code has changed since.
    #[arg(long)]
    keep: bool,
    /// Judge nothing: tell what the ledger knows, whatever has changed since.
    #[arg(long)]
    told: bool,
    /// List the sample and end.
    #[arg(long)]
    list: bool,
    /// Write the tables into this page (docs/mutants.md), between its marks.
    #[arg(long, value_name = "PAGE")]
    out: Option<PathBuf>,
}

const EXIT_CODES: &str = "\
Exit codes: 0 all is as it must be; 1 fewer mutants were judged than asked for (--only asks for no
number), fewer than 90 % of them were caught, or a survivor has no explanation; 2 it could not be
done";

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let root = std::env::current_dir().context("cannot tell the current folder")?;
    let project = Project::driftless(&root);
    let wanted = Wanted {
        sample: args.sample,
        seed: args.seed,
        only: args.only.clone(),
        sim_seeds: args.sim_seeds,
        jobs: args.jobs,
        again: args.again,
        keep: args.keep,
        told: args.told,
        explained: root.join("tests/mutants/survivors.toml"),
    };
    if args.list {
        for mutant in campaign::sample(&project, &wanted)? {
            println!("{}:{} {}", mutant.id.file, mutant.line, mutant.id);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = campaign::run(&project, &wanted)?;
    print!("{}", outcome.told());
    if let Some(page) = &args.out {
        outcome.write(page)?;
    }
    let short = outcome.short();
    for what in &short {
        eprintln!("falls short: {what}");
    }
    Ok(match short.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
