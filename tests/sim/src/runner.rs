//! Runs seeds: one after another in each thread, each in a world of its own.

use crate::carried::Carrier;
use crate::drawing::Drawing;
use crate::fault::Tally;
use crate::plan::{Layer, Plan};
use crate::queue::{HOUR, Time};
use crate::trace::Sink;
use crate::world::{Outcome, Pulse, Violation, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::Thread;
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
    /// Gateways.
    pub agents: u64,
    /// What became of them, where the world came to rest.
    pub outcome: Outcome,
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
pub(crate) fn run_watched(plan: Plan, lines: Option<Sink>, pulse: Arc<Pulse>) -> Verdict {
    run_drawn(plan, lines, pulse).0
}

/// Runs a plan with lines for people, and draws what happened.
#[must_use]
pub fn run_recorded(plan: Plan, lines: Sink) -> (Verdict, Drawing) {
    let (verdict, drawing) = run_drawn(plan, Some(lines), Arc::default());
    (verdict, drawing.unwrap_or_default())
}

/// Runs a plan whose messages `carrier` carries, if there is one.
pub fn run_carried(
    plan: Plan,
    lines: Option<Sink>,
    pulse: Arc<Pulse>,
    carrier: impl FnOnce(&Plan) -> Option<Box<dyn Carrier>>,
) -> (Verdict, Option<Drawing>) {
    let mut verdict = Verdict {
        seed: plan.seed,
        layer: plan.layer,
        violations: Vec::new(),
        tally: Tally::default(),
        hash: 0,
        attempts: 0,
        agent_time: 0,
        tasks: plan.tasks_left() as u64,
        agents: plan.agents_left().count() as u64,
        outcome: Outcome::new(),
    };
    let number = plan.seed.wrapping_add(1);
    pulse.seed.store(number, Ordering::Relaxed);
    let made = caught(|| {
        let carrier = carrier(&plan);
        let mut world = World::new(plan, lines);
        carrier.into_iter().for_each(|by| world.carry_with(by));
        world
    });
    let drawing = made.map(|mut world| {
        world.pulse = Arc::clone(&pulse);
        if let Err(text) = caught(|| world.run_to_the_end()) {
            world.fail("panic", text);
        }
        // what a panic left behind must not panic again
        let _ = caught(|| world.weigh_all());
        let drawing = caught(|| world.finish_record()).unwrap_or_else(|text| {
            world.fail("panic", text);
            None
        });
        verdict.violations = std::mem::take(&mut world.violations);
        verdict.tally = std::mem::take(&mut world.tally);
        verdict.hash = world.trace.hash() ^ world.carried_shape();
        verdict.attempts = world.ran.len() as u64;
        verdict.agent_time = world.t * verdict.agents;
        verdict.outcome = std::mem::take(&mut world.outcome);
        // for the same reason
        let _ = caught(|| drop(world));
        drawing
    });
    let drawing = drawing.unwrap_or_else(|text| {
        let (invariant, at) = ("panic", 0);
        verdict.violations = vec![Violation {
            invariant,
            at,
            text,
        }];
        None
    });
    pulse.seed.store(0, Ordering::Relaxed);
    (verdict, drawing)
}

fn run_drawn(plan: Plan, lines: Option<Sink>, pulse: Arc<Pulse>) -> (Verdict, Option<Drawing>) {
    run_carried(plan, lines, pulse, |_| None)
}

/// What comes of `work`, or what its panic says.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        text.unwrap_or_default()
    })
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

/// Lets `work` run worlds, one at a time with each of `threads` pulses; `endless` gets the seed of
/// one in which a step does not end: it will have no verdict.
pub fn watched<T>(
    threads: usize,
    endless: &(dyn Fn(u64) + Sync),
    work: impl FnOnce(&[Arc<Pulse>]) -> T,
) -> T {
    let pulses: Vec<Arc<Pulse>> = (0..threads.max(1)).map(|_| Arc::default()).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (over, watched) = (&over, &pulses);
        let watcher = scope.spawn(move || {
            let mut watch = Watch::default();
            while !over.load(Ordering::Relaxed) {
                std::thread::park_timeout(LOOK);
                if over.load(Ordering::Relaxed) {
                    break;
                }
                if let Some(seed) = watch.look(watched, LOOK) {
                    endless(seed);
                }
            }
        });
        let _over = Over(over, watcher.thread());
        work(&pulses)
    })
}

/// Ends the watch, also where the work panics: the scope waits for its watcher.
struct Over<'a>(&'a AtomicBool, &'a Thread);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.unpark();
    }
}

/// Runs `count` seeds from `start`, which do what `plan` says, one at a time with each of `pulses`;
/// `each` sees the verdicts as they come.
pub fn run_many(
    (start, count): (u64, u64),
    layer: Option<Layer>,
    plan: &(dyn Fn(u64, Layer) -> Plan + Sync),
    pulses: &[Arc<Pulse>],
    each: &mut dyn FnMut(Verdict),
) {
    let run = |seed, pulse: &Arc<Pulse>| {
        let plan = plan(seed, layer_of(seed, layer));
        run_watched(plan, None, Arc::clone(pulse))
    };
    run_each((start, count), pulses, &run, each);
}

/// The same where `run` runs each seed.
pub fn run_each(
    (start, count): (u64, u64),
    pulses: &[Arc<Pulse>],
    run: &(dyn Fn(u64, &Arc<Pulse>) -> Verdict + Sync),
    each: &mut dyn FnMut(Verdict),
) {
    let next = AtomicU64::new(0);
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for pulse in pulses {
            let send = send.clone();
            let next = &next;
            scope.spawn(move || {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    let verdict = run(start.wrapping_add(n), pulse);
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

/// The smallest number below `most` for which `look` finds something, with what it found; one look
/// at a time with each of `pulses`.
pub(crate) fn first<T: Send>(
    most: u64,
    pulses: &[Arc<Pulse>],
    look: &(dyn Fn(u64, &Arc<Pulse>) -> Option<T> + Sync),
) -> Option<(u64, T)> {
    let next = AtomicU64::new(0);
    let best: Mutex<Option<(u64, T)>> = Mutex::new(None);
    let known = || best.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for pulse in pulses {
            let (next, known) = (&next, &known);
            scope.spawn(move || {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= most || known().as_ref().is_some_and(|(best, _)| *best < n) {
                        break;
                    }
                    if let Some(found) = look(n, pulse) {
                        let mut best = known();
                        if best.as_ref().is_none_or(|(best, _)| n < *best) {
                            *best = Some((n, found));
                        }
                    }
                }
            });
        }
    });
    best.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_panics_while_it_is_watched_ends() {
        let endless = |seed| panic!("seed {seed} is blamed");
        let ended = caught(|| watched(1, &endless, |_| panic!("work")));
        assert_eq!(ended, Err::<(), _>("work".to_owned()));
    }

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
