//! A gateway returns with 1,000,000 outcomes that nobody has heard of: until all are durable at the
//! coordinator and acknowledged, until all are folded into runs, until the first is to be seen, and
//! how many bytes they are on the wire.

use crate::cloud::{self, Coordinator};
use crate::figure::{Figure, Goal};
use crate::gateway::Gateway;
use crate::place::Place;
use crate::proc::Proc;
use crate::virtually::{self, Virtual};
use crate::{stats, workload};
use anyhow::{Context, Result, anyhow, ensure};
use edge_agent::data::DataDir;
use edge_agent::telemetry::Files;
use edge_core::store::Store;
use edge_core::telemetry::{Limits, Ring};
use edge_store::RedbStore;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;
use shared::codec;
use shared::ids::BootId;
use shared::telemetry::{Key, Sample};
use shared::time::Unix;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const RUNS: usize = 100;
const TASKS: usize = 10_000;
/// Attempts at once while the journal is filled: two groups of ends, with the starts behind them,
/// fill a segment.
const SLOTS: u32 = 64;
/// Facts of a task: it started, it ended.
const FACTS: usize = 2;
/// Facts in one commit of the reference.
const COMMIT: usize = 10_000;
/// Telemetry of a month at the usual interval.
const EVERY_MS: u64 = 3000;
const MONTH_MS: u64 = 30 * 24 * 3_600_000;
/// Series of a small gateway.
const SERIES: u16 = 20;
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a round shows, in seconds after the link was up.
pub(super) struct Returned {
    pub(super) first: f64,
    pub(super) acknowledged: f64,
    pub(super) folded: f64,
}

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let dir = place.fresh()?;
    let filled = filled(place)?;
    let [cloud, agent] = ["cloud", "agent"].map(|name| filled.join(name));
    let bytes = wire_bytes(open(&agent)?)?;
    let entries = journal(&agent)?;
    let (mut acknowledged, mut folded, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..place.rounds {
        let reference = slowest(&dir.path().join("reference"), &entries)?;
        let copy = dir.path().join(format!("round-{round}"));
        for (name, from) in [("cloud", &cloud), ("agent", &agent)] {
            copy_tree(from, &copy.join(name))?;
        }
        let counts = (entries.len() as u64, (RUNS * TASKS) as u64);
        let ours = returns(&copy, counts, place.threads)?;
        fs::remove_dir_all(&copy)?;
        acknowledged.push((ours.acknowledged, reference));
        folded.push((ours.folded, reference));
        first.push(ours.first);
    }
    let row = |what, rounds: &[(f64, f64)], goal| {
        let goal = Goal::RatioAtMost(goal);
        Figure::beside("resync", what, "s", stats::compare(rounds), goal)
    };
    let alone =
        |what, unit, ours, goal| Figure::alone("resync", what, unit, ours, Goal::AtMost(goal));
    Ok(vec![
        row("acknowledged", &acknowledged, 1.0),
        row("folded into runs", &folded, 2.5),
        alone("first outcome to be seen", "s", stats::median(&first), 1.0),
        alone("wire, an outcome", "B", bytes, 45.0),
    ])
}

/// A directory with a coordinator and an agent that worked through all runs without a link, and
/// measured itself for a month; made once.
pub(super) fn filled(place: &Place) -> Result<PathBuf> {
    let whole = place.filled();
    if !whole.is_dir() {
        let base = whole
            .parent()
            .context("the filled gateway needs a directory")?;
        let dir = tempfile::tempdir_in(base)?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
        let agent = enrolled(dir.path())?;
        fill(&agent)?;
        measure_itself(&agent, MONTH_MS)?;
        fs::rename(dir.keep(), &whole)?;
    }
    Ok(whole)
}

/// Directories of a coordinator and of an agent that knows it, in `dir`: that of the agent.
pub(super) fn enrolled(dir: &Path) -> Result<PathBuf> {
    let [cloud, agent] = ["cloud", "agent"].map(|name| dir.join(name));
    let coordinator = Coordinator::start(&cloud)?;
    drop(cloud::enrolled(&coordinator, &agent)?);
    Ok(agent)
}

/// Lets the agent in `data` work through all runs.
fn fill(data: &Path) -> Result<()> {
    let mut agent = Virtual::boot_as(open(data)?, settings(data, SLOTS)?)?;
    for _ in 0..RUNS {
        agent.submit(&workload::flat(TASKS)?)?;
    }
    while agent.running() > 0 {
        agent.end_all()?;
        agent.pass(1_000_000)?; // slow enough for the snapshots to pack everything
    }
    agent.pass(60_000_000) // snapshots pack what is left
}

/// Samples of so long a time, thinned as they are at a gateway without a link: the bytes that are
/// left of them.
pub(super) fn measure_itself(data: &Path, span_ms: u64) -> Result<u64> {
    let identity = DataDir::open(data)?.identity()?.context("no identity")?;
    let files = Files::open(&data.join("telemetry"))?;
    let mut ring = Ring::open(files, identity.incarnation(), Limits::default())
        .map_err(|error| anyhow!("{error}"))?;
    let now = edge_agent::clock::now();
    let wall = now.wall.0;
    let samples = span_ms / EVERY_MS;
    for n in 0..samples {
        let before = (samples - n) * EVERY_MS;
        let series = |m: u16| {
            (
                Key {
                    metric: m,
                    label: String::new(),
                },
                wave(n, u64::from(m)),
            )
        };
        let sample = Sample {
            ms: span_ms - before + 1,
            wall: Unix(wall - before.cast_signed()),
            fact: n,
            values: (0..SERIES).map(series).collect(),
        };
        // a boot before the one that runs, whose clock may be younger than a month
        ring.record(1, BootId([7; 16]), EVERY_MS, &sample);
    }
    ring.save();
    let bytes = ring.status().bytes;
    ensure!(bytes > 0, "the ring is empty");
    Ok(bytes)
}

/// A value that is not simply the one before.
fn wave(n: u64, m: u64) -> i64 {
    let mixed = (n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(m)) >> 58;
    (m * 100 + n / 100 % 50 + mixed).cast_signed()
}

/// Bytes on the wire for an outcome.
fn wire_bytes(mut store: RedbStore) -> Result<f64> {
    let (mut after, mut bytes, mut facts) = (0, 0, 0);
    while let Some(batch) = store.packed_after(after)? {
        facts += batch.head.number - after;
        after = batch.head.number;
        bytes += codec::encode(&batch).len();
    }
    let outcomes = facts as f64 / FACTS as f64;
    ensure!(
        outcomes > 0.9 * (RUNS * TASKS) as f64,
        "only {facts} facts are packed"
    );
    Ok(bytes as f64 / outcomes)
}

pub(super) fn settings(data: &Path, slots: u32) -> Result<edge_core::event::Config> {
    let identity = DataDir::open(data)?.identity()?.context("no identity")?;
    let mut config = virtually::config(slots);
    (config.node, config.incarnation) = (identity.node(), identity.incarnation());
    config.capacity.cpu_milli = 1000 * slots;
    config.has_coordinator = true;
    Ok(config)
}

pub(super) fn open(data: &Path) -> Result<RedbStore> {
    let identity = DataDir::open(data)?.identity()?.context("no identity")?;
    let (node, incarnation) = (identity.node(), identity.incarnation());
    let identity = edge_store::Identity { node, incarnation };
    Ok(edge_store::open_file(&data.join("store.redb"), identity)?)
}

/// The bytes of all facts.
pub(super) fn journal(data: &Path) -> Result<Vec<Vec<u8>>> {
    let mut entries = Vec::new();
    open(data)?.each_fact(0, &mut |_, bytes| entries.push(bytes.to_vec()))?;
    Ok(entries)
}

/// Both processes start on what lies in `dir`; watched until all facts, and what they say of so
/// many tasks, are told.
pub(super) fn returns(dir: &Path, (facts, all): (u64, u64), threads: bool) -> Result<Returned> {
    let coordinator = Coordinator::start(&dir.join("cloud"))?;
    let more = ["--coordinator", &coordinator.address];
    let gateway = Gateway::start(&dir.join("agent"), &more)?;
    let started = Instant::now();
    let tell = |when: &str| -> Result<()> {
        for (name, pid) in [("coordinator", coordinator.pid()), ("agent", gateway.pid())] {
            if threads {
                eprintln!("{when}, CPU of the {name}: {}", Proc::of(pid).threads()?);
            }
        }
        Ok(())
    };
    let wait = |what: &str, until: &dyn Fn() -> Result<bool>| -> Result<Instant> {
        while !until()? {
            ensure!(started.elapsed() < PATIENCE, "{what} did not come");
            std::thread::sleep(LOOK);
        }
        Ok(Instant::now())
    };
    let node = || -> Result<Value> {
        let nodes = coordinator.list("nodes")?;
        nodes.into_iter().next().context("no node")
    };
    let link = wait("the link", &|| Ok(node()?["state"] == "online"))?;
    tell("link")?;
    let first = wait("an outcome", &|| {
        Ok(succeeded(&coordinator, "runs?limit=1")? > 0)
    })?;
    tell("first outcome")?;
    let acknowledged = wait("the last fact", &|| {
        Ok(node()?["as_of"]["fact"].as_u64() >= Some(facts))
    })?;
    tell("acknowledged")?;
    let folded = wait("the last outcome", &|| {
        Ok(succeeded(&coordinator, "runs")? >= all)
    })?;
    tell("folded")?;
    let after = |at: Instant| (at - link).as_secs_f64();
    Ok(Returned {
        first: after(first),
        acknowledged: after(acknowledged),
        folded: after(folded),
    })
}

/// Tasks that succeeded, by the runs listed at `path`.
fn succeeded(coordinator: &Coordinator, path: &str) -> Result<u64> {
    let runs = coordinator.list(path)?;
    Ok(runs
        .iter()
        .filter_map(|run| run["tasks"]["succeeded"].as_u64())
        .sum())
}

/// Seconds of the slower of: redb inserts the same facts in bulk, redb reads them.
fn slowest(path: &Path, entries: &[Vec<u8>]) -> Result<f64> {
    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("facts");
    let _ = fs::remove_file(path);
    let database = Database::builder()
        .set_cache_size(edge_store::CACHE)
        .create(path)?;
    let since = Instant::now();
    for (n, part) in entries.chunks(COMMIT).enumerate() {
        let mut txn = database.begin_write()?;
        txn.set_quick_repair(true);
        let mut table = txn.open_table(TABLE)?;
        for (m, bytes) in part.iter().enumerate() {
            table.insert((n * COMMIT + m) as u64, bytes.as_slice())?;
        }
        drop(table);
        txn.commit()?;
    }
    let insert = since.elapsed();
    let since = Instant::now();
    let mut read = 0;
    for row in database.begin_read()?.open_table(TABLE)?.iter()? {
        read += row?.1.value().len();
    }
    ensure!(
        read == entries.iter().map(Vec::len).sum::<usize>(),
        "rows are missing"
    );
    Ok(insert.max(since.elapsed()).as_secs_f64())
}

pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, kind) = entry.and_then(|e| e.file_type().map(|kind| (e, kind)))?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
