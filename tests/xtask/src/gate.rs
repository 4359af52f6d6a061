//! What each gate consists of: `test`, `ci`, and the programs that `sim`, `model`, `hostile`,
//! `mutants` and `bench` start.
//!
//! Dependencies are built at most three times in a gate: as metadata (clippy and docs share it), in
//! the dev profile (every test and the binaries that the end-to-end tests start), and in the
//! profile `sim` for the few crates that the simulator stands on.

use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, ensure};

use crate::steps::Steps;
use crate::workspace::Workspace;
use crate::{audit, system, tidy};

/// Seconds for which a gate gives hostile input; a campaign takes as long as it is told to.
const HOSTILE_SECONDS: &str = "150";

/// Seeds with the real link in a gate: they cost more than those of the other layers.
const LINK_SEEDS: &str = "50";

/// Builds what the tests need, runs all of them, checks the model, then simulates `seeds` seeds.
pub(crate) fn test(workspace: &Workspace, seeds: u64) -> Result<()> {
    let mut steps = Steps::default();
    test_steps(&mut steps, workspace, seeds)?;
    eprintln!("{}", steps.summary());
    Ok(())
}

/// Everything that a change must pass, the quick checks first.
pub(crate) fn ci(workspace: &Workspace, seeds: u64) -> Result<()> {
    let mut steps = Steps::default();
    steps.program("format", workspace.cargo(&["fmt", "--all", "--check"]))?;
    steps.check("tidy", || tidy::run(workspace.root()))?;
    steps.check("audit", || audit::run(workspace))?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ];
    steps.program("clippy", workspace.cargo(&clippy))?;
    steps.program("docs", docs(workspace))?;
    test_steps(&mut steps, workspace, seeds)?;
    eprintln!("{}", steps.summary());
    Ok(())
}

/// Starts the simulator with the given arguments and hands its exit code on.
pub(crate) fn sim(workspace: &Workspace, args: &[&str]) -> Result<ExitCode> {
    hand_over(simulator(workspace, args))
}

/// Starts the model's checker with the given arguments and hands its exit code on.
pub(crate) fn model(workspace: &Workspace, args: &[&str]) -> Result<ExitCode> {
    hand_over(checker(workspace, args))
}

/// Gives hostile input with the given arguments, from a build that is fast and keeps its checks of
/// overflows, and hands the exit code on.
pub(crate) fn hostile(workspace: &Workspace, args: &[&str]) -> Result<ExitCode> {
    let mut all = vec!["run", "--profile", "hostile", "--locked"];
    all.extend(["--package", "hostile", "--"]);
    all.extend(args);
    hand_over(workspace.cargo(&all))
}

/// Judges mutants of the cores with the given arguments and hands the exit code on.
pub(crate) fn mutants(workspace: &Workspace, args: &[&str]) -> Result<ExitCode> {
    let mut all = vec!["run", "--locked", "--package", "mutants", "--"];
    all.extend(args);
    hand_over(workspace.cargo(&all))
}

/// Builds both binaries as they are shipped, then starts the benchmarks with the given arguments.
pub(crate) fn bench(workspace: &Workspace, args: &[&str]) -> Result<ExitCode> {
    // One after the other: built together, the slim agent would get the features that only the
    // coordinator asks for, and its measured size would not be that of a gateway.
    for (package, binary) in [
        ("edge-agent", "driftless-agent"),
        ("driftless", "driftless"),
    ] {
        let build = [
            "build",
            "--release",
            "--locked",
            "--package",
            package,
            "--bin",
            binary,
        ];
        let status = workspace
            .cargo(&build)
            .status()
            .context("cannot start cargo build")?;
        ensure!(status.success(), "building {binary} failed ({status})");
    }
    let mut all = vec!["run", "--release", "--locked", "--package", "bench", "--"];
    all.extend(args);
    hand_over(workspace.cargo(&all))
}

fn test_steps(steps: &mut Steps, workspace: &Workspace, seeds: u64) -> Result<()> {
    system::prepare(steps)?;
    // Apart from the run, so that the log shows both times; also the plain binaries, which
    // `cargo test` alone does not build for the end-to-end tests of another package.
    let build = ["build", "--workspace", "--all-targets", "--locked"];
    steps.program("build", workspace.cargo(&build))?;
    steps.program(
        "test",
        workspace.cargo(&["test", "--workspace", "--locked"]),
    )?;
    steps.program("model", checker(workspace, &[]))?;
    steps.program("hostile", hostile_share(workspace)?)?;
    steps.program(
        "sim",
        simulator(workspace, &["--seeds", &seeds.to_string()]),
    )?;
    let link = ["--layer", "3", "--seeds", LINK_SEEDS];
    steps.program("sim-link", simulator(workspace, &link))
}

fn docs(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo(&[
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--locked",
    ]);
    command.env("RUSTDOCFLAGS", "--deny warnings");
    command
}

/// The simulator; layer 3 is a program of its own, since the other layers, which the command
/// `driftless` has, too, stand on no runtime and no network.
fn simulator(workspace: &Workspace, args: &[&str]) -> Command {
    let on_link = args.windows(2).any(|pair| pair == ["--layer", "3"]);
    let package = if on_link || args.contains(&"--layer=3") {
        "stack"
    } else {
        "sim"
    };
    let mut all = vec!["run", "--profile", "sim", "--locked", "--package", package];
    if args.iter().any(|arg| arg.starts_with("--planted")) {
        all.extend(["--features", "planted"]);
    }
    all.push("--");
    all.extend(args);
    workspace.cargo(&all)
}

/// In the dev profile, which builds the model with optimisation and keeps its overflow checks.
fn checker(workspace: &Workspace, args: &[&str]) -> Command {
    let mut all = vec!["run", "--locked", "--package", "model", "--"];
    all.extend(args);
    workspace.cargo(&all)
}

/// A share of the hostile inputs, by what the step `build` has made: asked for alone, the package
/// would get other features of its dependencies and build them again.
fn hostile_share(workspace: &Workspace) -> Result<Command> {
    let target = workspace.target_directory()?;
    let mut command = Command::new(target.join("debug/hostile"));
    command.args(["--seconds", HOSTILE_SECONDS]);
    command.current_dir(workspace.root());
    Ok(command)
}

fn hand_over(mut command: Command) -> Result<ExitCode> {
    let status = command.status().context("cannot start cargo run")?;
    Ok(exit_code(status))
}

/// The child's exit code; a child that a signal ended has none and counts as failed.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
