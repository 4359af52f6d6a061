//! 500 agents call at once after a restart of the coordinator: until each works again (welcomed,
//! and its first fact acknowledged), beside the sum of what each takes alone. A handshake that
//! fails at either side fails the row.

use crate::cloud::Coordinator;
use crate::figure::{Figure, Goal};
use crate::place::Place;
use crate::stats;
use crate::swarm::Swarm;
use anyhow::{Result, ensure};
use std::time::Instant;

const AGENTS: usize = 500;
/// Agents that are measured alone.
const ALONE: usize = 50;

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let dir = place.fresh()?;
    let data = dir.path().join("cloud");
    let coordinator = Coordinator::start(&data)?;
    let mut swarm = Swarm::enrol(&coordinator, AGENTS)?;
    drop(swarm.connect(&coordinator)?);
    let cores = std::thread::available_parallelism()?.get();
    let mut rounds = Vec::new();
    let mut running = Some(coordinator);
    for round in 0..place.rounds {
        drop(running.take()); // SIGKILL
        let coordinator = Coordinator::start(&data)?;
        let since = Instant::now();
        let sessions = swarm.connect(&coordinator)?;
        let ours = since.elapsed().as_secs_f64();
        no_handshake_failed(&coordinator)?;
        drop(sessions);
        let since = Instant::now();
        for n in 0..ALONE {
            swarm.connect_alone(&coordinator, (round * ALONE + n) % AGENTS)?;
        }
        let one = since.elapsed().as_secs_f64() / ALONE as f64;
        rounds.push((ours, one * AGENTS as f64 / cores as f64));
        running = Some(coordinator);
    }
    let result = stats::compare(&rounds);
    let goal = Goal::RatioAtMost(2.0);
    Ok(vec![Figure::beside(
        "storm",
        "500 agents at once",
        "s",
        result,
        goal,
    )])
}

fn no_handshake_failed(coordinator: &Coordinator) -> Result<()> {
    let calls = "driftless_coordinator_calls_total";
    for end in ["failed", "refused"] {
        let count = coordinator.counter(calls, &format!("end=\"{end}\""))?;
        ensure!(count == 0, "{count} handshakes of the storm were {end}");
    }
    Ok(())
}
