//! How good the checkers are: each mistake of `shared::planted` is switched on, and seeds run until
//! a named invariant notices it, in a seed that is clean without it. A panic does not count.
//! Without faults none may be noticed: it must take an accident to meet it, as it does with
//! mistakes that survive review.

use crate::check;
use crate::plan::{Layer, Plan};
use crate::runner::{first, layer_of, run_watched};
use crate::world::Pulse;
use serde::Serialize;
use shared::planted::{Mistake, plant};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What became of one mistake.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The mistake.
    pub planted: &'static str,
    /// The invariant that noticed it first.
    pub invariant: Option<&'static str>,
    /// Whether one did.
    pub caught: bool,
    /// Seeds that ran until then, this one too.
    pub seeds: u64,
    /// Seeds without faults in which something was noticed all the same.
    pub without_faults: u64,
}

/// Measures one mistake with seeds from `start` on, at most `most` of them, and `calm` without
/// faults.
///
/// A seed that panics is passed over, as are those behind the first that is caught.
#[must_use]
pub fn measure(
    mistake: Mistake,
    (start, most): (u64, u64),
    calm: u64,
    layer: Option<Layer>,
    threads: usize,
) -> Row {
    plant(Some(mistake));
    let pulses: Vec<Arc<Pulse>> = (0..threads.max(1)).map(|_| Arc::default()).collect();
    let plan = |n: u64| {
        let seed = start.wrapping_add(n);
        Plan::draw(seed, layer_of(seed, layer))
    };
    let found = first(most, &pulses, &|n, pulse| noticed(plan(n), pulse));
    // the control: it is the mistake that is noticed, and nothing else
    plant(None);
    let control = found.and_then(|(n, _)| noticed(plan(n), &Arc::default()));
    plant(Some(mistake));
    let found = found.filter(|_| control.is_none());
    let quiet = AtomicU64::new(0);
    first(calm, &pulses, &|n, pulse| {
        let seed = start.wrapping_add(n);
        let plan = Plan::without_faults(seed, layer_of(seed, layer));
        if noticed(plan, pulse).is_some() {
            quiet.fetch_add(1, Ordering::Relaxed);
        }
        None::<()>
    });
    plant(None);
    Row {
        planted: mistake.name(),
        invariant: found.map(|(_, invariant)| invariant),
        caught: found.is_some(),
        seeds: found.map_or(most, |(n, _)| n + 1),
        without_faults: quiet.into_inner(),
    }
}

/// The invariant that a plan broke first, by its name.
fn noticed(plan: Plan, pulse: &Arc<Pulse>) -> Option<&'static str> {
    let verdict = run_watched(plan, None, Arc::clone(pulse));
    let broken = verdict.violations.iter().map(|one| one.invariant);
    let mut named = broken.filter(|one| check::ALL.iter().any(|(name, _)| name == one));
    named.next()
}

/// The table for people: a line a mistake, then the invariants with how many each noticed.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![format!(
        "{:<24} {:<26} {:>6} {:>15}",
        "mistake", "noticed by", "seeds", "without faults"
    )];
    for row in rows {
        let by = row.invariant.unwrap_or("NOBODY");
        lines.push(format!(
            "{:<24} {by:<26} {:>6} {:>15}",
            row.planted, row.seeds, row.without_faults
        ));
    }
    for (name, _) in check::ALL {
        let count = rows
            .iter()
            .filter(|row| row.invariant == Some(name))
            .count();
        lines.push(format!("{name} noticed {count}"));
    }
    let mut seeds: Vec<u64> = rows.iter().map(|row| row.seeds).collect();
    seeds.sort_unstable();
    let caught = rows.iter().filter(|row| row.caught).count();
    let median = seeds.get(seeds.len() / 2).copied().unwrap_or(0);
    lines.push(format!(
        "{caught} of {} noticed, median {median} seeds",
        rows.len()
    ));
    lines.join("\n")
}
