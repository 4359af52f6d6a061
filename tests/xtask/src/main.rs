//! The gates and chores of this repository:
//! `cargo xtask test|sim|model|hostile|mutants|bench|audit|tidy|ci`.
//!
//! Owns the command line and nothing else; each command lives in a module of its own. Talk goes to
//! stderr, so that the `--json` output of the simulator and the benchmarks stays clean on stdout.

mod audit;
mod gate;
mod steps;
mod system;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use workspace::Workspace;

/// Seeds that `test` simulates: a smoke run of a few minutes; any number by `sim --seeds`.
const SMOKE_SEEDS: &str = "300";
/// Seeds that `ci` simulates: nine minutes of two cores.
const CI_SEEDS: &str = "1500";

fn main() -> ExitCode {
    match run(&cli().get_matches()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let (name, args) = matches.subcommand().expect("clap requires a subcommand");
    match name {
        "sim" => return gate::sim(&workspace, &passed_through(args)),
        "model" => return gate::model(&workspace, &passed_through(args)),
        "hostile" => return gate::hostile(&workspace, &passed_through(args)),
        "mutants" => return gate::mutants(&workspace, &passed_through(args)),
        "bench" => return gate::bench(&workspace, &passed_through(args)),
        "test" => gate::test(&workspace, seeds(args))?,
        "ci" => gate::ci(&workspace, seeds(args))?,
        "audit" => audit::run(&workspace)?,
        "tidy" => {
            if args.get_flag("fix") {
                tidy::fix(workspace.root())?;
            }
            tidy::run(workspace.root())?;
        }
        other => unreachable!("clap accepted the unknown subcommand {other}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn seeds(args: &ArgMatches) -> u64 {
    *args.get_one("seeds").expect("--seeds has a default")
}

fn passed_through(args: &ArgMatches) -> Vec<&str> {
    args.get_many::<String>("args")
        .unwrap_or_default()
        .map(String::as_str)
        .collect()
}

fn cli() -> Command {
    Command::new("xtask")
        .bin_name("cargo xtask")
        .about("Gates and chores of this repository")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("test")
                .about("Every test, then the model and a smoke run of the simulator")
                .arg(seeds_arg(SMOKE_SEEDS)),
        )
        .subcommand(
            Command::new("ci")
                .about("The whole gate: format, tidy, audit, clippy, docs, test")
                .arg(seeds_arg(CI_SEEDS)),
        )
        .subcommand(
            forwarding("sim")
                .about("The simulator: --seeds N, replay SEED, shrink SEED; see --help"),
        )
        .subcommand(forwarding("model").about("The protocol's model: --without RULE; see --help"))
        .subcommand(
            forwarding("hostile").about("Hostile input: [TARGET...] --inputs N; see --help"),
        )
        .subcommand(
            forwarding("mutants").about("Mutants of the cores: --sample N --seed S; see --help"),
        )
        .subcommand(forwarding("bench").about("The benchmarks: [NAME...] [--json]; see --help"))
        .subcommand(Command::new("audit").about("Licences, sources, banned crates, layers"))
        .subcommand(
            Command::new("tidy")
                .about("Style rules that no other tool checks")
                .arg(
                    Arg::new("fix")
                        .long("fix")
                        .help("first break the comments that are too wide")
                        .action(ArgAction::SetTrue),
                ),
        )
}

fn seeds_arg(default: &'static str) -> Arg {
    Arg::new("seeds")
        .long("seeds")
        .value_name("N")
        .help("how many seeds the simulator runs after the tests")
        .default_value(default)
        .value_parser(value_parser!(u64))
}

/// A command whose arguments, `--help` among them, belong to the program that it starts.
fn forwarding(name: &'static str) -> Command {
    Command::new(name).disable_help_flag(true).arg(
        Arg::new("args")
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true)
            .hide(true),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        cli().debug_assert();
    }

    #[test]
    fn sim_model_and_bench_forward_everything() {
        for line in [
            "xtask sim --seeds 5 --start 7 --layer 1 --json",
            "xtask sim replay 42",
            "xtask sim replay 42 --layer 1 --cut gw2-3,run1,half7x4 --html 42.html",
            "xtask sim shrink 42 --layer 2",
            "xtask sim --help",
            "xtask model --without hold --json",
            "xtask hostile up down --inputs 5 --json",
            "xtask mutants --sample 300 --seed 1 --only shared/src/log.rs --out page.md",
            "xtask bench chain core --json",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let matches = cli().try_get_matches_from(&words).expect(line);
            let (_, args) = matches.subcommand().expect(line);
            assert_eq!(passed_through(args), words[2..], "{line}");
        }
    }

    #[test]
    fn the_seeds_of_the_smoke_run_are_an_argument() {
        let parsed = |line: &str| {
            let matches = cli()
                .try_get_matches_from(line.split(' '))
                .expect("valid line");
            seeds(matches.subcommand().expect("has a subcommand").1)
        };
        assert_eq!(parsed("xtask test --seeds 12"), 12);
        assert_eq!(parsed("xtask ci").to_string(), CI_SEEDS);
        assert_eq!(parsed("xtask test").to_string(), SMOKE_SEEDS);
        assert!(
            cli()
                .try_get_matches_from(["xtask", "test", "--seeds", "many"])
                .is_err()
        );
    }
}
