//! Slices that leave their node: lost, released, refused, found again in an inventory.

use super::{At, AttemptRow, NONE, REBUILT, Run, Slice, Stage};
use crate::effects::Effects;
use crate::inbox::Message;
use shared::explain::{DecisionKind, Evidence, Reason};
use shared::fact::{Outcome, SliceState};
use shared::ids::{Epoch, Generation, Incarnation, NodeId, SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::time::Span;
use shared::wire::LogId;
use shared::workflow::SideEffects;
use std::collections::BTreeSet;

/// What happens to the open tasks of a slice that is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Policy {
    /// Silent or forgotten: placed again only if the specification says `replace`.
    AsSpec(Reason),
    /// The data directory is gone for certain: placed again unless it may not run twice.
    Gone(Reason),
    /// The node confirmed that nothing runs: placed again.
    Confirmed,
}

/// How far beyond the numbers of known slices one may be that this store forgot.
pub const UNHEARD: usize = 10_000;

impl Run {
    /// Tasks of a slice that are not final.
    #[must_use]
    pub fn open_tasks(&self, slice: u32) -> Vec<TaskIdx> {
        let rows = self.body.iter().flat_map(|b| &b.tasks);
        (0u32..)
            .zip(rows)
            .filter(|(_, row)| row.slice == slice && !row.state.is_final())
            .map(|(t, _)| TaskIdx(t))
            .collect()
    }

    /// Finds the shortest `lost_after` of a slice's open tasks.
    pub fn time_slice(&mut self, slice: u32) {
        let spans = self.lost_after(slice);
        let shortest = spans.iter().filter_map(|(_, span)| *span).min();
        self.head.slices[slice as usize].lost_after = shortest;
    }

    /// For how long its node may be silent before an open task of a slice is lost. A question of a
    /// local run falls with the last of the slice: until then its gateway goes on, and asks it.
    fn lost_after(&self, slice: u32) -> Vec<(TaskIdx, Option<Span>)> {
        let Some(body) = &self.body else {
            return Vec::new();
        };
        let span = |t: TaskIdx| body.workflow.tasks[t.0 as usize].disconnect.lost_after;
        let open = self.open_tasks(slice).into_iter();
        let mut spans: Vec<_> = open.map(|t| (t, span(t))).collect();
        if self.head.origin.is_some() {
            let forever = spans.iter().any(|(_, span)| span.is_none());
            let longest = spans.iter().filter_map(|(_, span)| *span).max();
            let last = longest.filter(|_| !forever);
            let asks = |(task, _): &&mut (TaskIdx, _)| self.question(*task).is_some();
            spans
                .iter_mut()
                .filter(asks)
                .for_each(|(_, span)| *span = last);
        }
        spans
    }

    /// A node was silent for so long: what may not wait longer is lost there.
    pub fn node_silent(&mut self, at: At<'_>, node: NodeId, silence: Span, fx: &mut Effects) {
        if self.head.held {
            return;
        }
        for number in self.live_slices(|s| s.node == node) {
            let spans = self.lost_after(number).into_iter();
            let due = spans.filter(|(_, span)| span.is_some_and(|limit| limit <= silence));
            let due: Vec<TaskIdx> = due.map(|(task, _)| task).collect();
            if due.is_empty() {
                // what was timed may have ended since
                self.time_slice(number);
                continue;
            }
            self.record_move(at, number, &due, Reason::NodeSilent, silence);
            self.take(at, number, &due, Policy::AsSpec(Reason::NodeSilent), fx);
            self.part(number, fx);
        }
        self.refresh(at.wall);
    }

    /// Everything on an incarnation of a node is gone.
    pub fn node_lost(
        &mut self,
        at: At<'_>,
        node: NodeId,
        incarnation: Incarnation,
        why: Reason,
        fx: &mut Effects,
    ) {
        let policy = match why {
            Reason::NodeReimaged => Policy::Gone(why),
            _ => Policy::AsSpec(why),
        };
        self.head.paused_at.remove(&node);
        self.head.paused_since.remove(&node);
        for number in self.live_slices(|s| s.node == node && s.incarnation == incarnation) {
            let open = self.open_tasks(number);
            self.record_move(at, number, &open, why, Span(0));
            self.take(at, number, &open, policy, fx);
            self.close(number, Stage::Lost, fx);
        }
        let log = LogId { node, incarnation };
        self.drop_shares(log);
        self.bereave(at, log, fx);
        self.refresh(at.wall);
    }

    pub(super) fn live_slices(&self, wanted: impl Fn(&Slice) -> bool) -> Vec<u32> {
        (0u32..)
            .zip(&self.head.slices)
            .filter(|(_, s)| s.live() && wanted(s))
            .map(|(n, _)| n)
            .collect()
    }

    fn record_move(&mut self, at: At<'_>, slice: u32, tasks: &[TaskIdx], why: Reason, span: Span) {
        let evidence = vec![
            Evidence::new("epoch", self.head.slices[slice as usize].epoch),
            Evidence::new("tasks_open", tasks.len()),
            Evidence::new("silence_ms", span.0),
        ];
        let tasks = tasks.iter().map(|t| (t.0, t.0)).collect();
        let decision = super::place::rule(DecisionKind::Moved, why, evidence);
        self.decide(at, tasks, None, decision);
    }

    /// Takes tasks out of a slice; an emptied slice is over.
    fn take(
        &mut self,
        at: At<'_>,
        slice: u32,
        tasks: &[TaskIdx],
        policy: Policy,
        fx: &mut Effects,
    ) {
        let mut turned = Vec::new();
        let mut again = Vec::new();
        // all are judged before the first one leaves: what may have begun depends on the others
        let idle = match policy {
            Policy::Gone(_) => self.surely_idle(slice),
            _ => BTreeSet::new(),
        };
        let fates: Vec<_> = tasks
            .iter()
            .map(|t| (*t, self.fate(*t, policy, &idle)))
            .collect();
        for (task, fate) in fates {
            match fate {
                Some((state, why)) => {
                    self.set(task, state, Some(why), at.wall);
                    turned.push(task);
                }
                None => {
                    self.set(task, TaskState::Blocked, None, at.wall);
                    self.own(task, NONE);
                    again.push(task);
                }
            }
        }
        if self.head.slices[slice as usize].open == 0 {
            let slice_ref = self.slice_ref(slice);
            let node = self.head.slices[slice as usize].node;
            if policy == Policy::AsSpec(Reason::NodeSilent) {
                // The node keeps its place in the list of slices until it confirms.
                self.send(node, Message::Release { slice: slice_ref }, fx);
                self.head.slices[slice as usize].stage = Stage::Lost;
            }
        } else {
            self.time_slice(slice);
        }
        turned.extend(self.redo(at, slice, again));
        self.tell(&turned, fx);
        self.settle(at.wall, fx);
    }

    /// A slice lost a part of its tasks: its node is asked to give up the rest, which is then
    /// placed anew, so that it stops what runs elsewhere now. Not where that would put a task in
    /// doubt.
    fn part(&mut self, number: u32, fx: &mut Effects) {
        let Some(body) = &self.body else { return };
        let once = |t: &TaskIdx| {
            let spec = &body.workflow.tasks[t.0 as usize];
            spec.side_effects == SideEffects::AtMostOnce
        };
        let slice = &self.head.slices[number as usize];
        let keep = self.head.origin.is_some() || self.open_tasks(number).iter().any(once);
        if slice.live() && slice.stage != Stage::Releasing && !keep {
            let node = slice.node;
            self.head.slices[number as usize].stage = Stage::Releasing;
            let slice = self.slice_ref(number);
            self.send(node, Message::Release { slice }, fx);
        }
    }

    /// Those of them that must not run twice.
    pub(super) fn open_once(&self, slice: u32) -> Vec<TaskIdx> {
        let mut tasks = self.open_tasks(slice);
        let once = |task: &TaskIdx| {
            let spec = self
                .body
                .as_ref()
                .map(|b| &b.workflow.tasks[task.0 as usize]);
            spec.is_some_and(|spec| spec.side_effects == SideEffects::AtMostOnce)
        };
        tasks.retain(once);
        tasks
    }

    fn close(&mut self, number: u32, stage: Stage, fx: &mut Effects) {
        let slice = self.slice_ref(number);
        let known = &mut self.head.slices[number as usize];
        if known.live() {
            known.stage = stage;
            let node = known.node;
            self.send(node, Message::Closed { slice }, fx);
        }
    }

    /// How an open task ends when it is taken away; none if it is placed again.
    fn fate(
        &self,
        task: TaskIdx,
        policy: Policy,
        idle: &BTreeSet<TaskIdx>,
    ) -> Option<(TaskState, Reason)> {
        let body = self.body.as_ref()?;
        let spec = &body.workflow.tasks[task.0 as usize];
        if self.head.cancel.is_some() {
            return Some((TaskState::Cancelled, Reason::CancelledByPerson));
        }
        let once = spec.side_effects == SideEffects::AtMostOnce;
        let row = &body.tasks[task.0 as usize];
        let began = matches!(row.state, TaskState::Running | TaskState::Checkpointing);
        match policy {
            Policy::Confirmed if self.head.origin.is_none() => None,
            Policy::Confirmed => Some((TaskState::Lost, Reason::NodeForgotten)),
            Policy::Gone(why) | Policy::AsSpec(why) if self.head.origin.is_some() => {
                let why = if once && began { Reason::InDoubt } else { why };
                Some((TaskState::Lost, why))
            }
            Policy::Gone(_) if once && (began || !idle.contains(&task)) => {
                Some((TaskState::Lost, Reason::InDoubt))
            }
            Policy::Gone(_) => None,
            Policy::AsSpec(_) if once && began => Some((TaskState::Lost, Reason::InDoubt)),
            Policy::AsSpec(_) if spec.disconnect.replace && !once => None,
            Policy::AsSpec(why) => Some((TaskState::Lost, why)),
        }
    }

    /// Tasks of a slice that its owner cannot have begun without being heard: something that they
    /// need from elsewhere, themselves or through others of the slice, never was there. Of what was
    /// there before the store went back nothing is sure.
    fn surely_idle(&self, slice: u32) -> BTreeSet<TaskIdx> {
        let mut idle = BTreeSet::new();
        let Some(body) = &self.body else { return idle };
        if self.slice_ref(slice).epoch < Epoch::new(self.head.went_back, 0) {
            return idle;
        }
        let never_ended = |t: &TaskIdx| {
            let row = &body.tasks[t.0 as usize];
            let ended = |a: &AttemptRow| a.outcome == Some(Outcome::Succeeded);
            row.slice != slice && !row.state.is_final() && !row.history.iter().any(ended)
        };
        let waits = |t: &TaskIdx| body.deps[t.0 as usize].iter().any(never_ended);
        let mut work = self.open_tasks(slice);
        work.retain(waits);
        while let Some(task) = work.pop() {
            if idle.insert(task) {
                let readers = body.dependents[task.0 as usize].iter().copied();
                work.extend(readers.filter(|t| {
                    let row = &body.tasks[t.0 as usize];
                    row.slice == slice && !row.state.is_final()
                }));
            }
        }
        idle
    }

    /// The node confirmed that it gave a slice up.
    pub(super) fn released(
        &mut self,
        at: At<'_>,
        log: LogId,
        slice: SliceRef,
        in_doubt: &[TaskIdx],
        turned: &mut Vec<TaskIdx>,
        fx: &mut Effects,
    ) -> Result<(), Reason> {
        let known = self.head.slices.get(slice.slice as usize);
        let stage = known
            .filter(|s| s.epoch == slice.epoch && s.is_of(log))
            .map(|s| s.stage);
        if stage == Some(Stage::Lost) {
            self.head.slices[slice.slice as usize].stage = Stage::Released;
            self.send(log.node, Message::Closed { slice }, fx);
            return Ok(());
        }
        // also if this side does not know that it asked for it, because its store went back
        let live = |s: Stage| matches!(s, Stage::Assigned | Stage::Accepted | Stage::Releasing);
        if !stage.is_some_and(live) {
            if known.is_some_and(|s| s.epoch > slice.epoch) {
                self.send(log.node, Message::Closed { slice }, fx);
            }
            return Err(Reason::Superseded);
        }
        self.head.recollected.remove(&slice);
        let open = self.open_tasks(slice.slice);
        let (doubt, rest): (Vec<TaskIdx>, Vec<TaskIdx>) =
            open.into_iter().partition(|t| in_doubt.contains(t));
        for task in doubt {
            self.set(task, TaskState::Lost, Some(Reason::InDoubt), at.wall);
            turned.push(task);
        }
        self.take(at, slice.slice, &rest, Policy::Confirmed, fx);
        self.close(slice.slice, Stage::Released, fx);
        Ok(())
    }

    /// Nothing of the slice was ever taken over by its node: it is placed anew.
    pub(super) fn hand_back(&mut self, at: At<'_>, slice: u32, why: Reason, fx: &mut Effects) {
        let open = self.open_tasks(slice);
        self.record_move(at, slice, &open, why, Span(0));
        self.take(at, slice, &open, Policy::Confirmed, fx);
        self.close(slice, Stage::Lost, fx);
    }

    /// Its node knows that the run was over everywhere, and forgot it: this store went back behind
    /// that. How it ended is known nowhere any more, and it is not run again.
    pub(super) fn was_over(
        &mut self,
        at: At<'_>,
        slice: u32,
        turned: &mut Vec<TaskIdx>,
        fx: &mut Effects,
    ) {
        let rows = (0u32..).zip(self.body.iter().flat_map(|b| &b.tasks));
        let left = rows.filter(|(_, row)| {
            let idle = row.slice == slice || row.slice == NONE;
            idle && !row.state.is_final()
        });
        let left: Vec<TaskIdx> = left.map(|(task, _)| TaskIdx(task)).collect();
        for task in left {
            self.set(task, TaskState::Lost, Some(Reason::ForgottenRun), at.wall);
            turned.push(task);
        }
        self.close(slice, Stage::Lost, fx);
    }

    /// The node could not be given the assignment any more.
    pub fn assign_refused(&mut self, at: At<'_>, slice: SliceRef, why: Reason, fx: &mut Effects) {
        let known = self.head.slices.get(slice.slice as usize);
        if known.is_some_and(|s| s.epoch == slice.epoch && s.stage == Stage::Assigned) {
            self.hand_back(at, slice.slice, why, fx);
            self.refresh(at.wall);
        }
    }

    /// Asks for slices back.
    pub fn release(&mut self, slices: &[u32], fx: &mut Effects) {
        for number in slices {
            let node = self.head.slices[*number as usize].node;
            self.head.slices[*number as usize].stage = Stage::Releasing;
            let slice = self.slice_ref(*number);
            self.send(node, Message::Release { slice }, fx);
        }
    }

    /// Whether a slice of this number can be. Numbers between are kept free for it, and who names
    /// one far beyond those that were drawn, again and again, would fill the memory with those.
    pub(super) fn may_number(&self, slice: SliceRef) -> bool {
        let drawn = self.head.slices.iter().filter(|s| s.is_known());
        (slice.slice as usize) < drawn.count() + UNHEARD
    }

    /// Takes a slice of an inventory, of a local submission or of kept facts into the list of
    /// slices.
    pub(super) fn adopt_slice(&mut self, log: LogId, slice: SliceRef) {
        let at = slice.slice as usize;
        let unknown = Slice {
            epoch: Epoch::default(),
            node: NodeId::default(),
            incarnation: Incarnation::default(),
            stage: Stage::Lost,
            open: 0,
            lost_after: None,
            cancelled: false,
            paused: false,
        };
        while self.head.slices.len() <= at {
            self.head.slices.push(unknown.clone());
        }
        let open = self.head.slices[at].open;
        self.head.slices[at] = Slice {
            epoch: slice.epoch,
            node: log.node,
            incarnation: log.incarnation,
            stage: Stage::Accepted,
            open,
            ..unknown
        };
        let counter = (slice.epoch.0 & u64::from(u32::MAX)) as u32;
        self.head.epochs = self.head.epochs.max(counter);
    }

    /// What a node has of this run, after this store went back.
    pub fn inventory(
        &mut self,
        at: At<'_>,
        log: LogId,
        slices: &[SliceState],
        packed: Option<&[u8]>,
        fx: &mut Effects,
    ) {
        if at.hold.is_some() && self.head.heard_since != at.hold {
            self.head.heard.clear();
            self.head.heard_since = at.hold;
        }
        if let (false, Some(packed)) = (self.head.known, packed)
            && let Ok((definition, hash, true)) = at.definitions.unpack(packed)
        {
            self.head.by = REBUILT.to_owned();
            self.define(packed, hash, definition, fx);
            self.stand_still(at);
            // an inventory that came before the first fact of its node said nothing to this run
            let mut others: BTreeSet<LogId> = self.head.kept.iter().map(|(l, ..)| *l).collect();
            others.retain(|other| *other != log && !self.has_told(at, *other));
            for other in others {
                self.send(other.node, Message::AskInventory, fx);
            }
        }
        // also of a run that only facts name so far, if its node has nothing of it any more
        if self.head.known || slices.is_empty() {
            self.head.heard.insert(log);
        }
        if at.hold.is_some() {
            self.shown_by(log.node, slices, fx);
        }
        if !self.head.known {
            return;
        }
        let named: BTreeSet<SliceRef> = slices.iter().map(|s| s.slice).collect();
        self.recall_untold(log, &named);
        for state in slices {
            self.compare(at, log, state);
            if self.is_stale(state.slice) {
                self.head.stale.insert((log, state.slice));
            }
            self.close_again(log, state, fx);
        }
        for number in self.live_slices(|s| s.is_of(log)) {
            let slice = self.slice_ref(number);
            let older = slice.epoch < Epoch::new(at.generation, 0) && self.head.origin.is_none();
            let assigned = self.head.slices[number as usize].stage == Stage::Assigned;
            // what the node took over and does not name it gave up, or took over since: facts say
            if named.contains(&slice) {
                // another node may know better how a task ended that this one waits for
                if !self.head.held {
                    self.tell_again(number, fx);
                }
                self.repeat_answers(number, fx);
                self.repeat_shares(at, number, fx);
            } else if older && assigned {
                // Its directive may still be under way, so it cannot go elsewhere.
                self.send_assign(number, fx);
            }
        }
        self.repeat_marks(log, fx);
        self.recall_stale(fx);
        self.refresh(at.wall);
    }

    /// What an earlier inventory named, and this one does not, with no fact of it, was told by a
    /// copy of the disk, or before the disk went back: nobody works on it, and no fact will say so.
    /// So it is asked for: whoever answers has it no more, behind all facts that he has.
    fn recall_untold(&mut self, log: LogId, named: &BTreeSet<SliceRef>) {
        for number in self.live_slices(|s| s.is_of(log)) {
            let slice = self.slice_ref(number);
            if self.head.adopted.contains(&slice) && !named.contains(&slice) {
                self.head.stale.insert((log, slice));
            }
        }
    }

    /// Whether this store may have forgotten slices of this run, because it went back.
    pub(crate) fn may_have_forgotten(&self) -> bool {
        let head = &self.head;
        let went_back = head.held || head.went_back != Generation::default();
        !head.known || head.by == REBUILT || went_back
    }

    /// While old runs are held, one that this store did not know, or took for over, is held, too.
    pub(crate) fn stand_still(&mut self, at: At<'_>) {
        if at.hold.is_some() {
            self.head.held = true;
            self.head.went_back = at.generation;
        }
    }

    /// Whether another slice has this number, at a newer epoch: it was drawn before this side knew
    /// that its store had gone back behind this one.
    fn is_stale(&self, slice: SliceRef) -> bool {
        let known = self.head.slices.get(slice.slice as usize);
        known.is_some_and(|s| s.epoch > slice.epoch && s.is_known())
    }

    /// The node's record counts all that an inventory names as work: what was over before is taken
    /// out again, unless a person at the gateway let it go on.
    fn close_again(&mut self, log: LogId, state: &SliceState, fx: &mut Effects) {
        let slice = state.slice;
        let known = self.head.slices.get(slice.slice as usize);
        let done = known.is_some_and(|s| {
            let same = s.epoch == slice.epoch && s.node == log.node;
            same && s.incarnation == log.incarnation && s.stage == Stage::Done
        });
        if done && state.tasks.iter().all(|task| task.state.is_final()) {
            self.send(log.node, Message::Closed { slice }, fx);
        }
    }

    /// Asks for slices whose numbers were drawn a second time, or of which a part was given away:
    /// not while the run is held, nor while a task runs in one that must not run twice.
    pub(super) fn recall_stale(&mut self, fx: &mut Effects) {
        if self.head.held {
            return;
        }
        for (log, slice) in std::mem::take(&mut self.head.stale) {
            let known = self.head.slices.get(slice.slice as usize);
            let taken_over = known.filter(|s| s.epoch == slice.epoch && s.node == log.node);
            let gone = self.head.gone_logs.contains(&log);
            match taken_over.map(|s| s.counts() && !gone) {
                Some(true) if self.runs_once(slice.slice) => {
                    self.head.stale.insert((log, slice));
                }
                Some(true) => self.release(&[slice.slice], fx),
                // it was given up meanwhile, or nobody is there to give it up
                Some(false) => {}
                None => self.send(log.node, Message::Release { slice }, fx),
            }
        }
    }

    /// Whether a task of a slice is under way that must not run twice.
    fn runs_once(&self, slice: u32) -> bool {
        let began = |body: &super::RunBody, task: &TaskIdx| {
            let state = body.tasks[task.0 as usize].state;
            matches!(state, TaskState::Running | TaskState::Checkpointing)
        };
        let once = self.open_once(slice);
        let body = self.body.as_ref();
        body.is_some_and(|body| once.iter().any(|task| began(body, task)))
    }

    /// Takes over what the node knows better: a slice of a newer epoch, or one that is not known
    /// here.
    fn compare(&mut self, at: At<'_>, log: LogId, state: &SliceState) {
        let known = self.head.slices.get(state.slice.slice as usize);
        if !self.may_number(state.slice)
            || known.is_some_and(|s| s.epoch >= state.slice.epoch && s.is_known())
        {
            return;
        }
        if self.head.origin.is_some_and(|origin| origin != log.node) {
            return;
        }
        // only what is open is placed, so what is over here was to be done again; unless the run
        // went on without this node, which was not heard
        let settled = state.slice.epoch < Epoch::new(self.head.settled, 0);
        let open = at.hold.is_some() && !settled;
        self.adopt_slice(log, state.slice);
        self.head.adopted.insert(state.slice);
        if self.head.by == REBUILT && state.slice.epoch == Epoch::LOCAL {
            // the fact that it was submitted there may have gone with a life of that disk
            self.head.origin = Some(log.node);
        }
        if open && self.head.state.is_final() && !self.head.held {
            // it was let run again: what persons had asked before does not stand any more
            self.head.reopened = self.head.ended;
            self.head.cancel = None;
            self.head.pause = None;
            self.head.pause_asked = self.head.ended.unwrap_or_default();
            self.stand_still(at);
        }
        let tasks = self.body.as_ref().map_or(0, |b| b.tasks.len());
        let mut left = BTreeSet::new();
        for status in &state.tasks {
            if status.task.0 as usize >= tasks {
                continue;
            }
            let Some(body) = &self.body else { return };
            let row = &body.tasks[status.task.0 as usize];
            // what this side ended because it was on no node was on this one
            let nowhere = row.slice == NONE && row.state != TaskState::Succeeded;
            let again = row.state.is_final() && (open || nowhere);
            let before = row.slice;
            let current = self.head.slices.get(before as usize);
            if current.is_none_or(|s| s.epoch < state.slice.epoch) {
                if current.is_some_and(Slice::counts) {
                    left.insert(before);
                }
                self.own(status.task, state.slice.slice);
                if again {
                    self.set(status.task, TaskState::Blocked, None, at.wall);
                }
            }
        }
        self.time_slice(state.slice.slice);
        if self.is_partly_elsewhere(state) {
            self.head.stale.insert((log, state.slice));
        }
        self.note_parted(&left);
    }

    /// Slices that lost tasks to one that this store had forgotten: it may have asked their nodes
    /// for the rest, and does not know it any more. One that is over is asked for, too: what was
    /// to be read only in it was brought nowhere.
    pub(super) fn note_parted(&mut self, numbers: &BTreeSet<u32>) {
        for number in numbers.iter().filter(|_| self.head.origin.is_none()) {
            let slice = &self.head.slices[*number as usize];
            let (node, incarnation) = (slice.node, slice.incarnation);
            let slice = self.slice_ref(*number);
            self.head.stale.insert((LogId { node, incarnation }, slice));
        }
    }

    /// Whether tasks of a node's slice were given to another one meanwhile, by a store that had
    /// gone back and did not know it yet. Nobody would tell this node what they wait for, and it
    /// brings nowhere what they are to read: so it gives the slice up, and the rest is placed anew.
    fn is_partly_elsewhere(&self, state: &SliceState) -> bool {
        let Some(body) = self.body.as_ref().filter(|_| self.head.origin.is_none()) else {
            return false;
        };
        state.tasks.iter().any(|task| {
            let row = body.tasks.get(task.task.0 as usize);
            let elsewhere = row.filter(|row| row.slice != state.slice.slice);
            elsewhere.is_some_and(|row| !task.state.is_final() || !row.state.is_final())
        })
    }

    /// Repeats what a slice's node may have missed: ends of other slices' tasks.
    pub(super) fn tell_again(&mut self, number: u32, fx: &mut Effects) {
        let node = self.head.slices[number as usize].node;
        let open = self.open_tasks(number);
        let Some(body) = &self.body else { return };
        let above: BTreeSet<TaskIdx> = open
            .iter()
            .flat_map(|t| &body.deps[t.0 as usize])
            .filter(|d| {
                let row = &body.tasks[d.0 as usize];
                row.slice != number && row.state.is_final()
            })
            .copied()
            .collect();
        let news: Vec<_> = above.into_iter().map(|t| body.upstream(t)).collect();
        let slice = self.slice_ref(number);
        for upstream in news {
            self.send(node, Message::Upstream { slice, upstream }, fx);
        }
    }

    /// Stands still after a restore, or goes on.
    pub fn hold(&mut self, on: bool, now: At<'_>, fx: &mut Effects) {
        let at = now.wall;
        if on && self.head.state.is_final() {
            return;
        }
        self.head.held = on;
        match on {
            true => self.head.went_back = now.generation,
            false => self.head.settled = now.generation,
        }
        let heard = std::mem::take(&mut self.head.heard);
        if !on && self.head.known {
            if self.head.cancel.is_some() {
                self.cancel_unplaced(at, fx);
            }
            self.help_readers(now, fx);
            self.repeat_to_owners(fx);
            for log in heard {
                self.repeat_releases(log, fx);
                for number in self.live_slices(|s| s.is_of(log)) {
                    self.tell_again(number, fx);
                }
            }
            self.recall_stale(fx);
            self.ask_shares(now, fx);
        }
        self.refresh(at);
    }

    /// Asks a node again for what it is to give up: a reset of its directives may have taken the
    /// first word away, and nothing is asked back while the run is held.
    fn repeat_releases(&mut self, log: LogId, fx: &mut Effects) {
        let asked = |s: &Slice| matches!(s.stage, Stage::Releasing | Stage::Lost);
        for number in 0u32..self.head.slices.len() as u32 {
            let known = &self.head.slices[number as usize];
            if known.is_of(log) && asked(known) {
                let slice = self.slice_ref(number);
                self.send(log.node, Message::Release { slice }, fx);
            }
        }
    }
}
