//! A rehearsal is played: the world goes on until the runs are over, and what they came to is told.

use super::desk::Desk;
use super::{SUBMITTED, Scene, wall};
use crate::drawing::Drawing;
use crate::fault::Kind;
use crate::plan::{Plan, What};
use crate::queue::{HOUR, MIN, MS, Time};
use crate::trace::Sink;
use crate::truth::FactRow;
use crate::world::World;
use cloud_core::event::{Reply, Request};
use cloud_core::view;
use shared::explain::Reason;
use shared::ids::Hash;
use shared::workflow::Source;
use std::collections::{BTreeMap, BTreeSet};

/// What is told of a seed; messages that overtake each other are no accident.
const TOLD: &[Kind] = &[
    Kind::Partition,
    Kind::AgentPowerCut,
    Kind::AgentKill,
    Kind::KillAfterCommit,
    Kind::DeathInCommit,
    Kind::ColdBootOffline,
    Kind::LostWrite,
    Kind::TornWrite,
    Kind::AgentDiskFull,
    Kind::CoordinatorKill,
    Kind::TaskFailure,
    Kind::Replaced,
    Kind::LateReturn,
    Kind::SlotFiredOffline,
    Kind::SlotCaughtUp,
    Kind::SlotOverlapped,
    Kind::SlotMissed,
];
/// Minutes from one look at the run to the next.
const LOOKS: u64 = 5;
/// How often a coordinator that is down is asked, two minutes each.
const PATIENCE: u64 = 10;
/// A run that waits for a person and does nothing else is watched for so long.
const WAITS: Time = 24 * HOUR;

/// How one seed ended.
#[derive(Debug, Clone, Default)]
pub struct Ended {
    /// The seed.
    pub seed: u64,
    /// State of the run as the coordinator shows it; of several the one that went worst.
    pub state: String,
    /// From the submission until the coordinator had the last outcome; none: not within the
    /// longest time. Of several the longest.
    pub took: Option<Time>,
    /// Runs that a schedule fired.
    pub fired: u64,
    /// Number of tasks in each state.
    pub tasks: BTreeMap<String, u64>,
    /// What it waits for from people.
    pub waits: Vec<String>,
    /// Tasks that a deadline ended, or kept from beginning.
    pub late: Vec<String>,
    /// Processes that were started.
    pub attempts: u64,
    /// Most facts that one gateway had and the coordinator had not.
    pub backlog: u64,
    /// Bytes of these facts.
    pub backlog_bytes: u64,
    /// Bytes of the largest store of a gateway.
    pub store: u64,
    /// The longest time that a gateway was without its coordinator.
    pub silent: Time,
    /// Faults that really happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// Promises of ours that were broken: mistakes of Driftless, not of the workflow.
    pub broken: Vec<String>,
}

/// Rehearses a plan of [`Scene::plan`].
#[must_use]
pub fn rehearse(scene: &Scene, plan: Plan) -> Ended {
    act(scene, plan, None).0
}

/// The same with lines for people, and drawn.
#[must_use]
pub fn record(scene: &Scene, plan: Plan, lines: Sink) -> (Ended, Drawing) {
    let (ended, drawing) = act(scene, plan, Some(lines));
    (ended, drawing.unwrap_or_default())
}

fn act(scene: &Scene, plan: Plan, lines: Option<Sink>) -> (Ended, Option<Drawing>) {
    let mut ended = Ended {
        seed: plan.seed,
        ..Ended::default()
    };
    let mut world = World::new(plan, lines);
    stage(scene, &mut world);
    let mut still = Still::default();
    let mut desk = Desk::new(scene, world.plan.seed);
    let looks = if desk.is_needed() { 1 } else { LOOKS };
    let patience = WAITS + scene.answers.1.nanos();
    let mut heard = vec![SUBMITTED; world.machines.len()];
    while world.violations.is_empty() && world.t < scene.until() {
        for _ in 0..looks {
            world.run_until(world.t + MIN);
            gauge(&world, &mut ended);
            listen(&world, &mut heard, &mut ended);
        }
        let Some(runs) = shown(scene, &mut world) else {
            continue;
        };
        runs.iter().for_each(|run| desk.work(&mut world, run));
        still.look(world.t, &runs);
        let over = is_over(scene, &world, &runs);
        tell(&mut ended, scene, runs);
        if over || is_due(scene, &world) && still.since(world.t) > patience {
            break;
        }
    }
    ended.silent = ended.silent.max(longest_cut(&world));
    ended.late = late(scene, &mut world);
    ended.attempts = world.ran.len() as u64;
    let told = TOLD
        .iter()
        .map(|kind| (kind.text(), world.tally.count(*kind)));
    ended.faults = told.filter(|(_, n)| *n > 0).collect();
    let broken = world.violations.iter();
    ended.broken = broken
        .map(|one| format!("{}: {}", one.invariant, one.text))
        .collect();
    (ended, world.finish_record())
}

/// Files that are sent along are there; disks have their size.
fn stage(scene: &Scene, world: &mut World) {
    let inputs = scene.workflow.tasks.iter().flat_map(|task| &task.inputs);
    let sent = inputs.filter_map(|input| match &input.source {
        Source::Sent { hash, size } => Some((*hash, *size)),
        _ => None,
    });
    let sent: Vec<(Hash, u64)> = sent.collect();
    world.cloud.files.extend(sent);
    for machine in &world.machines {
        if let Some(disk) = machine.medium.disk() {
            disk.set_quota(scene.fears.disk);
        }
    }
}

/// What gateways have and the coordinator has not, and how large their stores are.
fn gauge(world: &World, ended: &mut Ended) {
    for machine in &world.machines {
        let waiting = unknown(world, machine.n);
        let bytes: usize = waiting.iter().map(|fact| fact.bytes.len()).sum();
        ended.backlog = ended.backlog.max(waiting.len() as u64);
        ended.backlog_bytes = ended.backlog_bytes.max(bytes as u64);
        let store = machine.medium.disk().map_or(0, crate::disk::SimDisk::used);
        ended.store = ended.store.max(store);
    }
}

/// What gateway `m` has and the coordinator has not.
fn unknown(world: &World, m: usize) -> &[FactRow] {
    let Some(truth) = world.lives.get(world.machines[m].life) else {
        return &[];
    };
    let head = world.cloud.truth.heads.get(&truth.log);
    let known = head.map_or(0, |head| head.number) as usize;
    truth.facts.get(known..).unwrap_or_default()
}

/// How long gateways have been without their coordinator; `heard` says since when.
fn listen(world: &World, heard: &mut [Time], ended: &mut Ended) {
    for (m, heard) in heard.iter_mut().enumerate() {
        if world.has_session(m) {
            *heard = world.t;
        }
        ended.silent = ended.silent.max(world.t.saturating_sub(*heard));
    }
}

/// The longest cut that began: the run may have been over before it was.
fn longest_cut(world: &World) -> Time {
    let begun = world.plan.faults.iter().filter(|one| one.at <= world.t);
    let lasts = begun.filter_map(|one| match one.what {
        What::Cut { lasts, .. } => Some(lasts),
        _ => None,
    });
    lasts.max().unwrap_or(0)
}

/// The runs as the coordinator shows them, if it is there to be asked: of a schedule those that
/// were fired in its time.
fn shown(scene: &Scene, world: &mut World) -> Option<Vec<view::Run>> {
    let Some((_, lasts)) = &scene.schedule else {
        let run = world.plan.runs[0].run;
        return match world.view(Request::Run { run }) {
            Some(Reply::Run(run)) => Some(vec![*run]),
            _ => None,
        };
    };
    let Some(Reply::Runs(mut runs)) = world.view(Request::Runs { state: None }) else {
        return None;
    };
    let last = wall(SUBMITTED + lasts);
    runs.retain(|run| run.submitted <= last);
    Some(runs)
}

/// Whether no further slot is looked at.
fn is_due(scene: &Scene, world: &World) -> bool {
    let lasts = scene.schedule.as_ref().map_or(0, |(_, lasts)| *lasts);
    world.t >= SUBMITTED + lasts
}

/// Whether all runs are, and no gateway has a firing to tell.
fn is_over(scene: &Scene, world: &World, runs: &[view::Run]) -> bool {
    let known = || (0..world.machines.len()).all(|m| unknown(world, m).is_empty());
    let told = || scene.schedule.is_none() || is_due(scene, world) && known();
    runs.iter().all(|run| run.ended.is_some()) && told()
}

/// What is over because of a deadline, as the coordinator shows it.
fn late(scene: &Scene, world: &mut World) -> Vec<String> {
    if scene
        .workflow
        .tasks
        .iter()
        .all(|task| task.deadline.is_none())
    {
        return Vec::new();
    }
    let Some(runs) = (0..PATIENCE).find_map(|_| shown(scene, world)) else {
        return Vec::new();
    };
    let mut late = BTreeSet::new();
    for run in runs {
        let ask = || Request::Tasks {
            run: run.id,
            state: None,
        };
        let tasks = (0..PATIENCE).find_map(|_| match world.view(ask()) {
            Some(Reply::Tasks(tasks)) => Some(tasks),
            _ => None,
        });
        let passed = Some(Reason::DeadlinePassed.text());
        let tasks = tasks.into_iter().flatten();
        let tasks = tasks.filter(|task| task.reason.as_deref() == passed);
        late.extend(tasks.map(|task| task.task));
    }
    late.into_iter().collect()
}

/// Since when a run waits for people and nothing moves.
#[derive(Debug, Default)]
struct Still {
    seen: Option<(BTreeMap<String, u64>, Time)>,
}

impl Still {
    fn look(&mut self, now: Time, runs: &[view::Run]) {
        let tasks = sums(runs);
        let moved = self.seen.as_ref().is_none_or(|(seen, _)| *seen != tasks);
        if moved || runs.iter().all(|run| run.waits.is_empty()) {
            self.seen = Some((tasks, now));
        }
    }

    fn since(&self, now: Time) -> Time {
        self.seen.as_ref().map_or(0, |(_, since)| now - since)
    }
}

/// Number of tasks in each state.
fn sums(runs: &[view::Run]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (state, n) in runs.iter().flat_map(|run| &run.tasks) {
        *sums.entry(state.clone()).or_default() += n;
    }
    sums
}

/// How bad the end of a run is: not over is worst.
fn badness(run: &view::Run) -> u8 {
    match run.state.as_str() {
        _ if run.ended.is_none() => 4,
        "succeeded" => 0,
        "cancelled" => 1,
        "failed" => 3,
        _ => 2,
    }
}

fn tell(ended: &mut Ended, scene: &Scene, runs: Vec<view::Run>) {
    ended.fired = scene.schedule.as_ref().map_or(0, |_| runs.len() as u64);
    ended.tasks = sums(&runs);
    let worst = runs.iter().max_by_key(|run| badness(run));
    ended.state = worst.map_or_else(|| "never_fired".to_owned(), |run| run.state.clone());
    let took = |run: &view::Run| {
        let from = match scene.schedule {
            Some(_) => run.submitted,
            None => wall(SUBMITTED),
        };
        Some((run.ended?.0 - from.0).max(0) as Time * MS)
    };
    let all: Option<Vec<Time>> = runs.iter().map(took).collect();
    ended.took = all.map(|all| all.into_iter().max().unwrap_or(0));
    let waits = runs.into_iter().flat_map(|run| run.waits);
    let waits = waits.map(|wait| match wait.task {
        Some(task) => format!("{task}: {}", wait.what),
        None => wait.what,
    });
    ended.waits = waits.collect();
}
