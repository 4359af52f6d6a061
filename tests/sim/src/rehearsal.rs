//! Rehearsals: a workflow and a fleet of somebody's own, on the real cores, under the faults that
//! they fear. Each seed draws when what strikes; it ends when the run does.

use crate::accidents::moment;
use crate::drawing::Drawing;
use crate::fault::Kind;
use crate::machine::EPOCH_MS;
use crate::people::Purpose;
use crate::plan::{Layer, NetPlan, Plan, Planned, What};
use crate::queue::{HOUR, MIN, MS, SEC, Time};
use crate::rng::Rng;
use crate::trace::Sink;
use crate::workload::{Habit, PlannedRun};
use crate::world::World;
use cloud_core::event::{Reply, Request};
use cloud_core::view;
use shared::approval::Approval;
use shared::explain::Reason;
use shared::graph;
use shared::ids::{Hash, RunId};
use shared::spec::Type;
use shared::spec::fleet::Node;
use shared::time::{Span, Unix};
use shared::workflow::{Source, Workflow};
use std::collections::BTreeMap;

/// The workflow is submitted when all gateways are enrolled and connected.
pub const SUBMITTED: Time = 2 * MIN;
/// What a task takes of which nobody said it.
pub const UNKNOWN: Time = SEC;
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
];
/// Minutes from one look at the run to the next.
const LOOKS: u64 = 5;
/// How long a person takes to answer, where nobody said it.
pub const ANSWERS: (Span, Span) = (Span::secs(600), Span::secs(7200));
/// How often a coordinator that is down is asked, two minutes each.
const PATIENCE: u64 = 10;
/// A run that waits for a person and does nothing else is watched for so long.
const WAITS: Time = 24 * HOUR;

/// What somebody fears.
#[derive(Debug, Clone, Default)]
pub struct Fears {
    /// A gateway's link is down for so long, from the shortest to the longest.
    pub link_down: Option<(Span, Span)>,
    /// So many times at each gateway.
    pub outages: u32,
    /// Each gateway loses its power so many times.
    pub power_cuts: u32,
    /// The agent of each gateway is killed so many times.
    pub agent_kills: u32,
    /// The coordinator is killed so many times.
    pub coordinator_kills: u32,
    /// Attempts of a thousand that fail.
    pub failing: u64,
    /// Bytes that the store of a gateway may take.
    pub disk: Option<u64>,
}

/// What is rehearsed.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The workflow; a schedule in it is left out.
    pub workflow: Workflow,
    /// Milliseconds that each task takes, where that is known.
    pub takes: Vec<Option<u64>>,
    /// The gateways.
    pub fleet: Vec<Node>,
    /// What strikes them.
    pub fears: Fears,
    /// How long a person takes to answer a question, from the shortest to the longest.
    pub answers: (Span, Span),
    /// A run that is not over then is not waited for.
    pub longest: Time,
}

impl Scene {
    /// Tasks take what the specification says.
    #[must_use]
    pub fn new(mut workflow: Workflow, fleet: Vec<Node>, fears: Fears, longest: Time) -> Self {
        workflow.schedule = None;
        let takes = graph::estimates(&workflow);
        Self {
            workflow,
            takes,
            fleet,
            fears,
            answers: ANSWERS,
            longest,
        }
    }

    /// The specification was compiled as of `then`: deadlines are as far from the submission here.
    #[must_use]
    pub fn as_of(mut self, then: Unix) -> Self {
        let here = EPOCH_MS + (SUBMITTED / MS).cast_signed();
        let tasks = self.workflow.tasks.iter_mut();
        for deadline in tasks.filter_map(|task| task.deadline.as_mut()) {
            deadline.0 = deadline.0.saturating_add(here.saturating_sub(then.0));
        }
        self
    }

    /// The same without faults.
    #[must_use]
    pub fn calm(&self) -> Self {
        let disk = self.fears.disk;
        Self {
            fears: Fears {
                disk,
                ..Fears::default()
            },
            ..self.clone()
        }
    }

    /// What seed number `seed` does; faults strike within `within` of the submission.
    #[must_use]
    pub fn plan(&self, seed: u64, within: Time) -> Plan {
        let root = Rng::new(seed).fork("rehearsal", 0);
        let mut rng = root.fork("net", 0);
        let delay = rng.log_range(5 * MS, 300 * MS);
        Plan {
            seed,
            layer: Layer::Disk,
            nodes: self.fleet.len(),
            fleet: self.fleet.clone(),
            deserted: true,
            byzantine: None,
            calm_at: self.longest.saturating_add(HOUR),
            net: NetPlan {
                delay,
                jitter: rng.below(delay),
                spikes: 0,
                doubles: 0,
                idle: 30 * SEC,
            },
            runs: vec![self.run(&root)],
            leaving: None,
            backups: None,
            schedules: Vec::new(),
            faults: self.faults(&root, within),
            lying_disk: 0,
            planted: None,
            gone: crate::cut::Gone::default(),
            stop_at: None,
        }
    }

    fn run(&self, root: &Rng) -> PlannedRun {
        let habit = |(number, takes): (usize, &Option<u64>)| Habit {
            length: takes.map_or(UNKNOWN, |ms| (ms * MS).max(2)),
            fails: self.fears.failing,
            hangs: 0,
            varies: false,
            ignores_term: false,
            size: 100_000,
            number: number as u32,
        };
        PlannedRun {
            run: RunId(root.fork("run", 0).id()),
            at: SUBMITTED,
            local: None,
            workflow: self.workflow.clone(),
            packed: shared::codec::pack(&self.workflow).0,
            habits: self.takes.iter().enumerate().map(habit).collect(),
            cancel: None,
            pause: None,
            retry: None,
        }
    }

    fn faults(&self, root: &Rng, within: Time) -> Vec<Planned> {
        let mut faults = Vec::new();
        for node in 0..self.fleet.len() {
            let mut rng = root.fork("gateway", node as u64);
            faults.extend(self.at_gateway(node, &mut rng, within));
        }
        let mut rng = root.fork("coordinator", 0);
        for _ in 0..self.fears.coordinator_kills {
            let (moment, down) = (moment(&mut rng), rng.log_range(SEC, 10 * MIN));
            let what = What::CloudKill { moment, down };
            faults.push(strike(&mut rng, within, what));
        }
        faults.sort_by_key(|planned| planned.at);
        faults
    }

    fn at_gateway(&self, node: usize, rng: &mut Rng, within: Time) -> Vec<Planned> {
        let mut faults = Vec::new();
        if let Some((least, most)) = self.fears.link_down {
            for _ in 0..self.fears.outages {
                let lasts = rng.range(least.nanos(), most.nanos().max(least.nanos()));
                let dead = (true, true);
                faults.push(strike(rng, within, What::Cut { node, dead, lasts }));
            }
        }
        for _ in 0..self.fears.power_cuts {
            let what = What::Power {
                node,
                moment: moment(rng),
                down: rng.log_range(SEC, 10 * MIN),
                untrusted: false,
                offline: None,
            };
            faults.push(strike(rng, within, what));
        }
        for _ in 0..self.fears.agent_kills {
            let what = What::Kill {
                node,
                group: false,
                moment: moment(rng),
                down: rng.log_range(SEC, MIN),
            };
            faults.push(strike(rng, within, what));
        }
        faults
    }
}

fn strike(rng: &mut Rng, within: Time, what: What) -> Planned {
    let at = SUBMITTED + rng.below(within.max(1));
    Planned { at, what }
}

/// How one seed ended.
#[derive(Debug, Clone, Default)]
pub struct Ended {
    /// The seed.
    pub seed: u64,
    /// State of the run as the coordinator shows it.
    pub state: String,
    /// From the submission until the coordinator had the last outcome; none: not within the
    /// longest time.
    pub took: Option<Time>,
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
    let waits = WAITS + scene.answers.1.nanos();
    let mut heard = vec![SUBMITTED; world.machines.len()];
    while world.violations.is_empty() && world.t < SUBMITTED + scene.longest {
        for _ in 0..looks {
            world.run_until(world.t + MIN);
            gauge(&world, &mut ended);
            listen(&world, &mut heard, &mut ended);
        }
        if let Some(run) = shown(&mut world) {
            desk.work(&mut world, &run);
            let over = run.ended.is_some();
            still.look(world.t, &run);
            tell(&mut ended, run);
            if over || still.since(world.t) > waits {
                break;
            }
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
        let Some(truth) = world.lives.get(machine.life) else {
            continue;
        };
        let head = world.cloud.truth.heads.get(&truth.log);
        let known = head.map_or(0, |head| head.number) as usize;
        let waiting = truth.facts.get(known..).unwrap_or_default();
        let bytes: usize = waiting.iter().map(|fact| fact.bytes.len()).sum();
        ended.backlog = ended.backlog.max(waiting.len() as u64);
        ended.backlog_bytes = ended.backlog_bytes.max(bytes as u64);
        let store = machine.medium.disk().map_or(0, crate::disk::SimDisk::size);
        ended.store = ended.store.max(store);
    }
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

/// The run as the coordinator shows it, if it is there to be asked.
fn shown(world: &mut World) -> Option<view::Run> {
    let run = world.plan.runs[0].run;
    match world.view(Request::Run { run }) {
        Some(Reply::Run(run)) => Some(*run),
        _ => None,
    }
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
    let run = world.plan.runs[0].run;
    let ask = || Request::Tasks { run, state: None };
    let Some(Reply::Tasks(tasks)) = (0..PATIENCE).find_map(|_| world.view(ask())) else {
        return Vec::new();
    };
    let passed = |task: &view::Task| task.reason.as_deref() == Some(Reason::DeadlinePassed.text());
    let late = tasks.into_iter().filter(passed);
    late.map(|task| task.task).collect()
}

/// A person at the coordinator who approves what tasks ask, each a while after it is shown there.
struct Desk<'a> {
    questions: BTreeMap<&'a str, (usize, &'a Approval)>,
    takes: (Span, Span),
    dice: Rng,
    /// When each question is answered, by task and since when it waits; none: it was.
    due: BTreeMap<(String, Unix), Option<Time>>,
}

impl<'a> Desk<'a> {
    fn new(scene: &'a Scene, seed: u64) -> Self {
        let tasks = scene.workflow.tasks.iter().enumerate();
        let asks = tasks.filter_map(|(n, task)| Some((task.id.as_str(), (n, task.approval()?))));
        Self {
            questions: asks.collect(),
            takes: scene.answers,
            dice: Rng::new(seed).fork("answers", 0),
            due: BTreeMap::new(),
        }
    }

    fn is_needed(&self) -> bool {
        !self.questions.is_empty()
    }

    fn work(&mut self, world: &mut World, run: &view::Run) {
        let id = run.id;
        for wait in &run.waits {
            let task = wait.task.as_deref().unwrap_or_default();
            let Some((number, approval)) = self.questions.get(task) else {
                continue;
            };
            let (least, most) = (self.takes.0.nanos(), self.takes.1.nanos());
            let asked = self.due.len() as u64;
            let mut dice = self.dice.fork("task", *number as u64).fork("asked", asked);
            let key = (task.to_owned(), wait.since);
            let due = self.due.entry(key);
            let due = due.or_insert_with(|| Some(world.t + dice.range(least, most.max(least))));
            if due.is_some_and(|due| due <= world.t) {
                *due = None;
                let request = Request::Answer {
                    run: id,
                    task: task.to_owned(),
                    yes: true,
                    input: filled_in(approval),
                    by: "somebody".to_owned(),
                };
                world.ask(request, Purpose::Act);
            }
        }
    }
}

/// Something of its type for each field that has no default.
fn filled_in(approval: &Approval) -> BTreeMap<String, String> {
    let open = approval
        .input
        .iter()
        .filter(|field| field.default.is_none());
    let value = |kind| match kind {
        Type::String => "something",
        Type::Integer | Type::Number => "1",
        Type::Boolean => "true",
    };
    open.map(|field| (field.name.clone(), value(field.kind).to_owned()))
        .collect()
}

/// Since when a run waits for people and nothing moves.
#[derive(Debug, Default)]
struct Still {
    seen: Option<(BTreeMap<String, u64>, Time)>,
}

impl Still {
    fn look(&mut self, now: Time, run: &view::Run) {
        let moved = self
            .seen
            .as_ref()
            .is_none_or(|(tasks, _)| *tasks != run.tasks);
        if run.waits.is_empty() || moved {
            self.seen = Some((run.tasks.clone(), now));
        }
    }

    fn since(&self, now: Time) -> Time {
        self.seen.as_ref().map_or(0, |(_, since)| now - since)
    }
}

fn tell(ended: &mut Ended, run: view::Run) {
    let since = |end: i64| (end - EPOCH_MS).max(0) as Time * MS;
    ended.took = run.ended.map(|end| since(end.0).saturating_sub(SUBMITTED));
    ended.state = run.state;
    ended.tasks = run.tasks;
    let waits = run.waits.into_iter().map(|wait| match wait.task {
        Some(task) => format!("{task}: {}", wait.what),
        None => wait.what,
    });
    ended.waits = waits.collect();
}
