//! Plays a plan with real processes: starts the fleet, submits, lets the faults strike, and is the
//! service manager that starts again what ended.

use super::flow::Source;
use super::observe::{self, Not};
use super::plan::Plan;
use super::seen::Observation;
use super::strike::{Fault, Strike};
use crate::agent::{stderr, stdout};
use crate::clock::ShiftedClock;
use crate::fleet::{Fleet, output, program};
use relay::{Conditions, Direction};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// When the last fault is over, all must be at rest within this: idle timeout (2 s), longest pause
/// between dials (1 s) and between attempts (1.2 s), and the work that is left, on a busy machine.
const REST: Duration = Duration::from_secs(60);
/// A gateway that refused work for want of room is offered it again after a minute.
const REFUSED: Duration = Duration::from_secs(60);
/// Pause of a service manager before it starts again what ended.
const RESTART: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(20);
/// Room for an agent, its reserve and the files of its tasks.
const SMALL_MIB: u32 = 64;

/// A process that is looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Coordinator,
    Agent(usize),
}

/// A fleet under a plan.
pub(super) struct World<'a> {
    plan: &'a Plan,
    pub(super) fleet: Fleet,
    clocks: BTreeMap<usize, ShiftedClock>,
    begun: Instant,
    /// Length of the marks, and when it last grew.
    marks: (u64, Duration),
    /// What happened, with its time.
    pub(super) timeline: Vec<String>,
    /// Indexes of the faults that last.
    lasting: Vec<usize>,
    /// Processes that do not run, and when they are started again; never while a fault lasts.
    down: BTreeMap<Who, Option<Instant>>,
    /// Gateways whose disk was full, and until when their agents may end for it.
    full: BTreeMap<usize, Instant>,
    ended: Vec<String>,
    submitting: Vec<Option<JoinHandle<Result<String, Not>>>>,
    /// The run of each workflow, once it is known.
    pub(super) runs: Vec<Option<String>>,
}

impl<'a> World<'a> {
    /// Starts the fleet; nothing has struck yet.
    pub(super) fn start(plan: &'a Plan) -> Self {
        let labels: Vec<String> = (0..plan.gateways).map(|n| format!("site=s{n}")).collect();
        let args: Vec<[&str; 4]> = labels
            .iter()
            .map(|label| ["--cpus", "3", "--label", label])
            .collect();
        let args: Vec<&[&str]> = args.iter().map(|args| &args[..]).collect();
        let mut fleet = Fleet::enrolling(&args);
        let mut clocks = BTreeMap::new();
        for node in 0..plan.gateways {
            if plan.strikes(node, &[Fault::FullDisk]) && !fleet.on_small_disk(node, SMALL_MIB) {
                crate::agent::skip("only root can mount a disk to be filled");
            }
            if plan.strikes(node, &[Fault::ClockStep]) {
                let home = fleet.base().join(format!("clock-{node}"));
                fs::create_dir(&home).expect("the test's directory can be written");
                let clock = ShiftedClock::new(&home);
                for (name, path) in clock.env() {
                    fleet.set_agent_env(node, name, path);
                }
                clocks.insert(node, clock);
            }
        }
        // Tasks may run as another user.
        fleet.put_mark("marks", "");
        let marks = fleet.marks().join("marks");
        fs::set_permissions(marks, Permissions::from_mode(0o666)).expect("its mode can be changed");
        for node in 0..plan.gateways {
            fleet.start_agent(node);
        }
        for node in 0..plan.gateways {
            fleet.wait_online(node);
        }
        Self {
            plan,
            fleet,
            clocks,
            begun: Instant::now(),
            marks: (0, Duration::ZERO),
            timeline: Vec::new(),
            lasting: Vec::new(),
            down: BTreeMap::new(),
            full: BTreeMap::new(),
            ended: Vec::new(),
            submitting: Vec::new(),
            runs: Vec::new(),
        }
    }

    fn note(&mut self, what: impl std::fmt::Display) {
        let at = self.begun.elapsed().as_secs_f64();
        self.timeline.push(format!("{at:8.3} s  {what}"));
    }

    /// Submits the workflows and lets every fault of the plan strike and pass.
    pub(super) fn strike(&mut self) {
        self.begun = Instant::now();
        self.submit();
        let strikes = self.plan.strikes.iter().enumerate();
        let mut moments: Vec<(u64, bool, usize)> = strikes
            .flat_map(|(n, strike)| [(strike.from_ms, true, n), (strike.to_ms, false, n)])
            .collect();
        // One that has no length begins before it ends.
        moments.sort_by_key(|(at, begins, n)| (*at, *n, !begins));
        for (at, begins, index) in moments {
            self.watch_until(Duration::from_millis(at));
            let strike = &self.plan.strikes[index];
            if begins {
                self.note(format!("{strike} begins"));
                self.lasting.push(index);
                self.begin(strike);
            } else {
                self.note(format!("{strike} ends"));
                self.lasting.retain(|other| *other != index);
                self.end(strike);
            }
        }
        self.watch_until(Duration::from_millis(self.plan.window_ms));
    }

    fn watch_until(&mut self, moment: Duration) {
        loop {
            self.watch();
            let left = moment.saturating_sub(self.begun.elapsed());
            if left.is_zero() {
                return;
            }
            sleep(left.min(PAUSE));
        }
    }

    fn begin(&mut self, strike: &Strike) {
        let node = strike.node;
        match strike.fault {
            Fault::KillAgent => self.kill(Who::Agent(node)),
            Fault::KillGateway => {
                self.kill(Who::Agent(node));
                for pid in self.fleet.task_processes(node) {
                    // It may have ended meanwhile.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            Fault::KillCoordinator => self.kill(Who::Coordinator),
            Fault::StopAgent => {
                self.signal(Who::Agent(node), Signal::STOP);
            }
            Fault::StopCoordinator => {
                self.signal(Who::Coordinator, Signal::STOP);
            }
            Fault::FullDisk => {
                if let Some(disk) = self.fleet.small_disk(node) {
                    disk.fill();
                }
            }
            Fault::ClockStep => self.clocks[&node].shift(strike.size),
            Fault::Rebind => self.fleet.relay().rebind(node),
            _ => self.set_lane(node),
        }
    }

    fn end(&mut self, strike: &Strike) {
        let node = strike.node;
        match strike.fault {
            Fault::KillAgent | Fault::KillGateway => self.start_again(Who::Agent(node)),
            Fault::KillCoordinator => self.start_again(Who::Coordinator),
            Fault::StopAgent => {
                self.signal(Who::Agent(node), Signal::CONT);
            }
            Fault::StopCoordinator => {
                self.signal(Who::Coordinator, Signal::CONT);
            }
            Fault::FullDisk => {
                if let Some(disk) = self.fleet.small_disk(node) {
                    disk.free();
                }
                self.full.insert(node, Instant::now() + 4 * RESTART);
            }
            Fault::ClockStep => self.clocks[&node].shift(0),
            Fault::Rebind => {}
            _ => self.set_lane(node),
        }
    }

    /// Sets a lane to what the faults that last make of it together.
    fn set_lane(&self, node: usize) {
        for direction in [Direction::Up, Direction::Down] {
            let mut conditions = Conditions::OPEN;
            for index in &self.lasting {
                let strike = &self.plan.strikes[*index];
                if strike.node == node && !worsen(&mut conditions, strike, direction) {
                    conditions = Conditions::CUT;
                    break;
                }
            }
            self.fleet.relay().set(node, direction, conditions);
        }
    }

    /// Sends a signal; whether the process runs.
    fn signal(&mut self, who: Who, signal: Signal) -> bool {
        let runs = match who {
            Who::Coordinator => self.fleet.signal_coordinator(signal),
            Who::Agent(node) => self.fleet.signal_agent(node, signal),
        };
        if !runs {
            self.note(format!("{who:?} does not run"));
        }
        runs
    }

    fn kill(&mut self, who: Who) {
        self.down.insert(who, None);
        if self.signal(who, Signal::KILL) {
            while self.take_ended(who).is_none() {
                sleep(Duration::from_millis(1));
            }
        }
    }

    fn take_ended(&mut self, who: Who) -> Option<std::process::ExitStatus> {
        match who {
            Who::Coordinator => self.fleet.coordinator_ended(),
            Who::Agent(node) => self.fleet.agent_ended(node),
        }
    }

    fn start_again(&mut self, who: Who) {
        self.down.remove(&who);
        match who {
            Who::Coordinator => self.fleet.spawn_coordinator(),
            Who::Agent(node) => self.fleet.spawn_agent(node),
        }
    }

    /// Until when tasks worked, since the submission.
    pub(super) fn worked(&self) -> Duration {
        self.marks.1
    }

    /// Starts again what ended by itself.
    fn watch(&mut self) {
        let marks = fs::metadata(self.fleet.marks().join("marks"));
        let length = marks.map_or(0, |marks| marks.len());
        if length > self.marks.0 {
            self.marks = (length, self.begun.elapsed());
        }
        let agents = (0..self.plan.gateways).map(Who::Agent);
        for who in [Who::Coordinator].into_iter().chain(agents) {
            if let Some(status) = self.take_ended(who) {
                let what = format!("{who:?} ended by itself: {status}");
                self.note(&what);
                if !self.may_end(who) {
                    self.ended.push(what);
                }
                self.down.insert(who, Some(Instant::now() + RESTART));
            }
            let due = self.down.get(&who).copied().flatten();
            if due.is_some_and(|due| due <= Instant::now()) {
                self.start_again(who);
            }
        }
    }

    /// On a full disk an agent that cannot keep its reserve ends, to be started anew.
    fn may_end(&self, who: Who) -> bool {
        let Who::Agent(node) = who else {
            return false;
        };
        let recent = self.full.get(&node).is_some_and(|at| Instant::now() < *at);
        let lasts = self.lasting.iter().any(|index| {
            let strike = &self.plan.strikes[*index];
            strike.fault == Fault::FullDisk && strike.node == node
        });
        recent || lasts
    }

    /// At gateways at once; at the coordinator when it is time, as somebody who asks until there is
    /// an answer.
    fn submit(&mut self) {
        for flow in &self.plan.flows {
            let spec = self.fleet.spec(&flow.spec());
            let (run, thread) = match flow.source {
                Source::Gateway(node) => {
                    let path = spec.display().to_string();
                    let output = self.fleet.agent_cli(node, &["submit", &path]);
                    assert!(output.status.success(), "{}", stderr(&output));
                    (id(&stdout(&output)).ok(), None)
                }
                Source::Coordinator(after_ms) => {
                    let (data, name) = (self.fleet.data(), flow.name.clone());
                    let at = Instant::now() + Duration::from_millis(after_ms);
                    let ask = move || submitted(at, &data, &spec, &name);
                    (None, Some(thread::spawn(ask)))
                }
            };
            self.runs.push(run);
            self.submitting.push(thread);
        }
    }

    /// Waits until all submissions were answered; the runs.
    fn submissions(&mut self) -> Result<Vec<String>, Not> {
        for (run, thread) in self.runs.iter_mut().zip(&mut self.submitting) {
            if let Some(thread) = thread.take_if(|thread| thread.is_finished()) {
                let answer = thread.join().map_err(|_| "a submission panicked")?;
                *run = Some(answer?);
            }
        }
        let runs: Option<Vec<String>> = self.runs.iter().cloned().collect();
        runs.ok_or_else(|| "a submission is not answered".to_owned())
    }

    /// Waits until all is at rest and `fine`, for as long as that may take; what is
    /// seen then.
    pub(super) fn rest(
        &mut self,
        fine: impl Fn(&Observation) -> bool,
    ) -> (Vec<String>, Observation) {
        let refused = self.plan.fills_a_disk();
        let until = Instant::now() + REST + if refused { REFUSED } else { Duration::ZERO };
        loop {
            self.watch();
            let over = Instant::now() > until;
            let seen = self.submissions().and_then(|runs| {
                let rest = observe::at_rest(&self.fleet, self.plan, &runs);
                if !over {
                    rest.clone()?;
                }
                let mut seen = observe::all(&self.fleet, self.plan, &runs)?;
                seen.unrest = rest.err();
                Ok((runs, seen))
            });
            match seen {
                Ok((runs, mut seen)) if over || fine(&seen) => {
                    seen.ended.clone_from(&self.ended);
                    self.note("at rest");
                    return (runs, seen);
                }
                Err(why) if over => {
                    let unrest = Some(why);
                    let seen = Observation {
                        unrest,
                        ..Observation::default()
                    };
                    return (Vec::new(), seen);
                }
                _ => sleep(5 * PAUSE),
            }
        }
    }

    /// Kills the coordinator, starts it again, and looks at the runs once more.
    pub(super) fn ask_again(&mut self, runs: &[String], seen: &mut Observation) {
        self.note("kill_coordinator, to ask it again");
        self.fleet.kill_coordinator();
        self.fleet.start_coordinator();
        match observe::runs(self.fleet.api(), runs, self.plan) {
            Ok(again) => seen.again = Some(again),
            Err(why) => seen.unrest = Some(format!("behind the last restart: {why}")),
        }
    }

    /// Ends all processes in order and checks the stores that they leave.
    pub(super) fn stop(&mut self, seen: &mut Observation) {
        for node in 0..self.plan.gateways {
            self.fleet.stop_agent(node);
            let output = self.fleet.agent_cli(node, &["store", "check"]);
            seen.unsound.extend(unsound(&format!("gw-{node}"), &output));
        }
        self.fleet.stop_coordinator();
        let output = self.fleet.cli(&["store", "check"]);
        seen.unsound.extend(unsound("coordinator", &output));
    }
}

/// What a strike makes of a direction of its lane; whether anything passes then.
fn worsen(conditions: &mut Conditions, strike: &Strike, direction: Direction) -> bool {
    let size = u32::try_from(strike.size).unwrap_or(0);
    match strike.fault {
        Fault::Cut => return false,
        Fault::CutUp => return direction != Direction::Up,
        Fault::CutDown => return direction != Direction::Down,
        Fault::Loss => conditions.loss_milli = size,
        Fault::Delay => {
            conditions.delay = Duration::from_millis(size.into());
            conditions.jitter = conditions.delay;
        }
        Fault::Duplicate => conditions.double_milli = size,
        Fault::Rate => conditions.rate = Some(size),
        _ => {}
    }
    true
}

fn id(printed: &str) -> Result<String, Not> {
    let line = printed.lines().last().unwrap_or_default();
    let run: Value = serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
    let id = run["id"].as_str();
    id.map(str::to_owned)
        .ok_or_else(|| format!("no id: {line}"))
}

/// Submits at this moment, again and again with one key until it is answered.
fn submitted(at: Instant, data: &PathBuf, spec: &PathBuf, key: &str) -> Result<String, Not> {
    sleep(at.saturating_duration_since(Instant::now()));
    let until = Instant::now() + REST;
    loop {
        let mut command = program("driftless");
        command
            .arg("submit")
            .arg(spec)
            .args(["--idempotency-key", key]);
        let said = output(command.arg("--json").arg("--data").arg(data));
        if said.status.success() {
            return id(&stdout(&said));
        }
        if Instant::now() > until {
            return Err(format!("submit: {}", stderr(&said)));
        }
        sleep(10 * PAUSE);
    }
}

/// Findings of `store check` that are not fine.
fn unsound(whose: &str, output: &std::process::Output) -> Vec<String> {
    let text = stdout(output);
    let bad = |line: &&str| {
        let finding: Value = serde_json::from_str(line).unwrap_or_default();
        finding["state"] != "ok"
    };
    let mut found: Vec<String> = text
        .lines()
        .filter(bad)
        .map(|l| format!("{whose}: {l}"))
        .collect();
    if !output.status.success() || text.is_empty() {
        found.push(format!("{whose}: {} {}", output.status, stderr(output)));
    }
    found
}
