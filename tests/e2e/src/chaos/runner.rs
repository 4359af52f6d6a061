//! Plays seeds, several at once, and tells what came of each.

use super::judge::{Broken, Invariant, judge};
use super::marks::Said;
use super::plan::Plan;
use super::seen::Observation;
use super::strike::Fault;
use super::world::World;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Lines of each log that a report shows.
const LOG_LINES: usize = 150;

/// What came of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// Its plan.
    pub plan: Plan,
    /// What is broken.
    pub broken: Vec<Broken>,
    /// How long it took.
    pub took: Duration,
    /// How long after the last fault everything was at rest.
    pub rested: Duration,
    /// Until when tasks worked, since the submission.
    pub worked: Duration,
    /// What was seen.
    pub seen: Observation,
    /// The times of the faults as they struck, and the logs, where something is broken.
    pub story: String,
}

impl Outcome {
    /// The faults of the plan, each with whether tasks still worked when it began.
    pub fn struck(&self) -> impl Iterator<Item = (Fault, bool)> + '_ {
        let worked = self.worked.as_millis();
        let strikes = self.plan.strikes.iter();
        strikes.map(move |strike| (strike.fault, u128::from(strike.from_ms) < worked))
    }

    /// How many attempts began, and what came of the tasks.
    fn work(&self) -> String {
        let begins = self
            .seen
            .marks
            .iter()
            .filter(|mark| mark.said == Said::Begin);
        let mut states: BTreeMap<&str, usize> = BTreeMap::new();
        for task in self.seen.runs.iter().flat_map(|run| run.tasks.values()) {
            *states.entry(&task.state).or_default() += 1;
        }
        let states = states
            .iter()
            .map(|(state, count)| format!("{count} {state}"));
        let states: Vec<String> = states.collect();
        format!("{} attempts ({})", begins.count(), states.join(", "))
    }

    /// One line for a seed that went well; everything that helps to find out why for another.
    #[must_use]
    pub fn report(&self) -> String {
        let (seed, took) = (self.plan.seed, self.took.as_secs_f64());
        if self.broken.is_empty() {
            let (rested, worked) = (self.rested.as_secs_f64(), self.worked.as_secs_f64());
            return format!(
                "seed {seed}: ok, {}; {} until {worked:.1} s; at rest {rested:.1} s behind the \
                 faults, {took:.1} s in all",
                self.plan.summary(),
                self.work(),
            );
        }
        let mut text = format!("seed {seed} FAILED after {took:.1} s\n{}", self.plan);
        for broken in &self.broken {
            let _ = writeln!(text, "  BROKEN {broken}");
        }
        let _ = write!(
            text,
            "{}again: cargo run -p e2e --bin chaos -- --seed {seed}",
            self.story
        );
        text
    }
}

/// Plays one seed to its end.
#[must_use]
pub fn play(seed: u64) -> Outcome {
    let (plan, begun) = (Plan::draw(seed), Instant::now());
    let mut outcome = Outcome {
        plan: plan.clone(),
        broken: Vec::new(),
        took: Duration::ZERO,
        rested: Duration::ZERO,
        worked: Duration::ZERO,
        seen: Observation::default(),
        story: String::new(),
    };
    match caught(|| World::start(&plan)) {
        Err(broken) => outcome.broken.push(broken),
        Ok(mut world) => {
            let played = caught(|| play_in(&mut world, &mut outcome));
            outcome.broken.extend(played.err());
            if !outcome.broken.is_empty() {
                outcome.story = story(&world, &plan);
            }
        }
    }
    outcome.took = begun.elapsed();
    outcome
}

/// What waits in vain for a program panics: that is a scenario that came to no rest.
fn caught<T>(step: impl FnOnce() -> T) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        Broken {
            invariant: Invariant::Convergence,
            what: said.unwrap_or("a panic without a text").to_owned(),
        }
    })
}

fn play_in(world: &mut World<'_>, outcome: &mut Outcome) {
    let plan = &outcome.plan;
    world.strike();
    let struck = Instant::now();
    let (runs, mut seen) = world.rest(|seen| judge(plan, seen).is_empty());
    outcome.rested = struck.elapsed();
    outcome.worked = world.worked();
    if seen.unrest.is_none() {
        world.ask_again(&runs, &mut seen);
        world.stop(&mut seen);
    }
    outcome.broken = judge(plan, &seen);
    outcome.seen = seen;
}

/// What happened when, the marks, and what the programs wrote last.
fn story(world: &World<'_>, plan: &Plan) -> String {
    let mut text = "timeline:\n".to_owned();
    for line in &world.timeline {
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(text, "marks:\n{}", world.fleet.mark("marks"));
    let agents = (0..plan.gateways).map(|node| format!("gw-{node}"));
    for name in ["coordinator".to_owned()].into_iter().chain(agents) {
        let log = world.fleet.log_text(&name);
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        let _ = writeln!(text, "log of {name}:\n{}", last.join("\n"));
    }
    text
}

/// Plays seeds, so many at once, and tells each outcome as it comes.
///
/// # Panics
/// If a thread of its own panics.
pub fn play_all(seeds: Range<u64>, at_once: usize, mut tell: impl FnMut(Outcome)) {
    let next = AtomicU64::new(seeds.start);
    let (done, outcomes) = mpsc::channel();
    let done = Mutex::new(done);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            let sender = done.lock().expect("nobody panics with it").clone();
            let (next, end) = (&next, seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || sender.send(play(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        outcomes.iter().for_each(&mut tell);
    });
}
