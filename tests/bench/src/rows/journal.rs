//! Durable appends a second: encode, chain, commit, without the core.

use crate::figure::{Figure, Goal};
use crate::gateway::{self, IDENTITY};
use crate::place::Place;
use crate::raw::Raw;
use crate::stats;
use anyhow::Result;
use edge_core::store::{Commit, Store};
use shared::explain::Reason;
use shared::fact::{Body, End, Fact, Outcome};
use shared::ids::{AttemptRef, Epoch, RunId, SliceRef, TaskIdx};
use shared::log::{Direction, Head};
use shared::state::TaskState;
use shared::time::{Stamp, Unix};
use std::time::Instant;

/// Entries of each side a round.
const ENTRIES: u32 = 40_000;

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (what, batch) in [("100 a commit", 100), ("1,000 a commit", 1000)] {
        let mut rounds = Vec::new();
        for _ in 0..place.rounds {
            rounds.push(round(place, batch)?);
        }
        let result = stats::compare(&rounds);
        let goal = Goal::RatioAtLeast(0.7);
        figures.push(Figure::beside("journal", what, "appends/s", result, goal));
    }
    Ok(figures)
}

/// Appends a second of ours and of the reference, whose commits alternate: what disturbs the disk
/// disturbs both.
fn round(place: &Place, batch: u32) -> Result<(f64, f64)> {
    let dir = place.fresh()?;
    gateway::make(dir.path())?;
    let mut store = gateway::open(dir.path())?;
    let mut raw = Raw::create(&dir.path().join("raw.redb"))?;
    let mut head = Head::origin(IDENTITY.node, IDENTITY.incarnation, Direction::Up);
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    for first in (0..ENTRIES).step_by(batch as usize) {
        let facts: Vec<Fact> = (first..first + batch).map(fact).collect();
        let encoded: Vec<Vec<u8>> = facts.iter().map(Fact::encode).collect();
        let since = Instant::now();
        raw.commit(&encoded)?;
        reference.push(since.elapsed().as_secs_f64());
        let since = Instant::now();
        let entries: Vec<Vec<u8>> = facts.iter().map(Fact::encode).collect();
        head = head.then_all(&entries);
        store.commit(&Commit {
            facts: entries,
            facts_head: Some(head),
            ..Commit::default()
        })?;
        ours.push(since.elapsed().as_secs_f64());
    }
    let rate = |times: &[f64]| f64::from(batch) / stats::median(times);
    Ok((rate(&ours), rate(&reference)))
}

/// Starts and ends in turn, as tasks make them.
fn fact(n: u32) -> Fact {
    let stamp = |ms: u64| Stamp {
        boot: 3,
        mono_ms: 7_000_000 + ms,
        wall: Unix(1_800_000_000_000 + i64::try_from(ms).unwrap_or(0)),
    };
    let slice = SliceRef {
        run: RunId([0xa7; 16]),
        slice: 2,
        epoch: Epoch(1 << 33),
    };
    let attempt = AttemptRef {
        slice,
        task: TaskIdx(n / 2),
        number: 1,
    };
    let ms = u64::from(n) * 3;
    let end = || End {
        outcome: Outcome::Succeeded,
        reason: Reason::ExitedZero,
        exit: Some(0),
        began: Some(stamp(ms - 2)),
        outputs: Vec::new(),
        retry_in: None,
        task: TaskState::Succeeded,
        cpu_ms: 1,
        peak_memory: 3 << 20,
    };
    let body = match n % 2 {
        0 => Body::Started { attempt },
        _ => Body::Ended {
            attempt,
            end: end(),
        },
    };
    Fact {
        at: stamp(ms),
        seen: 12,
        body,
    }
}
