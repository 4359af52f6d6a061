//! The world: one queue of events, all machines, and the truth about what happened.

use crate::cloud::Cloud;
use crate::fault::{Kind, Tally};
use crate::machine::Machine;
use crate::model::Flows;
use crate::net::{Connection, Side, Stream};
use crate::people::People;
use crate::plan::{Layer, Plan};
use crate::queue::{Queue, Time};
use crate::rng::Rng;
use crate::trace::{Lane, Sort, Trace};
use crate::truth::{EdgeTruth, Ran, Wrong};
use crate::workload::PlannedRun;
use shared::ids::{Epoch, Hash, RunId, TaskIdx};
use shared::wire::LogId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What happens.
#[derive(Debug, Clone)]
pub enum Ev {
    /// The agent of a machine takes its step.
    Step(usize, u64),
    /// Somebody looks at what is left on a drained node.
    LookLeft(usize),
    /// The agent of a machine wanted to be woken.
    Wake(usize, u64),
    /// The agent of a machine starts.
    Start(usize, u64),
    /// A machine gets its power back.
    PowerOn(usize),
    /// A process ends by itself.
    ProcEnds(usize, u64),
    /// A process is gone after it was told to stop.
    ProcStopped(usize, u64, i32),
    /// A dial is decided.
    Dialled(usize, u64, u64),
    /// A dial is given up.
    DialFailed(usize, u64, u64),
    /// A message arrives at the coordinator.
    Up(u64, Stream),
    /// A message arrives at the gateway.
    Down(u64, Stream),
    /// A side hears that a connection was closed.
    Closed(u64, Side),
    /// A side has heard nothing for the idle time if nothing changed since.
    Silent(u64, Side, Time),
    /// A file transfer to a gateway ends.
    Fetched(usize, u64, Hash, u64),
    /// A file transfer to the coordinator ends.
    Uploaded(usize, u64, Hash, u64),
    /// The coordinator takes its step.
    CloudStep(u64),
    /// The coordinator wanted to be woken.
    CloudWake(u64),
    /// The coordinator starts.
    CloudStart(u64),
    /// A backup of the coordinator begins.
    BackupBegins,
    /// It is in its place.
    BackupEnds,
    /// A fault of the plan strikes.
    Strike(usize),
    /// A cut ends: machine, (up, down).
    Healed(usize, bool, bool),
    /// A machine's link is fast again.
    Fast(usize, Time),
    /// A disk is as fast again as before; `None` is the coordinator's.
    DiskFast(Option<usize>, Time),
    /// Dials are answered again.
    Answers,
    /// Somebody cleaned up a disk.
    Room(Option<usize>),
    /// A copy of a disk is switched off.
    CopyEnds(usize),
    /// A machine that stood still for so long goes on; `None` is the coordinator's.
    Thawed(Option<usize>, Time),
    /// The time service sets the clock of a gateway.
    ClockIsSet(usize),
    /// A destroyed gateway is forgotten.
    Forget(usize),
    /// A person does something.
    Person(usize),
    /// A request without an answer is sent again.
    AskAgain(u64),
    /// The Byzantine gateway, in this life of it, says the next thing.
    Lie(u64),
    /// The world looks around.
    Look,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of the invariant.
    pub invariant: &'static str,
    /// When.
    pub at: Time,
    /// What was seen.
    pub text: String,
}

/// States and outputs of tasks by their names, by run.
pub type Outcome = BTreeMap<RunId, BTreeMap<String, (String, Vec<String>)>>;

/// The generators of the components.
#[derive(Debug)]
pub struct Dice {
    /// Network.
    pub net: Rng,
    /// Disks.
    pub disk: Rng,
    /// Ids, boots.
    pub ids: Rng,
    /// Processors.
    pub cpu: Rng,
    /// People.
    pub people: Rng,
}

/// The world of one seed.
pub struct World {
    /// What the seed does.
    pub plan: Plan,
    /// The workflows by run.
    pub flows: Flows,
    /// Now.
    pub t: Time,
    /// What is to come.
    pub queue: Queue<Ev>,
    /// The gateways (and copies of them).
    pub machines: Vec<Machine>,
    /// The coordinator.
    pub cloud: Cloud,
    /// Connections that at least one side has open.
    pub conns: BTreeMap<u64, Connection>,
    /// Number of the last connection.
    pub last_conn: u64,
    /// Number of the last process.
    pub last_pid: u64,
    /// Randomness.
    pub dice: Dice,
    /// Faults that happened.
    pub tally: Tally,
    /// The trace.
    pub trace: Trace,
    /// All branches of history of all gateways.
    pub lives: Vec<EdgeTruth>,
    /// Hashes at the ends of commits, over all branches.
    pub ends: BTreeMap<LogId, BTreeMap<u64, Vec<Hash>>>,
    /// Every process that ever ran.
    pub ran: Vec<Ran>,
    /// Processes by task.
    pub ran_by_task: BTreeMap<(RunId, TaskIdx), Vec<usize>>,
    /// To which node, with which tasks each slice was given at each epoch.
    pub epochs: BTreeMap<(RunId, Epoch, u32), (LogId, Vec<TaskIdx>)>,
    /// Successes that counted in a commit, where the coordinator's store goes back.
    pub successes: BTreeSet<crate::check::counted_once::Success>,
    /// What was shown to count, where a restore is planned.
    pub counted: crate::check::counted_once::Counted,
    /// The Byzantine gateway, if there is one.
    pub liar: Option<Box<crate::byzantine::Liar>>,
    /// What was durable of runs, where there is one.
    pub contained: crate::check::contained::Contained,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// The people.
    pub people: People,
    /// Whoever exchanges the fleet's authority.
    pub exchanging: crate::authority::Exchanging,
    /// Faults are over.
    pub calm: bool,
    /// Events of this instant.
    pub spin: (Time, u64),
    /// Events of this hour.
    pub busy: (Time, u64),
    /// Tasks of all runs.
    pub size: u64,
    /// For who looks from outside whether the world goes on.
    pub pulse: Arc<Pulse>,
    /// What gateways measured, and what was acknowledged of it.
    pub measured: crate::measure::Measured,
    /// What became of tasks, as the coordinator shows it at rest.
    pub outcome: Outcome,
    /// What carries messages in place of `wire`, if something does.
    pub carried: Option<Box<crate::carried::Carried>>,
    /// What is kept for a timeline, if somebody wants one.
    pub record: Option<Box<crate::record::Record>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.plan.seed)
            .field("t", &self.t)
            .finish_non_exhaustive()
    }
}

/// What is seen of a world from another thread.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Its seed and one more; 0: nothing runs.
    pub seed: AtomicU64,
    /// Grows with each event.
    pub beats: AtomicU64,
}

/// Events of one hour after which messages must go to and fro for ever, and more for each task.
const BUSY: u64 = 400_000;
const BUSY_EACH: u64 = 200;
/// Events of one instant after which somebody must be turning in circles.
const SPIN: u64 = 20_000;

impl World {
    /// The world at its beginning.
    #[must_use]
    pub fn new(plan: Plan, lines: Option<crate::trace::Sink>) -> Self {
        let record = lines.is_some().then(Box::default);
        let root = Rng::new(plan.seed).fork("world", 0);
        let dice = Dice {
            net: root.fork("net", 0),
            disk: root.fork("disk", 0),
            ids: root.fork("ids", 0),
            cpu: root.fork("cpu", 0),
            people: root.fork("people", 0),
        };
        let there = |(n, _): &(usize, &PlannedRun)| !plan.gone.runs.contains(n);
        let runs = plan.runs.iter().enumerate().filter(there);
        let flows = runs
            .map(|(_, run)| (run.run, Arc::new(run.clone())))
            .collect();
        let mut world = Self {
            flows,
            t: 0,
            queue: Queue::default(),
            machines: Vec::new(),
            cloud: Cloud::new(plan.layer, &root),
            conns: BTreeMap::new(),
            last_conn: 0,
            last_pid: 0,
            dice,
            tally: Tally::default(),
            trace: Trace::new(lines),
            lives: Vec::new(),
            ends: BTreeMap::new(),
            ran: Vec::new(),
            ran_by_task: BTreeMap::new(),
            epochs: BTreeMap::new(),
            successes: BTreeSet::new(),
            counted: crate::check::counted_once::Counted::new(),
            liar: None,
            contained: crate::check::contained::Contained::default(),
            violations: Vec::new(),
            people: People::default(),
            exchanging: crate::authority::Exchanging::default(),
            calm: false,
            spin: (0, 0),
            busy: (0, 0),
            size: plan.tasks_left() as u64,
            pulse: Arc::default(),
            measured: crate::measure::Measured::default(),
            outcome: Outcome::new(),
            carried: None,
            record,
            plan,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        for n in 0..self.plan.nodes {
            self.add_machine(n);
        }
        self.queue.at(0, Ev::CloudStart(0));
        for n in 0..self.plan.nodes {
            match self.plan.gone.agents.contains(&n) {
                true => self.never_enrol(),
                false => self.enrol(n, false),
            }
        }
        self.add_liar();
        let gone = &self.plan.gone;
        for (position, planned) in self.plan.faults.iter().enumerate() {
            if !gone.faults.contains(&position) {
                self.queue.at(gone.when(planned.at), Ev::Strike(position));
            }
        }
        self.plan_people();
        if let Some(backups) = self.plan.backups {
            self.queue.at(backups.every, Ev::BackupBegins);
        }
        self.queue.at(crate::queue::MIN, Ev::Look);
    }

    /// A promise was broken.
    pub fn fail(&mut self, invariant: &'static str, text: impl Into<String>) {
        let text = text.into();
        self.trace.note(self.t, Lane::World, Sort::Violation, || {
            format!("VIOLATION {invariant}: {text}")
        });
        if self.violations.len() < 10 {
            self.violations.push(Violation {
                invariant,
                at: self.t,
                text,
            });
        }
    }

    /// Promises were broken.
    pub fn fail_all(&mut self, lane: Lane, wrongs: impl IntoIterator<Item = Wrong>) {
        for wrong in wrongs {
            let who = match lane {
                Lane::Node(n) => format!("{}: ", crate::workload::node_name(n)),
                Lane::Cloud => "coordinator: ".to_owned(),
                Lane::World => String::new(),
            };
            self.fail(wrong.invariant, format!("{who}{}", wrong.text));
        }
    }

    /// A fault really happened.
    pub fn happened(&mut self, kind: Kind) {
        self.tally.add(kind);
    }

    /// Whether stores are on simulated disks.
    #[must_use]
    pub fn on_disk(&self) -> bool {
        self.plan.layer == Layer::Disk
    }

    /// Runs until `end`, or until a promise is broken.
    pub fn run_until(&mut self, end: Time) {
        while self.violations.is_empty() {
            let next = self.queue.next_at().filter(|at| *at <= end);
            if self.carry(next.unwrap_or(end)) {
                self.watch_spin();
                self.record();
                continue;
            }
            let Some((at, event)) = next.and_then(|_| self.queue.pop()) else {
                break;
            };
            self.t = self.t.max(at);
            self.watch_spin();
            self.dispatch(event);
            self.record();
        }
        if self.violations.is_empty() {
            self.t = end;
        }
    }

    fn watch_spin(&mut self) {
        self.pulse.beats.fetch_add(1, Ordering::Relaxed);
        let hour = self.t / crate::queue::HOUR;
        if self.busy.0 != hour {
            self.busy = (hour, 0);
        }
        self.busy.1 += 1;
        if self.busy.1 == BUSY + BUSY_EACH * self.size {
            self.fail("bounded", format!("{} events in one hour", self.busy.1));
        }
        if self.spin.0 == self.t {
            self.spin.1 += 1;
            if self.spin.1 == SPIN {
                self.fail("bounded", format!("{SPIN} events in one instant"));
            }
        } else {
            self.spin = (self.t, 0);
        }
    }

    fn dispatch(&mut self, event: Ev) {
        match event {
            Ev::Step(m, process) => self.step(m, process),
            Ev::Wake(m, process) => self.wake(m, process),
            Ev::Start(m, process) => self.start(m, process),
            Ev::PowerOn(m) => self.power_on(m),
            Ev::ProcEnds(m, pid) => self.proc_ends(m, pid),
            Ev::ProcStopped(m, pid, signal) => self.proc_stopped(m, pid, signal),
            Ev::Dialled(m, process, session) => self.dialled(m, process, session),
            Ev::DialFailed(m, process, session) => self.dial_failed(m, process, session),
            Ev::Up(conn, stream) => self.arrives_up(conn, stream),
            Ev::Down(conn, stream) => self.arrives_down(conn, stream),
            Ev::Closed(conn, side) => self.close_arrives(conn, side),
            Ev::Silent(conn, side, since) => self.silent(conn, side, since),
            Ev::Fetched(m, process, hash, size) => self.fetched(m, process, hash, size),
            Ev::Uploaded(m, process, hash, size) => self.uploaded(m, process, hash, size),
            Ev::CloudStep(process) => self.cloud_step(process),
            Ev::CloudWake(process) => self.cloud_wake(process),
            Ev::CloudStart(process) => self.cloud_start(process),
            Ev::BackupBegins => self.backup_begins(),
            Ev::BackupEnds => self.backup_ends(),
            Ev::Strike(position) => self.strike(position),
            Ev::Healed(m, up, down) => self.heal(m, up, down),
            Ev::Fast(m, by) => {
                let link = &mut self.machines[m].link;
                link.slow -= by.min(link.slow);
                link.slow_until = self.t;
            }
            Ev::DiskFast(whose, by) => {
                let slow = self.disk_delay(whose);
                *slow = slow.saturating_sub(by);
            }
            Ev::Answers => self.cloud.deaf = self.cloud.deaf.saturating_sub(1),
            Ev::Room(whose) => self.make_room(whose),
            Ev::Thawed(whose, lasts) => self.thawed(whose, lasts),
            Ev::ClockIsSet(m) => self.clock_is_set(m),
            Ev::CopyEnds(m) => self.switch_off_for_good(m),
            Ev::Forget(m) => self.forget_node(m),
            Ev::Person(position) => self.person(position),
            Ev::AskAgain(id) => self.ask_again(id),
            Ev::Lie(process) => self.lie(process),
            Ev::LookLeft(m) => self.look_left(m),
            Ev::Look => self.look(),
        }
    }

    /// The world looks around once a minute.
    fn look(&mut self) {
        self.measure();
        self.renew_due();
        self.exchange_goes_on();
        crate::check::look(self);
        self.queue.at(self.t + crate::queue::MIN, Ev::Look);
    }
}
