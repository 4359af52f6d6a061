//! Bytes that a real agent writes with its telemetry on: idle and connected, at one task a second,
//! and nothing at all where nothing changes.

use super::{idle, resync};
use crate::cloud::Pair;
use crate::figure::{Figure, Goal};
use crate::place::Place;
use crate::proc::Proc;
use crate::raw::Raw;
use crate::workload;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// Tasks, one a second.
const TASKS: u32 = 120;
const SECOND: Duration = Duration::from_secs(1);
/// Past the snapshot of what the start changed.
const SETTLE: Duration = Duration::from_secs(30);

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let (still, busy) = std::thread::scope(|scope| {
        let still = scope.spawn(|| untouched(place));
        let busy = scope.spawn(|| busy(place));
        (still.join(), busy.join())
    });
    let broken = |_| anyhow::anyhow!("a measurement panicked");
    let (still, busy) = (still.map_err(broken)??, busy.map_err(broken)??);
    let mut figures = Vec::new();
    if let Some(idle) = idle::watch(place)? {
        let day = idle.written_a_day / 1e6;
        figures.push(Figure::alone(
            "disk",
            "idle and connected, a day",
            "MB",
            day,
            Goal::AtMost(60.0),
        ));
    }
    figures.push(busy);
    figures.push(Figure::alone(
        "disk",
        "nothing measured, nothing changes",
        "B",
        still,
        Goal::AtMost(0.0),
    ));
    Ok(figures)
}

/// Bytes that an idle agent writes which measures nothing.
fn untouched(place: &Place) -> Result<f64> {
    let pair = Pair::start_with(place, &["--monitor-interval", "604800"])?;
    std::thread::sleep(SETTLE);
    let proc = Proc::of(pair.gateway.pid());
    let before = proc.written()?;
    std::thread::sleep(place.watch);
    Ok(proc.written()? - before)
}

/// Commits' worth of bytes for a task, at one a second.
fn busy(place: &Place) -> Result<Figure> {
    let mut pair = Pair::start(place)?;
    std::thread::sleep(SETTLE);
    let proc = Proc::of(pair.gateway.pid());
    let before = proc.written()?;
    let started = Instant::now();
    for n in 1..=TASKS {
        pair.gateway.submit(&workload::flat(1)?)?;
        std::thread::sleep((SECOND * n).saturating_sub(started.elapsed()));
    }
    let all = u64::from(TASKS);
    pair.gateway
        .wait(|status| status.tasks.get("succeeded") == Some(&all))?;
    let ours = (proc.written()? - before) / f64::from(TASKS);
    let reference = commit_bytes(place, pair)?;
    let compared = (ours / 1e3, reference / 1e3, ours / reference);
    Ok(Figure::beside(
        "disk",
        "one task a second",
        "kB/task",
        compared,
        Goal::RatioAtMost(2.5),
    ))
}

/// Bytes of a redb commit of one fact of such a task.
fn commit_bytes(place: &Place, pair: Pair) -> Result<f64> {
    let stopped = pair.stop();
    let facts = resync::journal(&stopped.path().join("agent"))?;
    ensure!(facts.len() >= 2 * TASKS as usize, "facts are missing");
    let aside = place.fresh()?;
    let mut raw = Raw::create(&aside.path().join("raw.redb"))?;
    let this = Proc::of(std::process::id());
    let before = this.written()?;
    for fact in &facts {
        raw.commit(std::slice::from_ref(fact))?;
    }
    let written = this.written()? - before;
    ensure!(
        written > 0.0,
        "the system counts no bytes here; give another directory with --dir"
    );
    Ok(written / facts.len() as f64)
}
