//! Random workflows, and what each of their tasks will do when it runs.

use crate::queue::{HOUR, MIN, MS, SEC, Time};
use crate::recorded::Trace;
use crate::rng::{Rng, fnv, mix};
use shared::approval::{ANSWER_FILE, Approval};
use shared::ids::{AttemptRef, Hash, RunId, TaskIdx};
use shared::schedule::Schedule;
use shared::time::{Span, Unix};
use shared::workflow::{
    Action, Disconnect, FORMAT, Input, Matrix, OnExhausted, Output, Placement, Resources, Retry,
    RetryLeft, SideEffects, Source, Task, TriggerRule, When, Workflow,
};
use std::collections::BTreeMap;

/// A run that somebody will submit.
#[derive(Debug, Clone)]
pub struct PlannedRun {
    /// Its id.
    pub run: RunId,
    /// When it is submitted.
    pub at: Time,
    /// At this gateway, else to the coordinator.
    pub local: Option<usize>,
    /// What it does.
    pub workflow: Workflow,
    /// `codec::pack` of it.
    pub packed: Vec<u8>,
    /// How its tasks behave.
    pub habits: Vec<Habit>,
    /// When somebody asks for its end.
    pub cancel: Option<Time>,
    /// When somebody pauses it, and for how long.
    pub pause: Option<(Time, Time)>,
    /// When somebody lets what failed of it run again.
    pub retry: Option<Time>,
}

/// How the attempts of one task behave.
#[derive(Debug, Clone, Copy)]
pub struct Habit {
    /// Usual length of an attempt.
    pub length: Time,
    /// Attempts of a thousand that exit with an error.
    pub fails: u64,
    /// Attempts of a thousand that never end by themselves.
    pub hangs: u64,
    /// Each attempt writes something else.
    pub varies: bool,
    /// TERM does not end it.
    pub ignores_term: bool,
    /// Bytes of an output.
    pub size: u64,
    /// The task's number as it was drawn: what an attempt does hangs on it, and not on which other
    /// tasks were cut out.
    pub number: u32,
}

/// What one attempt will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deed {
    /// How long it takes.
    pub length: Time,
    /// How it ends by itself.
    pub ends: Ending,
    /// Time it goes on after TERM; none if only KILL ends it.
    pub after_term: Option<Time>,
}

/// How an attempt ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Exit code 0 and all outputs.
    Well,
    /// This exit code.
    Exit(i32),
    /// This signal.
    Signal(i32),
    /// Exit code 0 and an output too few.
    OutputMissing,
    /// Not even started.
    CannotStart,
    /// Not by itself.
    Never,
}

fn attempt_key(seed: u64, task: u32, attempt: &AttemptRef) -> u64 {
    let mut key = fnv(seed, &attempt.slice.run.0);
    key = mix(key ^ attempt.slice.epoch.0);
    mix(key ^ u64::from(task) << 32 ^ u64::from(attempt.number))
}

impl Habit {
    /// What `attempt` will do: the same whenever it is asked.
    #[must_use]
    pub fn deed(&self, seed: u64, attempt: &AttemptRef) -> Deed {
        let mut rng = Rng::new(attempt_key(seed, self.number, attempt));
        let length = self.length / 2 + rng.below(self.length);
        let ends = match rng.below(1000) {
            n if n < self.hangs => Ending::Never,
            n if n < self.hangs + self.fails => match rng.below(10) {
                0 => Ending::Signal(11),
                1 => Ending::OutputMissing,
                2 => Ending::CannotStart,
                3 => Ending::Exit(64),
                _ => Ending::Exit(1),
            },
            _ => Ending::Well,
        };
        let after_term = (!self.ignores_term).then(|| rng.below(2 * SEC));
        Deed {
            length,
            ends,
            after_term,
        }
    }

    /// What output number `output` of `attempt` contains.
    #[must_use]
    pub fn output(&self, attempt: &AttemptRef, output: usize) -> Hash {
        let mut name = [0; 36];
        name[..16].copy_from_slice(&attempt.slice.run.0);
        name[16..20].copy_from_slice(&self.number.to_le_bytes());
        name[20..24].copy_from_slice(&(output as u32).to_le_bytes());
        if self.varies {
            name[24..32].copy_from_slice(&attempt.slice.epoch.0.to_le_bytes());
            name[32..].copy_from_slice(&attempt.number.to_le_bytes());
        }
        Hash::of(&name)
    }
}

/// Taints that operators give to nodes.
pub const TAINTS: [&str; 2] = ["hot", "slow"];

/// What a workload is drawn within.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Number of gateways.
    pub nodes: usize,
    /// Tasks of all runs.
    pub tasks: usize,
    /// Tasks of one run, at most.
    pub largest: usize,
    /// Usual length of an attempt, at most.
    pub longest: Time,
    /// Submissions happen before.
    pub until: Time,
    /// Attempts of a thousand that fail, at most.
    pub fails: u64,
    /// Attempts of a thousand that hang, at most.
    pub hangs: u64,
    /// Slices may be placed again when their node is silent for so long.
    pub lost_after: Option<Span>,
    /// People cancel and pause.
    pub people: bool,
}

/// The name of gateway `n`.
#[must_use]
pub fn node_name(n: usize) -> String {
    format!("gw-{}", n + 1)
}

/// The labels of gateway `n`.
#[must_use]
pub fn node_labels(n: usize) -> BTreeMap<String, String> {
    let site = if n < 3 { "north" } else { "south" };
    let role = ["press", "oven"][n % 2];
    [("site", site), ("role", role)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// All runs of a seed, by time; the first one like `trace`, if there is one.
#[must_use]
pub fn draw(rng: &Rng, scope: Scope, trace: Option<&Trace>) -> Vec<PlannedRun> {
    let rng = rng.fork("workload", 0);
    let mut left = scope.tasks;
    let mut runs = Vec::new();
    while left > 0 {
        let n = runs.len() as u64;
        let mut own = rng.fork("run", n);
        let local = (n > 0 && own.chance(250)).then(|| own.below(scope.nodes as u64) as usize);
        let most = if local.is_some() {
            12
        } else {
            left.min(scope.largest)
        };
        let size = if n == 0 {
            most.min(50 + own.below(scope.largest as u64 / 2) as usize)
        } else {
            1 + own.below(most as u64) as usize
        };
        let size = size.min(left);
        left -= size;
        let trace = trace.filter(|_| n == 0);
        let size = trace.map_or(size, Trace::size);
        runs.push(one(&mut own, scope, (size, trace), local, n));
    }
    runs.sort_by_key(|run| run.at);
    runs
}

fn one(
    rng: &mut Rng,
    scope: Scope,
    (size, trace): (usize, Option<&Trace>),
    local: Option<usize>,
    n: u64,
) -> PlannedRun {
    let at = if n == 0 {
        MIN
    } else {
        MIN + rng.below(scope.until)
    };
    let alone = local.is_some() || rng.chance(200);
    let mut habits = Vec::with_capacity(size);
    let mut tasks: Vec<Task> = Vec::with_capacity(size);
    let mut shape = Shape::draw(rng, scope, alone, size);
    // a question takes no time and makes no file
    shape.asks = trace.map_or(shape.asks, |_| 0);
    for position in 0..size {
        let mut habit = shape.habit(rng, position);
        habit.length = trace.map_or(habit.length, |trace| trace.length(position));
        let mut task = shape.task(rng, position, &tasks, &habit);
        if let Some(trace) = trace {
            trace.lay_over(position, &mut task, &mut habit);
        }
        if !alone {
            shun(
                &mut task.placement,
                &mut rng.fork("shun", position as u64),
                position,
            );
        }
        habits.push(habit);
        tasks.push(task);
    }
    reduce(&mut tasks);
    rank(&mut tasks, &habits);
    let matrices = matrices(&mut rng.fork("matrix", 0), &mut tasks);
    let mut workflow = workflow(&format!("flow-{n}"), tasks, None);
    workflow.matrices = matrices;
    let (packed, _) = shared::codec::pack(&workflow);
    let cancel = (scope.people && rng.chance(120)).then(|| at + rng.log_range(SEC, HOUR));
    let pause = (scope.people && rng.chance(150))
        .then(|| (at + rng.log_range(SEC, HOUR), rng.log_range(MIN, HOUR)));
    let retry = (scope.people && rng.chance(400)).then(|| at + rng.log_range(10 * MIN, 4 * HOUR));
    PlannedRun {
        run: RunId(rng.id()),
        at,
        local,
        workflow,
        packed,
        habits,
        cancel,
        pause,
        retry,
    }
}

/// A workflow of these tasks.
#[must_use]
pub(crate) fn workflow(name: &str, tasks: Vec<Task>, schedule: Option<Schedule>) -> Workflow {
    Workflow {
        format: FORMAT,
        name: name.to_owned(),
        description: String::new(),
        labels: BTreeMap::new(),
        params: BTreeMap::new(),
        tasks,
        matrices: Vec::new(),
        schedule,
    }
}

/// A few tasks that say nothing of where they run, ask nobody and take `longest` at most.
#[must_use]
pub(crate) fn small(
    rng: &mut Rng,
    scope: Scope,
    size: usize,
    longest: Time,
) -> (Vec<Task>, Vec<Habit>) {
    let people = false;
    let mut shape = Shape::draw(rng, Scope { people, ..scope }, true, size);
    shape.longest = longest;
    let mut tasks = Vec::with_capacity(size);
    let mut habits = Vec::with_capacity(size);
    for position in 0..size {
        let habit = shape.habit(rng, position);
        let task = shape.task(rng, position, &tasks, &habit);
        habits.push(habit);
        tasks.push(task);
    }
    reduce(&mut tasks);
    rank(&mut tasks, &habits);
    (tasks, habits)
}

/// What the tasks of one run have in common.
struct Shape {
    scope: Scope,
    alone: bool,
    window: u64,
    degree: u64,
    longest: Time,
    fails: u64,
    hangs: u64,
    odd_rules: u64,
    moves: bool,
    files: u64,
    asks: u64,
}

impl Shape {
    fn draw(rng: &mut Rng, scope: Scope, alone: bool, size: usize) -> Self {
        Self {
            scope,
            alone,
            window: rng.log_range(1, size.max(2) as u64),
            degree: rng.range(1, 3),
            longest: rng.log_range(10 * SEC, scope.longest),
            fails: rng.below(scope.fails + 1),
            hangs: rng.below(scope.hangs + 1),
            odd_rules: [0, 0, 100, 300][rng.below(4) as usize],
            moves: rng.chance(500),
            files: [0, 500, 900][rng.below(3) as usize],
            asks: [0, 20, 60][rng.below(3) as usize],
        }
    }

    fn habit(&self, rng: &mut Rng, position: usize) -> Habit {
        Habit {
            length: rng.log_range(100 * MS, self.longest),
            fails: if rng.chance(300) { self.fails } else { 0 },
            hangs: if rng.chance(200) { self.hangs } else { 0 },
            varies: rng.chance(100),
            ignores_term: rng.chance(100),
            size: rng.log_range(100, 1_000_000),
            number: position as u32,
        }
    }

    fn task(&self, rng: &mut Rng, position: usize, before: &[Task], habit: &Habit) -> Task {
        let (needs, inputs) = self.edges(rng, before);
        let side_effects = match rng.below(10) {
            0 => SideEffects::AtMostOnce,
            1..=3 => SideEffects::Idempotent,
            _ => SideEffects::None,
        };
        let patience = Span(habit.length * rng.range(2, 4) / 1_000_000 + 2000);
        let outputs: Vec<Output> = (0..rng.below(3))
            .map(|n| Output {
                name: format!("o{position}-{n}"),
                path: format!("o{n}"),
            })
            .collect();
        if self.scope.people && rng.chance(self.asks) {
            return self.question(rng, position, needs, outputs.len());
        }
        let (retry, retry_left) = match rng.fork("left", position as u64).chance(250) {
            true => (defaults(), LEFT),
            false => (retry(rng), RetryLeft::default()),
        };
        Task {
            id: format!("t{position}"),
            description: String::new(),
            action: Action::Argv(vec!["work".to_owned()]),
            env: BTreeMap::new(),
            workdir: String::new(),
            stdin: None,
            needs,
            inputs,
            outputs,
            resources: Resources {
                cpu_milli: rng.range(1, 10) as u32 * 100,
                memory: rng.below(64) << 20,
                ..Resources::default()
            },
            priority: rng.below(3) as i32,
            retry,
            timeout: (habit.hangs > 0 || rng.chance(500)).then_some(patience),
            deadline: None,
            kill_grace: Span(rng.range(500, 10_000)),
            crash_limit: 100,
            side_effects,
            when: rng.chance(20).then(|| When {
                text: "params.x == 1".to_owned(),
                holds: false,
            }),
            trigger_rule: self.rule(rng),
            placement: self.placement(rng),
            disconnect: self.disconnect(side_effects),
            batch: None,
            upward_rank: 0,
            matrix: None,
            retry_left,
        }
    }

    /// A task that asks a person; some do not wait for ever.
    fn question(
        &self,
        rng: &mut Rng,
        position: usize,
        needs: Vec<TaskIdx>,
        outputs: usize,
    ) -> Task {
        let name = format!("t{position}");
        let until = rng.chance(300).then(|| rng.log_range(MIN, 6 * HOUR) / MS);
        let output = |n: usize| Output {
            name: format!("o{position}-{n}"),
            path: ANSWER_FILE.to_owned(),
        };
        let approval = Approval {
            prompt: "go on?".to_owned(),
            input: Vec::new(),
            default: until.and_then(|_| [None, Some(true), Some(false)][rng.below(3) as usize]),
        };
        Task {
            id: name,
            description: String::new(),
            action: Action::Approval(Box::new(approval)),
            env: BTreeMap::new(),
            workdir: String::new(),
            stdin: None,
            needs,
            inputs: Vec::new(),
            outputs: (0..outputs).map(output).collect(),
            resources: Resources::default(),
            priority: 0,
            retry: retry(rng),
            timeout: None,
            deadline: until.map(|after| Unix(crate::machine::EPOCH_MS + after as i64)),
            kill_grace: Span(0),
            crash_limit: 100,
            side_effects: SideEffects::None,
            when: None,
            trigger_rule: self.rule(rng),
            placement: self.placement(rng),
            disconnect: self.disconnect(SideEffects::None),
            batch: None,
            upward_rank: 0,
            matrix: None,
            retry_left: RetryLeft::default(),
        }
    }

    fn edges(&self, rng: &mut Rng, before: &[Task]) -> (Vec<TaskIdx>, Vec<Input>) {
        let mut needs = Vec::new();
        let mut inputs: Vec<Input> = Vec::new();
        let reach = self.window.min(before.len() as u64);
        if reach == 0 || rng.chance(80) {
            return (needs, inputs);
        }
        for _ in 0..rng.range(1, self.degree) {
            let from = before.len() - 1 - rng.below(reach) as usize;
            let task = TaskIdx(from as u32);
            if needs.contains(&task) {
                continue;
            }
            needs.push(task);
            let outputs = before[from].outputs.len() as u64;
            if outputs > 0 && rng.chance(self.files) {
                let output = rng.below(outputs) as u32;
                inputs.push(Input {
                    name: before[from].outputs[output as usize].name.clone(),
                    path: format!("i{}", inputs.len()),
                    source: Source::Task { task, output },
                });
            }
        }
        needs.sort_unstable();
        (needs, inputs)
    }

    fn rule(&self, rng: &mut Rng) -> TriggerRule {
        if !rng.chance(self.odd_rules) {
            return TriggerRule::AllSuccess;
        }
        [
            TriggerRule::AllDone,
            TriggerRule::OneFailed,
            TriggerRule::NoneFailed,
        ][rng.below(3) as usize]
    }

    fn placement(&self, rng: &mut Rng) -> Placement {
        if self.alone {
            return Placement::default();
        }
        let node = rng.below(self.scope.nodes as u64) as usize;
        match rng.below(10) {
            0..=2 => Placement {
                node: Some(node_name(node)),
                ..Placement::default()
            },
            3..=4 => Placement {
                labels: [("role".to_owned(), node_labels(node)["role"].clone())].into(),
                ..Placement::default()
            },
            5 => Placement {
                site: node_labels(node).get("site").cloned(),
                ..Placement::default()
            },
            _ => Placement::default(),
        }
    }

    fn disconnect(&self, side_effects: SideEffects) -> Disconnect {
        let lost_after = self.scope.lost_after.filter(|_| self.moves);
        Disconnect {
            lost_after,
            replace: lost_after.is_some() && side_effects != SideEffects::AtMostOnce,
        }
    }
}

/// Some runs have a matrix with limits: tasks of which none waits for another one.
fn matrices(rng: &mut Rng, tasks: &mut [Task]) -> Vec<Matrix> {
    if !rng.chance(350) {
        return Vec::new();
    }
    let often = rng.range(100, 900);
    // below a member, by position
    let mut below = vec![false; tasks.len()];
    for position in 0..tasks.len() {
        let task = &tasks[position];
        let inputs = task.inputs.iter().filter_map(|input| match input.source {
            Source::Task { task, .. } => Some(task),
            _ => None,
        });
        let mut above = task.needs.iter().copied().chain(inputs);
        below[position] = above.any(|need| below[need.0 as usize]);
        let asks = task.approval().is_some();
        if !below[position] && !asks && rng.chance(often) {
            tasks[position].matrix = Some(0);
            below[position] = true;
        }
    }
    let most = rng.range(1, 4) as u32;
    let fails = rng.chance(500).then(|| rng.below(2) as u32);
    // else hardly any fails for good
    for task in tasks.iter_mut().filter(|task| task.matrix.is_some()) {
        if fails.is_some() && rng.chance(700) {
            (task.retry.max_attempts, task.retry.on_exhausted) = (1, OnExhausted::Fail);
            task.retry_left = RetryLeft::default();
        }
    }
    vec![Matrix {
        id: "matrix".to_owned(),
        max_parallel: rng.chance(800).then_some(most),
        max_fails: fails,
    }]
}

/// Some tasks mind no taint, are spread, or keep away from another one.
fn shun(placement: &mut Placement, rng: &mut Rng, position: usize) {
    placement.tolerations = match rng.below(8) {
        0 => vec!["*".to_owned()],
        1 => vec![TAINTS[rng.below(2) as usize].to_owned()],
        _ => Vec::new(),
    };
    let label = ["node", "site"][rng.below(2) as usize];
    placement.spread = rng.chance(60).then(|| label.to_owned());
    if position > 0 && rng.chance(10) {
        let other = TaskIdx(rng.below(position as u64) as u32);
        placement.anti_affinity = vec![(other, other)];
    }
}

/// A specification that says nothing of `retry`.
const LEFT: RetryLeft = RetryLeft {
    max_attempts: true,
    initial_interval: true,
    max_interval: true,
};

fn defaults() -> Retry {
    Retry {
        max_attempts: 4,
        initial_interval: Span::secs(30),
        backoff_milli: 2000,
        max_interval: Span::secs(600),
        jitter_milli: 200,
        retry_on: Vec::new(),
        no_retry_on: Vec::new(),
        on_exhausted: OnExhausted::Fail,
    }
}

fn retry(rng: &mut Rng) -> Retry {
    Retry {
        max_attempts: rng.range(1, 4) as u32,
        initial_interval: Span(rng.log_range(500, 30_000)),
        backoff_milli: 2000,
        max_interval: Span::secs(120),
        jitter_milli: rng.below(300) as u32,
        retry_on: Vec::new(),
        no_retry_on: if rng.chance(200) {
            vec![64]
        } else {
            Vec::new()
        },
        on_exhausted: if rng.chance(50) {
            OnExhausted::Pause
        } else {
            OnExhausted::Fail
        },
    }
}

/// Takes edges away that other edges imply, as the compiler of specifications does.
pub(crate) fn reduce(tasks: &mut [Task]) {
    let words = tasks.len().div_ceil(64);
    let mut above: Vec<Vec<u64>> = Vec::with_capacity(tasks.len());
    for task in tasks.iter_mut() {
        let mut through = vec![0; words];
        for need in &task.needs {
            for (word, bits) in through.iter_mut().zip(&above[need.0 as usize]) {
                *word |= bits;
            }
        }
        task.needs
            .retain(|need| through[need.0 as usize / 64] >> (need.0 % 64) & 1 == 0);
        for need in &task.needs {
            through[need.0 as usize / 64] |= 1 << (need.0 % 64);
        }
        above.push(through);
    }
}

fn rank(tasks: &mut [Task], habits: &[Habit]) {
    for position in (0..tasks.len()).rev() {
        tasks[position].upward_rank += habits[position].length / 1_000_000;
        let rank = tasks[position].upward_rank;
        for need in tasks[position].needs.clone() {
            let above = &mut tasks[need.0 as usize].upward_rank;
            *above = (*above).max(rank);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope {
            nodes: 5,
            tasks: 500,
            largest: 400,
            longest: 10 * MIN,
            until: 5 * HOUR,
            fails: 200,
            hangs: 50,
            lost_after: Some(Span::secs(600)),
            people: true,
        }
    }

    #[test]
    fn runs_are_well_formed_and_large_enough() {
        for seed in 0..20 {
            let runs = draw(&Rng::new(seed), scope(), None);
            assert_eq!(
                runs.iter()
                    .map(|run| run.workflow.tasks.len())
                    .sum::<usize>(),
                500
            );
            for task in runs.iter().flat_map(|run| &run.workflow.tasks) {
                assert!(task.needs.is_sorted());
                let replaced = task.disconnect.replace;
                assert!(!replaced || task.side_effects != SideEffects::AtMostOnce);
            }
        }
    }

    #[test]
    fn an_attempt_always_does_the_same() {
        let runs = draw(&Rng::new(1), scope(), None);
        let attempt = AttemptRef {
            slice: shared::ids::SliceRef {
                run: runs[0].run,
                slice: 0,
                epoch: shared::ids::Epoch(5),
            },
            task: TaskIdx(0),
            number: 1,
        };
        let habit = runs[0].habits[0];
        assert_eq!(habit.deed(3, &attempt), habit.deed(3, &attempt));
        assert_eq!(habit.output(&attempt, 0), habit.output(&attempt, 0));
        assert_ne!(habit.output(&attempt, 0), habit.output(&attempt, 1));
    }

    #[test]
    fn implied_edges_are_taken_away() {
        let runs = draw(&Rng::new(2), scope(), None);
        let mut tasks = runs[0].workflow.tasks[..3].to_vec();
        tasks[0].needs = vec![];
        tasks[1].needs = vec![TaskIdx(0)];
        tasks[2].needs = vec![TaskIdx(0), TaskIdx(1)];
        reduce(&mut tasks);
        assert_eq!(tasks[2].needs, vec![TaskIdx(1)]);
    }
}
