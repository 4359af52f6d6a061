//! `cargo xtask model`: see `docs/model.md`.

use clap::Parser;
use model::report::{self, How, Report};
use model::rule::{Rule, Rules};
use serde::Serialize;
use std::process::ExitCode;

/// Checks the protocol's model exhaustively. Without `--without` no promise may break; with it,
/// one must.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Take a rule out and print the shortest history that breaks a promise.
    #[arg(long, value_enum)]
    without: Option<Rule>,
    /// Take each rule out in turn.
    #[arg(long, conflicts_with = "without")]
    each: bool,
    /// One accident more in each configuration, more time for leases: takes hours and memory.
    #[arg(long)]
    deep: bool,
    /// Only this configuration of the complete model.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// States after which a configuration is given up as incomplete.
    #[arg(long, default_value_t = 200_000_000)]
    limit: usize,
    /// Worker threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// End with one line for programs.
    #[arg(long)]
    json: bool,
}

/// The line for programs.
#[derive(Serialize)]
struct Line {
    states: usize,
    depth: usize,
    good: bool,
    configs: Vec<Report>,
}

/// The complete model: every configuration must be good.
fn complete(args: &Args, how: How) -> (Vec<Report>, bool) {
    let mut names = report::names();
    names.retain(|name| args.only.as_ref().is_none_or(|only| only == name));
    let show = |name| {
        let report = report::run(name, how);
        report.inspect(|report| println!("{}", report.text()))
    };
    let reports: Vec<Report> = names.into_iter().filter_map(show).collect();
    let good = !reports.is_empty() && reports.iter().all(Report::is_good);
    (reports, good)
}

/// Without some rules: each must lead to a broken promise.
fn weaker(rules: &[Rule], how: How) -> (Vec<Report>, bool) {
    let mut reports = Vec::new();
    let mut good = true;
    for rule in rules {
        println!("without {rule:?}:");
        match report::counterexample(*rule, how) {
            Some(report) => {
                println!("{}\n", report.text());
                reports.push(report);
            }
            None => {
                println!("NO promise is broken: the model does not need this rule\n");
                good = false;
            }
        }
    }
    (reports, good)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let how = How {
        rules: Rules::all(),
        deep: args.deep,
        threads: args.threads.max(1),
        limit: args.limit,
    };
    let (configs, good) = match args.without {
        Some(rule) => weaker(&[rule], how),
        None if args.each => weaker(report::rules(), how),
        None => complete(&args, how),
    };
    let states = configs.iter().map(|report| report.states).sum();
    let depth = configs.iter().map(|report| report.depth).max().unwrap_or(0);
    println!(
        "{states} states in {} checks, depth at most {depth}",
        configs.len()
    );
    if args.json {
        let line = Line {
            states,
            depth,
            good,
            configs,
        };
        match serde_json::to_string(&line) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("the line for programs cannot be written: {error}"),
        }
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
