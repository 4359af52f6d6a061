//! Schedules as part of the fold: what they are, who asked what of them, and what became of their
//! slots.

use crate::slice::Slice;
use crate::state::{Open, Row, State, Touch};
use serde::{Deserialize, Serialize};
use shared::codec;
use shared::explain::Reason;
use shared::fact::{Body, Fact};
use shared::ids::{Epoch, Hash, RunId, ScheduleId, SliceRef, TaskIdx};
use shared::schedule::due::{Firing, Progress, Skipped};
use shared::schedule::{Calendar, Order, SCHEDULES, Schedule, WORKFLOW_BYTES, keeps_backfill};
use shared::time::Unix;
use shared::workflow::Workflow;
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of all workflows that schedules here hold, packed.
const BYTES: usize = 8 * 1024 * 1024;

/// Runs that persons may want at once.
const TRIGGERS: usize = 16;

/// A schedule that this node fires.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Scheduled {
    /// Its workflow's name.
    pub name: String,
    /// The epoch at which this node owns it; 0 if it was made here.
    pub epoch: Epoch,
    /// Its revision.
    pub revision: u32,
    /// Content hash of its workflow.
    pub workflow: Hash,
    /// Bytes of its packed workflow.
    pub bytes: u32,
    /// Made at this gateway.
    pub local: bool,
    /// Who made this revision, and when.
    pub by: (String, Unix),
    /// The coordinator's pause mark.
    pub paused_there: bool,
    /// The gateway's pause mark: who.
    pub paused_here: Option<String>,
    /// What became of its slots.
    pub progress: Progress,
    /// Runs that persons want at once.
    pub triggers: VecDeque<Unix>,
    /// Since when it stands still for a person.
    pub paused_since: Option<Unix>,
}

impl Scheduled {
    /// Whether it stands still for a person.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused_there || self.paused_here.is_some()
    }

    /// What became of a run that a person wanted. Whether this was one.
    fn triggered(&mut self, slot: Unix) -> bool {
        let before = self.triggers.len();
        self.triggers.retain(|wanted| *wanted != slot);
        self.triggers.len() < before
    }
}

/// The workflow that an order brings, if a schedule can be made of it.
///
/// # Errors
/// Why not, with the reason's text for people.
pub(crate) fn readable(packed: &[u8]) -> Result<(Workflow, Schedule, Hash), (Reason, String)> {
    let bad = |text: String| (Reason::Malformed, text);
    if packed.len() > WORKFLOW_BYTES {
        let text = format!("its workflow has more than {WORKFLOW_BYTES} bytes");
        return Err((Reason::NoRoom, text));
    }
    let (workflow, hash) = codec::unpack(packed).map_err(|error| bad(error.to_string()))?;
    let Some(schedule) = workflow.schedule.clone() else {
        return Err(bad("its workflow has no schedule".to_owned()));
    };
    Calendar::new(&schedule).map_err(|error| bad(error.to_string()))?;
    let tasks = (0..workflow.tasks.len() as u32).map(TaskIdx).collect();
    let slice = SliceRef {
        run: RunId::default(),
        slice: 0,
        epoch: Epoch::LOCAL,
    };
    Slice::new(slice, Arc::new(workflow.clone()), hash, tasks)?;
    Ok((workflow, schedule, hash))
}

impl State {
    /// Folds a fact about a schedule.
    pub(crate) fn scheduled(&mut self, fact: &Fact, touch: &mut Touch) {
        match &fact.body {
            Body::ScheduleDone {
                schedule, order, ..
            } => {
                self.open.retain(|_, open| {
                    !matches!(open, Open::Schedule { schedule: id, order: n, .. }
                        if id == schedule && n == order)
                });
                touch.rows.insert(Row::Core);
            }
            Body::ScheduleAsked { schedule, what, by } => {
                let held = self.schedules.get(schedule);
                let epoch = held.map_or(Epoch(0), |held| held.epoch);
                self.order(*schedule, epoch, what, (by, fact.at.wall), true, touch);
            }
            Body::Fired {
                schedule,
                slot,
                slice,
                cause,
                trusted,
                ..
            } => {
                let firing = Firing {
                    slot: *slot,
                    run: slice.run,
                    at: fact.at.wall,
                    cause: *cause,
                    trusted: *trusted,
                };
                self.fired(*schedule, firing, *slice, touch);
            }
            Body::SlotsSkipped {
                schedule, skipped, ..
            } => self.skipped(*schedule, skipped, touch),
            _ => {}
        }
    }

    /// The workflow of a schedule, with the schedule in it.
    #[must_use]
    pub fn template(&self, id: ScheduleId) -> Option<&Arc<Workflow>> {
        self.workflows.get(&self.schedules.get(&id)?.workflow)
    }

    /// Whether an order can be carried out; the same check decides and folds.
    pub(crate) fn judge_order(
        &self,
        id: ScheduleId,
        epoch: Epoch,
        what: &Order,
    ) -> Result<(), (Reason, String)> {
        let known = self.schedules.get(&id);
        if let Some(known) = known
            && known.epoch > epoch
        {
            let text = format!("epoch {} of it is here", known.epoch);
            return Err((Reason::Superseded, text));
        }
        let Order::Set { workflow, .. } = what else {
            let here = known.is_some_and(|known| known.epoch == epoch);
            if let (true, Order::Backfill(from, to)) = (here, what) {
                self.judge_backfill(id, *from, *to)
                    .map_err(|text| (Reason::ImpossibleTransition, text))?;
            }
            let text = "no such schedule is here".to_owned();
            let many = known.is_some_and(|known| known.triggers.len() >= TRIGGERS);
            return match (here, what) {
                (true, Order::Trigger(_)) if many => {
                    let text = format!("{TRIGGERS} runs of it are wanted already");
                    Err((Reason::NoRoom, text))
                }
                // What shall go is gone.
                (true, _) | (false, Order::Drop) => Ok(()),
                (false, _) => Err((Reason::ImpossibleTransition, text)),
            };
        };
        readable(workflow)?;
        let others = self.schedules.iter().filter(|(other, _)| **other != id);
        let (count, bytes) = others.fold((0, 0), |(n, sum), (_, held)| {
            (n + 1, sum + held.bytes as usize)
        });
        if count >= SCHEDULES || bytes + workflow.len() > BYTES {
            let text = format!("{count} schedules with {bytes} bytes are here");
            return Err((Reason::NoRoom, text));
        }
        Ok(())
    }

    fn judge_backfill(&self, id: ScheduleId, from: Unix, to: Unix) -> Result<(), String> {
        let held = self.schedules.get(&id);
        let rules = self.template(id).and_then(|t| t.schedule.as_ref());
        match (held, rules.and_then(|rules| Calendar::new(rules).ok())) {
            (Some(held), Some(calendar)) => keeps_backfill(&calendar, &held.progress, from, to),
            _ => Ok(()),
        }
    }

    /// Carries out what a directive asks; the answer is left open.
    pub(crate) fn ordered(
        &mut self,
        (id, epoch, order): (ScheduleId, Epoch, u64),
        what: &Order,
        (by, at): (&str, Unix),
        touch: &mut Touch,
    ) -> Open {
        let refused = self.judge_order(id, epoch, what).err();
        let cursor = self.schedules.get(&id).map(|held| held.progress.cursor);
        if refused.is_none() {
            self.order(id, epoch, what, (by, at), false, touch);
        }
        Open::Schedule {
            schedule: id,
            epoch,
            order,
            cursor: cursor.unwrap_or_default(),
            refused,
        }
    }

    /// Carries out an order that was judged.
    fn order(
        &mut self,
        id: ScheduleId,
        epoch: Epoch,
        what: &Order,
        (by, at): (&str, Unix),
        here: bool,
        touch: &mut Touch,
    ) {
        touch.rows.insert(Row::Schedule(id));
        touch.schedules.insert(id);
        if let Order::Set { .. } = what {
            self.set_schedule(id, epoch, what, (by, at), here, touch);
            return;
        }
        let Some(held) = self.schedules.get_mut(&id) else {
            return;
        };
        match what {
            Order::Set { .. } => {}
            Order::Pause(on) => {
                let was = held.paused();
                match here {
                    true => held.paused_here = on.then(|| by.to_owned()),
                    false => held.paused_there = *on,
                }
                held.paused_since = held.paused().then(|| held.paused_since.unwrap_or(at));
                // What passed while it stood still does not fire.
                if was && !held.paused() {
                    held.progress.cursor = at.max(held.progress.cursor);
                }
            }
            Order::Trigger(slot) => held.triggers.push_back(*slot),
            Order::Backfill(from, to) => {
                let before = Unix(from.0.saturating_sub(1));
                held.progress.backfill = Some((before, *to));
            }
            Order::Drop => {
                let hash = held.workflow;
                self.schedules.remove(&id);
                self.drop_workflow(hash, touch);
            }
        }
    }

    fn set_schedule(
        &mut self,
        id: ScheduleId,
        epoch: Epoch,
        what: &Order,
        (by, at): (&str, Unix),
        local: bool,
        touch: &mut Touch,
    ) {
        let Order::Set {
            revision,
            workflow: packed,
            after,
            paused,
        } = what
        else {
            return;
        };
        let Ok((workflow, _, hash)) = readable(packed) else {
            return;
        };
        let old = self.schedules.remove(&id);
        let (progress, triggers) = match &old {
            // By its new rule nothing was missed before it came.
            Some(old) if old.epoch == epoch => {
                let progress = Progress {
                    cursor: at.max(old.progress.cursor),
                    ..old.progress.clone()
                };
                (progress, old.triggers.clone())
            }
            _ => {
                let progress = Progress {
                    cursor: *after,
                    ..Progress::default()
                };
                (progress, VecDeque::new())
            }
        };
        let held = Scheduled {
            name: workflow.name.clone(),
            epoch,
            revision: *revision,
            workflow: hash,
            bytes: packed.len() as u32,
            local,
            by: (by.to_owned(), at),
            paused_there: *paused,
            paused_here: old.as_ref().and_then(|old| old.paused_here.clone()),
            progress,
            triggers,
            paused_since: old.as_ref().and_then(|old| old.paused_since),
        };
        self.schedules.insert(id, held);
        self.workflows
            .entry(hash)
            .or_insert_with(|| Arc::new(workflow));
        touch.rows.insert(Row::Workflow(hash));
        if let Some(old) = old {
            self.drop_workflow(old.workflow, touch);
        }
    }

    /// Folds a firing: the run begins.
    fn fired(&mut self, id: ScheduleId, firing: Firing, slice: SliceRef, touch: &mut Touch) {
        let Some(template) = self.template(id).cloned() else {
            return;
        };
        let fired = firing.at.max(firing.slot);
        let workflow = shared::schedule::workflow_of(&template, firing.slot, fired);
        let hash = codec::pack(&workflow).1;
        let slot = firing.slot;
        if let Some(held) = self.schedules.get_mut(&id) {
            held.progress.fire(firing);
            held.triggered(slot);
        }
        touch.rows.insert(Row::Schedule(id));
        let tasks = (0..workflow.tasks.len() as u32).map(TaskIdx).collect();
        if let Ok(slice) = Slice::new(slice, Arc::new(workflow), hash, tasks) {
            let run = self.runs.entry(slice.id.run).or_default();
            (run.local, run.schedule) = (true, Some((id, slot)));
            self.take(slice, touch);
        }
    }

    /// Folds slots that did not fire.
    fn skipped(&mut self, id: ScheduleId, skipped: &Skipped, touch: &mut Touch) {
        if let Some(held) = self.schedules.get_mut(&id) {
            if held.triggered(skipped.to) {
                held.progress.skipped = Some(skipped.clone());
                held.progress.counts.1 += 1;
            } else {
                held.progress.skip(skipped.clone());
            }
            touch.rows.insert(Row::Schedule(id));
            touch.schedules.insert(id);
        }
    }

    /// A workflow that neither a slice nor a schedule names goes.
    pub(crate) fn drop_workflow(&mut self, hash: Hash, touch: &mut Touch) {
        let slices = self.slices.values().any(|slice| slice.hash == hash)
            || self.resting.values().any(|rest| rest.hash == hash);
        let schedules = self.schedules.values().any(|held| held.workflow == hash);
        if !slices && !schedules {
            self.workflows.remove(&hash);
            self.packed.remove(&hash);
            touch.rows.insert(Row::Workflow(hash));
        }
    }

    /// The open runs of a schedule, by their slots: also those that fired before it was told
    /// anew at another epoch, or taken away for a while.
    pub(crate) fn open_runs(&self, id: ScheduleId) -> Vec<RunId> {
        let open = self.slices.values().filter(|slice| !slice.done);
        let slot = |run: &RunId| self.runs.get(run)?.schedule.filter(|(of, _)| *of == id);
        let mut open: Vec<(Unix, RunId)> = open
            .filter_map(|slice| Some((slot(&slice.id.run)?.1, slice.id.run)))
            .collect();
        open.sort_unstable();
        open.into_iter().map(|(_, run)| run).collect()
    }
}
