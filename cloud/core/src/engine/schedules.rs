//! Schedules at the coordinator: what people ask of them, who owns them, the firing of those that
//! are its own, and moves away from nodes that are silent or gone.

use super::Engine;
use super::requests::{Answered, no_node};
use crate::event::{Refused, Reply, ScheduleAsk};
use crate::inbox::Message;
use crate::run::Asked;
use crate::run::fit::{fit_all, misfit};
use crate::run::place::Candidate;
use crate::schedule::{Owner, Schedule};
use crate::store::{AggregateId, Prune, Store, StoreError};
use crate::view;
use shared::codec;
use shared::explain::Reason;
use shared::ids::{NodeId, RunId, ScheduleId};
use shared::schedule::due::{Firing, Look, Question, Skipped};
use shared::schedule::view::{Fired, View, sentence};
use shared::schedule::{
    Calendar, Cause, Order, Overlap, SCHEDULES, SLOTS, WORKFLOW_BYTES, check_backfill, run_of,
    workflow_of,
};
use shared::time::{Span, Unix};
use shared::workflow::Workflow;

/// The wall clock may jump: it is looked at again after this time.
const GLANCE: Span = Span::secs(30);
/// Firings of one schedule at one look.
const BURST: usize = 10;
/// Runs that persons may want at once.
const TRIGGERS: usize = 16;
/// Schedules that were made here, and of each gateway those that were made there.
const MOST: usize = 4 * SCHEDULES;

impl<S: Store> Engine<S> {
    /// Puts the workflows of all schedules into memory.
    pub(super) fn load_schedules(&mut self) -> Result<(), StoreError> {
        let ids: Vec<ScheduleId> = self.schedules.keys().copied().collect();
        for id in ids {
            let mut rows = Vec::new();
            self.store
                .rows(AggregateId::Schedule(id), "w", &mut |name, bytes| {
                    let revision = u32::from_str_radix(&name[1..], 16);
                    rows.extend(revision.ok().map(|revision| (revision, bytes.to_vec())));
                })?;
            let Some(schedule) = self.schedules.get_mut(&id) else {
                continue;
            };
            for (revision, packed) in rows {
                if let Ok((workflow, _)) = codec::unpack(&packed) {
                    schedule.remember(revision, workflow);
                }
            }
        }
        self.slots_due = Some(self.now.mono);
        Ok(())
    }

    fn is_shown(schedule: &Schedule) -> bool {
        let gone =
            schedule.dropped.is_some() && (schedule.confirmed() || schedule.origin.is_some());
        !gone
    }

    fn find_schedule(&self, name: &str) -> Result<ScheduleId, Refused> {
        let shown = || self.schedules.iter().filter(|(_, s)| Self::is_shown(s));
        let named: Vec<ScheduleId> = shown()
            .filter(|(_, s)| s.name == name)
            .map(|(id, _)| *id)
            .collect();
        let begins = |id: &ScheduleId| id.to_string().starts_with(&name.to_ascii_lowercase());
        let found = match named.is_empty() {
            true => shown().map(|(id, _)| *id).filter(begins).collect(),
            false => named,
        };
        match found[..] {
            [id] => Ok(id),
            [] => Err(Refused::NotFound {
                what: "schedule".to_owned(),
                name: name.to_owned(),
            }),
            _ => {
                let text = format!("{name} means several schedules; give the id");
                Err(Refused::State(text))
            }
        }
    }

    /// Makes a schedule, or its next revision.
    pub(super) fn create_schedule(
        &mut self,
        id: ScheduleId,
        packed: Vec<u8>,
        node: Option<String>,
        replace: bool,
        by: String,
    ) -> (AggregateId, Answered) {
        match self.try_create((id, node), packed, replace, by) {
            Ok(id) => {
                self.slots_due = Some(self.now.mono);
                (AggregateId::Schedule(id), Ok(Reply::Scheduled(id)))
            }
            Err(refused) => (AggregateId::Fleet, Err(refused)),
        }
    }

    fn try_create(
        &mut self,
        (fresh, node): (ScheduleId, Option<String>),
        packed: Vec<u8>,
        replace: bool,
        by: String,
    ) -> Result<ScheduleId, Refused> {
        let workflow = readable(&packed)?;
        let named = |(_, s): &(&ScheduleId, &Schedule)| {
            s.name == workflow.name && s.origin.is_none() && s.dropped.is_none()
        };
        let known = self.schedules.iter().find(named).map(|(id, _)| *id);
        let id = match (known, replace) {
            (Some(id), true) => id,
            (Some(_), false) => {
                return Err(Refused::State(format!(
                    "a schedule named {} exists; --replace makes this its next revision",
                    workflow.name
                )));
            }
            (None, true) => {
                return Err(Refused::NotFound {
                    what: "schedule".to_owned(),
                    name: workflow.name,
                });
            }
            (None, false) if self.made_by(None) >= MOST => {
                return Err(Refused::NoRoom(format!("{MOST} schedules exist")));
            }
            (None, false) => fresh,
        };
        let wanted = node.or_else(|| self.schedules.get(&id).and_then(|s| s.wanted.clone()));
        let owner = self.choose_owner(&workflow, wanted.as_deref())?;
        let (now, generation) = (self.now.wall, self.fleet.generation);
        let fx = self.effects.entry(AggregateId::Schedule(id)).or_default();
        let schedule = self.schedules.entry(id).or_default();
        let first = schedule.revision == 0;
        (schedule.by, schedule.wanted) = ((by.clone(), now), wanted);
        schedule.learn(schedule.revision + 1, packed, workflow, fx);
        schedule.progress.cursor = now.max(schedule.progress.cursor);
        if first {
            schedule.give(owner, generation);
        } else if schedule.owner != owner || schedule.next.is_some() {
            // the present owner gives it up first, as slices are; who was asked to before and is
            // named again does so, too, and gets it anew
            schedule.next = Some(owner);
            if schedule.owner == Owner::Coordinator {
                self.hand_over(id);
            } else {
                schedule.ask(Order::Drop, &by, fx);
            }
            return Ok(id);
        }
        if let Some(order) = schedule.set(now) {
            schedule.ask(order, &by, fx);
        }
        Ok(id)
    }

    /// Who fires it: the node that is named or that fits all its tasks, else the coordinator.
    fn choose_owner(&self, workflow: &Workflow, node: Option<&str>) -> Result<Owner, Refused> {
        let nodes = self.candidates();
        let Some(name) = node else {
            return Ok(best(workflow, &nodes, None).unwrap_or(Owner::Coordinator));
        };
        let Some(chosen) = nodes.iter().find(|n| n.name == name) else {
            return Err(match self.fleet.names.contains_key(name) {
                true => Refused::State(format!("node {name} takes no work now")),
                false => no_node(name),
            });
        };
        if let Some(closed) = &chosen.refused {
            return Err(Refused::State(closed.clone()));
        }
        if let Some((task, why)) = misfit(workflow, chosen) {
            let text = format!("task {task} cannot run on {name}: {why}");
            return Err(Refused::State(text));
        }
        Ok(Owner::Node(chosen.id, chosen.incarnation))
    }

    /// The present owner fires it no more: the next one does, from the last slot on.
    fn hand_over(&mut self, id: ScheduleId) {
        let generation = self.fleet.generation;
        let fx = self.effects.entry(AggregateId::Schedule(id)).or_default();
        let Some(schedule) = self.schedules.get_mut(&id) else {
            return;
        };
        let Some(owner) = schedule.next.take() else {
            return;
        };
        schedule.give(owner, generation);
        let orders = [schedule.set(schedule.progress.cursor), schedule.fill()];
        for order in orders.into_iter().flatten() {
            schedule.ask(order, "the coordinator", fx);
        }
        self.slots_due = Some(self.now.mono);
    }

    /// What a person asks of a schedule.
    pub(super) fn ask_schedule(
        &mut self,
        name: &str,
        ask: ScheduleAsk,
        by: &str,
    ) -> (AggregateId, Answered) {
        let asked = self
            .find_schedule(name)
            .and_then(|id| self.try_ask(id, ask, by).map(|()| id));
        match asked {
            Ok(id) => {
                self.slots_due = Some(self.now.mono);
                (AggregateId::Schedule(id), Ok(Reply::Scheduled(id)))
            }
            Err(refused) => (AggregateId::Fleet, Err(refused)),
        }
    }

    fn try_ask(&mut self, id: ScheduleId, ask: ScheduleAsk, by: &str) -> Result<(), Refused> {
        let now = self.now.wall;
        let gateway = self.schedules.get(&id).and_then(|s| s.origin);
        if let Some(node) = gateway {
            let name = self.node_name(node);
            return Err(Refused::State(format!(
                "the schedule was made at {name} and is changed there: driftless-agent schedule"
            )));
        }
        let Some(schedule) = self.schedules.get_mut(&id) else {
            return Ok(());
        };
        if schedule.dropped.is_some() {
            return Err(Refused::State("the schedule is being deleted".to_owned()));
        }
        let fx = self.effects.entry(AggregateId::Schedule(id)).or_default();
        let own = schedule.owner == Owner::Coordinator;
        let order = match ask {
            ScheduleAsk::Pause(on) => {
                if own && !on && schedule.paused.is_some() {
                    // what passed meanwhile does not fire
                    schedule.progress.cursor = now.max(schedule.progress.cursor);
                }
                schedule.paused = on.then(|| by.to_owned());
                schedule.note_stand(now);
                Order::Pause(on)
            }
            ScheduleAsk::Trigger if own && schedule.triggers.len() >= TRIGGERS => {
                let text = format!("{TRIGGERS} runs of it are wanted already");
                return Err(Refused::NoRoom(text));
            }
            ScheduleAsk::Trigger => {
                if own {
                    schedule.triggers.push_back(now);
                }
                Order::Trigger(now)
            }
            ScheduleAsk::Backfill { from, to } => {
                let calendar = schedule.template().and_then(|t| t.calendar.as_ref());
                if let Some(calendar) = calendar {
                    check_backfill(calendar, &schedule.progress, from, to)
                        .map_err(Refused::State)?;
                }
                schedule.progress.backfill = Some((Unix(from.0.saturating_sub(1)), to));
                Order::Backfill(from, to)
            }
            ScheduleAsk::Delete => {
                schedule.dropped = Some(now);
                schedule.next = None;
                Order::Drop
            }
        };
        schedule.ask(order, by, fx);
        Ok(())
    }

    /// How many schedules there are that were made at this gateway, or here, with those that were
    /// taken away and are still remembered.
    fn made_by(&self, node: Option<NodeId>) -> usize {
        let made = self.schedules.values().filter(|s| s.origin == node);
        made.count()
    }

    fn note_full(&mut self, node: NodeId) {
        self.effects.entry(AggregateId::Node(node)).or_default();
        if let Some(known) = self.nodes.get_mut(&node) {
            known.note(format!(
                "{MOST} schedules that were made there are known; more are not shown here"
            ));
        }
    }

    /// Folds a message to a schedule.
    pub(super) fn fold_at_schedule(&mut self, id: ScheduleId, message: Message) {
        let known = self.schedules.get(&id).is_some_and(|s| s.revision > 0);
        if let (false, Message::ScheduleFact { log, .. }) = (known, &message)
            && self.made_by(Some(log.node)) >= MOST
        {
            self.note_full(log.node);
            return;
        }
        let fx = self.effects.entry(AggregateId::Schedule(id)).or_default();
        let Some(schedule) = self.schedules.get_mut(&id) else {
            return;
        };
        match message {
            Message::ScheduleFact { log, at, body } => {
                let left = schedule.heard(log.node, at, *body, fx);
                if schedule.origin == Some(log.node) {
                    schedule.owner = Owner::Node(log.node, log.incarnation);
                }
                if left && schedule.next.is_some() {
                    self.hand_over(id);
                }
            }
            Message::RepeatSchedule if schedule.origin.is_none() => {
                let orders = match schedule.dropped.is_some() || schedule.next.is_some() {
                    true => [Some(Order::Drop), None],
                    false => [schedule.set(schedule.progress.cursor), schedule.fill()],
                };
                for order in orders.into_iter().flatten() {
                    schedule.ask(order, "the coordinator", fx);
                }
            }
            _ => {}
        }
    }

    /// What a schedule of the coordinator wants of a run.
    pub(super) fn fold_from_schedule(
        &mut self,
        id: RunId,
        message: Message,
    ) -> Result<(), StoreError> {
        match message {
            Message::Fire { workflow, name } => self.begin_fired(id, &workflow, &name),
            Message::Replaced { name } => {
                let (at, by) = (self.now.wall, format!("schedule {name}"));
                let why = "replaced by its next run".to_owned();
                let asked = Asked { at, by, why };
                // one that is over meanwhile needs no end
                let _ = self.step_run(id, |run, _, fx| run.cancel(asked, fx))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A run that a schedule of the coordinator fired.
    fn begin_fired(&mut self, id: RunId, packed: &[u8], name: &str) {
        let Ok((definition, hash, _)) = self.definitions.unpack(packed) else {
            return;
        };
        let fx = self.effects.entry(AggregateId::Run(id)).or_default();
        if let Some(run) = self.runs.get_mut(&id)
            && !run.head.known
        {
            run.head.by = format!("schedule {name}");
            run.define(packed, hash, definition, fx);
            self.plan.insert(id);
        }
    }

    /// Fires what is due of the coordinator's own, and moves what lost its owner.
    pub(super) fn look_at_schedules(&mut self) -> Result<(), StoreError> {
        if self.slots_due.is_none_or(|due| due > self.now.mono) {
            return Ok(());
        }
        let mut next: Option<Unix> = None;
        // after a restore firings that the store forgot are on their way here
        let held = self.fleet.hold.is_some();
        let ids: Vec<ScheduleId> = self.schedules.keys().copied().collect();
        for id in ids.into_iter().filter(|_| !held) {
            self.bury_schedule(id);
            self.move_if_lost(id);
            self.move_if_drained(id);
            let until = self.fire_due(id);
            next = [next, until].into_iter().flatten().min();
        }
        let any = !self.schedules.is_empty();
        let left = |until: Unix| Span(u64::try_from(until.0 - self.now.wall.0).unwrap_or(0));
        let pause = next.map_or(GLANCE, |until| left(until).min(GLANCE));
        self.slots_due = any.then(|| self.now.mono + pause.max(Span(1)));
        Ok(())
    }

    /// One that was taken away stays for late firings as long as runs do.
    fn bury_schedule(&mut self, id: ScheduleId) {
        let Some(schedule) = self.schedules.get(&id) else {
            return;
        };
        let retention = i64::try_from(self.config.retention.0).unwrap_or(i64::MAX);
        let due = schedule.dropped.map(|at| at.0.saturating_add(retention));
        if !Self::is_shown(schedule) && due.is_some_and(|due| due <= self.now.wall.0) {
            let fx = self.effects.entry(AggregateId::Schedule(id)).or_default();
            fx.prune.push(Prune::Aggregate);
        }
    }

    /// Fires the due slots of one schedule of the coordinator's own. Until when it waits.
    fn fire_due(&mut self, id: ScheduleId) -> Option<Unix> {
        for _ in 0..BURST {
            let schedule = self.schedules.get(&id)?;
            if schedule.owner != Owner::Coordinator
                || schedule.paused.is_some()
                || schedule.dropped.is_some()
                || schedule.name.is_empty()
            {
                return None;
            }
            match self.look(id, schedule)? {
                Look::Wait(until, _) => return until,
                Look::Skip(skipped) => self.skip_slots(id, skipped),
                Look::Fire(slot, cause) => self.fire(id, slot, cause),
            }
        }
        // more are due than are good at once
        Some(Unix(self.now.wall.0.saturating_add(6000)))
    }

    fn look(&self, id: ScheduleId, schedule: &Schedule) -> Option<Look> {
        let template = schedule.template()?;
        let rules = template.workflow.schedule.as_ref()?;
        let open = self.open_runs(schedule).len();
        if let Some(slot) = schedule.triggers.front().copied() {
            return Some(match open > 0 && rules.overlap == Overlap::Forbid {
                true => Look::Skip(one(slot, Reason::RunOpen)),
                false => Look::Fire(slot, Cause::Trigger),
            });
        }
        let question = Question {
            id,
            schedule: rules,
            calendar: template.calendar.as_ref()?,
            progress: &schedule.progress,
            now: self.now.wall,
            open,
        };
        Some(question.look())
    }

    /// Runs of a schedule that are not over, or not begun. One that is not known and that nothing
    /// is on its way to was forgotten.
    fn open_runs(&self, schedule: &Schedule) -> Vec<RunId> {
        let open = |run: &RunId| match self.runs.get(run) {
            None => self.is_told(AggregateId::Run(*run)),
            Some(known) => known.head.gone.is_none() && !known.head.state.is_final(),
        };
        let fired = schedule.progress.fired.iter().map(|firing| firing.run);
        fired.filter(open).collect()
    }

    /// Whether a message to it waits to be folded, or leaves with the next commit.
    fn is_told(&self, id: AggregateId) -> bool {
        let sends = self.effects.values().flat_map(|fx| &fx.sends);
        self.inbox.contains_key(&id) || sends.into_iter().any(|(to, ..)| *to == id)
    }

    fn skip_slots(&mut self, id: ScheduleId, skipped: Skipped) {
        self.effects.entry(AggregateId::Schedule(id)).or_default();
        if let Some(schedule) = self.schedules.get_mut(&id) {
            let wanted = schedule.triggers.len();
            schedule.triggers.retain(|slot| *slot != skipped.to);
            if schedule.triggers.len() < wanted {
                schedule.progress.counts.1 += 1;
                schedule.progress.skipped = Some(skipped);
            } else {
                schedule.progress.skip(skipped);
            }
        }
    }

    /// Commits a slot and has its run begin: the schedule's step and the message to the run are one
    /// transaction.
    fn fire(&mut self, id: ScheduleId, slot: Unix, cause: Cause) {
        let Some(schedule) = self.schedules.get(&id) else {
            return;
        };
        let run = run_of(id, schedule.epoch, slot);
        let Some(template) = schedule.template().map(|t| t.workflow.clone()) else {
            return;
        };
        if self.runs.contains_key(&run) {
            self.skip_slots(id, one(slot, Reason::FiredBefore));
            return;
        }
        let replace = template.schedule.as_ref().map(|rules| rules.overlap);
        let replaced = match replace {
            Some(Overlap::Replace) => self.open_runs(schedule),
            _ => Vec::new(),
        };
        let at = self.now.wall;
        let workflow = codec::pack(&workflow_of(&template, slot, at.max(slot))).0;
        let fx = self.effects.entry(AggregateId::Schedule(id)).or_default();
        let Some(schedule) = self.schedules.get_mut(&id) else {
            return;
        };
        schedule.triggers.retain(|wanted| *wanted != slot);
        schedule.progress.fire(Firing {
            slot,
            run,
            at,
            cause,
            trusted: true,
        });
        let name = schedule.name.clone();
        for old in replaced {
            let message = Message::Replaced { name: name.clone() };
            fx.send(&mut schedule.post, AggregateId::Run(old), message);
        }
        let message = Message::Fire { workflow, name };
        fx.send(&mut schedule.post, AggregateId::Run(run), message);
    }

    /// A schedule whose node was silent for longer than its tasks may be lost after, was declared
    /// gone, or came back empty, gets another owner at a new epoch; the old one is told.
    fn move_if_lost(&mut self, id: ScheduleId) {
        let Some(schedule) = self.schedules.get(&id) else {
            return;
        };
        let Owner::Node(node, incarnation) = schedule.owner else {
            return;
        };
        if schedule.origin.is_some() || schedule.dropped.is_some() {
            return;
        }
        let Some(template) = schedule.template().map(|t| t.workflow.clone()) else {
            return;
        };
        let known = self.nodes.get(&node);
        let gone = known.is_none_or(|n| n.forgotten.is_some());
        let empty = known.is_some_and(|n| n.incarnation != Some(incarnation));
        let silent = match (self.silent_since(node), patience(&template)) {
            (Some(since), Some(limit)) => since + limit <= self.now.mono,
            _ => false,
        };
        if !(gone || empty || silent) {
            return;
        }
        let except = (!empty || gone).then_some(node);
        let Some(owner) = best(&template, &self.candidates(), except) else {
            return;
        };
        let fx = self.effects.entry(AggregateId::Schedule(id)).or_default();
        if let Some(schedule) = self.schedules.get_mut(&id) {
            schedule.ask(Order::Drop, "the coordinator", fx);
            schedule.orders.1 = schedule.orders.0;
            schedule.next = Some(owner);
        }
        self.hand_over(id);
    }

    /// A schedule that a drained node fires is given up by it, as slices are, and goes to another
    /// node that fits all its tasks.
    fn move_if_drained(&mut self, id: ScheduleId) {
        let Some(schedule) = self.schedules.get(&id) else {
            return;
        };
        let Owner::Node(node, _) = schedule.owner else {
            return;
        };
        let moves = schedule.next.is_some() || schedule.dropped.is_some();
        if moves || !self.draining.contains(&node) {
            return;
        }
        let Ok(owner) = self.way_out(schedule, node) else {
            return;
        };
        let fx = self.effects.entry(AggregateId::Schedule(id)).or_default();
        if let Some(schedule) = self.schedules.get_mut(&id) {
            schedule.next = Some(owner);
            schedule.ask(Order::Drop, "the coordinator", fx);
        }
    }

    /// Who would fire a schedule instead of this node; else why it stays, for people.
    fn way_out(&self, schedule: &Schedule, node: NodeId) -> Result<Owner, String> {
        if schedule.origin.is_some() {
            return Err("it was made at the gateway: `driftless-agent schedule` there".to_owned());
        }
        let name = self.node_name(node);
        if schedule.wanted.as_ref() == Some(&name) {
            return Err(format!(
                "a person named {name}: `driftless schedule create FILE --replace --node OTHER`"
            ));
        }
        let known = schedule.template();
        let other = known.and_then(|t| best(&t.workflow, &self.candidates(), Some(node)));
        other.ok_or_else(|| "no other node fits all its tasks".to_owned())
    }

    /// The schedules that a node fires, and what is to become of them.
    pub(super) fn fired_there(&self, node: NodeId) -> Vec<view::ScheduleLeft> {
        let there = |s: &&Schedule| {
            matches!(s.owner, Owner::Node(of, _) if of == node) && Self::is_shown(s)
        };
        let left = |schedule: &Schedule| {
            let asked = schedule.next.is_some() || schedule.dropped.is_some();
            let (moves, why) = match self.way_out(schedule, node) {
                _ if asked => (true, "asked to give it up".to_owned()),
                Ok(_) => (self.draining.contains(&node), "may go elsewhere".to_owned()),
                Err(why) => (false, why),
            };
            view::ScheduleLeft {
                name: schedule.name.clone(),
                moves,
                why,
            }
        };
        self.schedules.values().filter(there).map(left).collect()
    }

    /// The schedules, by name.
    pub(super) fn view_schedules(&self) -> Vec<View> {
        let shown = self.schedules.iter().filter(|(_, s)| Self::is_shown(s));
        let mut views: Vec<View> = shown
            .filter_map(|(id, s)| self.view_schedule(*id, s))
            .collect();
        views.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        views
    }

    fn view_schedule(&self, id: ScheduleId, schedule: &Schedule) -> Option<View> {
        let template = schedule.template()?;
        let rules = template.workflow.schedule.as_ref()?;
        let owner = match schedule.owner {
            Owner::Coordinator => "coordinator".to_owned(),
            Owner::Node(node, _) => self.node_name(node),
        };
        let calendar = template.calendar.as_ref();
        let who = (id, schedule.name.as_str(), owner.as_str());
        let mut view = View::new(who, rules, calendar, &schedule.progress);
        (view.revision, view.epoch) = (schedule.revision, schedule.epoch.0);
        (view.by, view.since) = schedule.by.clone();
        for (node, firing) in schedule.former.iter().rev() {
            let counts = !schedule.progress.has_fired(firing.slot);
            view.last
                .push(Fired::new(firing, &self.node_name(*node), counts));
        }
        let paused = schedule.paused.as_ref().or(schedule.paused_at.as_ref());
        let state = match (schedule.dropped, schedule.next, paused) {
            (Some(_), ..) => "deleting",
            (None, Some(_), _) => "moving",
            (None, None, Some(_)) => "paused",
            (None, None, None) => "active",
        };
        state.clone_into(&mut view.state);
        view.why = self.why(id, schedule, &owner, paused);
        Some(view)
    }

    fn why(
        &self,
        id: ScheduleId,
        schedule: &Schedule,
        owner: &str,
        paused: Option<&String>,
    ) -> Option<String> {
        if let Some((reason, text)) = &schedule.refused {
            return Some(format!("{owner} refused it ({reason}): {text}"));
        }
        if let Some(declined) = &schedule.declined {
            return Some(format!("{owner} refused {declined}"));
        }
        if let (Owner::Node(node, _), false) = (schedule.owner, schedule.confirmed()) {
            let silence = self.silent_since(node).map(|since| self.now.mono - since);
            let silence = silence.map_or_else(String::new, |s| {
                format!(", not heard for {}", Span(s.0 / 1000 * 1000))
            });
            return Some(format!(
                "{owner} has not confirmed the last change{silence}: it goes on as it knows"
            ));
        }
        if let Some(who) = paused {
            return Some(format!("paused by {who}"));
        }
        if self.fleet.hold.is_some() && schedule.owner == Owner::Coordinator {
            return Some("old runs are held after a restore".to_owned());
        }
        match (schedule.owner, self.look(id, schedule)) {
            (Owner::Coordinator, Some(Look::Wait(_, Some(reason)))) => Some(sentence(reason)),
            _ => None,
        }
    }

    /// One schedule.
    pub(super) fn read_schedule(&self, name: &str) -> Answered {
        let id = self.find_schedule(name)?;
        let schedule = self.schedules.get(&id);
        match schedule.and_then(|schedule| self.view_schedule(id, schedule)) {
            Some(view) => Ok(Reply::Schedule(Box::new(view))),
            None => Err(Refused::State(
                "the schedule is known only from facts that name it".to_owned(),
            )),
        }
    }

    /// The next slots of a schedule.
    pub(super) fn read_slots(&self, name: &str, count: u32) -> Answered {
        let id = self.find_schedule(name)?;
        let schedule = self.schedules.get(&id);
        let calendar = schedule.and_then(|s| s.template()?.calendar.as_ref());
        let cursor = schedule.map_or(Unix(0), |s| s.progress.cursor);
        let mut at = cursor.max(self.now.wall);
        let slots = std::iter::from_fn(|| {
            at = calendar?.next(at)?;
            Some(at)
        });
        Ok(Reply::Slots(
            slots.take((count as usize).min(SLOTS)).collect(),
        ))
    }
}

/// The least loaded node that may run all tasks; not this one.
fn best(workflow: &Workflow, nodes: &[Candidate], except: Option<NodeId>) -> Option<Owner> {
    let fit = fit_all(workflow, nodes).into_iter();
    let fit = fit.filter(|n| Some(nodes[*n].id) != except);
    let chosen = fit.min_by_key(|n| (nodes[*n].load, nodes[*n].id))?;
    Some(Owner::Node(nodes[chosen].id, nodes[chosen].incarnation))
}

/// Silence after which a schedule may move: all its tasks must allow it.
fn patience(workflow: &Workflow) -> Option<Span> {
    let each = workflow.tasks.iter().map(|task| {
        let limit = task.disconnect.lost_after;
        limit.filter(|_| task.disconnect.replace)
    });
    each.collect::<Option<Vec<Span>>>()?.into_iter().max()
}

fn readable(packed: &[u8]) -> Result<Workflow, Refused> {
    if packed.len() > WORKFLOW_BYTES {
        let text = format!("the compiled workflow has more than {WORKFLOW_BYTES} bytes");
        return Err(Refused::NoRoom(text));
    }
    let bad = |text: String| Refused::Malformed(text);
    let (workflow, _) = codec::unpack(packed).map_err(|error| bad(error.to_string()))?;
    let Some(rules) = &workflow.schedule else {
        return Err(bad("the workflow has no `schedule`".to_owned()));
    };
    Calendar::new(rules).map_err(|error| bad(error.to_string()))?;
    crate::audit::workflow(&workflow).map_err(bad)?;
    Ok(workflow)
}

fn one(slot: Unix, reason: Reason) -> Skipped {
    Skipped {
        from: slot,
        to: slot,
        count: 1,
        reason,
    }
}
