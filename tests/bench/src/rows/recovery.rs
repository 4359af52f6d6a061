//! kill -9 with 100,000 tasks in the journal: until the first scheduling decision is durable and
//! acted on.

use crate::figure::{Figure, Goal};
use crate::gateway::{self, IDENTITY};
use crate::place::Place;
use crate::virtually::{self, Virtual};
use crate::{stats, workload};
use anyhow::{Context, Result, ensure};
use edge_core::driver::Driver;
use edge_core::event::{Action, Event};
use edge_core::slice::Slot;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use shared::codec;
use shared::fact::Fact;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const COUNT: usize = 100_000;
const WIDTH: usize = 1000;
/// Tasks that are left when the agent is killed.
const LEFT: usize = 2000;
/// Microseconds between two ends: what two slots make of short processes.
const BETWEEN: u64 = 400;

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let dir = place.fresh()?;
    filled(dir.path())?;
    let killed = dir.path().join("store.redb");
    let copy = dir.path().join("copy.redb");
    let mut rounds = Vec::new();
    for _ in 0..3 * place.rounds {
        fs::copy(&killed, &copy)?;
        let reference = scan(&copy)?;
        fs::copy(&killed, &copy)?;
        rounds.push((recover(&copy)?, reference));
    }
    let result = stats::compare(&rounds);
    Ok(vec![Figure::beside(
        "recovery",
        "",
        "ms",
        result,
        Goal::RatioAtMost(2.5),
    )])
}

/// Lets another process fill the journal in `dir` and kills it in the middle of its work.
fn filled(dir: &Path) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--fill")
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("no pipe")?;
    let read = BufReader::new(stdout).read_line(&mut line);
    // SIGKILL, at a random moment of its commits.
    child.kill()?;
    child.wait()?;
    read?;
    ensure!(line == "filled\n", "the journal was not filled");
    Ok(())
}

/// The process that is killed: an agent whose processes take no time, with production's snapshots.
pub(crate) fn fill(dir: &Path) -> Result<()> {
    gateway::make(dir)?;
    let mut agent = Virtual::boot(gateway::open(dir)?, 2)?;
    agent.submit(&workload::layered(COUNT, WIDTH)?)?;
    for n in 0..COUNT - 1 {
        agent.pass(BETWEEN)?;
        agent.end_one()?;
        if n + LEFT == COUNT {
            let mut out = std::io::stdout().lock();
            writeln!(out, "filled")?;
            out.flush()?;
        }
        if n + LEFT >= COUNT {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Milliseconds from opening the store to the first start that is acted on.
fn recover(path: &Path) -> Result<f64> {
    let since = Instant::now();
    let store = edge_store::open_file(path, IDENTITY)?;
    let mut driver = Driver::open(store, virtually::config(2))?;
    let mut first = None;
    driver.run(
        virtually::now(),
        vec![Event::Boot(virtually::boot())],
        &mut |action| {
            if let Action::Begin(_) = action {
                first.get_or_insert_with(|| since.elapsed());
            }
        },
    )?;
    let first = first.context("nothing was started after the recovery")?;
    Ok(first.as_secs_f64() * 1e3)
}

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const ROWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("rows");
const FACTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("facts");

/// Milliseconds to open the file with redb, to scan the same rows and to decode them.
fn scan(path: &Path) -> Result<f64> {
    let since = Instant::now();
    let database = Database::builder()
        .set_cache_size(edge_store::CACHE)
        .open(path)?;
    let txn = database.begin_read()?;
    let mut decoded = 0;
    for row in txn.open_table(ROWS)?.iter()? {
        let (name, value) = row?;
        match name.value().split('/').next() {
            Some("workflow") => decoded += codec::unpack(value.value())?.0.tasks.len(),
            Some("tasks") => decoded += codec::decode::<Vec<Slot>>(value.value())?.len(),
            _ => {}
        }
    }
    let meta = txn.open_table(META)?;
    let snapshot = meta.get("snapshot")?.context("there is no snapshot")?;
    let (after, _): (u64, u64) = codec::decode(snapshot.value())?;
    for row in txn.open_table(FACTS)?.range(after + 1..)? {
        let (number, value) = row?;
        let flagged = value.value();
        let skip = if flagged.first() == Some(&1) { 33 } else { 1 };
        Fact::decode(number.value(), &flagged[skip..])?;
        decoded += 1;
    }
    ensure!(decoded >= 2 * COUNT, "only {decoded} rows were read");
    Ok(since.elapsed().as_secs_f64() * 1e3)
}
