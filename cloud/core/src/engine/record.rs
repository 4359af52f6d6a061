//! Events and the audit record: what is told with each commit, and how it is read again.

use super::Engine;
use crate::access::Caller;
use crate::event::{About, Refused, Reply, Request};
use crate::record::{
    AUDIT, Audited, EVENTS, Event, Head, RECORD, Rows, TASKS_PER_COMMIT, What, Window,
};
use crate::run::Run;
use crate::store::{Store, StoreError, Transaction};
use crate::view;
use serde::de::DeserializeOwned;
use shared::ids::{NodeId, RunId, TaskIdx};
use shared::state::{NodeState, RunState, TaskState};
use shared::time::{Mono, Span, Unix};
use std::collections::{BTreeMap, BTreeSet};

/// What is told although no commit is due waits so long for company.
const COMPANY: Span = Span::secs(1);
/// The same after a commit failed.
const COMPANY_AFTER_FAILURE: Span = Span::secs(30);
/// Most entries of one answer.
const ENTRIES: usize = 1000;

/// What was told last of a run: its state (none: it was forgotten), facts that were not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ToldRun {
    state: Option<RunState>,
    not_applied: u64,
}

/// What is told with the next commit, and what was told before.
#[derive(Debug)]
pub(super) struct Record {
    events: Window,
    audit: Window,
    /// Of the next commit.
    told: Vec<Event>,
    audited: Vec<Audited>,
    runs: BTreeMap<RunId, ToldRun>,
    nodes: BTreeMap<NodeId, (NodeState, Option<u64>)>,
    /// Nodes whose sessions changed.
    touched: BTreeSet<NodeId>,
    /// Until when what is told waits for another reason to commit.
    due: Option<Mono>,
    /// When the newest audit entry of before this start was told, and the start: entries age by the
    /// time since, so that a clock that jumps ahead takes none away.
    aging: (Unix, Mono),
}

impl Default for Record {
    fn default() -> Self {
        Self {
            events: Window::new(EVENTS, 0),
            audit: Window::new(AUDIT, 0),
            told: Vec::new(),
            audited: Vec::new(),
            runs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            touched: BTreeSet::new(),
            due: None,
            aging: (Unix(0), Mono(0)),
        }
    }
}

impl Record {
    /// A node's session or state may be another than what was told.
    pub(super) fn touch(&mut self, node: NodeId) {
        self.touched.insert(node);
    }

    /// Number of the last event.
    pub(super) fn last_event(&self) -> u64 {
        self.events.last()
    }

    /// Number of the last audit entry.
    pub(super) fn last_audited(&self) -> u64 {
        self.audit.last()
    }

    /// A run is not even a tombstone any more.
    pub(super) fn drop_run(&mut self, run: RunId) {
        self.runs.remove(&run);
    }
}

impl<S: Store> Engine<S> {
    /// Reads which entries are stored, and takes what is in memory as told.
    pub(super) fn load_record(&mut self, head: Head) -> Result<(), StoreError> {
        let mut record = Record {
            events: Window::new(EVENTS, head.events),
            audit: Window::new(AUDIT, head.audit),
            ..Record::default()
        };
        let (events, audit) = (&mut record.events, &mut record.audit);
        let none = Unix(i64::MAX);
        self.store.rows(RECORD, "e", &mut |name, bytes| {
            events.stored(name, none, bytes.len());
        })?;
        self.store.rows(RECORD, "a", &mut |name, bytes| {
            let first = shared::codec::decode::<Vec<Audited>>(bytes).ok();
            let at = first.and_then(|entries| Some(entries.first()?.at));
            audit.stored(name, at.unwrap_or(none), bytes.len());
        })?;
        let newest = record.audit.newest().unwrap_or(self.now.wall);
        record.aging = (newest.min(self.now.wall), self.now.mono);
        self.record = record;
        for run in self.runs.values() {
            self.record.runs.insert(run.id, told_run(run));
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let state = (self.node_state(id), None);
            self.record.nodes.insert(id, state);
        }
        Ok(())
    }

    /// Tells of something with the next commit.
    pub(super) fn tell(&mut self, what: What) {
        let at = self.now.wall;
        self.record.told.push(Event { at, what });
    }

    /// The coordinator started, or started over.
    pub(super) fn tell_beginning(&mut self, why: &str) {
        self.tell(What::Began {
            generation: self.fleet.generation,
            why: why.to_owned(),
        });
        if !why.is_empty() {
            self.record.due = Some(self.now.mono + COMPANY_AFTER_FAILURE);
        }
    }

    /// Tells how a run and its tasks differ from what was told before.
    pub(super) fn tell_run(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let moved = run
            .body
            .as_mut()
            .map(|body| std::mem::take(&mut body.moved));
        let now = told_run(run);
        let was = self.record.runs.insert(id, now);
        let Some(run) = self.runs.get(&id) else {
            return;
        };
        let mut told = Vec::new();
        if was.is_none_or(|was| was.state != now.state) {
            told.push(match now.state {
                Some(state) => What::Run {
                    run: id,
                    workflow: run.head.workflow.clone(),
                    state,
                    was: was.and_then(|was| was.state),
                },
                None => What::RunForgotten { run: id },
            });
        }
        let before = was.map_or(0, |was| was.not_applied);
        if let (true, Some(last)) = (now.not_applied > before, run.head.conflicts.back()) {
            told.push(What::Conflict {
                run: id,
                count: now.not_applied - before,
                node: last.node,
                fact: last.fact,
                reason: last.reason,
            });
        }
        tell_tasks(run, &moved.unwrap_or_default(), &mut told);
        for what in told {
            self.tell(what);
        }
    }

    fn tell_nodes(&mut self) {
        for id in std::mem::take(&mut self.record.touched) {
            let live = self.links.get(&id).and_then(|link| link.live.as_ref());
            let now = (self.node_state(id), live.map(|live| live.session));
            let Some(node) = self.nodes.get(&id) else {
                continue;
            };
            let name = node.name.clone();
            if self.record.nodes.insert(id, now) != Some(now) {
                let (state, session) = now;
                self.tell(What::Node {
                    node: id,
                    name,
                    state,
                    session,
                });
            }
        }
    }

    /// What the audit record will have of a request; none of one that only reads.
    pub(super) fn draft(&self, caller: &Caller, request: &Request) -> Option<Audited> {
        let action = request.action()?;
        let about = match action.about {
            About::Run(run) => run.to_string(),
            About::Node(node) => self.node_name(node),
            About::Name(name) => name.to_owned(),
        };
        let (who, token) = match &caller.token {
            Some(name) => (name.as_str(), true),
            None => (
                action.by.filter(|by| !by.is_empty()).unwrap_or("local"),
                false,
            ),
        };
        Some(Audited {
            at: self.now.wall,
            who: who.to_owned(),
            token,
            from: caller.from.clone(),
            what: action.what.to_owned(),
            about,
            detail: action.detail,
            refused: None,
        })
    }

    /// Records what an operator asked for with what became of it. A request that is `repeated` was
    /// answered by what it did the first time.
    pub(super) fn audit(
        &mut self,
        draft: Option<Audited>,
        answer: &Result<Reply, Refused>,
        repeated: bool,
    ) {
        let Some(mut entry) = draft else { return };
        if repeated {
            entry = entry.repeated();
        }
        if let Ok(Reply::Submitted(run)) = answer {
            entry.about = run.to_string();
        }
        entry.refused = answer.as_ref().err().map(ToString::to_string);
        let done = entry.refused.is_none() && !repeated;
        let entry = entry.bounded();
        if done {
            self.tell(What::Action(entry.clone()));
        }
        self.record.audited.push(entry);
    }

    /// Puts what is told into the batch. Alone it waits for company, unless an answer depends on
    /// it.
    pub(super) fn seal_record(&mut self) {
        self.tell_nodes();
        let record = &mut self.record;
        if record.told.is_empty() && record.audited.is_empty() {
            return;
        }
        let alone = self.batch.is_empty() && record.audited.is_empty();
        let due = *record.due.get_or_insert(self.now.mono + COMPANY);
        if alone && due > self.now.mono {
            return;
        }
        record.due = None;
        let (wall, limits) = (self.now.wall, self.config.record);
        let mut rows = Rows::new();
        let told = std::mem::take(&mut record.told);
        record.events.append(&told, wall, &mut rows);
        record
            .events
            .expire(limits.events, Unix(i64::MIN), &mut rows);
        let audited = std::mem::take(&mut record.audited);
        let age = i64::try_from(limits.audit_age.0).unwrap_or(i64::MAX);
        let (since, start) = record.aging;
        let passed = i64::try_from((self.now.mono - start).0).unwrap_or(i64::MAX);
        let counts = wall.min(Unix(since.0.saturating_add(passed)));
        let before = Unix(counts.0.saturating_sub(age));
        record.audit.append(&audited, wall, &mut rows);
        record.audit.expire(limits.audit, before, &mut rows);
        let head = Head {
            events: record.events.last(),
            audit: record.audit.last(),
        };
        let version = self.versions.entry(RECORD).or_default();
        self.batch.push(Transaction {
            rows,
            ..Transaction::of(RECORD, *version, shared::codec::encode(&head))
        });
        *version += 1;
    }

    /// When what is told has waited long enough for company.
    pub(super) fn next_telling(&self) -> Option<Mono> {
        self.record.due
    }

    /// The entries of these rows behind `after`.
    fn entries<T: DeserializeOwned>(
        &mut self,
        rows: Vec<(u64, String)>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, T)>, StoreError> {
        let mut out = Vec::new();
        for (first, name) in rows {
            if out.len() >= limit {
                break;
            }
            let row = match self.batch_row(RECORD, &name) {
                Some(row) => Some(row),
                None => self.store.row(RECORD, &name)?,
            };
            let read = row.and_then(|row| shared::codec::decode::<Vec<T>>(&row).ok());
            let row = read.ok_or_else(|| {
                StoreError::Damaged(format!("row {name} of the record cannot be read"))
            })?;
            out.extend((first..).zip(row).filter(|(number, _)| *number > after));
        }
        out.truncate(limit);
        Ok(out)
    }

    /// Events behind `after`, or from the first that is there.
    pub(super) fn read_events(
        &mut self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Result<Reply, Refused>, StoreError> {
        let (window, limit) = (&self.record.events, limit.clamp(1, ENTRIES));
        let (first, last) = (window.first(), window.last());
        let after = after.unwrap_or(first - 1);
        if after.saturating_add(1) < first || after > last {
            return Ok(Err(Refused::Forgotten { after, first, last }));
        }
        let rows = window.behind(after).take(limit).collect();
        let found = self.entries::<Event>(rows, after, limit)?.into_iter();
        let events = found.map(|(number, event)| self.view_event(number, event));
        Ok(Ok(Reply::Events {
            first,
            last,
            events: events.collect(),
        }))
    }

    /// Audit entries behind `after`.
    pub(super) fn read_audit(&mut self, after: u64, limit: usize) -> Result<Reply, StoreError> {
        let limit = limit.clamp(1, ENTRIES);
        let rows = self.record.audit.behind(after).take(limit).collect();
        let found = self.entries::<Audited>(rows, after, limit)?.into_iter();
        Ok(Reply::Audit(
            found
                .map(|(number, entry)| view::Audited::new(number, entry))
                .collect(),
        ))
    }

    fn view_event(&self, number: u64, event: Event) -> view::Event {
        let mut view = view::Event {
            number,
            at: event.at,
            kind: event.what.kind().to_owned(),
            ..view::Event::default()
        };
        match event.what {
            What::Began { generation, why } => {
                view.generation = Some(generation.0);
                view.reason = (!why.is_empty()).then_some(why);
            }
            What::Run {
                run,
                workflow,
                state,
                was,
            } => {
                view.run = Some(run);
                view.workflow = Some(workflow);
                view.state = Some(state.text().to_owned());
                view.was = was.map(|was| was.text().to_owned());
            }
            What::RunForgotten { run } => view.run = Some(run),
            What::Task {
                run,
                task,
                state,
                node,
                reason,
            } => {
                view.run = Some(run);
                view.task = Some(task);
                view.state = Some(state.text().to_owned());
                view.node = node.map(|node| self.node_name(node));
                view.reason = reason.map(|reason| reason.text().to_owned());
            }
            What::Tasks { run, states } => {
                let states = states.into_iter();
                view.run = Some(run);
                view.tasks = states
                    .map(|(state, n)| (state.text().to_owned(), u64::from(n)))
                    .collect();
            }
            other => self.view_other(&mut view, other),
        }
        view
    }

    /// What is not about the state of a run.
    fn view_other(&self, view: &mut view::Event, what: What) {
        match what {
            What::Node {
                name,
                state,
                session,
                ..
            } => {
                view.node = Some(name);
                view.state = Some(state.text().to_owned());
                view.session = session;
            }
            What::Conflict {
                run,
                count,
                node,
                fact,
                reason,
            } => {
                view.run = Some(run);
                view.count = Some(count);
                view.node = Some(self.node_name(node));
                view.fact = Some(fact);
                view.reason = Some(reason.text().to_owned());
            }
            What::Action(action) => {
                view.who = Some(action.who);
                view.what = Some(action.what);
                view.about = Some(action.about);
            }
            What::Enrolled { name, .. } => view.node = Some(name),
            _ => {}
        }
    }
}

fn told_run(run: &Run) -> ToldRun {
    ToldRun {
        state: run.head.gone.is_none().then_some(run.head.state),
        not_applied: run.head.not_applied,
    }
}

/// The tasks that moved, each as it is now; only their numbers if they are too many.
fn tell_tasks(run: &Run, moved: &[TaskIdx], told: &mut Vec<What>) {
    let (Some(body), None) = (&run.body, run.head.gone) else {
        return;
    };
    let moved: BTreeSet<TaskIdx> = moved.iter().copied().collect();
    if moved.len() > TASKS_PER_COMMIT {
        let mut states: BTreeMap<TaskState, u32> = BTreeMap::new();
        for task in &moved {
            *states.entry(body.tasks[task.0 as usize].state).or_default() += 1;
        }
        let states = states.into_iter().collect();
        told.push(What::Tasks {
            run: run.id,
            states,
        });
        return;
    }
    told.extend(moved.into_iter().map(|task| {
        let row = &body.tasks[task.0 as usize];
        What::Task {
            run: run.id,
            task: body.workflow.tasks[task.0 as usize].id.clone(),
            state: row.state,
            node: run.owner(task),
            reason: row.reason,
        }
    }));
}
