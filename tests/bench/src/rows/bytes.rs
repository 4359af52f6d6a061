//! Bytes that go to the disk: at one task a second, and while the agent is idle and connected.

use super::idle;
use crate::figure::{Figure, Goal};
use crate::gateway;
use crate::place::Place;
use crate::proc::Proc;
use crate::raw::Raw;
use crate::virtually::Virtual;
use crate::workload;
use anyhow::{Result, ensure};
use edge_core::store::Store;
use edge_store::RedbStore;
use std::path::Path;

/// Seconds, one task each.
const SECONDS: usize = 600;
const SECOND: u64 = 1_000_000;

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let mut figures = vec![
        compare(place, "start and finish apart", 1, 2.5, apart)?,
        compare(place, "start and finish together", 2, 1.3, together)?,
    ];
    if let Some(idle) = idle::watch(place)? {
        let what = "idle and connected, a day";
        let megabytes = idle.written_a_day / 1e6;
        figures.push(Figure::alone(
            "bytes",
            what,
            "MB",
            megabytes,
            Goal::AtMost(60.0),
        ));
    }
    Ok(figures)
}

/// Kilobytes a task of ours beside those of a plain commit of `facts` facts.
fn compare(
    place: &Place,
    what: &str,
    facts: usize,
    goal: f64,
    ours: fn(&mut Virtual<RedbStore>) -> Result<()>,
) -> Result<Figure> {
    let dir = place.fresh()?;
    gateway::make(dir.path())?;
    let mut agent = Virtual::boot(gateway::open(dir.path())?, 1)?;
    let this = Proc::of(std::process::id());
    let before = this.written()?;
    ours(&mut agent)?;
    let ours = (this.written()? - before) / SECONDS as f64;
    drop(agent);
    let entries = entries(dir.path())?;
    let mut raw = Raw::create(&dir.path().join("raw.redb"))?;
    let before = this.written()?;
    for group in entries.chunks(facts) {
        raw.commit(group)?;
    }
    let commits = entries.len().div_ceil(facts) as f64;
    let reference = (this.written()? - before) / commits;
    ensure!(
        reference > 0.0,
        "the system counts no bytes here; give another directory with --dir"
    );
    let result = (ours / 1e3, reference / 1e3, ours / reference);
    Ok(Figure::beside(
        "bytes",
        what,
        "kB/task",
        result,
        Goal::RatioAtMost(goal),
    ))
}

/// The facts of tasks, as bytes.
fn entries(data: &Path) -> Result<Vec<Vec<u8>>> {
    let mut entries = Vec::new();
    gateway::open(data)?.each_fact(1, &mut |_, bytes| entries.push(bytes.to_vec()))?;
    Ok(entries)
}

/// Each second a run of one task comes, which takes half a second.
fn apart(agent: &mut Virtual<RedbStore>) -> Result<()> {
    let (packed, _) = shared::codec::pack(&workload::flat(1)?);
    for _ in 0..SECONDS {
        agent.submit_packed(packed.clone())?;
        agent.pass(SECOND / 2)?;
        agent.end_one()?;
        agent.pass(SECOND / 2)?;
    }
    ensure!(agent.running() == 0, "a task did not end");
    Ok(())
}

/// A chain of tasks that take a second.
fn together(agent: &mut Virtual<RedbStore>) -> Result<()> {
    agent.submit(&workload::chain(SECONDS)?)?;
    for _ in 0..SECONDS {
        agent.pass(SECOND)?;
        agent.end_one()?;
    }
    agent.pass(SECOND)?;
    ensure!(agent.running() == 0, "a task did not end");
    Ok(())
}
