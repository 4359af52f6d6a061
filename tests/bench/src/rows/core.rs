//! CPU of the scheduler a task, without starting any: 100,000 tasks in layers. Decides, encodes and
//! chains every fact; once with its journal in redb on the disk, as in production, where the
//! commits' own CPU counts, and once in memory, which shows the decisions alone.

use crate::figure::{Figure, Goal};
use crate::gateway::{self, IDENTITY};
use crate::place::Place;
use crate::stats::median;
use crate::virtually::Virtual;
use crate::workload;
use anyhow::Result;
use edge_core::memory::{Disk, MemStore};
use edge_core::store::Store;
use rustix::time::{ClockId, clock_gettime};

const COUNT: usize = 100_000;
const WIDTH: usize = 1000;
/// Microseconds between two ends: what two slots make of short processes.
const BETWEEN: u64 = 400;

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let (packed, _) = shared::codec::pack(&workload::layered(COUNT, WIDTH)?);
    let (mut durable, mut deciding) = (Vec::new(), Vec::new());
    for _ in 0..place.rounds {
        let dir = place.fresh()?;
        gateway::make(dir.path())?;
        durable.push(run(
            Virtual::boot(gateway::open(dir.path())?, 2)?,
            packed.clone(),
        )?);
        let disk = Disk::new(IDENTITY.node, IDENTITY.incarnation);
        deciding.push(run(Virtual::boot(MemStore::new(disk), 2)?, packed.clone())?);
    }
    let figure = |what, rounds: &[f64]| {
        Figure::alone(
            "core",
            what,
            "us CPU/task",
            median(rounds),
            Goal::AtMost(20.0),
        )
    };
    Ok(vec![
        figure("journal in redb", &durable),
        figure("journal in memory", &deciding),
    ])
}

fn run<S: Store>(mut agent: Virtual<S>, packed: Vec<u8>) -> Result<f64> {
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
