//! Schedules of a seed, and what people do with them: they make, pause, trigger, fill, change, move
//! and delete them, at gateways and at the coordinator.

use crate::deed::Deed;
use crate::fault::Kind;
use crate::people::Purpose;
use crate::queue::{HOUR, MIN, MS, SEC, Time};
use crate::rng::Rng;
use crate::workload::{self, Habit, PlannedRun, Scope};
use crate::world::{Ev, World};
use cloud_core::event::{Refused, Reply, Request, ScheduleAsk};
use cloud_core::schedule::Owner;
use edge_core::event::Local;
use shared::ids::{RunId, ScheduleId};
use shared::schedule::{Catchup, Order, Overlap, Rule, Schedule};
use shared::time::{Span, Unix};
use shared::workflow::{Disconnect, Placement, SideEffects, Workflow};
use std::sync::Arc;

/// The crons that are used: rule, time zone, minutes between two slots, minutes of the first one
/// since 1970. Their zones have no change of clocks, or the rule passes through it.
pub const CRONS: &[(&str, &str, i64, i64)] = &[
    ("*/15 * * * *", "UTC", 15, 0),
    ("7,37 * * * *", "UTC", 30, 7),
    ("*/20 * * * *", "Europe/Berlin", 20, 0),
    ("0 * * * *", "Asia/Kolkata", 60, 30),
    ("30 2 * * *", "Asia/Kolkata", 1440, 1260),
];

/// Who makes a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Somebody at this gateway.
    Here(usize),
    /// Somebody at the coordinator, perhaps for this gateway.
    There(Option<usize>),
}

/// A schedule that somebody will make.
#[derive(Debug, Clone)]
pub struct PlannedSchedule {
    /// Its workflow's name.
    pub name: String,
    /// By whom.
    pub made: Made,
    /// When.
    pub at: Time,
    /// Its workflow, with other rules in each revision.
    pub revisions: Vec<Workflow>,
    /// How its tasks behave.
    pub habits: Vec<Habit>,
    /// What people ask of it, and when.
    pub acts: Vec<(Time, Act)>,
}

/// What somebody asks of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Fire nothing, or fire again.
    Pause(bool),
    /// Run once.
    Trigger,
    /// Run what was due in so long before.
    Backfill(Time),
    /// The next revision.
    Revise,
    /// Another gateway shall fire it.
    Move(usize),
    /// Take it away.
    Delete,
}

/// The schedules of a seed: one in three has some.
#[must_use]
pub fn draw(rng: &Rng, scope: Scope) -> Vec<PlannedSchedule> {
    let mut rng = rng.fork("schedules", 0);
    let count = if rng.chance(370) { rng.range(1, 3) } else { 0 };
    (0..count)
        .map(|n| one(&mut rng.fork("schedule", n), scope, n))
        .collect()
}

fn one(rng: &mut Rng, scope: Scope, n: u64) -> PlannedSchedule {
    let node = rng.below(scope.nodes as u64) as usize;
    let made = match rng.below(5) {
        0 | 1 => Made::Here(node),
        2 => Made::There(Some(node)),
        _ => Made::There(None),
    };
    let quick = rng.chance(150);
    let longest = if quick { 5 * SEC } else { 4 * MIN };
    let size = if quick { 1 } else { rng.range(1, 3) as usize };
    let (mut tasks, habits) = workload::small(rng, scope, size, longest);
    if made == Made::There(None) && rng.chance(600) {
        // one that a gateway of the site can fire by itself
        let moves = rng.chance(500);
        let lost_after = moves.then(|| Span::secs(rng.range(300, 1800)));
        for task in &mut tasks {
            task.placement = Placement {
                site: Some("north".to_owned()),
                ..Placement::default()
            };
            task.side_effects = SideEffects::None;
            task.disconnect = Disconnect {
                lost_after,
                replace: moves,
            };
        }
    }
    let name = format!("sched-{n}");
    let revision = |_| workload::workflow(&name, tasks.clone(), Some(rules(rng, quick)));
    let revisions = (0..3).map(revision).collect();
    let at = MIN + rng.below(2 * HOUR);
    let acts = acts(rng, scope, made, at);
    PlannedSchedule {
        name,
        made,
        at,
        revisions,
        habits,
        acts,
    }
}

fn rules(rng: &mut Rng, quick: bool) -> Schedule {
    let seconds = match quick {
        true => rng.range(90, 180),
        false => rng.log_range(300, 3600),
    };
    let (rule, timezone) = match rng.below(3) {
        0 if !quick => {
            let row = CRONS[rng.below(CRONS.len() as u64) as usize];
            (Rule::Cron(row.0.to_owned()), row.1)
        }
        _ => (Rule::Every(Span::secs(seconds)), "UTC"),
    };
    let catchup = [Catchup::None, Catchup::Latest, Catchup::All][rng.below(3) as usize];
    let overlap = [Overlap::Forbid, Overlap::Allow, Overlap::Replace][rng.below(3) as usize];
    Schedule {
        rule,
        timezone: timezone.to_owned(),
        catchup,
        max_catchup: rng.range(1, 5) as u32,
        starting_deadline: rng
            .chance(300)
            .then(|| Span::secs(rng.log_range(120, 4 * 3600))),
        overlap,
        jitter: Span(if rng.chance(300) {
            rng.below(80_000)
        } else {
            0
        }),
    }
}

fn acts(rng: &mut Rng, scope: Scope, made: Made, from: Time) -> Vec<(Time, Act)> {
    let mut acts = Vec::new();
    if !scope.people {
        return acts;
    }
    for _ in 0..rng.below(5) {
        let at = from + rng.below(4 * HOUR);
        let act = match rng.below(12) {
            0..=2 => {
                acts.push((at + rng.log_range(SEC, HOUR), Act::Pause(false)));
                Act::Pause(true)
            }
            3 | 4 => Act::Trigger,
            5..=7 => Act::Backfill(rng.range(10 * MIN, 4 * HOUR)),
            8 | 9 => Act::Revise,
            10 if matches!(made, Made::There(_)) => {
                Act::Move(rng.below(scope.nodes as u64) as usize)
            }
            _ => Act::Delete,
        };
        acts.push((at, act));
    }
    acts
}

impl PlannedSchedule {
    /// What one of its runs does; `local` is the gateway that fired it.
    #[must_use]
    pub fn run(&self, run: RunId, at: Time, local: Option<usize>) -> PlannedRun {
        let mut workflow = self.revisions[0].clone();
        workflow.schedule = None;
        PlannedRun {
            run,
            at,
            local,
            workflow,
            packed: Vec::new(),
            habits: self.habits.clone(),
            cancel: None,
            pause: None,
            retry: None,
        }
    }

    fn packed(&self, revision: u32) -> Vec<u8> {
        let n = revision as usize % self.revisions.len();
        shared::codec::pack(&self.revisions[n]).0
    }
}

impl World {
    /// A slot fired: what its run does is known from here on.
    pub(crate) fn fired(&mut self, id: ScheduleId, run: RunId, local: Option<usize>) {
        let Some(n) = self.people.schedules.get(&id).copied() else {
            return;
        };
        self.people.fired.insert(run);
        let planned = self.plan.schedules[n].run(run, self.t, local);
        self.flows.entry(run).or_insert_with(|| Arc::new(planned));
    }

    /// Somebody makes schedule `n`, and looks whether it is there some minutes after.
    pub(crate) fn make_schedule(&mut self, n: usize, position: usize) {
        if self.calm || self.people.unscheduled.contains(&n) {
            return;
        }
        let planned = &self.plan.schedules[n];
        let by = "somebody".to_owned();
        if self.schedule_held(n) {
            return;
        }
        self.queue.at(self.t + 3 * MIN, Ev::Person(position));
        match planned.made {
            Made::Here(m) => {
                let after = Unix(self.machines[m].clocks.now(self.t).wall.0);
                let what = Order::Set {
                    revision: 1,
                    workflow: planned.packed(0),
                    after,
                    paused: false,
                };
                let schedule = self.new_schedule(n);
                self.ask_local(m, None, Local::Schedule { schedule, what, by });
            }
            Made::There(node) => {
                let request = Request::CreateSchedule {
                    name: planned.name.clone(),
                    workflow: planned.packed(0),
                    node: node.map(workload::node_name),
                    replace: false,
                    by,
                    schedule: self.new_schedule(n),
                };
                self.ask(request, Purpose::Schedule(n));
            }
        }
    }

    fn new_schedule(&mut self, n: usize) -> ScheduleId {
        let made = self.people.schedules.len() as u64;
        let id = ScheduleId(self.dice.ids.fork("schedule", made).id());
        self.people.schedules.insert(id, n);
        id
    }

    /// Whether the side that was asked for schedule `n` has it.
    fn schedule_held(&self, n: usize) -> bool {
        let planned = &self.plan.schedules[n];
        let named = |id: &ScheduleId| self.people.schedules.get(id) == Some(&n);
        match planned.made {
            Made::Here(m) => {
                let life = self.lives.get(self.machines[m].life);
                life.is_none_or(|life| life.model.slots.held.keys().any(named))
            }
            Made::There(_) => {
                let known = &self.cloud.truth.schedules;
                known
                    .iter()
                    .any(|(id, known)| named(id) && known.revision > 0)
                    || self
                        .people
                        .asks
                        .values()
                        .any(|ask| ask.purpose == Purpose::Schedule(n))
            }
        }
    }

    /// The coordinator answered somebody who asked something of schedule `n`.
    pub(crate) fn schedule_answered(&mut self, n: usize, reply: &Reply) {
        if let Reply::Refused(Refused::NotFound { .. }) = reply
            && self.cloud.went_back
            && !self.people.unscheduled.contains(&n)
        {
            // its store went back behind the schedule
            let position = self.people.deeds.len();
            self.people.deeds.push(Deed::Schedule(n));
            self.queue.at(self.t + MIN, Ev::Person(position));
        }
    }

    /// Somebody asks something of schedule `n`.
    pub(crate) fn ask_schedule(&mut self, n: usize, act: Act) {
        if act == Act::Delete {
            self.people.unscheduled.insert(n);
        }
        let planned = &self.plan.schedules[n];
        let (name, made) = (planned.name.clone(), planned.made);
        match made {
            Made::Here(m) => self.ask_schedule_here(m, n, act),
            Made::There(node) => self.ask_schedule_there(name, node, n, act),
        }
    }

    fn ask_schedule_there(&mut self, name: String, node: Option<usize>, n: usize, act: Act) {
        let by = "somebody".to_owned();
        let now = self.cloud.clocks.now(self.t).wall;
        let ask = match act {
            Act::Revise | Act::Move(_) => {
                let to = if let Act::Move(to) = act {
                    Some(to)
                } else {
                    node
                };
                let request = Request::CreateSchedule {
                    name,
                    workflow: self.plan.schedules[n].packed((self.t % 3) as u32),
                    node: to.map(workload::node_name),
                    replace: true,
                    by,
                    // it keeps its own
                    schedule: ScheduleId::default(),
                };
                self.ask(request, Purpose::Schedule(n));
                return;
            }
            Act::Pause(on) => ScheduleAsk::Pause(on),
            Act::Trigger => ScheduleAsk::Trigger,
            Act::Backfill(length) => {
                let (from, to) = past(now, length);
                ScheduleAsk::Backfill { from, to }
            }
            Act::Delete => ScheduleAsk::Delete,
        };
        let request = Request::AskSchedule { name, ask, by };
        self.ask(request, Purpose::Schedule(n));
    }

    fn ask_schedule_here(&mut self, m: usize, n: usize, act: Act) {
        let Some(life) = self.lives.get(self.machines[m].life) else {
            return;
        };
        let named = |id: &ScheduleId| self.people.schedules.get(id) == Some(&n);
        let Some((id, held)) = life.model.slots.held.iter().find(|(id, _)| named(id)) else {
            return;
        };
        let (schedule, revision) = (*id, held.revision + 1);
        let now = self.machines[m].clocks.now(self.t).wall;
        let what = match act {
            Act::Pause(on) => Order::Pause(on),
            Act::Trigger => Order::Trigger(now),
            Act::Backfill(length) => {
                let (from, to) = past(now, length);
                Order::Backfill(from, to)
            }
            Act::Revise | Act::Move(_) => Order::Set {
                revision,
                workflow: self.plan.schedules[n].packed(revision),
                after: now,
                paused: false,
            },
            Act::Delete => Order::Drop,
        };
        let by = "somebody".to_owned();
        self.ask_local(m, None, Local::Schedule { schedule, what, by });
    }

    /// Nobody lets a schedule fire any more.
    pub(crate) fn end_schedules(&mut self) {
        let by = "somebody".to_owned();
        for m in 0..self.machines.len() {
            let Some(life) = self.lives.get(self.machines[m].life) else {
                continue;
            };
            let held = life.model.slots.held.iter();
            let firing: Vec<ScheduleId> = held
                .filter(|(_, held)| !held.stands_still())
                .map(|(id, _)| *id)
                .collect();
            for schedule in firing {
                let (what, by) = (Order::Pause(true), by.clone());
                self.ask_local(m, None, Local::Schedule { schedule, what, by });
            }
        }
        let own = |known: &&cloud_core::schedule::Schedule| {
            known.owner == Owner::Coordinator && known.dropped.is_none()
        };
        let known = self.cloud.truth.schedules.values().filter(own);
        let firing: Vec<String> = known
            .filter(|known| known.paused.is_none() && known.revision > 0)
            .map(|known| known.name.clone())
            .collect();
        for name in firing {
            let (ask, by) = (ScheduleAsk::Pause(true), by.clone());
            self.ask(Request::AskSchedule { name, ask, by }, Purpose::Act);
        }
    }

    /// Counts what facts tell of slots.
    pub(crate) fn count_slots(&mut self, m: usize, body: &shared::fact::Body) {
        use shared::explain::Reason;
        use shared::fact::Body;
        use shared::schedule::Cause;
        let kind = match body {
            Body::Fired { cause, .. } => {
                if !self.machines[m].link.whole() {
                    self.happened(Kind::SlotFiredOffline);
                }
                match cause {
                    Cause::Time => Kind::SlotFired,
                    Cause::Catchup => Kind::SlotCaughtUp,
                    Cause::Trigger => Kind::SlotTriggered,
                    Cause::Backfill => Kind::SlotFilled,
                }
            }
            Body::SlotsSkipped { skipped, .. } => match skipped.reason {
                Reason::RunOpen => Kind::SlotOverlapped,
                Reason::ClockSetBack => Kind::SlotsSetBack,
                Reason::FiredBefore => Kind::SlotFiredBefore,
                _ => Kind::SlotMissed,
            },
            _ => return,
        };
        self.happened(kind);
    }
}

fn past(now: Unix, length: Time) -> (Unix, Unix) {
    (Unix(now.0 - (length / MS) as i64), now)
}
