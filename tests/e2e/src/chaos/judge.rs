//! The invariants, as one pure function: a plan and what was seen give what is broken.

use super::flow::{Flow, Kind, Source};
use super::marks::{Fence, Mark, Said, checksum};
use super::plan::Plan;
use super::seen::{Attempt, LocalTask, Observation, RunSeen, TaskSeen};
use super::strike::Fault;
use std::collections::BTreeMap;
use std::fmt;

/// A promise that every scenario is held against; `docs/simulation.md` defines each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Everything comes to rest in time.
    Convergence,
    /// Each task and run ends as its specification allows.
    Outcomes,
    /// What counts as done was done, and what did not run left no mark.
    Ran,
    /// What may begin once began once.
    AtMostOnce,
    /// No attempt goes on beside a later one.
    NoOverlap,
    /// Each outcome counts once, and each attempt is known.
    CountedOnce,
    /// Gateway and coordinator say the same.
    Agreed,
    /// Nothing waits to be brought.
    Delivered,
    /// Nothing is left behind.
    NothingLeft,
    /// Files have the content that they were given.
    Files,
    /// Who waits for a person is what is lost, and nothing else.
    Waits,
    /// No program ends by itself.
    Alive,
    /// A coordinator that was killed says the same as before.
    Remembered,
    /// Stores are whole.
    Whole,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Convergence,
        Self::Outcomes,
        Self::Ran,
        Self::AtMostOnce,
        Self::NoOverlap,
        Self::CountedOnce,
        Self::Agreed,
        Self::Delivered,
        Self::NothingLeft,
        Self::Files,
        Self::Waits,
        Self::Alive,
        Self::Remembered,
        Self::Whole,
    ];

    /// How it is called in reports and in `docs/simulation.md`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Convergence => "convergence",
            Self::Outcomes => "outcomes",
            Self::Ran => "ran",
            Self::AtMostOnce => "at_most_once",
            Self::NoOverlap => "no_overlap",
            Self::CountedOnce => "counted_once",
            Self::Agreed => "agreed",
            Self::Delivered => "delivered",
            Self::NothingLeft => "nothing_left",
            Self::Files => "files",
            Self::Waits => "waits",
            Self::Alive => "alive",
            Self::Remembered => "remembered",
            Self::Whole => "whole",
        }
    }
}

/// An invariant that does not hold, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which one.
    pub invariant: Invariant,
    /// Where, and what was seen.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant.name(), self.what)
    }
}

/// Everything that is broken.
#[must_use]
pub fn judge(plan: &Plan, seen: &Observation) -> Vec<Broken> {
    let mut judge = Judge {
        plan,
        seen,
        broken: Vec::new(),
    };
    judge.whole_world();
    for (flow, run) in plan.flows.iter().zip(&seen.runs) {
        judge.run(flow, run);
        for (index, task) in (0..flow.tasks.len()).filter_map(|i| Some((i, task(run, i)?))) {
            let case = Case::new(seen, flow, run, index, task);
            judge.outcome(&case);
            judge.ran(&case);
            judge.begun(&case);
            judge.counted(&case);
            judge.agreed(&case);
            judge.read(&case);
        }
    }
    judge.broken
}

fn task(run: &RunSeen, index: usize) -> Option<&TaskSeen> {
    run.tasks.get(&Flow::id(index))
}

/// One task of one run, with its marks.
struct Case<'a> {
    flow: &'a Flow,
    run: &'a RunSeen,
    index: usize,
    task: &'a TaskSeen,
    marks: Vec<&'a Mark>,
}

impl<'a> Case<'a> {
    fn new(
        seen: &'a Observation,
        flow: &'a Flow,
        run: &'a RunSeen,
        index: usize,
        task: &'a TaskSeen,
    ) -> Self {
        let id = Flow::id(index);
        let ours = |mark: &&Mark| mark.run == run.id && mark.task == id;
        Self {
            flow,
            run,
            index,
            task,
            marks: seen.marks.iter().filter(ours).collect(),
        }
    }

    fn kind(&self) -> Kind {
        self.flow.tasks[self.index].kind
    }

    /// The attempts that said this.
    fn said(&self, what: &Said) -> Vec<Fence> {
        let marks = self.marks.iter().filter(|mark| mark.said == *what);
        marks.map(|mark| mark.fence).collect()
    }

    fn attempt(&self, fence: Fence) -> Option<&Attempt> {
        self.task.history.iter().find(|a| a.fence == fence)
    }

    /// The attempts that count, with this outcome.
    fn counting(&self, outcome: &str) -> Vec<&Attempt> {
        let all = self.task.history.iter();
        all.filter(|a| a.counts && a.outcome == outcome).collect()
    }
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} (", Flow::id(self.index), self.flow.name)?;
        match self.task.node {
            Some(node) => write!(f, "gw-{node}, {})", self.task.state),
            None => write!(f, "nowhere, {})", self.task.state),
        }
    }
}

struct Judge<'a> {
    plan: &'a Plan,
    seen: &'a Observation,
    broken: Vec<Broken>,
}

impl Judge<'_> {
    fn says(&mut self, invariant: Invariant, what: impl Into<String>) {
        let what = what.into();
        self.broken.push(Broken { invariant, what });
    }

    fn check(&mut self, holds: bool, invariant: Invariant, what: impl FnOnce() -> String) {
        if !holds {
            self.says(invariant, what());
        }
    }

    /// What is not about one run.
    fn whole_world(&mut self) {
        let seen = self.seen;
        let listed = [
            (Invariant::Alive, &seen.ended),
            (Invariant::Whole, &seen.unsound),
            (Invariant::Ran, &seen.unreadable),
        ];
        for (invariant, list) in listed {
            for what in list {
                self.says(invariant, what);
            }
        }
        if let Some(what) = &seen.unrest {
            self.says(Invariant::Convergence, what);
        }
        for (node, gateway) in seen.gateways.iter().enumerate() {
            for what in &gateway.undelivered {
                self.says(Invariant::Delivered, format!("gw-{node}: {what}"));
            }
            for what in &gateway.left {
                self.says(Invariant::NothingLeft, format!("gw-{node}: {what}"));
            }
        }
        let (planned, runs) = (self.plan.flows.len(), seen.runs.len());
        self.check(planned == runs, Invariant::Outcomes, || {
            format!("{runs} runs for {planned} workflows")
        });
        self.waits();
        self.strangers();
        self.remembered();
    }

    /// Lost tasks wait for a person, and nothing else does.
    fn waits(&mut self) {
        let seen = self.seen;
        let lost: Vec<(String, String)> = seen
            .runs
            .iter()
            .flat_map(|run| run.tasks.iter().map(move |(id, task)| (run, id, task)))
            .filter(|(_, _, task)| task.state == "lost")
            .map(|(run, id, _)| (run.id.clone(), id.clone()))
            .collect();
        for (run, task) in lost.iter().filter(|one| !seen.waits.contains(one)) {
            let what = format!("{task} of run {run} is lost, and nobody is asked");
            self.says(Invariant::Waits, what);
        }
        for (run, task) in seen.waits.iter().filter(|one| !lost.contains(one)) {
            self.says(Invariant::Waits, format!("'{task}' of run '{run}' waits"));
        }
    }

    /// Marks of runs and tasks that nobody planned.
    fn strangers(&mut self) {
        let seen = self.seen;
        let known = |mark: &&Mark| {
            let run = seen.runs.iter().find(|run| run.id == mark.run);
            run.is_some_and(|run| run.tasks.contains_key(&mark.task))
        };
        for mark in seen.marks.iter().filter(|mark| !known(mark)) {
            let what = format!("a mark of {} of unknown run {}", mark.task, mark.run);
            self.says(Invariant::Ran, what);
        }
    }

    fn remembered(&mut self) {
        let Some(again) = &self.seen.again else {
            return;
        };
        for (run, after) in self.seen.runs.iter().zip(again) {
            for (id, task) in &run.tasks {
                let now = after.tasks.get(id);
                self.check(now == Some(task), Invariant::Remembered, || {
                    format!("{id} of run {}: {task:?} became {now:?}", run.id)
                });
            }
            let same = run.state == after.state && run.tasks.len() == after.tasks.len();
            self.check(same, Invariant::Remembered, || {
                format!("run {} was {}, is {}", run.id, run.state, after.state)
            });
        }
    }

    /// The run as a whole: its state is that of its tasks, and nothing was refused.
    fn run(&mut self, flow: &Flow, run: &RunSeen) {
        let missing = (0..flow.tasks.len()).filter(|index| task(run, *index).is_none());
        for index in missing {
            let what = format!("{} of {} is not shown", Flow::id(index), flow.name);
            self.says(Invariant::Outcomes, what);
        }
        let any = |state: &str| run.tasks.values().any(|task| task.state == state);
        let wanted = if any("failed") {
            "failed"
        } else if any("lost") {
            "partly_lost"
        } else if any("aborted") {
            "failed"
        } else {
            "succeeded"
        };
        self.check(run.state == wanted, Invariant::Outcomes, || {
            format!("{} is {}, its tasks make it {wanted}", flow.name, run.state)
        });
        let conflicts = &run.conflicts;
        // What was sent to a part before its refusal was heard is answered, and means nothing.
        let refused = self.plan.fills_a_disk();
        let fine = flow.movable || refused || conflicts.is_empty();
        self.check(fine, Invariant::CountedOnce, || {
            format!("{}: not applied were {conflicts:?}", flow.name)
        });
    }

    fn outcome(&mut self, case: &Case<'_>) {
        let spec = &case.flow.tasks[case.index];
        let ended = |need: &usize| task(case.run, *need).map(|task| task.state.as_str());
        let runs = spec.always || spec.needs.iter().all(|n| ended(n) == Some("succeeded"));
        let state = case.task.state.as_str();
        let excused = |faults: &[Fault]| {
            let node = case.task.node;
            node.is_some_and(|node| self.plan.strikes(node, faults))
        };
        let deadly = [Fault::KillAgent, Fault::KillGateway, Fault::FullDisk];
        let allowed = match (runs, case.kind(), state) {
            (false, _, "aborted")
            | (true, Kind::Plain | Kind::FailsFirst(_) | Kind::Once, "succeeded")
            | (true, Kind::Fails, "failed") => true,
            (true, Kind::Once, "lost") => excused(&deadly),
            (true, Kind::Once, "failed") => excused(&[Fault::FullDisk]),
            _ => false,
        };
        self.check(allowed, Invariant::Outcomes, || {
            let should = if runs { "ran" } else { "was not to run" };
            format!("{case} {should}: {:?}", spec.kind)
        });
    }

    /// The attempt that counts came to its end; what did not run left no mark.
    fn ran(&mut self, case: &Case<'_>) {
        let ends = case.said(&Said::End);
        for attempt in case.counting("succeeded") {
            let fence = attempt.fence;
            self.check(ends.contains(&fence), Invariant::Ran, || {
                format!("{case}: attempt {fence} counts and has no end mark")
            });
        }
        let idle = matches!(case.task.state.as_str(), "aborted" | "skipped");
        self.check(!idle || case.marks.is_empty(), Invariant::Ran, || {
            format!(
                "{case}: {} marks of a task that did not run",
                case.marks.len()
            )
        });
    }

    /// Which attempts began, in the order of the marks.
    fn begun(&mut self, case: &Case<'_>) {
        let begun = case.said(&Said::Begin);
        let once = case.kind() != Kind::Once || begun.len() <= 1;
        self.check(once, Invariant::AtMostOnce, || {
            format!("{case} began {} times", begun.len())
        });
        let mut newest: Option<Fence> = None;
        for mark in &case.marks {
            let fence = mark.fence;
            if mark.said == Said::Begin {
                let again = begun.iter().filter(|other| **other == fence).count();
                self.check(again == 1, Invariant::NoOverlap, || {
                    format!("{case}: attempt {fence} began {again} times")
                });
                newest = Some(fence);
                continue;
            }
            // A silent gateway cannot know yet that its part was placed elsewhere.
            let moved = |newest: Fence| case.flow.movable && newest.epoch != fence.epoch;
            let held = newest.is_some_and(|newest| newest == fence || moved(newest));
            self.check(held, Invariant::NoOverlap, || {
                let newest = newest.map_or_else(|| "none".to_owned(), |f| f.to_string());
                format!(
                    "{case}: {:?} of {fence} while {newest} is the newest",
                    mark.said
                )
            });
        }
    }

    /// Each attempt that began is known, and what counts fits what its marks say.
    fn counted(&mut self, case: &Case<'_>) {
        let epochs: Vec<u64> = case
            .counting("succeeded")
            .iter()
            .map(|a| a.fence.epoch)
            .collect();
        // A new owner does again what left a file that nobody can fetch: the newest epoch counts.
        let again = case.flow.movable && case.flow.tasks[case.index].output.is_some();
        let once = match epochs.len() {
            0 => case.task.state != "succeeded",
            1 => case.task.state == "succeeded",
            _ => again && case.task.state == "succeeded" && epochs.is_sorted_by(|a, b| a < b),
        };
        self.check(once, Invariant::CountedOnce, || {
            format!("{case}: successes of the epochs {epochs:?} count")
        });
        for fence in case.said(&Said::Begin) {
            let known = case.attempt(fence);
            let begun = known.is_some_and(|attempt| attempt.outcome != "not_begun");
            self.check(begun, Invariant::CountedOnce, || {
                format!("{case}: attempt {fence} began, and is shown as {known:?}")
            });
        }
        let full = |fence| {
            let mark = case.marks.iter().find(|mark| mark.fence == fence);
            let node = mark.map(|mark| mark.node).or(case.task.node);
            node.is_some_and(|node| self.plan.strikes(node, &[Fault::FullDisk]))
        };
        let (fails, ends) = (case.said(&Said::Fail), case.said(&Said::End));
        let odd = |attempt: &&Attempt| {
            let (fence, outcome) = (attempt.fence, attempt.outcome.as_str());
            match outcome {
                "failed" => !fails.contains(&fence) && !full(fence),
                "succeeded" => !ends.contains(&fence),
                _ => false,
            }
        };
        for attempt in case.task.history.iter().filter(odd).collect::<Vec<_>>() {
            let what = format!("{case}: no mark tells of {attempt:?}");
            self.says(Invariant::CountedOnce, what);
        }
        let numbers: BTreeMap<Fence, ()> =
            case.task.history.iter().map(|a| (a.fence, ())).collect();
        let twice = numbers.len() != case.task.history.len();
        self.check(!twice, Invariant::CountedOnce, || {
            format!("{case}: an attempt is shown twice: {:?}", case.task.history)
        });
    }

    /// The gateway that has the task says the same as the coordinator.
    fn agreed(&mut self, case: &Case<'_>) {
        let Some(gateway) = case.task.node.and_then(|n| self.seen.gateways.get(n)) else {
            // What succeeded before the rest was placed elsewhere is in no part any more.
            let done = case.flow.movable && !case.counting("succeeded").is_empty();
            self.check(done, Invariant::Agreed, || {
                format!("{case} is at no gateway")
            });
            return;
        };
        let id = Flow::id(case.index);
        let ours = |local: &&LocalTask| local.run == case.run.id && local.task == id;
        let local = gateway.tasks.iter().filter(ours).max_by_key(|t| t.fence);
        let counting = case.task.history.iter().rfind(|a| a.counts);
        let shown = (&case.task.state, case.task.attempts, &case.task.output);
        let same = local.is_some_and(|local| {
            let newest = counting.is_none_or(|attempt| attempt.fence == local.fence);
            (&local.state, local.attempts, &local.output) == shown && newest
        });
        self.check(same, Invariant::Agreed, || {
            format!("{case}: coordinator {shown:?} {counting:?}, gateway {local:?}")
        });
        if let Source::Gateway(node) = case.flow.source {
            self.check(case.task.node == Some(node), Invariant::Agreed, || {
                format!("{case} was submitted at gw-{node}")
            });
        }
    }

    /// What was read, and what the coordinator has of it, is what was written.
    fn read(&mut self, case: &Case<'_>) {
        for mark in &case.marks {
            let Said::Read(of, sum, size) = &mark.said else {
                continue;
            };
            let content = case.flow.index(of).map(|index| case.flow.content(index));
            let right = content.is_some_and(|c| (checksum(&c), c.len()) == (*sum, *size));
            self.check(right, Invariant::Files, || {
                format!(
                    "{case}: attempt {} read {size} bytes of {of}, {sum}",
                    mark.fence
                )
            });
        }
        let Some((hash, size)) = &case.task.output else {
            let spec = &case.flow.tasks[case.index];
            let none = spec.output.is_none() || case.task.state != "succeeded";
            self.check(none, Invariant::Files, || format!("{case} has no output"));
            return;
        };
        let content = case.flow.content(case.index);
        self.check(content.len() == *size, Invariant::Files, || {
            format!("{case}: an output of {size} bytes")
        });
        if let Some(stored) = self.seen.files.get(hash) {
            self.check(stored.as_ref() == Some(&content), Invariant::Files, || {
                let size = stored.as_ref().map(Vec::len);
                format!("{case}: the coordinator has {size:?} bytes of {hash}, or others")
            });
        }
    }
}
