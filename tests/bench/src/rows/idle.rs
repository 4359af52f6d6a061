//! The agent while it is idle and connected: memory, CPU, and (for the row `bytes`) what it writes.

use crate::cloud::Pair;
use crate::figure::{Figure, Goal};
use crate::place::Place;
use crate::proc::Proc;
use anyhow::Result;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time to settle before the watch begins: past the snapshot of what the start changed.
const SETTLE: Duration = Duration::from_secs(15);

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    /// Proportional set size, bytes.
    pss: f64,
    /// Percent of one core.
    cpu: f64,
    /// Bytes to the disk in 24 hours at this rate.
    pub(super) written_a_day: f64,
}

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let Some(idle) = watch(place)? else {
        return Ok(Vec::new());
    };
    Ok(vec![
        Figure::alone("idle", "PSS", "MB", idle.pss / 1e6, Goal::AtMost(10.0)),
        Figure::alone("idle", "CPU", "% of a core", idle.cpu, Goal::AtMost(0.2)),
    ])
}

/// Watches a connected agent; two rows share one watch.
pub(super) fn watch(place: &Place) -> Result<Option<Idle>> {
    static SEEN: Mutex<Option<Idle>> = Mutex::new(None);
    let mut seen = SEEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if seen.is_none() {
        let pair = Pair::start(place)?;
        std::thread::sleep(SETTLE);
        let proc = Proc::of(pair.gateway.pid());
        let (cpu_before, written_before) = (proc.cpu()?, proc.written()?);
        let since = Instant::now();
        std::thread::sleep(place.watch);
        let seconds = since.elapsed().as_secs_f64();
        *seen = Some(Idle {
            pss: proc.pss()?,
            cpu: (proc.cpu()? - cpu_before) / seconds * 100.0,
            written_a_day: (proc.written()? - written_before) / seconds * 86_400.0,
        });
    }
    Ok(*seen)
}
