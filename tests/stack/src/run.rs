//! Runs plans on layer 3.

use crate::carrier::{Figures, Mistake, Shells};
use shared::workflow::SideEffects;
use sim::carried::Carrier;
use sim::drawing::Drawing;
use sim::plan::{Layer, Plan, What};
use sim::runner::{Verdict, run_carried};
use sim::trace::Sink;
use sim::workload::PlannedRun;
use sim::world::Pulse;
use std::sync::{Arc, Mutex, PoisonError};

/// A plan that was run.
#[derive(Debug)]
pub struct Ran {
    /// What became of it.
    pub verdict: Verdict,
    /// What happened, where lines were wanted.
    pub drawing: Option<Drawing>,
    /// What was on the network.
    pub figures: Figures,
}

/// What `seed` does on layer 3: the same as on layer 1 with a few gateways, but for what speaks
/// past the link, the gateway that lies and hellos that are said again.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut plan = Plan::small(seed, Layer::Link);
    plan.byzantine = None;
    plan.faults
        .retain(|planned| !matches!(planned.what, What::ReplayHello(_)));
    plan
}

/// What `seed` does on `layer` when only links and processes fail, and nothing of
/// what becomes of a task hangs on when something happens: nobody but the people who submit does
/// anything, each task fails always or never and ends by itself, silence takes no work away from a
/// gateway, each task may run again as often as its agent dies, and no matrix gives up behind a
/// number of failures.
///
/// Then the state and the outputs of each task follow from its workflow, whichever messages were
/// late, lost or repeated, and all layers must come to the same.
#[must_use]
pub fn settled(seed: u64, layer: Layer) -> Plan {
    let mut plan = Plan::small(seed, layer);
    plan.byzantine = None;
    plan.leaving = None;
    plan.backups = None;
    plan.deserted = true;
    plan.schedules.clear();
    plan.faults.retain(|planned| {
        matches!(
            planned.what,
            What::Cut { .. }
                | What::Reset(_)
                | What::Slow { .. }
                | What::RefuseDials(_)
                | What::Kill { .. }
                | What::CloudKill { .. }
                | What::CloudPower { .. }
        )
    });
    plan.runs.iter_mut().for_each(settle);
    plan
}

/// Half of the tasks that fail sometimes fail always from now on, the others never.
const OFTEN: u64 = 250;

fn settle(run: &mut PlannedRun) {
    (run.cancel, run.pause, run.retry) = (None, None, None);
    for habit in &mut run.habits {
        (habit.hangs, habit.varies) = (0, false);
        habit.fails = if habit.fails > OFTEN { 1000 } else { 0 };
    }
    for task in &mut run.workflow.tasks {
        (task.disconnect.lost_after, task.disconnect.replace) = (None, false);
        (task.crash_limit, task.side_effects) = (u32::MAX, SideEffects::Idempotent);
    }
    for matrix in &mut run.workflow.matrices {
        matrix.max_fails = None;
    }
    run.packed = shared::codec::pack(&run.workflow).0;
}

/// Runs `plan`: on layer 3 with the shells' link, where a mistake may be planted; else as ever.
#[must_use]
pub fn run(plan: Plan, lines: Option<Sink>, pulse: Arc<Pulse>, mistake: Option<Mistake>) -> Ran {
    let figures: Arc<Mutex<Figures>> = Arc::default();
    let kept = Arc::clone(&figures);
    let (verdict, drawing) = run_carried(plan, lines, pulse, |plan| {
        let shells = || Box::new(Shells::new(plan, mistake, kept)) as Box<dyn Carrier>;
        (plan.layer == Layer::Link).then(shells)
    });
    let figures = *figures.lock().unwrap_or_else(PoisonError::into_inner);
    Ran {
        verdict,
        drawing,
        figures,
    }
}
