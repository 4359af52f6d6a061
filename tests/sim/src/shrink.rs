//! Makes a seed that breaks a promise smaller: takes out of its plan what the same invariant can be
//! broken without. The way is that of Zeller and Hildebrandt, "Simplifying and Isolating
//! Failure-Inducing Input", IEEE TSE 28(2), 2002: large pieces first, then smaller ones, kind by
//! kind, until nothing can go any more.
//!
//! The number of threads changes how long it takes and not what comes out.

use crate::cut::{Cut, Part};
use crate::deed::Deed;
use crate::plan::Plan;
use crate::queue::{MIN, Time};
use crate::runner::{Verdict, first, run_watched};
use crate::tell;
use crate::world::Pulse;
use std::fmt::Write as _;
use std::sync::Arc;

/// What is left of a seed.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// What is taken out.
    pub cut: Cut,
    /// What the rest breaks.
    pub verdict: Verdict,
    /// Worlds that ran for it.
    pub tries: u64,
    /// Nothing more can be taken out; else somebody had no time.
    pub ended: bool,
}

/// Asked between two worlds, with how many there were and what is left: whether there is time.
pub type More<'a> = &'a mut dyn FnMut(u64, &Plan) -> bool;

/// A world whose promise is not broken so long after the last one's was counts as one that keeps
/// it.
const PATIENCE: Time = 60 * MIN;

/// Rounds over all kinds of parts; the next one finds what the last one made superfluous.
const ROUNDS: u32 = 6;

/// Makes `plan`, as it was drawn, smaller; `found` is what it breaks. One world runs for each of
/// `pulses` at once.
#[must_use]
pub fn shrink(plan: &Plan, found: Verdict, pulses: &[Arc<Pulse>], more: More<'_>) -> Shrunk {
    let mut shrinker = Shrinker {
        full: plan,
        wanted: found.violations.first().map(|one| one.invariant),
        plan: plan.clone(),
        shrunk: Shrunk {
            cut: Cut::default(),
            verdict: found,
            tries: 0,
            ended: false,
        },
        pulses,
        more,
    };
    shrinker.shrunk.ended = shrinker.wanted.is_some() && shrinker.run().is_some();
    shrinker.shrunk
}

struct Shrinker<'a> {
    full: &'a Plan,
    wanted: Option<&'static str>,
    /// What is left of it.
    plan: Plan,
    shrunk: Shrunk,
    pulses: &'a [Arc<Pulse>],
    more: More<'a>,
}

/// The parts of one kind that are left in a plan.
type Kind = fn(&Plan) -> Vec<Part>;

/// In this order: what goes early makes the worlds behind it quick.
const KINDS: &[Kind] = &[
    faults_left,
    deeds_left,
    schedules_left,
    runs_left,
    agents_left,
    tasks_left,
    rest_left,
];

impl Shrinker<'_> {
    /// None: there was no time to come to the end.
    fn run(&mut self) -> Option<()> {
        for _ in 0..ROUNDS {
            let before = self.shrunk.cut.clone();
            for kind in KINDS {
                self.thin(*kind)?;
            }
            self.shorten()?;
            self.hasten()?;
            if before == self.shrunk.cut {
                break;
            }
        }
        Some(())
    }

    /// Takes out what it can of one kind: all of it, halves, quarters and so on.
    fn thin(&mut self, kind: Kind) -> Option<()> {
        let mut size = kind(&self.plan).len();
        while size > 0 {
            let mut from = 0;
            loop {
                let parts = kind(&self.plan);
                let rest = &parts[from.min(parts.len())..];
                let chunks: Vec<&[Part]> = rest.chunks(size).collect();
                let cut = &self.shrunk.cut;
                let cuts: Vec<Cut> = chunks.iter().map(|chunk| cut.with(chunk)).collect();
                let Some(taken) = self.first_of(cuts)? else {
                    break;
                };
                // what stood before it was tried, unless it went with it
                let next = chunks[taken][0];
                let left = kind(&self.plan);
                from = left.iter().filter(|part| **part < next).count();
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
        Some(())
    }

    /// Lets each fault that is left take as short as it can.
    fn shorten(&mut self) -> Option<()> {
        for part in faults_left(&self.plan) {
            let Part::Fault(n) = part else { continue };
            let whole = self.plan.faults[n]
                .what
                .times()
                .iter()
                .map(|time| **time)
                .sum();
            let shorter = |cut: &Cut, by: u32| {
                let plan = self.full.clone().without(&cut.halving(n, by));
                let mut what = plan.faults[n].what;
                what.times().iter().map(|time| **time).sum::<Time>() < whole
            };
            let cut = &self.shrunk.cut;
            let steps = [12, 8, 4, 2, 1].into_iter().filter(|by| shorter(cut, *by));
            let cuts = steps.map(|by| cut.halving(n, by)).collect();
            self.first_of(cuts)?;
        }
        Some(())
    }

    /// Leaves time out between what is left to happen.
    fn hasten(&mut self) -> Option<()> {
        let mut times = times_left(&self.plan);
        times.push(0);
        if let Some(broken) = self.shrunk.verdict.violations.first()
            && broken.at >= self.plan.calm_at
        {
            times.push(self.full.calm_at);
        }
        times.sort_unstable();
        for pair in times.windows(2) {
            // some minutes stay: nodes connect, backoffs pass
            let (from, to) = (pair[0] / MIN + 2, pair[1] / MIN);
            let taken = |&(from, to): &(u64, u64)| {
                let skipped = &self.plan.gone;
                skipped.when(to * MIN) > skipped.when(from * MIN)
            };
            if to < from + 3 {
                continue;
            }
            let spans = [(from, to), ((from + to) / 2, to), ((from + 3 * to) / 4, to)];
            let spans = spans.into_iter().filter(taken);
            let cut = &self.shrunk.cut;
            let cuts = spans.map(|(from, to)| cut.skipping(from, to)).collect();
            self.first_of(cuts)?;
        }
        Some(())
    }

    /// The first of `cuts` that leaves the promise broken becomes the one to go on with.
    #[expect(
        clippy::option_option,
        reason = "no time, nothing found, and what was found"
    )]
    fn first_of(&mut self, cuts: Vec<Cut>) -> Option<Option<usize>> {
        let mut from = 0;
        for batch in cuts.chunks(self.pulses.len().max(1)) {
            if !(self.more)(self.shrunk.tries, &self.plan) {
                return None;
            }
            self.shrunk.tries += batch.len() as u64;
            let goal = self.goal();
            let found = first(batch.len() as u64, self.pulses, &|n, pulse| {
                goal.broken(&batch[n as usize], pulse)
            });
            if let Some((n, verdict)) = found {
                let n = n as usize;
                self.shrunk.cut = batch[n].clone();
                self.plan = self.full.clone().without(&batch[n]);
                self.shrunk.verdict = verdict;
                return Some(Some(from + n));
            }
            from += batch.len();
        }
        Some(None)
    }

    fn goal(&self) -> Goal<'_> {
        let last = self.shrunk.verdict.violations.first().map(|one| one.at);
        let early = last.filter(|last| *last < self.plan.calm_at);
        Goal {
            full: self.full,
            wanted: self.wanted,
            stop_at: early.map(|last| last + PATIENCE),
        }
    }
}

/// What a cut must leave to be gone on with.
struct Goal<'a> {
    full: &'a Plan,
    wanted: Option<&'static str>,
    stop_at: Option<Time>,
}

impl Goal<'_> {
    /// What the plan breaks without `cut`, if it is the same promise.
    fn broken(&self, cut: &Cut, pulse: &Arc<Pulse>) -> Option<Verdict> {
        let mut plan = self.full.clone().without(cut);
        plan.stop_at = self.stop_at;
        let verdict = run_watched(plan, None, Arc::clone(pulse));
        let found = verdict.violations.first().map(|one| one.invariant);
        (found == self.wanted).then_some(verdict)
    }
}

fn agents_left(plan: &Plan) -> Vec<Part> {
    plan.agents_left().map(Part::Agent).collect()
}

fn runs_left(plan: &Plan) -> Vec<Part> {
    plan.runs_left().map(|(n, _)| Part::Run(n)).collect()
}

fn schedules_left(plan: &Plan) -> Vec<Part> {
    let there = |n: &usize| !plan.gone.schedules.contains(n);
    let all = (0..plan.schedules.len()).filter(there);
    all.map(Part::Schedule).collect()
}

fn faults_left(plan: &Plan) -> Vec<Part> {
    let there = |n: &usize| !plan.gone.faults.contains(n);
    (0..plan.faults.len())
        .filter(there)
        .map(Part::Fault)
        .collect()
}

/// What people do, but for what makes a run or a schedule: these are parts of their own.
#[must_use]
pub fn deeds_left(plan: &Plan) -> Vec<Part> {
    let own = |(n, (_, deed)): &(usize, (Time, Deed))| {
        let makes = matches!(deed, Deed::Submit(_) | Deed::Schedule(_));
        !makes && !plan.gone.deeds.contains(n)
    };
    let all = plan.deeds().into_iter().enumerate().filter(own);
    all.map(|(n, _)| Part::Deed(n)).collect()
}

fn tasks_left(plan: &Plan) -> Vec<Part> {
    let tasks = plan.runs_left().flat_map(|(run, planned)| {
        let numbers = planned.habits.iter().map(|habit| habit.number as usize);
        numbers.map(move |task| Part::Task(run, task))
    });
    tasks.collect()
}

/// What makes a world uneven.
fn rest_left(plan: &Plan) -> Vec<Part> {
    let mishaps = plan.runs_left().filter(|(_, run)| {
        let mut habits = run.habits.iter();
        habits.any(|habit| habit.fails + habit.hangs > 0)
    });
    let retention = plan.leaving.and_then(|leaving| leaving.retention);
    let rest = [
        (plan.net.is_rough(), Part::Rough),
        (plan.backups.is_some(), Part::Backups),
        (plan.certificates.is_some(), Part::Certificates),
        (retention.is_some(), Part::Leaving),
        (plan.byzantine.is_some(), Part::Byzantine),
    ];
    let there = rest.into_iter().filter(|(there, _)| *there);
    let mishaps = mishaps.map(|(n, _)| Part::Mishaps(n));
    mishaps.chain(there.map(|(_, part)| part)).collect()
}

/// When something happens by the plan, as it was drawn.
fn times_left(plan: &Plan) -> Vec<Time> {
    let there = |n: &usize| !plan.gone.faults.contains(n);
    let faults = (0..plan.faults.len()).filter(there);
    let mut times: Vec<Time> = faults.map(|n| plan.faults[n].at).collect();
    let deeds = plan.deeds().into_iter().enumerate();
    let deeds = deeds.filter(|(n, _)| !plan.gone.deeds.contains(n));
    times.extend(deeds.map(|(_, (at, _))| at));
    times
}

/// The command that runs again what is left.
#[must_use]
pub fn command(shrunk: &Shrunk) -> String {
    let (seed, layer) = (shrunk.verdict.seed, shrunk.verdict.layer.number());
    format!(
        "cargo xtask sim replay {seed} --layer {layer} --cut '{}'",
        shrunk.cut
    )
}

/// What is left of `full`, for people.
#[must_use]
pub fn summary(full: &Plan, shrunk: &Shrunk) -> String {
    let left = full.clone().without(&shrunk.cut);
    let mut out = String::new();
    // writing into a String cannot fail
    let _ = writeln!(out, "seed {}: {}", full.seed, tell::size(full));
    let end = match shrunk.ended {
        true => "",
        false => ", with no time for more",
    };
    let _ = writeln!(out, "  shrunk to {}", tell::size(&left));
    let _ = writeln!(out, "  ({} worlds ran{end})", shrunk.tries);
    for line in tell::contents(&left) {
        let _ = writeln!(out, "  {line}");
    }
    for one in shrunk.verdict.violations.iter().take(1) {
        let at = crate::trace::clock(one.at);
        let _ = writeln!(out, "  {at} breaks {}: {}", one.invariant, one.text);
    }
    let _ = write!(out, "  {}", command(shrunk));
    out
}
