//! `driftless demo`: the main job, done for real on one machine. Coordinator, agents and a relay
//! run as processes of their own; the demo only gives orders to the relay, kills one agent, and
//! looks.
//!
//! Invariant: whatever way it ends, no process and no file of it is left but the report.

pub(crate) mod args;
pub(crate) mod figures;
pub(crate) mod process;
mod screen;
mod story;
mod summary;
mod world;

use crate::exit::{Code, Failure};
use crate::output::Output;
use figures::Sources;
use process::Scratch;
use screen::Screen;
use std::fs;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use story::Told;
use summary::Summary;
use world::{STATIONS, World};

/// `driftless demo`.
pub(crate) fn run(args: &args::Demo, out: &mut Output) -> Result<Code, Failure> {
    let report = report_path(args.report.as_deref())?;
    let agent = args.agent_bin.as_deref().map(program).transpose()?;
    process::catch_signals().map_err(|e| Failure::new(Code::Failed, format!("no signals: {e}")))?;
    let screen = Screen::new(out.live, out.json);
    let scratch = Scratch::new(args.keep.as_deref())?;
    let mut world = World::start(scratch, agent, screen)?;
    let told = match story::play(&mut world) {
        Ok(told) => told,
        Err(failure) => {
            world.screen.clear();
            let said = world.stop();
            return Err(with_logs(failure, &said));
        }
    };
    let (elapsed, events) = (world.screen.elapsed(), world.screen.events.clone());
    world.screen.clear();
    let scratch = world.stop();
    let figures = figures::compute(&sources(&scratch))?;
    let text = comparison(&scratch, &told)?;
    let report = keep_report(report, args.report.is_none(), &text)?;
    if out.json {
        let elapsed_seconds = elapsed.0 as f64 / 1000.0;
        let figures::Figures {
            runs,
            tasks,
            outcomes,
            faults,
            offline_seconds,
        } = figures;
        let report = report.as_path();
        out.object(&Summary {
            runs,
            tasks,
            outcomes,
            faults,
            offline_seconds,
            elapsed_seconds,
            report,
        })?;
    } else {
        summary::print(&figures, elapsed, &events, &text, &told, out)?;
        out.line(&format!("\nThe comparison is in {}", report.display()))?;
        if scratch.kept() {
            out.line(&format!(
                "All directories are kept in {}",
                scratch.path().display()
            ))?;
        }
    }
    let broken = figures.broken_promises();
    if broken.is_empty() {
        return Ok(Code::Done);
    }
    Err(Failure::new(
        Code::Failed,
        format!("run {}: {}", told.run.id, broken.join("; ")),
    ))
}

/// The hidden `driftless demo-relay`.
pub(crate) fn relay(args: &args::Relay) -> Result<Code, Failure> {
    let input = BufReader::new(io::stdin());
    let served = ::relay::process::serve(args.target, &args.lanes, &args.log, input, io::stdout());
    served.map_err(|error| Failure::new(Code::Failed, format!("the relay failed: {error}")))?;
    Ok(Code::Done)
}

/// The hidden `driftless demo-figures`.
pub(crate) fn print_figures(args: &args::Figures, out: &mut Output) -> Result<Code, Failure> {
    if args.remove_one {
        figures::remove_one(&args.coordinator)?;
    }
    let sources = Sources {
        coordinator: args.coordinator.clone(),
        agents: args.agents.clone(),
        relay: args.relay.clone(),
    };
    out.object(&figures::compute(&sources)?)?;
    Ok(Code::Done)
}

fn sources(scratch: &Scratch) -> Sources {
    let at = |name: String| scratch.path().join(name);
    Sources {
        coordinator: at("coordinator".into()),
        agents: STATIONS
            .iter()
            .map(|(station, ..)| at(format!("gw-{station}")))
            .collect(),
        relay: Some(at("relay.jsonl".into())),
    }
}

/// The last words of all processes, where they are about to be removed.
fn with_logs(failure: Failure, scratch: &Scratch) -> Failure {
    if failure.hint.is_some() || scratch.kept() || process::interrupted().is_err() {
        return failure;
    }
    failure.hint("run it again with --keep DIR to look into the logs of all processes")
}

fn program(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| {
        let what = format!("--agent-bin: cannot find {}: {error}", path.display());
        Failure::new(Code::Usage, what).hint("build it with `cargo build --release -p edge-agent`")
    })
}

/// Where the report goes; a place that cannot be is refused before anything begins.
fn report_path(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    let usual = || std::env::temp_dir().join("driftless-demo-report.txt");
    let path = wanted.map_or_else(usual, Path::to_owned);
    let wrong = |why: String| {
        let what = format!("--report: {} cannot be written: {why}", path.display());
        Failure::new(Code::Usage, what)
    };
    let path = std::path::absolute(&path).map_err(|error| wrong(error.to_string()))?;
    let folder = path.parent().is_some_and(Path::is_dir);
    if !folder || path.is_dir() {
        return Err(wrong("it is no file in a directory".to_owned()));
    }
    Ok(path)
}

/// Writes the report; where the usual place belongs to somebody else, beside it.
fn keep_report(path: PathBuf, usual: bool, text: &str) -> Result<PathBuf, Failure> {
    match write_report(&path, text) {
        Err(_) if usual => {
            let own = format!("driftless-demo-report-{}.txt", std::process::id());
            let own = path.with_file_name(own);
            write_report(&own, text).map(|()| own)
        }
        written => written.map(|()| path),
    }
}

/// The comparison, from the files of the gateway that wrote it.
fn comparison(scratch: &Scratch, told: &Told) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(
            Code::Failed,
            format!("the comparison cannot be read: {error}"),
        )
    };
    let (node, hash) = &told.comparison;
    let hash = hash.parse().map_err(|error| failed(&error))?;
    let path = contents::place(&scratch.path().join(node).join("files"), hash);
    fs::read_to_string(path).map_err(|error| failed(&format!("{error} on {node}")))
}

/// Written aside and renamed: a link that somebody put there is replaced and not followed.
fn write_report(path: &Path, text: &str) -> Result<(), Failure> {
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let written = fs::File::create_new(&aside)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .and_then(|()| fs::rename(&aside, path));
    written.map_err(|error| {
        // What could not be made needs no removal.
        let _ = fs::remove_file(&aside);
        let what = format!("cannot write the report to {}: {error}", path.display());
        Failure::new(Code::Failed, what).hint("name another place with --report FILE")
    })
}
