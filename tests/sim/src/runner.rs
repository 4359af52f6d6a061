//! Runs seeds: one after another in each thread, each in a world of its own.

use crate::fault::Tally;
use crate::plan::{Layer, Plan};
use crate::queue::{HOUR, Time};
use crate::trace::Sink;
use crate::world::{Violation, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

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
    let (seed, layer, nodes) = (plan.seed, plan.layer, plan.nodes as u64);
    let tasks = plan
        .runs
        .iter()
        .map(|run| run.workflow.tasks.len() as u64)
        .sum();
    let mut world = World::new(plan, lines);
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

/// Runs `count` seeds from `start` on `threads` threads; `each` sees the verdicts as they come.
pub fn run_many(
    start: u64,
    count: u64,
    layer: Option<Layer>,
    threads: usize,
    each: &mut dyn FnMut(Verdict),
) {
    let next = AtomicU64::new(0);
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let send = send.clone();
            let next = &next;
            scope.spawn(move || {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    let seed = start.wrapping_add(n);
                    let verdict = run_seed(seed, layer_of(seed, layer), None);
                    if send.send(verdict).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        receive.iter().for_each(each);
    });
}
