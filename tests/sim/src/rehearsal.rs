//! Rehearsals: a workflow and a fleet of somebody's own, on the real cores, under the faults that
//! they fear. Each seed draws when what strikes; it ends when the run does.

mod desk;
mod play;

pub use play::{Ended, record, rehearse};

use crate::accidents::moment;
use crate::machine::EPOCH_MS;
use crate::plan::{Layer, NetPlan, Plan, Planned, What};
use crate::queue::{HOUR, MIN, MS, SEC, Time};
use crate::rng::Rng;
use crate::schedule::{Made, PlannedSchedule};
use crate::workload::{Habit, PlannedRun};
use shared::graph;
use shared::ids::RunId;
use shared::schedule::{Calendar, Schedule};
use shared::spec::fleet::Node;
use shared::time::{Span, Unix};
use shared::workflow::Workflow;

/// The workflow is submitted when all gateways are enrolled and connected.
pub const SUBMITTED: Time = 2 * MIN;
/// What a task takes of which nobody said it.
pub const UNKNOWN: Time = SEC;
/// A day.
const DAY: Time = 24 * HOUR;
/// How long a person takes to answer, where nobody said it.
pub const ANSWERS: (Span, Span) = (Span::secs(600), Span::secs(7200));

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
    /// The workflow, without a schedule.
    pub workflow: Workflow,
    /// Milliseconds that each task takes, where that is known.
    pub takes: Vec<Option<u64>>,
    /// The gateways.
    pub fleet: Vec<Node>,
    /// What strikes them.
    pub fears: Fears,
    /// How long a person takes to answer a question, from the shortest to the longest.
    pub answers: (Span, Span),
    /// What a link carries in each direction, bits a second, if that is a matter.
    pub bits: Option<u64>,
    /// A run that is not over then is not waited for.
    pub longest: Time,
    /// Its slots of so long a time run, and not the workflow by itself.
    pub schedule: Option<(Schedule, Time)>,
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
            bits: None,
            longest,
            schedule: None,
        }
    }

    /// The slots of `schedule` in so long a time run. The specification was compiled as schedules
    /// are: deadlines count from the firing.
    #[must_use]
    pub fn scheduled(mut self, schedule: Schedule, lasts: Time) -> Self {
        self.schedule = Some((schedule, lasts));
        self
    }

    /// How many slots that are.
    #[must_use]
    pub fn slots(&self) -> u64 {
        let Some((schedule, lasts)) = &self.schedule else {
            return 0;
        };
        // a rule that nobody can read has none
        let Ok(calendar) = Calendar::new(schedule) else {
            return 0;
        };
        let last = wall(SUBMITTED + lasts);
        let next = |at: &Unix| calendar.next(*at).filter(|slot| *slot <= last);
        std::iter::successors(next(&wall(SUBMITTED)), next).count() as u64
    }

    /// Nothing is waited for any more.
    fn until(&self) -> Time {
        let lasts = match &self.schedule {
            // the last runs take their time, and so do the outages beside them
            Some((_, lasts)) => lasts.saturating_mul(2).saturating_add(2 * DAY),
            None => self.longest,
        };
        lasts.saturating_add(SUBMITTED)
    }

    /// The specification was compiled as of `then`: deadlines are as far from the submission here.
    #[must_use]
    pub fn as_of(mut self, then: Unix) -> Self {
        let here = wall(SUBMITTED);
        let tasks = self.workflow.tasks.iter_mut();
        for deadline in tasks.filter_map(|task| task.deadline.as_mut()) {
            deadline.0 = deadline.0.saturating_add(here.0.saturating_sub(then.0));
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
        let (mut runs, mut schedules) = (Vec::new(), Vec::new());
        match &self.schedule {
            Some((schedule, _)) => schedules.push(self.planned(schedule.clone())),
            None => runs.push(self.run(&root)),
        }
        Plan {
            seed,
            layer: Layer::Disk,
            nodes: self.fleet.len(),
            fleet: self.fleet.clone(),
            deserted: true,
            undisturbed: true,
            certificates: None,
            exchanges: Vec::new(),
            byzantine: None,
            calm_at: self.until().saturating_add(HOUR),
            net: NetPlan {
                delay,
                jitter: rng.below(delay),
                spikes: 0,
                doubles: 0,
                idle: 30 * SEC,
                bits: self.bits,
            },
            runs,
            leaving: None,
            backups: None,
            schedules,
            faults: self.faults(&root, within),
            lying_disk: 0,
            planted: None,
            gone: crate::cut::Gone::default(),
            stop_at: None,
        }
    }

    fn run(&self, root: &Rng) -> PlannedRun {
        PlannedRun {
            run: RunId(root.fork("run", 0).id()),
            at: SUBMITTED,
            local: None,
            workflow: self.workflow.clone(),
            packed: shared::codec::pack(&self.workflow).0,
            habits: self.habits(),
            cancel: None,
            pause: None,
            retry: None,
        }
    }

    fn planned(&self, schedule: Schedule) -> PlannedSchedule {
        let workflow = Workflow {
            schedule: Some(schedule),
            ..self.workflow.clone()
        };
        PlannedSchedule {
            name: workflow.name.clone(),
            made: Made::There(None),
            at: SUBMITTED,
            revisions: vec![workflow],
            habits: self.habits(),
            acts: Vec::new(),
        }
    }

    fn habits(&self) -> Vec<Habit> {
        let habit = |(number, takes): (usize, &Option<u64>)| Habit {
            length: takes.map_or(UNKNOWN, |ms| (ms * MS).max(2)),
            fails: self.fears.failing,
            hangs: 0,
            varies: false,
            ignores_term: false,
            size: 100_000,
            number: number as u32,
        };
        self.takes.iter().enumerate().map(habit).collect()
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

/// The wall clocks at `t`.
fn wall(t: Time) -> Unix {
    Unix(EPOCH_MS + (t / MS).cast_signed())
}
