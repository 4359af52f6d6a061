//! A gateway without a link for days, at one task a second on its real store: what is kept, how
//! large its file gets, and how long it takes to bring everything when the link returns.

use super::resync;
use crate::figure::{Figure, Goal};
use crate::gateway::{self, Gateway};
use crate::place::Place;
use crate::virtually::Virtual;
use crate::workload;
use anyhow::{Result, ensure};
use edge_core::store::Store;
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use shared::codec;
use std::fs;
use std::path::Path;

const DAY: u64 = 24 * 3600;
/// Tasks of a run, one after the other: a run an hour.
const TASKS: u64 = 3600;
const SECOND_US: u64 = 1_000_000;
/// The gateway's disk.
const DISK: u64 = 8_000_000_000;
/// Free bytes from which on new work is begun.
const WANTED: u64 = 64 << 20;
/// Facts of a task: it started, it ended.
const FACTS: u64 = 2;
/// Bytes that an outcome may take where 90 days of them may take 2 GB.
const OUTCOME: f64 = 257.0;
/// Decisions that a store keeps the evidence of, the newest.
const EVIDENCE: f64 = 10_000.0;
/// What a gateway keeps of the output of its tasks, and the largest piece of it: 256 and 1 MiB.
const LOGS_MB: f64 = 268.5;
const LOG: u64 = 1 << 20;
/// Tasks that write as much as is kept of one, and more in all than is kept.
const TALKATIVE: usize = 400;

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let dir = place.fresh()?;
    let agent = resync::enrolled(dir.path())?;
    let tasks = place.days * DAY;
    work(&agent, tasks)?;
    let facts = kept(&agent, tasks)?;
    let file = fs::metadata(agent.join("store.redb"))?.len();
    let evidence = evidence(&agent)?;
    let ring = resync::measure_itself(&agent, place.days * DAY * 1000)?;
    let drained = resync::returns(dir.path(), (facts, tasks), place.threads)?;
    let alone =
        |what, unit, ours, goal| Figure::alone("endurance", what, unit, ours, Goal::AtMost(goal));
    Ok(vec![
        alone("file", "GB", file as f64 / 1e9, 2.0),
        alone("file, an outcome", "B", file as f64 / tasks as f64, OUTCOME),
        alone("telemetry", "MB", ring as f64 / 1e6, 8.4),
        alone("evidence", "decisions", evidence as f64, EVIDENCE),
        alone("logs", "MB", logs(place)? as f64 / 1e6, LOGS_MB),
        alone("acknowledged", "s", drained.acknowledged, 60.0),
        alone("folded into runs", "s", drained.folded, 180.0),
    ])
}

/// Lets the agent in `data` do one task a second, each with a commit of its own.
fn work(data: &Path, tasks: u64) -> Result<()> {
    let mut agent = Virtual::boot_as(resync::open(data)?, resync::settings(data, 1)?)?;
    let packed = codec::pack(&workload::flat(TASKS as usize)?).0;
    for n in 0..tasks {
        if n % TASKS == 0 {
            let used = fs::metadata(data.join("store.redb"))?.len();
            agent.measure_room(DISK.saturating_sub(used), WANTED)?;
            agent.submit_packed(packed.clone())?;
        }
        if n % DAY == 0 {
            eprintln!("day {} of {}", n / DAY + 1, tasks / DAY);
        }
        agent.pass(SECOND_US)?;
        agent.end_one()?;
    }
    agent.pass(60 * SECOND_US) // snapshots pack what is left
}

/// Number of facts, all of which are there, with one end for each task.
fn kept(data: &Path, tasks: u64) -> Result<u64> {
    let (mut next, mut facts) = (1, 0);
    resync::open(data)?.each_fact(0, &mut |number, _| {
        next += u64::from(number == next);
        facts = number;
    })?;
    ensure!(next == facts + 1, "fact {next} of {facts} is missing");
    ensure!(facts >= FACTS * tasks, "{facts} facts of {tasks} tasks");
    Ok(facts)
}

/// Decisions of which the evidence is in the store.
fn evidence(data: &Path) -> Result<u64> {
    const DETAILS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("details");
    let store = Database::open(data.join("store.redb"))?;
    Ok(store.begin_read()?.open_table(DETAILS)?.len()?)
}

/// Bytes that are kept of what the tasks of a real agent write, which is more.
fn logs(place: &Place) -> Result<u64> {
    let dir = place.fresh()?;
    let data = dir.path().join("agent");
    gateway::make(&data)?;
    let mut agent = Gateway::start::<&str>(&data, &[])?;
    agent.submit(&workload::talkative(TALKATIVE, LOG as usize)?)?;
    agent.wait(|status| status.tasks.get("succeeded") == Some(&(TALKATIVE as u64)))?;
    drop(agent);
    let kept = bytes_below(&data.join("logs"))?;
    let written = TALKATIVE as u64 * LOG;
    ensure!(kept < written, "{kept} bytes of {written} are kept");
    // the oldest go first, one at a time
    ensure!(kept > 255 * LOG, "only {kept} bytes of logs are kept");
    Ok(kept)
}

fn bytes_below(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += match meta.is_dir() {
            true => bytes_below(&entry.path())?,
            false => meta.len(),
        };
    }
    Ok(bytes)
}
