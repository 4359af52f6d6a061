//! What is taken out of the plan of a seed, to see the same promise broken by less. A plan is drawn
//! in full and masked then: what is left keeps its numbers and its randomness. A cut has a text of
//! one line, with which the same world runs again.

use crate::deed::{self, Deed};
use crate::plan::{Plan, What};
use crate::queue::{MIN, SEC, Time};
use crate::rng::Rng;
use crate::workload::{self, PlannedRun, node_labels, node_name};
use shared::ids::TaskIdx;
use shared::workflow::{Placement, Source, Task};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// Something that can be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A gateway, with what happens at it and what can only run there.
    Agent(usize),
    /// A submission.
    Run(usize),
    /// A task of a run: the run, the task's number as drawn.
    Task(usize, usize),
    /// What makes tasks of a run fail or hang.
    Mishaps(usize),
    /// A schedule.
    Schedule(usize),
    /// A fault.
    Fault(usize),
    /// What somebody does.
    Deed(usize),
    /// Delays out of the ordinary, messages that arrive twice, narrow links.
    Rough,
    /// Backups, and restores with them.
    Backups,
    /// That certificates end.
    Certificates,
    /// That runs leave by themselves when they are over.
    Leaving,
    /// The Byzantine gateway.
    Byzantine,
}

/// What is taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    out: BTreeSet<Part>,
    /// Faults that take shorter: by so many halves.
    halved: BTreeMap<usize, u32>,
    /// Minutes that are left out, from and to, in order; what comes after them comes earlier.
    skipped: BTreeSet<(u64, u64)>,
}

/// What of a plan does not happen.
#[derive(Debug, Clone, Default)]
pub struct Gone {
    /// Gateways.
    pub agents: BTreeSet<usize>,
    /// Submissions.
    pub runs: BTreeSet<usize>,
    /// Schedules.
    pub schedules: BTreeSet<usize>,
    /// Faults.
    pub faults: BTreeSet<usize>,
    /// What people would do.
    pub deeds: BTreeSet<usize>,
    /// Stretches of time that are left out.
    pub skipped: Vec<(Time, Time)>,
}

impl Gone {
    /// When that happens which was drawn for `at`.
    #[must_use]
    pub fn when(&self, at: Time) -> Time {
        let before = |(from, to): &(Time, Time)| at.min(*to).saturating_sub(*from);
        at - self.skipped.iter().map(before).sum::<Time>()
    }
}

impl Cut {
    /// The same and `parts`.
    #[must_use]
    pub fn with(&self, parts: &[Part]) -> Self {
        let mut more = self.clone();
        more.out.extend(parts);
        more
    }

    /// The same, with a fault that takes so many times half as long.
    #[must_use]
    pub fn halving(&self, fault: usize, times: u32) -> Self {
        let mut more = self.clone();
        *more.halved.entry(fault).or_insert(0) += times;
        more
    }

    /// The same without the minutes `from` to `to`.
    #[must_use]
    pub fn skipping(&self, from: u64, to: u64) -> Self {
        let mut more = self.clone();
        more.skipped.insert((from, to));
        more
    }

    /// The stretches of time that are left out, none of which touch.
    fn stretches(&self) -> Vec<(Time, Time)> {
        let mut out: Vec<(Time, Time)> = Vec::new();
        for (from, to) in &self.skipped {
            let (from, to) = (from.saturating_mul(MIN), to.saturating_mul(MIN));
            match out.last_mut() {
                Some(last) if from <= last.1 => last.1 = to.max(last.1),
                _ => out.push((from, to)),
            }
        }
        out
    }

    /// Whether nothing is taken out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Plan {
    /// The plan, as it was drawn, without what `cut` takes out.
    #[must_use]
    pub fn without(mut self, cut: &Cut) -> Self {
        if cut.is_empty() {
            return self;
        }
        let numbers = |part: fn(&Part) -> Option<usize>| cut.out.iter().filter_map(part).collect();
        self.gone = Gone {
            agents: numbers(|part| match part {
                Part::Agent(n) => Some(*n),
                _ => None,
            }),
            skipped: cut.stretches(),
            ..Gone::default()
        };
        self.cut_runs(cut);
        self.cut_schedules(cut);
        self.cut_deeds(cut);
        self.cut_faults(cut);
        self.cut_rest(cut);
        self.calm_at = self.gone.when(self.calm_at);
        self
    }

    fn cut_runs(&mut self, cut: &Cut) {
        let nodes = self.nodes;
        for (n, run) in self.runs.iter_mut().enumerate() {
            let gone = &mut self.gone;
            let there = |placement: &Placement| {
                gone.agents.is_empty() || (0..nodes).any(|m| takes(&gone.agents, m, placement))
            };
            let keep: Vec<bool> = (run.workflow.tasks.iter().enumerate())
                .map(|(t, task)| !cut.out.contains(&Part::Task(n, t)) && there(&task.placement))
                .collect();
            let orphan = run.local.is_some_and(|m| gone.agents.contains(&m));
            let empty = !keep.contains(&true);
            if orphan || empty || cut.out.contains(&Part::Run(n)) {
                gone.runs.insert(n);
            } else if keep.contains(&false) {
                keep_tasks(run, &keep);
            }
            if cut.out.contains(&Part::Mishaps(n)) {
                for habit in &mut run.habits {
                    (habit.fails, habit.hangs) = (0, 0);
                }
            }
        }
    }

    fn cut_schedules(&mut self, cut: &Cut) {
        let agents = &self.gone.agents;
        let there = |task: &Task| {
            agents.is_empty() || (0..self.nodes).any(|m| takes(agents, m, &task.placement))
        };
        let without = |n: &usize| {
            let owner = Deed::Schedule(*n).agent(self);
            let mut revisions = self.schedules[*n].revisions.iter();
            let homeless = !revisions.all(|one| one.tasks.iter().all(there));
            owner.is_some_and(|m| agents.contains(&m))
                || homeless
                || cut.out.contains(&Part::Schedule(*n))
        };
        let gone = (0..self.schedules.len()).filter(without).collect();
        self.gone.schedules = gone;
    }

    fn cut_deeds(&mut self, cut: &Cut) {
        for (position, (_, deed)) in self.deeds().into_iter().enumerate() {
            let gone = &self.gone;
            let without = deed.run().is_some_and(|n| gone.runs.contains(&n))
                || deed.schedule().is_some_and(|n| gone.schedules.contains(&n))
                || deed.agent(self).is_some_and(|m| gone.agents.contains(&m));
            if without || cut.out.contains(&Part::Deed(position)) {
                self.gone.deeds.insert(position);
            }
        }
    }

    fn cut_faults(&mut self, cut: &Cut) {
        for (position, planned) in self.faults.iter_mut().enumerate() {
            let node = planned.what.node();
            let idle =
                matches!(planned.what, What::Restore { .. }) && cut.out.contains(&Part::Backups);
            let orphan = node.is_some_and(|m| self.gone.agents.contains(&m));
            if idle || orphan || cut.out.contains(&Part::Fault(position)) {
                self.gone.faults.insert(position);
            }
            let halves = cut.halved.get(&position).copied().unwrap_or(0);
            for time in planned.what.times() {
                *time = time.checked_shr(halves).unwrap_or(0).max(SEC.min(*time));
            }
        }
    }

    fn cut_rest(&mut self, cut: &Cut) {
        if cut.out.contains(&Part::Rough) {
            (self.net.spikes, self.net.doubles, self.net.bits) = (0, 0, None);
        }
        if cut.out.contains(&Part::Backups) {
            self.backups = None;
        }
        if cut.out.contains(&Part::Certificates) {
            self.certificates = None;
        }
        if cut.out.contains(&Part::Byzantine) {
            self.byzantine = None;
        }
        if let (true, Some(leaving)) = (cut.out.contains(&Part::Leaving), &mut self.leaving) {
            leaving.retention = None;
        }
    }

    /// What people will do, all of it, and when it was drawn for.
    #[must_use]
    pub fn deeds(&self) -> Vec<(Time, Deed)> {
        let world = Rng::new(self.seed).fork("world", 0);
        deed::draw(self, &mut world.fork("people", 0))
    }

    /// The gateways that are left.
    pub fn agents_left(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes).filter(|n| !self.gone.agents.contains(n))
    }

    /// The runs that are left, with their numbers.
    pub fn runs_left(&self) -> impl Iterator<Item = (usize, &PlannedRun)> + '_ {
        let runs = self.runs.iter().enumerate();
        runs.filter(|(n, _)| !self.gone.runs.contains(n))
    }

    /// The tasks that are left, of all runs.
    #[must_use]
    pub fn tasks_left(&self) -> usize {
        self.runs_left().map(|(_, run)| run.habits.len()).sum()
    }
}

impl What {
    /// The gateway that it strikes.
    #[must_use]
    pub fn node(self) -> Option<usize> {
        match self {
            Self::Cut { node, .. }
            | Self::Slow { node, .. }
            | Self::Kill { node, .. }
            | Self::Power { node, .. }
            | Self::SitePower { node, .. }
            | Self::Stop { node, .. }
            | Self::PutBack { node, .. }
            | Self::CopyDisk { node, .. }
            | Self::Reimage { node, .. }
            | Self::CutStore { node, .. }
            | Self::Destroy { node, .. }
            | Self::Return { node, .. }
            | Self::Drain { node, .. }
            | Self::Reset(node)
            | Self::Skew(node)
            | Self::UnknownFact(node)
            | Self::UnknownDirective(node)
            | Self::ReplayHello(node) => Some(node),
            Self::Clock { node, .. }
            | Self::Full { node, .. }
            | Self::SlowDisk { node, .. }
            | Self::Rot { node, .. }
            | Self::Freeze { node, .. }
            | Self::CommitFails(node)
            | Self::SyncFails(node)
            | Self::KeepImage(node) => node,
            Self::RefuseDials(_)
            | Self::Blackout(_)
            | Self::CloudKill { .. }
            | Self::CloudPower { .. }
            | Self::CloudPutBack(_)
            | Self::Restore { .. } => None,
        }
    }

    /// How long what it does lasts, where it says so.
    pub fn times(&mut self) -> Vec<&mut Time> {
        match self {
            Self::Cut { lasts, .. }
            | Self::Full { lasts, .. }
            | Self::CopyDisk { lasts, .. }
            | Self::Return { lasts, .. } => vec![lasts],
            Self::Slow { by, lasts, .. } | Self::SlowDisk { by, lasts, .. } => vec![by, lasts],
            Self::Power { down, offline, .. } => {
                std::iter::once(down).chain(offline.as_mut()).collect()
            }
            Self::Kill { down, .. }
            | Self::CloudKill { down, .. }
            | Self::CloudPower { down, .. }
            | Self::PutBack { down, .. }
            | Self::Restore { down, .. }
            | Self::Reimage { down, .. }
            | Self::Rot { down, .. }
            | Self::SitePower { down, .. }
            | Self::Stop { down, .. }
            | Self::CutStore { down, .. } => vec![down],
            Self::Destroy { after, .. } => vec![after],
            Self::Freeze { freeze, .. } => vec![&mut freeze.lasts],
            Self::RefuseDials(time) | Self::Blackout(time) | Self::CloudPutBack(time) => {
                vec![time]
            }
            _ => Vec::new(),
        }
    }
}

/// Whether machine `m` is there and a task of this placement may run on it.
fn takes(gone: &BTreeSet<usize>, m: usize, placement: &Placement) -> bool {
    let labels = node_labels(m);
    let named = placement
        .node
        .as_ref()
        .is_none_or(|name| *name == node_name(m));
    let site = (placement.site.as_ref()).is_none_or(|site| labels.get("site") == Some(site));
    let mut wanted = placement.labels.iter();
    let labelled = wanted.all(|(key, value)| labels.get(key) == Some(value));
    !gone.contains(&m) && named && site && labelled
}

/// Takes tasks out of a run: who waited for one waits for what that one waited for.
fn keep_tasks(run: &mut PlannedRun, keep: &[bool]) {
    let mut place: Vec<Option<TaskIdx>> = vec![None; keep.len()];
    let mut above: Vec<BTreeSet<TaskIdx>> = Vec::with_capacity(keep.len());
    let mut tasks: Vec<Task> = Vec::new();
    for (position, mut task) in std::mem::take(&mut run.workflow.tasks)
        .into_iter()
        .enumerate()
    {
        let mut needs = BTreeSet::new();
        for need in &task.needs {
            match place[need.0 as usize] {
                Some(kept) => drop(needs.insert(kept)),
                None => needs.extend(&above[need.0 as usize]),
            }
        }
        if keep[position] {
            task.needs = needs.iter().copied().collect();
            task.inputs.retain_mut(|input| match &mut input.source {
                Source::Task { task, .. } => {
                    let kept = place[task.0 as usize];
                    kept.inspect(|kept| *task = *kept).is_some()
                }
                _ => true,
            });
            let apart = &mut task.placement.anti_affinity;
            apart.retain_mut(|(from, to)| {
                let kept = place[from.0 as usize];
                kept.inspect(|kept| (*from, *to) = (*kept, *kept)).is_some()
            });
            place[position] = Some(TaskIdx(tasks.len() as u32));
            tasks.push(task);
        }
        above.push(needs);
    }
    workload::reduce(&mut tasks);
    if !tasks.iter().any(|task| task.matrix.is_some()) {
        run.workflow.matrices.clear();
    }
    run.workflow.tasks = tasks;
    let mut kept = keep.iter();
    run.habits.retain(|_| kept.next() == Some(&true));
    run.packed = shared::codec::pack(&run.workflow).0;
}

impl Part {
    /// The letters of its kind, the run it belongs to where it is a task, and its number.
    fn code(self) -> (&'static str, Option<usize>, Option<usize>) {
        match self {
            Self::Agent(n) => ("gw", None, Some(n + 1)),
            Self::Run(n) => ("run", None, Some(n)),
            Self::Task(run, n) => ("t", Some(run), Some(n)),
            Self::Mishaps(n) => ("mishaps", None, Some(n)),
            Self::Schedule(n) => ("sched", None, Some(n)),
            Self::Fault(n) => ("f", None, Some(n)),
            Self::Deed(n) => ("d", None, Some(n)),
            Self::Rough => ("rough", None, None),
            Self::Backups => ("backups", None, None),
            Self::Certificates => ("certificates", None, None),
            Self::Leaving => ("leaving", None, None),
            Self::Byzantine => ("byzantine", None, None),
        }
    }

    fn of(kind: &str, run: Option<usize>, n: usize) -> Option<Self> {
        Some(match (kind, run) {
            ("gw", None) => Self::Agent(n.checked_sub(1)?),
            ("run", None) => Self::Run(n),
            ("t", Some(run)) => Self::Task(run, n),
            ("mishaps", None) => Self::Mishaps(n),
            ("sched", None) => Self::Schedule(n),
            ("f", None) => Self::Fault(n),
            ("d", None) => Self::Deed(n),
            _ => return None,
        })
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        let mut open: Option<(&str, Option<usize>, usize, usize)> = None;
        let close = |words: &mut Vec<String>, (kind, run, from, to): (_, Option<usize>, _, _)| {
            let run = run.map(|run| format!("{run}.")).unwrap_or_default();
            let end = if from < to {
                format!("-{to}")
            } else {
                String::new()
            };
            words.push(format!("{kind}{run}{from}{end}"));
        };
        for part in &self.out {
            let (kind, run, number) = part.code();
            open = match (open, number) {
                (Some((k, r, from, to)), Some(n)) if (k, r, to + 1) == (kind, run, n) => {
                    Some((k, r, from, n))
                }
                (before, number) => {
                    before
                        .into_iter()
                        .for_each(|range| close(&mut words, range));
                    if number.is_none() {
                        words.push(kind.to_owned());
                    }
                    number.map(|n| (kind, run, n, n))
                }
            };
        }
        open.into_iter().for_each(|range| close(&mut words, range));
        words.extend(self.halved.iter().map(|(n, by)| format!("half{n}x{by}")));
        let skipped = self.skipped.iter();
        words.extend(skipped.map(|(from, to)| format!("min{from}-{to}")));
        f.write_str(&words.join(","))
    }
}

/// A text that names no cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoCut(String);

impl fmt::Display for NoCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' says nothing of what is taken out", self.0)
    }
}

impl std::error::Error for NoCut {}

/// Most parts that one word of a cut may name.
const MOST: usize = 100_000;

impl FromStr for Cut {
    type Err = NoCut;

    fn from_str(text: &str) -> Result<Self, NoCut> {
        let mut cut = Self::default();
        let words = text.split([',', ' ', '\n']);
        for word in words.map(str::trim).filter(|word| !word.is_empty()) {
            cut.word(word).ok_or_else(|| NoCut(word.to_owned()))?;
        }
        Ok(cut)
    }
}

impl Cut {
    /// One word of the text.
    fn word(&mut self, word: &str) -> Option<()> {
        let whole = match word {
            "rough" => Some(Part::Rough),
            "backups" => Some(Part::Backups),
            "certificates" => Some(Part::Certificates),
            "leaving" => Some(Part::Leaving),
            "byzantine" => Some(Part::Byzantine),
            _ => None,
        };
        if let Some(part) = whole {
            self.out.insert(part);
            return Some(());
        }
        let digits = word.find(|c: char| c.is_ascii_digit())?;
        let (kind, rest) = word.split_at(digits);
        if kind == "half" {
            let (fault, times) = rest.split_once('x')?;
            self.halved.insert(fault.parse().ok()?, times.parse().ok()?);
            return Some(());
        }
        let (run, range) = match rest.split_once('.') {
            Some((run, range)) => (Some(run.parse().ok()?), range),
            None => (None, rest),
        };
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        if from > to || to - from > MOST {
            return None;
        }
        if kind == "min" {
            self.skipped.insert((from as u64, to as u64));
            return Some(());
        }
        for n in from..=to {
            self.out.insert(Part::of(kind, run, n)?);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Layer;

    #[test]
    fn a_cut_is_read_back_from_its_text() {
        let text = "gw2-3,run1-4,run6,t0.3-7,t5.1,mishaps0,sched1,f0-6,f8,d9,rough,backups,leaving,byzantine,\
             half7x4,min2-90";
        let cut: Cut = text.parse().unwrap();
        assert_eq!(cut.to_string(), text);
        assert_eq!(Cut::default().to_string(), "");
        assert_eq!("".parse(), Ok(Cut::default()));
        for wrong in [
            "f",
            "x7",
            "gw0",
            "t7",
            "run1.2",
            "f7-3",
            "half7",
            "f0-999999999999",
        ] {
            assert!(wrong.parse::<Cut>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_left_stays_what_it_was() {
        for seed in 0..30 {
            let full = Plan::draw(seed, Layer::Cores);
            let cut = Cut::default().with(&[Part::Task(0, 1), Part::Task(0, 4), Part::Agent(0)]);
            let less = full.clone().without(&cut);
            for (n, run) in less.runs_left() {
                let was = &full.runs[n];
                assert_eq!((run.run, run.at), (was.run, was.at));
                for (task, habit) in run.workflow.tasks.iter().zip(&run.habits) {
                    let drawn = habit.number as usize;
                    assert_eq!(task.id, was.workflow.tasks[drawn].id);
                    assert_eq!(habit.length, was.habits[drawn].length);
                    assert!(task.needs.is_sorted());
                }
                assert_ne!(run.local, Some(0));
            }
            assert_eq!(less.faults.len(), full.faults.len());
            assert_eq!(less.deeds().len(), full.deeds().len());
        }
    }

    #[test]
    fn who_waited_for_a_task_waits_for_what_that_one_waited_for() {
        let mut run = Plan::draw(2, Layer::Cores).runs.swap_remove(0);
        for (position, task) in run.workflow.tasks.iter_mut().enumerate() {
            let before = position.checked_sub(1).map(|before| TaskIdx(before as u32));
            task.needs = before.into_iter().collect();
            task.inputs.clear();
            task.placement.anti_affinity.clear();
        }
        let keep: Vec<bool> = (0..run.habits.len()).map(|n| n == 2 || n == 9).collect();
        keep_tasks(&mut run, &keep);
        assert_eq!(run.workflow.tasks.len(), 2);
        assert_eq!(run.workflow.tasks[1].needs, [TaskIdx(0)]);
        assert_eq!(run.habits[1].number, 9);
    }

    #[test]
    fn time_that_is_left_out_brings_what_follows_nearer() {
        let gone = Gone {
            skipped: vec![(10, 20), (50, 60)],
            ..Gone::default()
        };
        let cut = Cut::default()
            .skipping(10, 30)
            .skipping(20, 40)
            .skipping(60, 61);
        assert_eq!(
            cut.stretches(),
            [(10 * MIN, 40 * MIN), (60 * MIN, 61 * MIN)]
        );
        let times = [5, 10, 15, 20, 30, 55, 70];
        assert_eq!(times.map(|at| gone.when(at)), [5, 10, 10, 10, 20, 40, 50]);
    }
}
