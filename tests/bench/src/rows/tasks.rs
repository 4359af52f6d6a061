//! 10,000 tasks of `/bin/true` through the real agent, two at a time, start and finish durable.

use crate::figure::{Figure, Goal};
use crate::gateway::{self, Entry, Gateway};
use crate::place::Place;
use crate::{spawn, stats, workload};
use anyhow::{Result, ensure};
use shared::fact::{Body, Outcome};
use shared::limits::LINGER_AHEAD_MS;
use shared::workflow::Workflow;

const COUNT: usize = 10_000;
const WIDTH: usize = 100;

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let shapes = [
        ("flat", workload::flat(COUNT)?),
        ("layered", workload::layered(COUNT, WIDTH)?),
    ];
    let mut figures = Vec::new();
    for (what, workflow) in shapes {
        let mut rounds = Vec::new();
        for _ in 0..place.rounds {
            let before = spawn::two_at_a_time(COUNT / 2)?;
            let (ours, _) = run(place, &workflow, LINGER_AHEAD_MS)?;
            let after = spawn::two_at_a_time(COUNT / 2)?;
            rounds.push((ours, f64::midpoint(before, after)));
        }
        let result = stats::compare(&rounds);
        figures.push(Figure::beside(
            "tasks",
            what,
            "us/task",
            result,
            Goal::RatioAtMost(1.25),
        ));
    }
    Ok(figures)
}

/// Runs `workflow` on a fresh agent: microseconds a task from the submission until the last end is
/// durable, which is at most `linger` milliseconds after it, and the facts that are in the journal
/// after the agent was killed.
pub(super) fn run(place: &Place, workflow: &Workflow, linger: u64) -> Result<(f64, Vec<Entry>)> {
    let dir = place.fresh()?;
    let data = dir.path().join("agent");
    gateway::make(&data)?;
    let mut agent = Gateway::start::<&str>(&data, &[])?;
    agent.status()?;
    let count = workflow.tasks.len();
    let since = gateway::boot_clock_ms();
    agent.submit(workflow)?;
    agent.wait(|status| status.tasks.get("succeeded") == Some(&(count as u64)))?;
    drop(agent);
    let facts = gateway::facts(&data)?;
    let mut last = 0;
    let (mut started, mut succeeded) = (0, 0);
    for (fact, _) in &facts {
        match &fact.body {
            Body::Started { .. } => started += 1,
            Body::Ended { end, .. } if end.outcome == Outcome::Succeeded => {
                succeeded += 1;
                last = fact.at.mono_ms;
            }
            _ => {}
        }
    }
    let both = (started, succeeded);
    ensure!(
        both == (count, count),
        "{both:?} of {count} started and succeeded"
    );
    let millis = (last + linger).saturating_sub(since);
    Ok((millis as f64 * 1e3 / count as f64, facts))
}
