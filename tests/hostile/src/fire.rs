//! One target under fire, in a process of its own: makes inputs, gives them, keeps what is new, and
//! notes each promise that breaks.

use crate::alloc::{Meter, Taken};
use crate::mutate::mutant;
use crate::rng::Rng;
use crate::target::{Target, Verdict};
use crate::watch::Watch;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Mutants that are kept, at most.
const KEPT: usize = 2000;
/// Failures that are noted, each of another kind, at most.
const FAILURES: usize = 8;
/// Inputs between two looks at the clock, unless one was slow.
const LOOK: u64 = 16;
/// Behind an input that took longer the clock is looked at.
const SLOW: Duration = Duration::from_millis(10);

/// How long a target is under fire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// So many inputs.
    pub(crate) inputs: u64,
    /// But so many mutants at least.
    pub(crate) at_least: u64,
    /// Or so long.
    pub(crate) time: Option<Duration>,
    /// From this seed on.
    pub(crate) seed: u64,
}

/// An input that broke a promise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// What happened.
    pub(crate) text: String,
    /// The input.
    pub(crate) input: Vec<u8>,
}

/// The kind of a failure: its first line without digits. A panic is known by its place.
pub(crate) fn kind(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// What became of a target.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Its name.
    pub(crate) target: String,
    /// Inputs given.
    pub(crate) inputs: u64,
    /// Those of them that were real values; all others were made of them.
    pub(crate) seeds: u64,
    /// Inputs that were decoded.
    pub(crate) good: u64,
    /// Different outcomes.
    pub(crate) outcomes: usize,
    /// Inputs kept for what they brought.
    pub(crate) corpus: usize,
    /// Most memory that one input took.
    pub(crate) peak: usize,
    /// Most of its bound, in percent.
    pub(crate) of_bound: usize,
    /// Longest time of one input, microseconds.
    pub(crate) slowest_us: u64,
    /// Time of all, milliseconds.
    pub(crate) took_ms: u64,
    /// What broke.
    pub(crate) failures: Vec<Failure>,
    /// Where the inputs lie that broke something.
    pub(crate) files: Vec<String>,
}

/// What the last panic said, on whichever thread.
static SAID: Mutex<Option<String>> = Mutex::new(None);

/// Panics are noted and not printed.
pub(crate) fn note_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        said.get_or_insert_with(|| panic.to_string());
    }));
}

/// The panic since the last call.
pub(crate) fn panicked() -> Option<String> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Gives one input: its class, or what broke, and what it took.
fn give(target: &Target, input: &[u8]) -> (Verdict, Taken, Duration) {
    let (meter, begun) = (Meter::start(), Instant::now());
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    let verdict = catch_unwind(AssertUnwindSafe(|| (target.check)(input)));
    let (mut took, taken) = (begun.elapsed(), meter.taken());
    if took > target.bound.time {
        // Others may have had the processor: only our own time counts.
        let now = clock_gettime(ClockId::ThreadCPUTime);
        let ns = (now.tv_sec - cpu.tv_sec) * 1_000_000_000 + now.tv_nsec - cpu.tv_nsec;
        took = took.min(Duration::from_nanos(u64::try_from(ns).unwrap_or(0)));
    }
    let broken = match (panicked(), &verdict) {
        (Some(said), _) => Some(format!("panic: {said}")),
        (None, Err(_)) => Some("panic without a word".to_owned()),
        (None, Ok(_)) => None,
    };
    let bound = target.bound.bytes(input.len());
    let verdict = match (broken, verdict) {
        (Some(broken), _) => Err(broken),
        (None, Ok(Err(broken))) => Err(format!("broken promise: {broken}")),
        _ if taken.peak > bound => Err(format!(
            "memory: {} bytes at once ({} in one piece), for an input of {}; {bound} are allowed",
            taken.peak,
            taken.largest,
            input.len()
        )),
        _ if took > target.bound.time => Err(format!(
            "time: {took:?} where {:?} are allowed",
            target.bound.time
        )),
        (None, Ok(Ok(class))) => Ok(class),
        (None, Err(_)) => Err("panic".to_owned()),
    };
    (verdict, taken, took)
}

/// Gives one input alone.
pub(crate) fn replay(target: &Target, input: &[u8], watch: &Watch) -> Verdict {
    note_panics();
    watch.begin(input);
    let (verdict, taken, took) = give(target, input);
    watch.end();
    eprintln!("{} bytes in, {taken:?}, {took:?}", input.len());
    verdict
}

/// The inputs of a target and what they brought.
struct Fire<'t> {
    target: &'t Target,
    rng: Rng,
    corpus: Vec<Vec<u8>>,
    seeds: usize,
    seen: BTreeSet<u64>,
    outcomes: BTreeMap<String, u64>,
    kinds: BTreeSet<String>,
    report: Report,
}

impl Fire<'_> {
    /// Gives one input that was made of `base`; how long that took.
    fn one(&mut self, base: Vec<u8>, input: &[u8], watch: &Watch) -> Duration {
        let begun = Instant::now();
        watch.begin(input);
        let (verdict, taken, took) = give(self.target, input);
        watch.end();
        let report = &mut self.report;
        report.inputs += 1;
        report.peak = report.peak.max(taken.peak);
        let bound = self.target.bound.bytes(input.len()).max(1);
        report.of_bound = report.of_bound.max(taken.peak.saturating_mul(100) / bound);
        report.slowest_us = report.slowest_us.max(took.as_micros() as u64);
        match verdict {
            Ok(class) => {
                report.good += u64::from(class.starts_with("ok"));
                self.learn(base, class, taken);
            }
            Err(text) => self.fail(text, input),
        }
        begun.elapsed()
    }

    /// Keeps what has an outcome that was not seen before, or came to it in another way: how often
    /// memory was asked for stands for the way through the decoder.
    fn learn(&mut self, base: Vec<u8>, class: String, taken: Taken) {
        let mut hasher = DefaultHasher::new();
        (&class, taken.calls.checked_ilog2()).hash(&mut hasher);
        *self.outcomes.entry(class).or_default() += 1;
        if !self.seen.insert(hasher.finish()) {
            return;
        }
        match self.corpus.len() < self.seeds + KEPT {
            true => self.corpus.push(base),
            false => {
                let place = self.seeds + self.rng.below(KEPT);
                self.corpus[place] = base;
            }
        }
    }

    fn fail(&mut self, text: String, input: &[u8]) {
        if self.kinds.len() < FAILURES && self.kinds.insert(kind(&text)) {
            let input = input.to_vec();
            self.report.failures.push(Failure { text, input });
        }
    }

    /// The next input, and what it was made of.
    fn next(&mut self) -> (Vec<u8>, Vec<u8>) {
        let rng = &mut self.rng;
        let base = match rng.one_in(3) {
            true => rng.below(self.seeds),
            // what came later is more often new
            false => self.corpus.len() - 1 - rng.below(self.corpus.len()).min(rng.below(400)),
        };
        let other = rng.below(self.corpus.len());
        let (base, other) = (&self.corpus[base], &self.corpus[other]);
        let target = self.target;
        let bytes = mutant(rng, base, other, target.form, target.words);
        let mut input = target.wrap(&bytes);
        if target.form == crate::target::Form::Packed && rng.one_in(12) {
            input = mutant(rng, &input, &[], target.form, &[]);
        }
        (bytes, input)
    }
}

/// Puts a target under fire.
pub(crate) fn fire(target: &Target, plan: Plan, watch: &Watch) -> Report {
    note_panics();
    let begun = Instant::now();
    let seeds = (target.seeds)();
    let mut fire = Fire {
        target,
        rng: Rng::new(plan.seed),
        seeds: seeds.len().max(1),
        corpus: seeds.clone(),
        seen: BTreeSet::new(),
        outcomes: BTreeMap::new(),
        kinds: BTreeSet::new(),
        report: Report {
            target: target.name.to_owned(),
            ..Report::default()
        },
    };
    for seed in seeds {
        fire.one(seed.clone(), &target.wrap(&seed), watch);
    }
    let least = fire.report.inputs.saturating_add(plan.at_least);
    let is_over = |done: u64, last: Duration| {
        let looks = done.is_multiple_of(LOOK) || last > SLOW;
        let late = |time| looks && begun.elapsed() >= time;
        done >= least && (done >= plan.inputs || plan.time.is_some_and(late))
    };
    let mut last = SLOW;
    while !is_over(fire.report.inputs, last) {
        let (base, input) = fire.next();
        last = fire.one(base, &input, watch);
    }
    let mut report = fire.report;
    report.seeds = fire.seeds as u64;
    report.outcomes = fire.outcomes.len();
    report.corpus = fire.corpus.len();
    report.took_ms = begun.elapsed().as_millis() as u64;
    if std::env::var_os("HOSTILE_OUTCOMES").is_some() {
        for (class, count) in fire.outcomes {
            eprintln!("{:>9} {} {class}", count, target.name);
        }
    }
    report
}
