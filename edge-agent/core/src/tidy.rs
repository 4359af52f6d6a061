//! What goes with time: runs that were submitted here and ended long ago, and files that nobody
//! names any more.

use crate::agent::{Agent, Effects, Timer};
use crate::slice::Slice;
use crate::state::Open;
use shared::codec;
use shared::directive::Assign;
use shared::fact::Body;
use shared::ids::{Hash, SliceRef};
use shared::state::TaskState;
use shared::time::Span;
use shared::workflow::{Source, Workflow};
use std::collections::BTreeSet;

/// How long local runs are kept after their end, unless something else is said.
pub(crate) const KEEP_RUNS: Span = Span::secs(7 * 24 * 3600);
/// Time between two looks.
const INTERVAL: Span = Span::secs(3600);
/// Runs forgotten at one look.
const MOST: usize = 100;

impl Agent {
    /// Arms the next look. With a coordinator it is the coordinator that says what may be
    /// forgotten.
    pub(crate) fn tidy_soon(&mut self) {
        if !self.config.has_coordinator {
            self.timers.insert((self.now.mono + INTERVAL, Timer::Tidy));
        }
    }

    pub(crate) fn tidy_due(&mut self, fx: &mut Effects) {
        self.tidy_soon();
        if !self.clock_trusted {
            return;
        }
        let old = |slice: &&Slice| self.is_old(slice);
        let old = self.state.slices.values().filter(old).take(MOST);
        let old: Vec<SliceRef> = old.map(|slice| slice.id).collect();
        for slice in old {
            let in_doubt = Vec::new();
            self.emit(Body::Released { slice, in_doubt }, fx);
        }
    }

    /// Whether a local slice ended so long ago that it may go. One with a lost task waits for a
    /// person.
    fn is_old(&self, slice: &Slice) -> bool {
        let local = self
            .state
            .runs
            .get(&slice.id.run)
            .is_some_and(|run| run.local);
        if !local || !slice.done || slice.running > 0 {
            return false;
        }
        let lost = slice.slots.iter().any(|slot| slot.state == TaskState::Lost);
        let last = slice
            .slots
            .iter()
            .filter_map(|slot| slot.since)
            .map(|at| at.wall.0)
            .max();
        let age = last.map_or(0, |last| self.now.wall.0.saturating_sub(last));
        !lost && u64::try_from(age).unwrap_or(0) >= self.keep_runs.0
    }

    /// Every file that a slice or an assignment here names: all others may go.
    #[must_use]
    pub fn named_files(&self) -> BTreeSet<Hash> {
        let mut named = BTreeSet::new();
        for slice in self.state.slices.values() {
            let outputs = slice.slots.iter().flat_map(|slot| &slot.outputs);
            named.extend(outputs.map(|file| file.hash));
            let told = slice
                .externals
                .values()
                .filter_map(|external| external.known.as_ref());
            named.extend(told.flat_map(|told| &told.outputs).map(|file| file.hash));
        }
        for workflow in self.state.workflows.values() {
            add_sent(workflow, &mut named);
        }
        for open in self.state.open.values() {
            if let Open::Assign(assign) = open {
                add_assigned(assign, &mut named);
            }
        }
        named
    }
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
