//! A chain of 1,000 tasks through the real agent: finish(i) and start(i+1) in one durable commit.

use super::tasks::run;
use crate::figure::{Figure, Goal};
use crate::place::Place;
use crate::raw::Raw;
use crate::{spawn, stats, workload};
use anyhow::Result;
use shared::fact::Body;
use shared::limits::LINGER_MS;
use std::time::Instant;

const COUNT: usize = 1000;

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let workflow = workload::chain(COUNT)?;
    // In a chain nothing is started ahead.
    let (_, facts) = run(place, &workflow, LINGER_MS)?;
    let entries: Vec<Vec<u8>> = facts
        .into_iter()
        .filter(|(fact, _)| matches!(fact.body, Body::Started { .. } | Body::Ended { .. }))
        .map(|(_, bytes)| bytes)
        .collect();
    let mut rounds = Vec::new();
    for _ in 0..2 * place.rounds {
        let before = reference(place, &entries[..COUNT])?;
        let (ours, _) = run(place, &workflow, LINGER_MS)?;
        let after = reference(place, &entries[COUNT..])?;
        rounds.push((ours, f64::midpoint(before, after)));
    }
    let result = stats::compare(&rounds);
    Ok(vec![Figure::beside(
        "chain",
        "",
        "us/task",
        result,
        Goal::RatioAtMost(1.15),
    )])
}

/// One thread: a commit of the two facts of a task, then its process.
fn reference(place: &Place, entries: &[Vec<u8>]) -> Result<f64> {
    let dir = place.fresh()?;
    let mut raw = Raw::create(&dir.path().join("raw.redb"))?;
    let since = Instant::now();
    for pair in entries.chunks(2) {
        raw.commit(pair)?;
        spawn::spawn_true()?;
    }
    Ok(since.elapsed().as_secs_f64() * 2e6 / entries.len() as f64)
}
