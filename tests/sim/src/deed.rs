//! What people will do: drawn in full from the seed, so that what a cut takes out of it changes
//! nothing of the rest.

use crate::authority::Planned;
use crate::plan::Plan;
use crate::queue::{HOUR, MIN, Time};
use crate::rng::Rng;
use crate::schedule::{Act, Made};
use shared::time::Span;

/// What somebody will do.
#[derive(Debug, Clone, Copy)]
pub enum Deed {
    /// Submit run number so.
    Submit(usize),
    /// Cancel it.
    Cancel(usize),
    /// Pause it or let it go on.
    Pause(usize, bool),
    /// Look for tasks that wait for a person at a gateway.
    Resume(usize),
    /// Let what failed of a run run again.
    Retry(usize),
    /// Let the coordinator forget a run.
    Forget(usize),
    /// Answer questions at a gateway.
    Answer(usize),
    /// Answer questions at the coordinator.
    AnswerThere,
    /// Change a setting, drawn by this number.
    Configure(u64),
    /// Cordon, drain, label or taint a node, or end that, drawn by this number.
    Operate(u64),
    /// Let a gateway send nothing, for so long or until somebody says so.
    PauseSync(usize, Option<Span>),
    /// Let it send again.
    ResumeSync(usize),
    /// Exchange the fleet's authority.
    Exchange(Planned),
    /// Make schedule number so.
    Schedule(usize),
    /// Ask something of it.
    AskSchedule(usize, Act),
}

impl Deed {
    /// The run that it is about.
    #[must_use]
    pub fn run(self) -> Option<usize> {
        match self {
            Self::Submit(n)
            | Self::Cancel(n)
            | Self::Pause(n, _)
            | Self::Retry(n)
            | Self::Forget(n) => Some(n),
            _ => None,
        }
    }

    /// The schedule that it is about.
    #[must_use]
    pub fn schedule(self) -> Option<usize> {
        match self {
            Self::Schedule(n) | Self::AskSchedule(n, _) => Some(n),
            _ => None,
        }
    }

    /// The gateway at which it is done, or for which.
    #[must_use]
    pub fn agent(self, plan: &Plan) -> Option<usize> {
        match self {
            Self::Resume(m) | Self::Answer(m) | Self::PauseSync(m, _) | Self::ResumeSync(m) => {
                Some(m)
            }
            Self::Submit(n) | Self::Pause(n, _) => plan.runs[n].local,
            Self::AskSchedule(_, Act::Move(to)) => Some(to),
            Self::Schedule(n) | Self::AskSchedule(n, _) => match plan.schedules[n].made {
                Made::Here(m) => Some(m),
                Made::There(node) => node,
            },
            _ => None,
        }
    }
}

/// What people will do in `plan`, and when; `dice` are the people's own.
#[must_use]
pub fn draw(plan: &Plan, dice: &mut Rng) -> Vec<(Time, Deed)> {
    let mut deeds: Vec<(Time, Deed)> = Vec::new();
    for (n, run) in plan.runs.iter().enumerate() {
        deeds.push((run.at, Deed::Submit(n)));
        if let Some(at) = run.cancel {
            deeds.push((at, Deed::Cancel(n)));
        }
        if let Some(at) = run.retry {
            deeds.push((at, Deed::Retry(n)));
        }
        if let Some((at, lasts)) = run.pause {
            deeds.push((at, Deed::Pause(n, true)));
            deeds.push((at + lasts, Deed::Pause(n, false)));
        }
    }
    if plan.deserted {
        deeds.extend(schedules(plan));
        return deeds;
    }
    for m in 0..plan.nodes {
        for hour in 1..7 {
            let at = hour * HOUR + dice.below(HOUR);
            if !plan.undisturbed {
                deeds.push((at, Deed::Resume(m)));
            }
            let at = hour * HOUR + dice.below(HOUR);
            deeds.push((at, Deed::Answer(m)));
            // often somebody else answers at the same time
            let soon = dice.below(2 * MIN);
            deeds.push(((at + soon).saturating_sub(MIN), Deed::AnswerThere));
        }
    }
    if !plan.undisturbed {
        deeds.extend(of_operators(plan, dice));
        deeds.extend(silence(plan, dice));
    }
    deeds.extend(schedules(plan));
    let exchanges = plan.exchanges.iter();
    deeds.extend(exchanges.map(|(at, planned)| (*at, Deed::Exchange(*planned))));
    deeds
}

/// Who makes schedules, and asks something of them.
fn schedules(plan: &Plan) -> Vec<(Time, Deed)> {
    let mut deeds = Vec::new();
    for (n, planned) in plan.schedules.iter().enumerate() {
        deeds.push((planned.at, Deed::Schedule(n)));
        let acts = planned.acts.iter().filter(|_| !plan.undisturbed);
        deeds.extend(acts.map(|(at, act)| (*at, Deed::AskSchedule(n, *act))));
    }
    deeds
}

/// Settings, work on nodes, and runs that somebody wants to be forgotten.
fn of_operators(plan: &Plan, dice: &Rng) -> Vec<(Time, Deed)> {
    let mut deeds = Vec::new();
    let mut own = dice.fork("settings", 0);
    for n in 0..own.below(6) {
        deeds.push((own.below(6 * HOUR), Deed::Configure(n)));
    }
    let mut own = dice.fork("operate", 0);
    for n in 0..own.below(10) {
        deeds.push((own.below(6 * HOUR), Deed::Operate(n)));
    }
    let mut own = dice.fork("forget", 0);
    for _ in 0..plan.leaving.map_or(0, |leaving| leaving.asks) {
        let n = own.below(plan.runs.len() as u64) as usize;
        deeds.push((own.below(6 * HOUR), Deed::Forget(n)));
    }
    deeds
}

/// When people pause the links of gateways. One in three seeds knows none.
fn silence(plan: &Plan, dice: &Rng) -> Vec<(Time, Deed)> {
    let mut own = dice.fork("silence", 0);
    let mut deeds = Vec::new();
    for _ in 0..own.below(3) {
        let m = own.below(plan.nodes as u64) as usize;
        let at = own.below(5 * HOUR);
        let lasts = own.range(1, 90) * MIN;
        let by_itself = own.chance(500);
        let length = by_itself.then_some(Span(lasts / 1_000_000));
        deeds.push((at, Deed::PauseSync(m, length)));
        if !by_itself {
            deeds.push((at + lasts, Deed::ResumeSync(m)));
        }
    }
    deeds
}
