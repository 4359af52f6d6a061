//! The command line.

use crate::campaign::Campaign;
use crate::fire::{self, Plan, Report};
use crate::target::{Form, Target};
use crate::targets::{all, by_name};
use crate::watch::{FAILED, HANG, Watch};
use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What production gives the threads on which it decodes.
const STACK: usize = 2 << 20;

/// Gives hostile input to every decoder. Fails if one panics, never ends, takes more memory or time
/// than its bound, or breaks a promise about what it decoded.
#[derive(Parser, Debug)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Word>,
    /// Only these; `hostile list` names all.
    targets: Vec<String>,
    /// Inputs of each target (a slow one takes a part of them).
    #[arg(long, default_value_t = 20_000)]
    inputs: u64,
    /// Time of all together; the inputs are as many as fit.
    #[arg(long)]
    seconds: Option<u64>,
    /// Mutants of each target at least, a slow one's too, also where its time or its share of the
    /// inputs is over.
    #[arg(long, value_name = "N", default_value_t = 0)]
    at_least: u64,
    /// Seed of the inputs.
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Targets at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Where inputs go that broke something.
    #[arg(long, default_value = "target/hostile-inputs")]
    keep: PathBuf,
    /// End with one line for programs.
    #[arg(long)]
    json: bool,
    /// Milliseconds after which an input never ends.
    #[arg(long, hide = true, default_value_t = HANG.as_millis() as u64)]
    hang: u64,
}

#[derive(Subcommand, Debug)]
enum Word {
    /// Names all targets.
    List,
    /// Gives one input again.
    Replay {
        /// The target.
        target: String,
        /// The input.
        file: PathBuf,
        /// Milliseconds after which it never ends.
        #[arg(long, hide = true, default_value_t = HANG.as_millis() as u64)]
        hang: u64,
    },
    /// One target, for the campaign.
    #[command(hide = true)]
    Child {
        target: String,
        #[arg(long)]
        inputs: u64,
        #[arg(long)]
        at_least: u64,
        #[arg(long)]
        millis: Option<u64>,
        #[arg(long)]
        start: u64,
        #[arg(long)]
        now: PathBuf,
        #[arg(long)]
        hang: u64,
    },
}

impl Args {
    /// Does what was asked for.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match &self.command {
            None => self.campaign(),
            Some(Word::List) => {
                for target in all() {
                    let bound = target.bound;
                    println!(
                        "{:<20} {} KiB + {} a byte, {:?}; {}",
                        target.name,
                        bound.fixed >> 10,
                        bound.per_byte,
                        bound.time,
                        target.fed_by
                    );
                }
                Ok(ExitCode::SUCCESS)
            }
            Some(Word::Replay { target, file, hang }) => {
                replay(named(target)?, file, Duration::from_millis(*hang))
            }
            Some(Word::Child {
                target,
                inputs,
                at_least,
                millis,
                start,
                now,
                hang,
            }) => {
                let plan = Plan {
                    inputs: *inputs,
                    at_least: *at_least,
                    time: millis.map(Duration::from_millis),
                    seed: *start,
                };
                let target = named(target)?;
                let watch = Watch::start(now, Duration::from_millis(*hang))?;
                let report = apart(move || fire::fire(target, plan, &watch))?;
                println!("{}", serde_json::to_string(&report)?);
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    fn campaign(&self) -> Result<ExitCode> {
        let targets = match self.targets.is_empty() {
            true => all(),
            false => self
                .targets
                .iter()
                .map(|n| named(n))
                .collect::<Result<_>>()?,
        };
        let campaign = Campaign {
            inputs: match self.seconds {
                Some(_) => u64::MAX,
                None => self.inputs,
            },
            at_least: self.at_least,
            time: self.seconds.map(Duration::from_secs),
            seed: self.start,
            jobs: self.jobs,
            keep: self.keep.clone(),
            hang: Duration::from_millis(self.hang),
        };
        let reports = campaign.run(&targets, &show)?;
        let inputs: u64 = reports.iter().map(|report| report.inputs).sum();
        let failures: usize = reports.iter().map(|report| report.failures.len()).sum();
        eprintln!(
            "{inputs} inputs to {} targets, seed {}, {failures} failures",
            reports.len(),
            self.start
        );
        if self.json {
            println!("{}", serde_json::to_string(&reports)?);
        }
        Ok(match failures {
            0 => ExitCode::SUCCESS,
            _ => FAILED.into(),
        })
    }
}

fn named(name: &str) -> Result<&'static Target> {
    by_name(name).with_context(|| format!("there is no target '{name}'; `hostile list` names all"))
}

/// On a thread of the size that decoders have.
fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work)?;
    let failed = |_| anyhow::anyhow!("the harness itself failed: {:?}", fire::panicked());
    thread.join().map_err(failed)
}

fn replay(target: &'static Target, file: &PathBuf, hang: Duration) -> Result<ExitCode> {
    let input = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let dir = tempfile::tempdir()?;
    let watch = Watch::start(&dir.path().join("now"), hang)?;
    if target.form == Form::Text {
        eprintln!("{}", String::from_utf8_lossy(&input));
    }
    let verdict = apart(move || fire::replay(target, &input, &watch))?;
    Ok(match verdict {
        Ok(class) => {
            eprintln!("{class}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("FAILED {text}");
            FAILED.into()
        }
    })
}

/// One line a target, and what broke.
fn show(report: &Report) {
    eprintln!(
        "{:<20} {:>9} inputs, {:>4.1}% decoded, {:>4} outcomes, {:>5} kept, \
         {:>8} KiB ({:>3}% of the bound), slowest {:>7} us, {:>6.1} s",
        report.target,
        report.inputs,
        report.good as f64 * 100.0 / report.inputs.max(1) as f64,
        report.outcomes,
        report.corpus,
        report.peak >> 10,
        report.of_bound,
        report.slowest_us,
        report.took_ms as f64 / 1000.0
    );
    for (failure, file) in report.failures.iter().zip(&report.files) {
        let text: String = failure.text.chars().take(2000).collect();
        eprintln!("FAILED {}: {text}", report.target);
        eprintln!(
            "  repeat it with: cargo xtask hostile replay {} {file}",
            report.target
        );
    }
}
