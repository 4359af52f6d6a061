//! Facts into states: in order, each once, and only where slice, epoch, owner and state agree.

use super::{About, At, AttemptRow, Conflict, HISTORY, REBUILT, Run, Slice, Stage};
use crate::effects::Effects;
use crate::inbox::Message;
use shared::explain::Reason;
use shared::fact::{Body, End, Fact, SliceState};
use shared::ids::{AttemptRef, NodeId, SliceRef, TaskIdx};
use shared::planted::{self, Mistake};
use shared::state::TaskState;
use shared::time::Unix;
use shared::wire::LogId;
use shared::workflow::Workflow;
use std::collections::BTreeSet;

/// Facts without effect that are remembered one by one.
const CONFLICTS: usize = 64;
/// Facts of other runs between two that are kept back in one row, since both are read at once.
const KEPT_APART: u64 = 64;
/// Rows of facts that are kept back; beyond, those of a log grow, whatever lies between.
const KEPT_ROWS: usize = 4096;

impl Run {
    /// Folds facts of one node's log, ascending. Those that were folded before are passed over,
    /// and what may not count yet is kept back.
    /// Whether the run was fired by a schedule that this store does not know: its node alone can
    /// tell what it is.
    pub fn fold(
        &mut self,
        at: At<'_>,
        log: LogId,
        facts: &mut dyn Iterator<Item = (u64, &Fact)>,
        fx: &mut Effects,
    ) -> bool {
        let (mut stray, mut unexplained) = (false, false);
        let mut turned = Vec::new();
        let kept = self.keeps(log);
        let mut last = self.head.folded.get(&log).copied().unwrap_or(0);
        for (number, fact) in facts {
            if number <= last && !planted::on(Mistake::FoldTwice) {
                continue;
            }
            last = number.max(last);
            let begins =
                matches!(fact.body, Body::Submitted { .. }) || fired(at, log, fact).is_some();
            let early = self.early(at, log, fact);
            if (early || self.keeps(log) || self.holds_back()) && !begins {
                stray |= !self.head.known && matches!(fact.body, Body::Fired { .. });
                unexplained |= early;
                self.keep(log, number);
            } else {
                self.count_fact(at, log, (number, fact), &mut turned, fx);
            }
        }
        self.head.folded.insert(log, last);
        if self.head.known && unexplained && !kept {
            self.send(log.node, Message::AskInventory, fx);
        }
        self.follow(at, log, &turned, fx);
        stray
    }

    /// Folds facts that were kept back. Of a node that nobody waits for any more, although its
    /// inventory did not come, those that say what is not known here stay until it comes.
    pub fn fold_kept(
        &mut self,
        at: At<'_>,
        log: LogId,
        facts: &mut dyn Iterator<Item = (u64, &Fact)>,
        fx: &mut Effects,
    ) {
        let mut turned = Vec::new();
        let whole = self.has_told(at, log);
        for (number, fact) in facts {
            let reset = matches!(fact.body, Body::Reset { .. });
            if !reset && fact.body.run() != Some(self.id) {
                continue;
            }
            if !whole && (self.keeps(log) || self.names_unknown(fact)) {
                self.keep(log, number);
            } else {
                self.count_fact(at, log, (number, fact), &mut turned, fx);
            }
        }
        self.follow(at, log, &turned, fx);
    }

    fn count_fact(
        &mut self,
        at: At<'_>,
        log: LogId,
        (number, fact): (u64, &Fact),
        turned: &mut Vec<TaskIdx>,
        fx: &mut Effects,
    ) {
        self.recollect(at, log, fact);
        match self.apply(at, log, fact, turned, fx) {
            Ok(()) => self.head.applied += 1,
            Err(why) => self.conflict(log.node, number, fact, why),
        }
    }

    /// What follows from facts that count, and from the tasks that they turned.
    fn follow(&mut self, at: At<'_>, log: LogId, turned: &[TaskIdx], fx: &mut Effects) {
        if self.head.origin.is_some() && !self.head.asking.is_empty() {
            // a question of a local run may be the last that is open
            let mine = self.live_slices(|s| s.node == log.node);
            mine.into_iter().for_each(|number| self.time_slice(number));
        }
        self.tell(turned, fx);
        if self.head.unplaced > 0 && !turned.is_empty() {
            self.settle(at.wall, fx);
        }
        self.recall_stale(fx);
        self.refresh(at.wall);
    }

    /// Whether no outcome counts for now, since a node that was not heard may have a newer claim to
    /// what it ended. A local run is its own gateway's.
    pub(crate) fn holds_back(&self) -> bool {
        self.head.held && self.head.origin.is_none() && !planted::on(Mistake::CountWhileHeld)
    }

    /// Whether a fact must wait for its node's inventory: nothing, or not its slice, is known here.
    /// Facts and the inventory travel on streams of their own, and another node's inventory may
    /// have made the run known in between.
    fn early(&self, at: At<'_>, log: LogId, fact: &Fact) -> bool {
        let awaited = (at.hold.is_some() || self.head.held) && !self.has_told(at, log);
        !self.head.known || (awaited && self.names_unknown(fact))
    }

    /// Whether nothing more is to come of what is known elsewhere of this log: its inventory came
    /// in this hold, or its life is over.
    pub(super) fn has_told(&self, at: At<'_>, log: LogId) -> bool {
        let now = at.hold.is_none() || self.head.heard_since == at.hold;
        let heard = self.head.heard.contains(&log) && now;
        heard || self.head.gone_logs.contains(&log) || self.was_left_out(at, log)
    }

    /// Whether an inventory of this log came in the hold, and had nothing of this run, of which
    /// nobody had told by then: so it did not come to the run. To ask for it again would be too
    /// late, since the node counts as heard.
    fn was_left_out(&self, at: At<'_>, log: LogId) -> bool {
        let node = at.nodes.get(&log.node);
        let node = node.filter(|node| self.head.held && node.log(log.node) == Some(log));
        node.is_some_and(|node| !node.inventory_wanted && !node.has_slices(self.id))
    }

    /// Whether a fact is about a slice that is not known here.
    fn names_unknown(&self, fact: &Fact) -> bool {
        let mut slices = self.slices_of(&fact.body);
        slices.any(|slice| self.unheard_of(slice))
    }

    /// Whether facts of this log are kept back.
    pub(super) fn keeps(&self, log: LogId) -> bool {
        self.head.kept.iter().any(|(l, ..)| *l == log)
    }

    /// The slices of this run that a fact is about.
    fn slices_of<'a>(&'a self, body: &'a Body) -> impl Iterator<Item = SliceRef> + 'a {
        let states = match body {
            Body::Reset { slices, .. } => slices.as_slice(),
            _ => &[],
        };
        let ours = states.iter().map(|state| state.slice);
        ours.filter(|slice| slice.run == self.id).chain(about(body))
    }

    /// Whether this store does not know the slice, or only an older one of its number.
    fn unheard_of(&self, slice: SliceRef) -> bool {
        let known = self.head.slices.get(slice.slice as usize);
        known.is_none_or(|s| s.epoch < slice.epoch || !s.is_known())
    }

    /// Remembers a fact that is recorded and changes nothing.
    pub(super) fn conflict(&mut self, node: NodeId, number: u64, fact: &Fact, reason: Reason) {
        self.head.not_applied += 1;
        if self.head.conflicts.len() >= CONFLICTS {
            self.head.conflicts.pop_front();
        }
        self.head.conflicts.push_back(Conflict {
            node,
            fact: number,
            at: fact.at.wall,
            reason,
        });
        // a store of an earlier version knows fewer of them
        while self.head.abouts.len() >= self.head.conflicts.len() {
            self.head.abouts.pop_front();
        }
        self.head.abouts.push_back(About {
            slice: about(&fact.body),
            ..task_of(&fact.body)
        });
    }

    /// Remembers a fact that is kept back, in rows with others of its log, also across facts of
    /// other runs, which those who fold them pass over: what a node brings in months fits into the
    /// head.
    fn keep(&mut self, log: LogId, number: u64) {
        let apart = match self.head.kept.len() {
            ..KEPT_ROWS => KEPT_APART,
            _ => u64::MAX,
        };
        let mut rows = self.head.kept.iter_mut().rev();
        match rows.find(|(l, ..)| *l == log) {
            Some((_, _, last)) if number.saturating_sub(*last) <= apart => {
                *last = number.max(*last);
            }
            _ => self.head.kept.push((log, number, number)),
        }
    }

    /// Takes the rows of facts out that may be folded now: all of them, or those of nodes that have
    /// told what they have.
    pub fn take_kept(&mut self, at: At<'_>, all: bool) -> Vec<(LogId, u64, u64)> {
        if !self.head.known {
            return Vec::new();
        }
        let kept = std::mem::take(&mut self.head.kept).into_iter();
        let (now, later) = kept.partition(|(log, ..)| all || self.has_told(at, *log));
        self.head.kept = later;
        now
    }

    /// Puts rows back that were not folded.
    pub fn keep_on(&mut self, rows: Vec<(LogId, u64, u64)>) {
        self.head.kept.extend(rows);
        self.head.kept.sort_unstable();
    }

    fn apply(
        &mut self,
        at: At<'_>,
        log: LogId,
        fact: &Fact,
        turned: &mut Vec<TaskIdx>,
        fx: &mut Effects,
    ) -> Result<(), Reason> {
        let wall = fact.at.wall;
        match &fact.body {
            Body::Started { attempt } => self.started(log, *attempt, wall),
            Body::Ended { attempt, end } => self.ended(log, *attempt, end, wall, turned),
            Body::Moved {
                slice,
                task,
                to,
                reason,
            } => self.moved(log, (*slice, *task), (*to, *reason), wall, turned),
            Body::Accepted { slice } => self.accepted(log, *slice),
            Body::SliceDone { slice } => self.slice_done(log, *slice, fx),
            Body::CancelDone { slice } => {
                self.mine(log, *slice)?;
                self.head.slices[slice.slice as usize].cancelled = true;
                Ok(())
            }
            Body::PauseDone { slice, on } => {
                self.mine(log, *slice)?;
                self.head.slices[slice.slice as usize].paused = *on;
                Ok(())
            }
            Body::Released { slice, in_doubt } => {
                self.released(at, log, *slice, in_doubt, turned, fx)
            }
            Body::Refused {
                slice,
                reason,
                text,
                ..
            } => self.refused(at, (log, *slice), (*reason, text), turned, fx),
            Body::Submitted {
                slice,
                workflow,
                by,
            } => self.submitted_at(at, (log, *slice), workflow, by, wall, fx),
            Body::Fired { slice, .. } => match fired(at, log, fact) {
                Some((workflow, by)) => {
                    let packed = shared::codec::pack(&workflow).0;
                    self.submitted_at(at, (log, *slice), &packed, &by, wall, fx)
                }
                None => Err(Reason::UnknownRun),
            },
            Body::CancelledHere { by, why, .. } => {
                self.takes_part(at, log)?;
                self.note(format!("cancelled at a gateway by {by}: {why}"));
                Ok(())
            }
            Body::PausedHere { on, by, .. } => {
                self.takes_part(at, log)?;
                self.paused_there(log.node, on.then_some(by), wall);
                Ok(())
            }
            Body::Reset { slices, .. } => self.reset(at, log, slices, wall, turned, fx),
            Body::Answered {
                slice,
                task,
                answer,
                not,
            } => self.answered(log, (*slice, *task), answer, *not, wall, turned),
            said @ Body::Limited { .. } => self.limited(log, said),
            Body::Booted { .. }
            | Body::Dropped { .. }
            | Body::ScheduleDone { .. }
            | Body::ScheduleAsked { .. }
            | Body::SlotsSkipped { .. }
            | Body::SyncPaused { .. }
            | Body::SyncResumed { .. } => Ok(()),
        }
    }

    /// A person set a gateway's pause mark, or took it away.
    fn paused_there(&mut self, node: NodeId, by: Option<&String>, at: Unix) {
        let head = &mut self.head;
        let Some(by) = by else {
            head.paused_at.remove(&node);
            head.paused_since.remove(&node);
            return;
        };
        head.paused_at.insert(node, by.clone());
        head.paused_since.entry(node).or_insert(at);
    }

    /// Whether a node has, or had, something of the run: what persons do there is of it then. A
    /// store that went back may have forgotten what the node was given.
    fn takes_part(&self, at: At<'_>, log: LogId) -> Result<(), Reason> {
        let forgot = at.hold.is_some() || self.may_have_forgotten();
        let part = self.head.slices.iter().any(|slice| slice.node == log.node);
        (part || forgot).then_some(()).ok_or(Reason::Superseded)
    }

    /// Whether facts of `log` about `slice` count.
    pub(super) fn mine(&self, log: LogId, slice: SliceRef) -> Result<(), Reason> {
        let known = self.head.slices.get(slice.slice as usize);
        let same = known.is_some_and(|s| {
            planted::on(Mistake::IgnoreEpoch)
                || s.epoch == slice.epoch
                    && (s.is_of(log) || planted::on(Mistake::BelieveStrangers))
                    && s.counts()
        });
        same.then_some(()).ok_or(Reason::Superseded)
    }

    pub(super) fn mine_task(
        &self,
        log: LogId,
        slice: SliceRef,
        task: TaskIdx,
    ) -> Result<(), Reason> {
        let row = self
            .body
            .as_ref()
            .and_then(|b| b.tasks.get(task.0 as usize));
        let row = row.ok_or(Reason::ImpossibleTransition)?;
        self.mine(log, slice)?;
        (row.slice == slice.slice || planted::on(Mistake::IgnoreEpoch))
            .then_some(())
            .ok_or(Reason::Superseded)
    }

    pub(super) fn row(&self, task: TaskIdx) -> Option<&super::TaskRow> {
        self.body.as_ref()?.tasks.get(task.0 as usize)
    }

    /// The attempt's row, made if it is new; the oldest goes when there are too many.
    fn attempt(&mut self, node: NodeId, attempt: AttemptRef) -> Option<&mut AttemptRow> {
        let body = self.body.as_mut()?;
        let known = attempt.task.0 as usize;
        if known >= body.tasks.len() {
            return None;
        }
        body.touch(attempt.task);
        let rows = &mut body.tasks[known].history;
        let epoch = attempt.slice.epoch;
        let same =
            |r: &AttemptRow| r.node == node && r.epoch == epoch && r.number == attempt.number;
        if let Some(known) = rows.iter().rposition(same) {
            return rows.get_mut(known);
        }
        if rows.len() >= HISTORY {
            // what does not count goes first: anybody can say that
            let idle = rows.iter().position(|row| row.not_applied.is_some());
            rows.remove(idle.unwrap_or(0));
        }
        if rows.is_empty() {
            rows.reserve_exact(1); // most tasks need one attempt
        }
        rows.push(AttemptRow {
            node,
            epoch,
            number: attempt.number,
            outcome: None,
            reason: None,
            exit: None,
            began: None,
            ended: None,
            not_applied: None,
        });
        rows.last_mut()
    }

    fn started(&mut self, log: LogId, attempt: AttemptRef, wall: Unix) -> Result<(), Reason> {
        let mut verdict = self.mine_task(log, attempt.slice, attempt.task);
        let is_final = self.row(attempt.task).is_some_and(|r| r.state.is_final());
        if verdict.is_ok() && is_final {
            verdict = Err(Reason::ImpossibleTransition);
        }
        if let Some(row) = self.attempt(log.node, attempt) {
            row.began.get_or_insert(wall);
            row.not_applied = verdict.err();
        }
        verdict?;
        self.set(attempt.task, TaskState::Running, None, wall);
        if let Some(body) = &mut self.body {
            let row = &mut body.tasks[attempt.task.0 as usize];
            row.attempts = row.attempts.max(attempt.number);
        }
        Ok(())
    }

    fn ended(
        &mut self,
        log: LogId,
        attempt: AttemptRef,
        end: &End,
        wall: Unix,
        turned: &mut Vec<TaskIdx>,
    ) -> Result<(), Reason> {
        let mut verdict = self.mine_task(log, attempt.slice, attempt.task);
        let is_final = self.row(attempt.task).is_some_and(|r| r.state.is_final());
        if verdict.is_ok() && is_final {
            verdict = Err(Reason::ImpossibleTransition);
        }
        let row = self.attempt(log.node, attempt);
        let row = row.ok_or(Reason::ImpossibleTransition)?;
        if row.outcome.is_some() {
            return Err(Reason::ImpossibleTransition);
        }
        row.outcome = Some(end.outcome);
        row.reason = Some(end.reason);
        row.exit = end.exit;
        row.began = end.began.map(|s| s.wall);
        row.ended = Some(wall);
        row.not_applied = verdict.err();
        verdict?;
        self.head.outcomes += 1;
        if let Some(body) = &mut self.body {
            let row = &mut body.tasks[attempt.task.0 as usize];
            row.attempts = row.attempts.max(attempt.number);
            row.outputs.clone_from(&end.outputs);
        }
        self.set(attempt.task, end.task, Some(end.reason), wall);
        if end.task.is_final() {
            turned.push(attempt.task);
        }
        Ok(())
    }

    fn moved(
        &mut self,
        log: LogId,
        (slice, task): (SliceRef, TaskIdx),
        (to, reason): (TaskState, Reason),
        wall: Unix,
        turned: &mut Vec<TaskIdx>,
    ) -> Result<(), Reason> {
        self.mine_task(log, slice, task)?;
        let was = self.row(task).map_or(TaskState::Blocked, |r| r.state);
        if was.is_final() && to.is_final() && was != to {
            return Err(Reason::ImpossibleTransition);
        }
        if reason == Reason::ResumedByPerson {
            self.forgive(task);
        }
        self.set(task, to, Some(reason), wall);
        if was.is_final() != to.is_final() {
            turned.push(task);
        }
        if was.is_final() && !to.is_final() {
            self.time_slice(slice.slice);
        }
        Ok(())
    }

    fn accepted(&mut self, log: LogId, slice: SliceRef) -> Result<(), Reason> {
        self.mine(log, slice)?;
        self.head.adopted.remove(&slice);
        let known = &mut self.head.slices[slice.slice as usize];
        if known.stage == Stage::Assigned {
            known.stage = Stage::Accepted;
        }
        Ok(())
    }

    fn slice_done(&mut self, log: LogId, slice: SliceRef, fx: &mut Effects) -> Result<(), Reason> {
        self.mine(log, slice)?;
        if !self.open_tasks(slice.slice).is_empty() {
            // a slice that is over is never lost: what is open in it would stay so for ever
            return Err(Reason::ImpossibleTransition);
        }
        // what is asked back, or is to be, must still be given up, and somebody waits for that
        let stale = self.head.stale.contains(&(log, slice));
        let stage = &mut self.head.slices[slice.slice as usize].stage;
        if *stage != Stage::Releasing && !stale {
            *stage = Stage::Done;
            self.send(log.node, Message::Closed { slice }, fx);
        }
        Ok(())
    }

    fn refused(
        &mut self,
        at: At<'_>,
        (log, slice): (LogId, Option<SliceRef>),
        (reason, text): (Reason, &str),
        turned: &mut Vec<TaskIdx>,
        fx: &mut Effects,
    ) -> Result<(), Reason> {
        self.takes_part(at, log)?;
        self.note(format!("a directive was refused ({reason}): {text}"));
        let Some(slice) = slice else { return Ok(()) };
        self.mine(log, slice)?;
        if self.head.slices[slice.slice as usize].stage == Stage::Assigned {
            if reason == Reason::ForgottenRun {
                self.was_over(at, slice.slice, turned, fx);
                return Ok(());
            }
            let why = format!("{reason}: {text}");
            self.head.refused_by.insert(log.node, why);
            self.hand_back(at, slice.slice, reason, fx);
        }
        Ok(())
    }

    fn submitted_at(
        &mut self,
        at: At<'_>,
        (log, slice): (LogId, SliceRef),
        packed: &[u8],
        by: &str,
        wall: Unix,
        fx: &mut Effects,
    ) -> Result<(), Reason> {
        if self.head.known && self.head.by == REBUILT && self.mine(log, slice).is_ok() {
            // its inventory came first
            self.head.submitted = wall;
            by.clone_into(&mut self.head.by);
            self.head.origin = Some(log.node);
            self.time_slice(0);
            return Ok(());
        }
        if self.head.known || slice.slice != 0 {
            return Err(Reason::ImpossibleTransition);
        }
        let unpacked = at.definitions.unpack(packed);
        let Ok((definition, hash, true)) = unpacked else {
            return Err(Reason::Malformed);
        };
        let n = definition.workflow.tasks.len() as u32;
        self.head.submitted = wall;
        by.clone_into(&mut self.head.by);
        self.head.origin = Some(log.node);
        self.define(packed, hash, definition, fx);
        self.head.slices.clear();
        self.adopt_slice(log, slice);
        for task in (0..n).map(TaskIdx) {
            self.own(task, 0);
        }
        self.time_slice(0);
        Ok(())
    }

    /// The states of slices after a hole in the facts.
    fn reset(
        &mut self,
        at: At<'_>,
        log: LogId,
        slices: &[SliceState],
        wall: Unix,
        turned: &mut Vec<TaskIdx>,
        fx: &mut Effects,
    ) -> Result<(), Reason> {
        let ours = |s: &&SliceState| s.slice.run == self.id;
        let slices: Vec<&SliceState> = slices.iter().filter(ours).collect();
        for state in &slices {
            self.head.adopted.remove(&state.slice);
        }
        for slice in self.given_up(log, &slices) {
            // what of it began, and ended, stood in the hole
            let doubt = self.open_once(slice.slice);
            self.released(at, log, slice, &doubt, turned, fx)?;
        }
        for state in slices {
            for status in &state.tasks {
                if self.mine_task(log, state.slice, status.task).is_err() {
                    continue;
                }
                let was = self.row(status.task).map(|r| r.state);
                // that a task is ready is no fact, so it stands as blocked here
                let now = match status.state {
                    TaskState::Ready => TaskState::Blocked,
                    other => other,
                };
                if let Some(body) = &mut self.body {
                    let row = &mut body.tasks[status.task.0 as usize];
                    row.attempts = row.attempts.max(status.attempts);
                    row.outputs.clone_from(&status.outputs);
                    body.touch(status.task);
                }
                if was != Some(now) {
                    // a node loses only what is in doubt
                    let why = (now == TaskState::Lost).then_some(Reason::InDoubt);
                    self.set(status.task, now, why, wall);
                    if now.is_final() || was.is_some_and(TaskState::is_final) {
                        turned.push(status.task);
                    }
                }
                if now == TaskState::Blocked {
                    self.may_ask(status.task, wall);
                }
            }
        }
        Ok(())
    }

    /// Slices that a node took over and does not name behind a hole in its facts.
    fn given_up(&self, log: LogId, named: &[&SliceState]) -> Vec<SliceRef> {
        let theirs = |s: &Slice| {
            let taken = matches!(s.stage, Stage::Accepted | Stage::Releasing);
            taken && s.is_of(log)
        };
        let numbers = (0u32..).zip(&self.head.slices);
        let slices = numbers.filter(|(_, s)| theirs(s));
        let slices = slices.map(|(number, _)| self.slice_ref(number));
        // one that an inventory named was taken over behind this, or is named
        slices
            .filter(|slice| named.iter().all(|state| state.slice != *slice))
            .filter(|slice| !self.head.adopted.contains(slice))
            .collect()
    }

    /// Tells the slices that need these tasks how they stand now.
    pub fn tell(&mut self, tasks: &[TaskIdx], fx: &mut Effects) {
        let Some(body) = &self.body else { return };
        let mut news: BTreeSet<(u32, TaskIdx)> = BTreeSet::new();
        for task in tasks {
            let own = body.tasks[task.0 as usize].slice;
            for dependent in &body.dependents[task.0 as usize] {
                let slice = body.tasks[dependent.0 as usize].slice;
                let live = self.head.slices.get(slice as usize);
                if slice != own && live.is_some_and(Slice::live) {
                    news.insert((slice, *task));
                }
            }
        }
        let messages: Vec<_> = news
            .into_iter()
            .map(|(slice, task)| (slice, body.upstream(task)))
            .collect();
        for (number, upstream) in messages {
            let to = self.head.slices[number as usize].node;
            let slice = self.slice_ref(number);
            self.send(to, Message::Upstream { slice, upstream }, fx);
        }
    }
}

/// The workflow that a firing begins, if its schedule is known here and its node may fire it, and
/// who that is.
fn fired(at: At<'_>, log: LogId, fact: &Fact) -> Option<(Workflow, String)> {
    let Body::Fired {
        schedule,
        epoch,
        slot,
        revision,
        ..
    } = &fact.body
    else {
        return None;
    };
    let known = at
        .schedules
        .get(schedule)
        .filter(|s| s.may_fire(log.node, *epoch))?;
    let template = &known.templates.get(revision)?.workflow;
    let began = fact.at.wall.max(*slot);
    let workflow = shared::schedule::workflow_of(template, *slot, began);
    Some((workflow, format!("schedule {}", known.name)))
}

/// The slice that a fact is about, if it is about exactly one.
fn about(body: &Body) -> Option<SliceRef> {
    match body {
        Body::Started { attempt } | Body::Ended { attempt, .. } => Some(attempt.slice),
        Body::Moved { slice, .. }
        | Body::Accepted { slice }
        | Body::SliceDone { slice }
        | Body::CancelDone { slice }
        | Body::PauseDone { slice, .. }
        | Body::Answered { slice, .. }
        | Body::Limited { slice, .. }
        | Body::Released { slice, .. } => Some(*slice),
        Body::Refused { slice, .. } => *slice,
        _ => None,
    }
}

/// The task and the attempt that a fact is about.
fn task_of(body: &Body) -> About {
    let (task, attempt) = match body {
        Body::Started { attempt } | Body::Ended { attempt, .. } => {
            (Some(attempt.task), Some(attempt.number))
        }
        Body::Moved { task, .. } | Body::Answered { task, .. } => (Some(*task), None),
        _ => (None, None),
    };
    About {
        slice: None,
        task,
        attempt,
    }
}
