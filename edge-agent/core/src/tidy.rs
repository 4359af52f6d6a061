//! What goes with time: runs that were submitted here and ended long ago, and files that nobody
//! names any more.

use crate::agent::{Agent, Effects, Timer};
use crate::slice::Slice;
use crate::state::Open;
use shared::codec;
use shared::directive::Assign;
use shared::fact::Body;
use shared::ids::{Hash, RunId, ScheduleId, SliceRef};
use shared::state::TaskState;
use shared::time::{Span, Unix};
use shared::workflow::{Source, Workflow};
use std::collections::{BTreeMap, BTreeSet};

/// How long local runs are kept after their end, unless something else is said.
pub(crate) const KEEP_RUNS: Span = Span::secs(7 * 24 * 3600);
/// Time between two looks.
const INTERVAL: Span = Span::secs(3600);
/// Runs forgotten at one look.
const MOST: usize = 500;
/// Runs of one schedule that are kept.
const KEPT: usize = 200;

impl Agent {
    /// Arms the next look. With a coordinator it is the coordinator that says what may be
    /// forgotten, but for the runs of schedules, which may be many before it is heard again.
    pub(crate) fn tidy_soon(&mut self) {
        let armed = self.timers.iter().any(|(_, timer)| *timer == Timer::Tidy);
        if !armed && (!self.config.has_coordinator || !self.state.schedules.is_empty()) {
            self.timers.insert((self.now.mono + INTERVAL, Timer::Tidy));
        }
    }

    pub(crate) fn tidy_due(&mut self, fx: &mut Effects) {
        self.tidy_soon();
        let many = self.beyond_kept();
        let awake = self.state.slices.values().filter(|slice| quiet(slice));
        let awake = awake.map(|slice| (slice.id, last_change(slice)));
        let at_rest = self.state.resting.values().map(|rest| (rest.id, rest.last));
        let old = |(slice, last): &(SliceRef, _)| self.is_old(slice.run, *last, &many);
        let old = awake.chain(at_rest).filter(old).take(MOST);
        let old: Vec<SliceRef> = old.map(|(slice, _)| slice).collect();
        for slice in old {
            let in_doubt = Vec::new();
            self.emit(Body::Released { slice, in_doubt }, fx);
        }
    }

    /// Runs of schedules beyond the newest that are kept of each.
    fn beyond_kept(&self) -> BTreeSet<RunId> {
        let mut slots: BTreeMap<ScheduleId, BTreeSet<(Unix, RunId)>> = BTreeMap::new();
        for (id, run) in &self.state.runs {
            if let Some((schedule, slot)) = run.schedule {
                slots.entry(schedule).or_default().insert((slot, *id));
            }
        }
        let old = |runs: BTreeSet<(Unix, RunId)>| {
            let beyond = runs.len().saturating_sub(KEPT);
            runs.into_iter().take(beyond).map(|(_, run)| run)
        };
        slots.into_values().flat_map(old).collect()
    }

    /// Whether a local run of which nothing changed any more since `last` may go. What is to be
    /// brought to the coordinator is brought first.
    fn is_old(&self, run: RunId, last: Option<Unix>, many: &BTreeSet<RunId>) -> bool {
        let held = self.state.runs.get(&run);
        let local = held.is_some_and(|held| {
            held.local && (held.schedule.is_some() || !self.config.has_coordinator)
        });
        if self.config.has_coordinator && self.files.backlog() > 0 {
            return false;
        }
        let age = last.map_or(0, |last| self.calendar_now().0.saturating_sub(last.0));
        let old = self.clock_known() && u64::try_from(age).unwrap_or(0) >= self.keep_runs.0;
        local && (old || many.contains(&run))
    }

    /// Every file that a slice or an assignment here names: all others may go.
    #[must_use]
    pub fn named_files(&self) -> BTreeSet<Hash> {
        let mut named = BTreeSet::new();
        for rest in self.state.resting.values() {
            rest.add_files(&mut named);
        }
        for slice in self.state.slices.values() {
            let outputs = slice.slots.iter().flat_map(|slot| &slot.outputs);
            named.extend(outputs.map(|file| file.hash));
            let told = slice
                .externals
                .values()
                .filter_map(|external| external.known.as_ref());
            named.extend(told.flat_map(|told| &told.outputs).map(|file| file.hash));
        }
        for hash in self.state.known_workflows() {
            if let Some(workflow) = self.state.workflow(hash) {
                add_sent(&workflow, &mut named);
            }
        }
        for open in self.state.open.values() {
            if let Open::Assign(assign) = open {
                add_assigned(assign, &mut named);
            }
        }
        named
    }
}

/// Whether nothing of a slice happens any more. One with a lost task waits for a person.
fn quiet(slice: &Slice) -> bool {
    let lost = slice.slots.iter().any(|slot| slot.state == TaskState::Lost);
    slice.done && slice.running == 0 && !lost
}

fn last_change(slice: &Slice) -> Option<Unix> {
    let changed = slice.slots.iter().filter_map(|slot| slot.since);
    changed.map(|at| at.wall).max()
}

fn add_sent(workflow: &Workflow, named: &mut BTreeSet<Hash>) {
    let inputs = workflow.tasks.iter().flat_map(|task| &task.inputs);
    named.extend(inputs.filter_map(|input| match &input.source {
        Source::Sent { hash, .. } => Some(*hash),
        Source::NodeFile(_) | Source::Task { .. } => None,
    }));
}

fn add_assigned(assign: &Assign, named: &mut BTreeSet<Hash>) {
    let told = assign.done.iter().chain(&assign.upstream);
    named.extend(told.flat_map(|told| &told.outputs).map(|file| file.hash));
    if let Some((workflow, _)) = assign
        .workflow
        .as_ref()
        .and_then(|packed| codec::unpack(packed).ok())
    {
        add_sent(&workflow, named);
    }
}
