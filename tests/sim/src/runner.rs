//! Runs seeds: one after another in each thread, each in a world of its own.

use crate::fault::Tally;
use crate::plan::{Layer, Plan};
use crate::queue::{HOUR, Time};
use crate::trace::Sink;
use crate::world::{Pulse, Violation, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// What became of one seed.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// Its layer.
    pub layer: Layer,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Faults that happened.
    pub tally: Tally,
    /// Hash of the trace.
    pub hash: u64,
    /// Processes that ran.
    pub attempts: u64,
    /// Number of gateways times simulated time.
    pub agent_time: Time,
    /// Tasks of all runs.
    pub tasks: u64,
}

impl Verdict {
    /// Simulated hours of gateways.
    #[must_use]
    pub fn agent_hours(&self) -> f64 {
        self.agent_time as f64 / HOUR as f64
    }
}

/// Runs a plan.
#[must_use]
pub fn run_plan(plan: Plan, lines: Option<Sink>) -> Verdict {
    run_watched(plan, lines, Arc::default())
}

/// Runs a plan while somebody watches its pulse.
fn run_watched(plan: Plan, lines: Option<Sink>, pulse: Arc<Pulse>) -> Verdict {
    let (seed, layer, nodes) = (plan.seed, plan.layer, plan.nodes as u64);
    let tasks = plan
        .runs
        .iter()
        .map(|run| run.workflow.tasks.len() as u64)
        .sum();
    pulse.seed.store(seed.wrapping_add(1), Ordering::Relaxed);
    let mut world = World::new(plan, lines);
    world.pulse = Arc::clone(&pulse);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run_to_the_end()));
    if let Err(panic) = ended {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        world.fail("panic", text);
    }
    // what a panic left behind must not panic again
    let verdict = Verdict {
        seed,
        layer,
        violations: std::mem::take(&mut world.violations),
        tally: std::mem::take(&mut world.tally),
        hash: world.trace.hash(),
        attempts: world.ran.len() as u64,
        agent_time: world.t * nodes,
        tasks,
    };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(world)));
    pulse.seed.store(0, Ordering::Relaxed);
    verdict
}

/// Which layer a seed runs on: every third with simulated disks when nothing else is asked for.
#[must_use]
pub fn layer_of(seed: u64, wanted: Option<Layer>) -> Layer {
    match wanted {
        Some(layer) => layer,
        None if seed.is_multiple_of(3) => Layer::Disk,
        None => Layer::Cores,
    }
}

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64, layer: Layer, lines: Option<Sink>) -> Verdict {
    run_plan(Plan::draw(seed, layer), lines)
}

/// A step that took this long has no end.
const ENDLESS: Duration = Duration::from_secs(60);
/// From one look at the worlds to the next.
const LOOK: Duration = Duration::from_secs(1);

/// Notices worlds whose events stopped.
#[derive(Debug, Default)]
struct Watch {
    seen: Vec<(u64, u64, Duration)>,
}

impl Watch {
    /// `passed` since the last look: the seed of a world in which nothing happened for too long.
    fn look(&mut self, pulses: &[Arc<Pulse>], passed: Duration) -> Option<u64> {
        self.seen.resize(pulses.len(), Default::default());
        for (pulse, (seed, beats, still)) in pulses.iter().zip(&mut self.seen) {
            let now = (
                pulse.seed.load(Ordering::Relaxed),
                pulse.beats.load(Ordering::Relaxed),
            );
            *still = match now == (*seed, *beats) && now.0 > 0 {
                true => *still + passed,
                false => Duration::ZERO,
            };
            (*seed, *beats) = now;
            if *still > ENDLESS {
                return Some(now.0 - 1);
            }
        }
        None
    }
}

/// Runs `count` seeds from `start` on `threads` threads; `each` sees the verdicts as they come,
/// `endless` the seed of a world in which a step does not end: it will have no verdict.
pub fn run_many(
    start: u64,
    count: u64,
    layer: Option<Layer>,
    threads: usize,
    each: &mut dyn FnMut(Verdict),
    endless: &(dyn Fn(u64) + Sync),
) {
    let pulses: Vec<Arc<Pulse>> = (0..threads.max(1)).map(|_| Arc::default()).collect();
    let over = AtomicBool::new(false);
    let next = AtomicU64::new(0);
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        let (over, watched) = (&over, &pulses);
        scope.spawn(move || {
            let mut watch = Watch::default();
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                if let Some(seed) = watch.look(watched, LOOK) {
                    endless(seed);
                }
            }
        });
        for pulse in &pulses {
            let send = send.clone();
            let next = &next;
            scope.spawn(move || {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    let seed = start.wrapping_add(n);
                    let plan = Plan::draw(seed, layer_of(seed, layer));
                    let verdict = run_watched(plan, None, Arc::clone(pulse));
                    if send.send(verdict).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        receive.iter().for_each(each);
        over.store(true, Ordering::Relaxed);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_world_whose_events_stopped_is_endless() {
        let pulses: Vec<Arc<Pulse>> = (0..3).map(|_| Arc::default()).collect();
        pulses[1].seed.store(8, Ordering::Relaxed);
        pulses[2].seed.store(9, Ordering::Relaxed);
        let mut watch = Watch::default();
        let mut found = Vec::new();
        for _ in 0..70 {
            pulses[1].beats.fetch_add(1, Ordering::Relaxed);
            found.extend(watch.look(&pulses, LOOK));
        }
        found.dedup();
        assert_eq!(found, [8]);
    }
}
