//! What tasks made and lies nowhere any more: who needs it does not wait for it.

use super::{At, NONE, Run, Stage, TaskRow};
use crate::effects::Effects;
use shared::explain::Reason;
use shared::ids::{Epoch, TaskIdx};
use shared::state::TaskState;
use shared::wire::LogId;
use shared::workflow::{SideEffects, Source};
use std::collections::BTreeSet;

impl Run {
    /// What tasks made on a node that is gone for good, and did not reach the file store, is
    /// nowhere: nobody owns those tasks any more, and who still waits for one of them is helped.
    pub(super) fn bereave(&mut self, at: At<'_>, log: LogId, fx: &mut Effects) {
        let Some(body) = &self.body else { return };
        let there = |slice: u32| {
            let slice = self.head.slices.get(slice as usize);
            slice.is_some_and(|s| s.is_of(log))
        };
        let nowhere = |row: &TaskRow| {
            let missing = row.outputs.iter().any(|f| !at.files.contains_key(&f.hash));
            row.state == TaskState::Succeeded && missing && there(row.slice)
        };
        let rows = (0u32..).zip(&body.tasks);
        let orphans: Vec<u32> = rows.filter(|(_, r)| nowhere(r)).map(|(t, _)| t).collect();
        for task in &orphans {
            self.own(TaskIdx(*task), NONE);
        }
        if !orphans.is_empty() {
            self.help_readers(at, fx);
        }
    }

    /// Who needs what is nowhere any more does not wait for it: it is made again, or is lost.
    pub(super) fn help_readers(&mut self, at: At<'_>, fx: &mut Effects) {
        let Some(body) = self.body.as_ref().filter(|_| self.head.cancel.is_none()) else {
            return;
        };
        // who began has its input beside it
        let waits = |row: &TaskRow| !row.state.is_final() && row.attempts == 0;
        let rows = (0u32..).zip(&body.tasks);
        let readers = rows.filter(|(_, row)| waits(row)).map(|(t, _)| TaskIdx(t));
        let turned = self.redo(at, NONE, readers.collect());
        self.tell(&turned, fx);
        self.settle(at.wall, fx);
    }

    /// Tasks whose outputs lie only on the node of a slice that was taken away, or nowhere any
    /// more, are done again where `work` needs them. What must not be done again is lost if it is
    /// nowhere, and may come back with its node else.
    pub(super) fn redo(&mut self, at: At<'_>, gone: u32, mut work: Vec<TaskIdx>) -> Vec<TaskIdx> {
        let mut undone = Vec::new();
        while let Some(task) = work.pop() {
            for dep in self.missing_inputs(at, task, gone) {
                let Some(body) = &self.body else { break };
                let once = body.workflow.tasks[dep.0 as usize].side_effects;
                let once = once == SideEffects::AtMostOnce;
                if once && !self.brings_nothing(body.tasks[dep.0 as usize].slice) {
                    continue;
                }
                undone.push(dep);
                if once {
                    self.set(dep, TaskState::Lost, Some(Reason::OutputLost), at.wall);
                    continue;
                }
                if let Some(body) = &mut self.body {
                    body.tasks[dep.0 as usize].outputs.clear();
                }
                self.own(dep, NONE);
                self.set(dep, TaskState::Blocked, None, at.wall);
                work.push(dep);
            }
        }
        undone
    }

    /// The tasks whose outputs a task reads that are not in the file store and not on a node
    /// either, or only on that of slice `gone`.
    fn missing_inputs(&self, at: At<'_>, task: TaskIdx, gone: u32) -> BTreeSet<TaskIdx> {
        let Some(body) = &self.body else {
            return BTreeSet::new();
        };
        let inputs = body.workflow.tasks[task.0 as usize].inputs.iter();
        let made = inputs.filter_map(|input| match input.source {
            Source::Task { task, output } => Some((task, output)),
            _ => None,
        });
        made.filter(|(dep, output)| {
            let row = &body.tasks[dep.0 as usize];
            let file = row.outputs.get(*output as usize);
            row.state == TaskState::Succeeded
                && (row.slice == gone || self.brings_nothing(row.slice))
                && file.is_some_and(|f| !at.files.contains_key(&f.hash))
        })
        .map(|(dep, _)| dep)
        .collect()
    }

    /// Whether no node brings any more what was made in a slice: nobody has it, or it was given up
    /// before this store went back, which may have forgotten what was brought before that.
    fn brings_nothing(&self, slice: u32) -> bool {
        let slice = self.head.slices.get(slice as usize);
        slice.is_none_or(|slice| {
            let forgotten = slice.epoch < Epoch::new(self.head.went_back, 0);
            slice.stage == Stage::Released && forgotten
        })
    }
}
