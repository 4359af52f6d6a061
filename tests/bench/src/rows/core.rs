//! CPU of the scheduler a task, without starting any: 100,000 tasks in layers. Decides, encodes and
//! chains every fact, on a journal in memory (what the disk costs is in `journal` and `chain`).

use crate::figure::{Figure, Goal};
use crate::gateway::IDENTITY;
use crate::place::Place;
use crate::stats::median;
use crate::virtually::Virtual;
use crate::workload;
use anyhow::Result;
use edge_core::memory::{Disk, MemStore};
use rustix::time::{ClockId, clock_gettime};

const COUNT: usize = 100_000;
const WIDTH: usize = 1000;
/// Microseconds between two ends: what two slots make of short processes.
const BETWEEN: u64 = 400;

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let (packed, _) = shared::codec::pack(&workload::layered(COUNT, WIDTH)?);
    let mut rounds = Vec::new();
    for _ in 0..place.rounds {
        let disk = Disk::new(IDENTITY.node, IDENTITY.incarnation);
        rounds.push(run(Virtual::boot(MemStore::new(disk), 2)?, packed.clone())?);
    }
    let cpu = median(&rounds);
    Ok(vec![Figure::alone(
        "core",
        "",
        "us CPU/task",
        cpu,
        Goal::AtMost(20.0),
    )])
}

fn run(mut agent: Virtual<MemStore>, packed: Vec<u8>) -> Result<f64> {
    let since = cpu();
    agent.submit_packed(packed)?;
    let mut ended = 0;
    while agent.running() > 0 {
        agent.pass(BETWEEN)?;
        agent.end_one()?;
        ended += 1;
    }
    anyhow::ensure!(ended == COUNT, "{ended} of {COUNT} tasks ended");
    Ok((cpu() - since) * 1e6 / COUNT as f64)
}

/// CPU seconds of this thread.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
