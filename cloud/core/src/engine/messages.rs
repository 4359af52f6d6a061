//! The inboxes: each message is folded once by its aggregate.

use super::drain::Inbox;
use super::{At, Engine};
use crate::effects::Effects;
use crate::event::Output;
use crate::inbox::Message;
use crate::node::Node;
use crate::run::{Asked, Run, place::Candidate};
use crate::store::{AggregateId, Prune, Store, StoreError};
use shared::directive::Body;
use shared::fact::Fact;
use shared::ids::{NodeId, RunId};
use shared::limits::ENTRIES_PER_COMMIT;
use shared::planted::{self, Mistake};
use shared::time::Span;
use shared::wire::{LIMITS, LogId, RETRY, WORKFLOW_2};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of kept facts that are folded in one turn, and read at once.
const KEPT_AT_ONCE: u64 = 32 * ENTRIES_PER_COMMIT as u64;

/// Facts of one log, ascending.
type Facts<'a, 'f> = &'a mut dyn Iterator<Item = (u64, &'f Fact)>;

impl<S: Store> Engine<S> {
    /// Folds the messages to one aggregate.
    pub(super) fn fold_inbox(&mut self, to: AggregateId, inbox: Inbox) -> Result<(), StoreError> {
        let wall = self.now.wall;
        if let AggregateId::Run(run) = to
            && planted::on(Mistake::RefuseUnknownRun)
            && self.fleet.hold.is_some()
            && !self.runs.contains_key(&run)
        {
            return Ok(());
        }
        if let AggregateId::Run(run) = to {
            self.runs
                .entry(run)
                .or_insert_with(|| Run::unknown(run, wall));
        }
        for ((from, number), message) in inbox {
            let fx = self.effects.entry(to).or_default();
            match fx.drained.iter_mut().find(|(sender, _)| *sender == from) {
                Some((_, upto)) => *upto = number.max(*upto),
                None => fx.drained.push((from, number)),
            }
            let new = match to {
                AggregateId::Record => false,
                AggregateId::Fleet => self.fleet.post.fold(from, number),
                AggregateId::Node(node) => {
                    let node = self.nodes.entry(node).or_default();
                    node.post.fold(from, number)
                }
                AggregateId::Schedule(schedule) => {
                    let schedule = self.schedules.entry(schedule).or_default();
                    schedule.post.fold(from, number)
                }
                AggregateId::Run(run) => self
                    .runs
                    .get_mut(&run)
                    .is_some_and(|run| run.head.post.fold(from, number)),
            };
            match (new, to) {
                (false, _) | (_, AggregateId::Record) => {}
                (true, AggregateId::Fleet) => self.fold_at_fleet(&message),
                (true, AggregateId::Node(node)) => self.fold_at_node(node, from, message)?,
                (true, AggregateId::Run(run)) => self.fold_at_run(run, from, message)?,
                (true, AggregateId::Schedule(id)) => self.fold_at_schedule(id, message),
            }
        }
        // facts that name a schedule make none: only who makes one at a gateway does
        if let AggregateId::Schedule(id) = to
            && self.schedules.get(&id).is_some_and(|s| s.revision == 0)
        {
            let fx = self.effects.entry(to).or_default();
            fx.prune.push(Prune::Aggregate);
        }
        Ok(())
    }

    fn fold_at_fleet(&mut self, message: &Message) {
        if let Message::Heard { node } = message {
            self.heard_since_hold(Some(*node));
        }
    }

    /// The hold ends for a node, or for all.
    pub(super) fn heard_since_hold(&mut self, node: Option<NodeId>) {
        let held = self.held_runs();
        let fx = self.effects.entry(AggregateId::Fleet).or_default();
        self.fleet.heard(node, &held, fx);
        self.plan_all = true;
    }

    fn fold_at_run(
        &mut self,
        id: RunId,
        from: AggregateId,
        message: Message,
    ) -> Result<(), StoreError> {
        if self.runs.get(&id).is_some_and(|r| r.head.gone.is_some()) {
            return self.fold_at_tombstone(id, message);
        }
        match message {
            Message::Forgotten { node } => {
                let last = self.step_run(id, |run, _, _| run.forgotten_by(node))?;
                if last == Some(true) {
                    self.bury(id)?;
                }
            }
            Message::Repeat { log } => {
                self.step_run(id, |run, at, fx| run.repeat(at, log, fx))?;
            }
            Message::Facts { log, ranges } => self.fold_facts(id, log, &ranges)?,
            Message::Details { at: _, details } => {
                let AggregateId::Node(node) = from else {
                    return Ok(());
                };
                self.step_run(id, |run, at, _| {
                    for (task, fact, decision) in details {
                        run.decided_there(at, node, fact, task, decision);
                    }
                })?;
            }
            Message::NodeLost {
                node,
                incarnation,
                why,
            } => {
                let log = LogId { node, incarnation };
                self.step_run(id, |run, _, _| run.node_gone(log, why))?;
                self.count_kept(id, false)?;
            }
            Message::Inventory {
                log,
                slices,
                workflow,
            } => {
                self.step_run(id, |run, at, fx| {
                    run.inventory(at, log, &slices, workflow.as_deref(), fx);
                })?;
                self.count_kept(id, false)?;
            }
            Message::AssignRefused { slice, why } => {
                self.step_run(id, |run, at, fx| run.assign_refused(at, slice, why, fx))?;
            }
            Message::Recalled {
                asked, at, by, why, ..
            } => {
                self.step_run(id, |run, now, fx| {
                    if !run.head.known {
                        run.stand_still(now);
                    }
                    run.recall(asked, Asked { at, by, why }, fx);
                })?;
            }
            fired @ (Message::Fire { .. } | Message::Replaced { .. }) => {
                self.fold_from_schedule(id, fired)?;
            }
            Message::Hold { on: true } => {
                self.step_run(id, |run, at, fx| run.hold(true, at, fx))?;
            }
            // should another hold have begun, its end will be told as well
            Message::Hold { on: false } if self.is_held(id) && self.fleet.hold.is_none() => {
                self.go_on(id, from)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A forgotten run takes nothing in; a node that still has something of it is asked again to
    /// forget it.
    fn fold_at_tombstone(&mut self, id: RunId, message: Message) -> Result<(), StoreError> {
        match message {
            Message::Facts { log, ranges } => self.fold_facts(id, log, &ranges),
            Message::Inventory { log, slices, .. } if !slices.is_empty() => {
                let forget = Message::Forget { run: id };
                self.step_run(id, |run, _, fx| run.send(log.node, forget, fx))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// All nodes were heard: a held run goes on. What a turn leaves the run tells itself to take up
    /// in the next one, and all was looked through in the first.
    fn go_on(&mut self, id: RunId, from: AggregateId) -> Result<(), StoreError> {
        if from == AggregateId::Fleet {
            self.claim_kept(id)?;
        }
        self.count_kept(id, true)
    }

    /// Learns from all that a run kept back who had its tasks, before any of that counts: it counts
    /// log by log, and a later one may tell of a newer claim to what an earlier one says was done.
    fn claim_kept(&mut self, id: RunId) -> Result<(), StoreError> {
        let run = self.runs.get(&id);
        let run = run.filter(|run| run.may_recollect());
        let kept = run.map(|run| run.head.kept.clone());
        for (log, mut from, last) in kept.unwrap_or_default() {
            while from <= last {
                let to = last.min(from + KEPT_AT_ONCE - 1);
                self.step_with_facts(id, log, &[(from, to)], |run, at, facts, _| {
                    run.claim_kept(at, log, facts);
                })?;
                from = to + 1;
            }
        }
        Ok(())
    }

    /// What the run kept back counts now, as far as it may: the facts, and the losses of nodes that
    /// came behind them. `all`: all nodes were heard, and it goes on.
    fn count_kept(&mut self, id: RunId, all: bool) -> Result<(), StoreError> {
        let waits = |run: &mut Run| run.holds_back() && !all;
        let kept = self.step_run(id, |run, at, _| match waits(run) {
            true => Vec::new(),
            false => run.take_kept(at, all),
        })?;
        let rest = self.fold_kept(id, kept.unwrap_or_default(), all)?;
        self.step_run(id, |run, at, fx| {
            if !rest.is_empty() {
                // the next turn goes on
                run.keep_on(rest);
                let message = Message::Hold { on: false };
                fx.send(&mut run.head.post, AggregateId::Run(id), message);
            } else if !waits(run) {
                run.lose(at, fx);
                if all {
                    run.hold(false, at, fx);
                }
            }
        })?;
        Ok(())
    }

    /// Folds facts that a run kept back, a part at a time, and returns what is left for the next
    /// turn, if it may be `cut`.
    fn fold_kept(
        &mut self,
        id: RunId,
        rows: Vec<(LogId, u64, u64)>,
        cut: bool,
    ) -> Result<Vec<(LogId, u64, u64)>, StoreError> {
        let mut left = if cut { KEPT_AT_ONCE } else { u64::MAX };
        let mut rows = rows.into_iter();
        while let Some((log, mut from, last)) = rows.next() {
            while from <= last {
                if left == 0 {
                    let begun = std::iter::once((log, from, last));
                    return Ok(begun.chain(rows).collect());
                }
                let to = last.min(from + left.min(KEPT_AT_ONCE) - 1);
                self.step_with_facts(id, log, &[(from, to)], |run, at, facts, fx| {
                    run.fold_kept(at, log, facts, fx);
                })?;
                left -= to + 1 - from;
                from = to + 1;
            }
        }
        Ok(Vec::new())
    }

    /// Folds facts named by numbers.
    fn fold_facts(
        &mut self,
        id: RunId,
        log: LogId,
        ranges: &[(u64, u64)],
    ) -> Result<(), StoreError> {
        let stray = self.step_with_facts(id, log, ranges, |run, at, facts, fx| {
            if run.head.gone.is_some() {
                run.too_late(log, facts, fx);
                return false;
            }
            run.fold(at, log, facts, fx)
        })?;
        if stray == Some(true) {
            self.ask_for_stray(id, log.node);
        }
        Ok(())
    }

    /// A step of a run that reads facts: from memory if they have just come, else from the store.
    fn step_with_facts<R>(
        &mut self,
        id: RunId,
        log: LogId,
        ranges: &[(u64, u64)],
        step: impl FnOnce(&mut Run, At<'_>, Facts<'_, '_>, &mut Effects) -> R,
    ) -> Result<Option<R>, StoreError> {
        let fresh = self.decoded.remove(&log).unwrap_or_default();
        let first = fresh.first().map_or(u64::MAX, |(n, _)| *n);
        let mut old: Vec<(u64, Fact)> = Vec::new();
        for (from, to) in ranges {
            if *from < first {
                let to = (*to).min(first - 1);
                self.store.facts(log, *from, to, &mut |number, bytes| {
                    old.extend(Fact::decode(number, bytes).ok().map(|f| (number, f)));
                })?;
            }
        }
        let named = ranges.iter().flat_map(|(from, to)| {
            let start = fresh.partition_point(|(n, _)| n < from);
            let end = fresh.partition_point(|(n, _)| n <= to);
            fresh[start..end].iter()
        });
        let mut last = None;
        let mut facts = old.iter().chain(named).map(|(n, fact)| {
            last = Some(fact.at.wall);
            (*n, fact)
        });
        let result = self.step_run(id, |run, at, fx| step(run, at, &mut facts, fx));
        if let Some(at) = last {
            self.folded_at.insert((id, log.node), at);
        }
        self.decoded.insert(log, fresh);
        result
    }

    /// A node fired a run by a schedule that this store does not know: it is asked for all it has.
    fn ask_for_stray(&mut self, run: RunId, node: NodeId) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.inventory_wanted = known.forgotten.is_none();
            self.effects.entry(AggregateId::Node(node)).or_default();
            self.ask_again(node, AggregateId::Run(run));
        }
    }

    fn fold_at_node(
        &mut self,
        id: NodeId,
        from: AggregateId,
        message: Message,
    ) -> Result<(), StoreError> {
        if let Message::Assign {
            incarnation,
            assign,
        } = message
        {
            return self.assign(id, incarnation, *assign);
        }
        let now = (self.now.wall, self.fleet.generation);
        let fx = self.effects.entry(AggregateId::Node(id)).or_default();
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let body = match message {
            Message::Enrolled {
                name,
                labels,
                replace,
            } => {
                enrolled(node, name, labels, replace);
                self.links.entry(id).or_default().heard = self.now.mono;
                return Ok(());
            }
            Message::EnrolledAs {
                name,
                labels,
                replace,
                certificate,
            } => {
                enrolled(node, name, labels, replace);
                node.take_key(certificate, now.0, "a token put another key in its place");
                self.links.entry(id).or_default().heard = self.now.mono;
                return Ok(());
            }
            Message::AskInventory => {
                node.inventory_wanted = node.forgotten.is_none();
                self.ask_again(id, from);
                return Ok(());
            }
            Message::Closed { slice } => {
                node.close_slice(slice);
                return Ok(());
            }
            Message::Forget { run } => {
                node.forget_run(id, run, now, fx);
                return Ok(());
            }
            Message::Unneeded { run } => {
                node.unneeded(id, run, fx);
                return Ok(());
            }
            message => match wish(node, from, message) {
                Some(body) => body,
                None => return Ok(()),
            },
        };
        if node.forgotten.is_none() {
            node.append(id, now.0, now.1, body, fx);
        }
        Ok(())
    }

    /// A live session is asked for its inventory by a new handshake, unless what is on its way says
    /// all that `from` asks for.
    pub(super) fn ask_again(&mut self, id: NodeId, from: AggregateId) {
        let wanted = self.nodes.get(&id).is_some_and(|n| n.inventory_wanted);
        let link = self.links.entry(id).or_default();
        if !wanted || link.asked {
            let incoming = link.live.as_mut().and_then(|live| live.incoming.as_mut());
            if let Some(incoming) = incoming {
                incoming.asked_by(from);
            }
            return;
        }
        if let Some(live) = link.live.take() {
            self.record.touch(id);
            self.conns.remove(&live.conn);
            self.outputs.push(Output::Close {
                conn: live.conn,
                why: "the coordinator lost part of its store and asks for everything".to_owned(),
            });
        }
    }

    /// A row that is decided but not committed yet.
    pub(super) fn batch_row(&self, id: AggregateId, name: &str) -> Option<Vec<u8>> {
        let batch = self.batch.iter().rev().filter(|tx| tx.aggregate == id);
        batch
            .flat_map(|tx| &tx.rows)
            .find(|(row, _)| row == name)
            .and_then(|(_, value)| value.clone())
    }

    /// Places what can be placed.
    pub(super) fn place(&mut self) -> Result<(), StoreError> {
        let mut runs: BTreeSet<RunId> = std::mem::take(&mut self.plan);
        if std::mem::take(&mut self.plan_all) {
            let wants = |run: &Run| run.wants_placement() || run.wants_shares();
            let all = self.runs.iter().filter(|(_, r)| wants(r));
            runs.extend(all.map(|(id, _)| *id));
            let leaving = self.runs.iter().filter(|(_, r)| self.is_leaving(r));
            let leaving: Vec<RunId> = leaving.map(|(id, _)| *id).collect();
            self.leave.extend(leaving);
        }
        // what has facts that wait is placed when they are folded
        let waiting = |id: &RunId| self.inbox.contains_key(&AggregateId::Run(*id));
        self.plan = runs.extract_if(.., waiting).collect();
        let leave = std::mem::take(&mut self.leave);
        if runs.is_empty() && leave.is_empty() {
            return Ok(());
        }
        let mut nodes = self.takers();
        self.empty_drained(leave, &nodes)?;
        for id in runs {
            let placed = self.step_run(id, |run, at, fx| {
                let before = run.head.slices.len();
                run.plan(at, &nodes, fx);
                run.share_out(at, &nodes, fx);
                run.head.slices[before..]
                    .iter()
                    .map(|s| (s.node, u64::from(s.open)))
                    .collect::<Vec<_>>()
            })?;
            for (node, load) in placed.unwrap_or_default() {
                if let Some(node) = nodes.iter_mut().find(|n| n.id == node) {
                    node.load += load;
                }
            }
            self.plan.remove(&id);
        }
        Ok(())
    }

    /// The nodes as they can be given work now. One without room would record what it is given only
    /// to refuse it, in the room that it keeps for what must be recorded.
    pub(super) fn takers(&self) -> Vec<Candidate> {
        let mut nodes = self.candidates();
        for node in &mut nodes {
            if self.links.get(&node.id).is_some_and(|link| link.full) {
                let why = format!("{} has no room on its disk for more work", node.name);
                node.refused.get_or_insert(why);
            }
        }
        nodes
    }

    /// Nodes that may be given work now.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let mut load: BTreeMap<NodeId, u64> = BTreeMap::new();
        for run in self.runs.values().filter(|r| !r.head.state.is_final()) {
            for slice in run.head.slices.iter().filter(|s| s.live()) {
                *load.entry(slice.node).or_default() += u64::from(slice.open);
            }
        }
        let unheard = self.fleet.hold.as_ref().map(|h| &h.nodes);
        let mut out = Vec::new();
        for (id, node) in &self.nodes {
            let online = self.links.get(id).is_some_and(|l| l.live.is_some());
            let waiting = unheard.is_some_and(|nodes| nodes.contains(id));
            let quarantined = node.fenced.is_some() || (node.suspect.is_some() && !online);
            let (true, false, false, Some(incarnation)) =
                (node.usable(), waiting, quarantined, node.incarnation)
            else {
                continue;
            };
            out.push(Candidate {
                id: *id,
                incarnation,
                name: node.name.clone(),
                labels: node.all_labels(),
                taints: node.taints(),
                distrust: node.trust.distrust(self.now.wall),
                capacity: node.capacity.clone(),
                online,
                silence: self
                    .silent_since(*id)
                    .map_or(Span(0), |since| self.now.mono - since),
                load: load.get(id).copied().unwrap_or(0),
                refused: self.closed(*id),
                first_release: node.features & WORKFLOW_2 == 0,
            });
        }
        out
    }
}

fn enrolled(node: &mut Node, name: String, labels: BTreeMap<String, String>, replace: bool) {
    node.name = name;
    node.labels = labels;
    node.replace = replace && node.incarnation.is_some();
    if replace {
        node.forgotten = None;
    }
}

/// The directive that a message to a node asks for.
fn wish(node: &mut Node, from: AggregateId, message: Message) -> Option<Body> {
    Some(match message {
        Message::Upstream { slice, upstream } => Body::Upstream { slice, upstream },
        Message::Cancel { run, by, why } => Body::Cancel { run, by, why },
        Message::Pause { run, on, by } => Body::Pause { run, on, by },
        Message::Release { slice } => {
            // with its last slice of a run a node lets its workflow go: what is assigned behind
            // this brings it again
            node.workflows.remove(&slice.run);
            node.older.remove(&slice.run);
            // also one that was over, which a person lets run again: should the node's log begin
            // anew before it answers, it is asked once more
            let key = (slice.run, slice.slice);
            node.slices.entry(key).or_insert(slice.epoch);
            Body::Release { slice }
        }
        // an agent of the first release does not know it: `Engine::retry` refuses before
        Message::Retry { run, by } if node.features & RETRY != 0 => Body::Retry { run, by },
        Message::Limit(limit) if node.features & LIMITS != 0 => Body::Limit(limit),
        Message::Answer {
            slice,
            task,
            answer,
        } => Body::Answer {
            slice,
            task,
            answer,
        },
        Message::Schedule {
            epoch,
            order,
            what,
            by,
        } => {
            let AggregateId::Schedule(schedule) = from else {
                return None;
            };
            let number = node.directives.number + 1;
            node.orders.insert(number, (schedule, order, epoch));
            Body::Schedule {
                schedule,
                epoch,
                order,
                what,
                by,
            }
        }
        _ => return None,
    })
}
