//! What people see: views over the state in memory, which is the committed one.

use super::Engine;
use super::waits::question;
use crate::run::{About, AttemptRow, Decided, Run, Stage};
use crate::store::Store;
use crate::view;
use shared::explain::Reason;
use shared::ids::{NodeId, RunId, TaskIdx};
use shared::planted::{self, Mistake};
use shared::state::{NodeState, TaskState};
use shared::time::{Span, Unix};
use std::collections::{BTreeMap, BTreeSet};

/// Conflicts in one answer, at most.
const CONFLICTS: usize = 10_000;
/// Silence after which what a node last said is no longer shown as what is.
const UNKNOWN_AFTER: Span = Span::secs(60);

impl Run {
    /// The task with this id in the specification.
    #[must_use]
    pub fn task_named(&self, id: &str) -> Option<TaskIdx> {
        let tasks = &self.body.as_ref()?.workflow.tasks;
        let at = tasks.iter().position(|task| task.id == id)?;
        Some(TaskIdx(at as u32))
    }
}

impl<S: Store> Engine<S> {
    pub(super) fn node_name(&self, node: NodeId) -> String {
        match self.nodes.get(&node) {
            Some(known) if !known.name.is_empty() => known.name.clone(),
            _ => node.to_string(),
        }
    }

    pub(super) fn as_of(&self, id: NodeId) -> view::AsOf {
        let node = self.nodes.get(&id);
        let link = self.links.get(&id);
        let mut fact = node.map_or(0, |n| n.facts.number);
        if planted::on(Mistake::ViewAhead) {
            fact = link.map_or(0, |l| l.ahead).max(fact);
        }
        view::AsOf {
            at: node.and_then(|n| n.facts_at).map(|s| s.wall),
            fact,
            behind: link.map_or(0, |l| l.ahead).saturating_sub(fact),
            heard: link.and_then(|l| l.heard_wall),
        }
    }

    /// How far a node is folded into a run.
    fn as_of_in(&self, run: RunId, node: NodeId) -> view::AsOf {
        let known = self.as_of(node);
        let (fact, at) = match (self.kept_back(run, node), self.unfolded(run, node)) {
            (Some(as_of), _) => as_of,
            (None, Some(next)) => (next - 1, self.folded_at.get(&(run, node)).copied()),
            (None, None) => return known,
        };
        view::AsOf {
            at,
            fact,
            behind: known.behind + known.fact.saturating_sub(fact),
            heard: known.heard,
        }
    }

    /// How far a node is folded into a run that keeps facts of it back while it is held.
    fn kept_back(&self, run: RunId, node: NodeId) -> Option<(u64, Option<Unix>)> {
        let head = &self.runs.get(&run).filter(|run| run.head.held)?.head;
        let first = head.kept.iter().find(|(log, ..)| log.node == node)?.1;
        let from = self.nodes.get(&node)?.held_from;
        let known = from.0 < first;
        Some(if known { from } else { (0, None) })
    }

    fn silence(&self, node: NodeId) -> Option<Span> {
        let since = self.silent_since(node)?;
        Some(self.now.mono - since)
    }

    pub(super) fn silence_text(&self, node: NodeId) -> Option<String> {
        let silence = self.silence(node).filter(|s| *s >= UNKNOWN_AFTER)?;
        let minutes = Span(silence.0 / 60_000 * 60_000);
        Some(format!("{} not heard for {minutes}", self.node_name(node)))
    }

    pub(super) fn node_state(&self, id: NodeId) -> NodeState {
        let online = self.links.get(&id).is_some_and(|l| l.live.is_some());
        match self.nodes.get(&id) {
            Some(n) if n.forgotten.is_some() => NodeState::Forgotten,
            Some(n) if n.suspect.is_some() && !online => NodeState::Quarantined,
            Some(n) if n.fenced.is_some() => NodeState::Quarantined,
            Some(n) if n.draining => NodeState::Draining,
            _ if online => NodeState::Online,
            _ => NodeState::Offline,
        }
    }

    pub(super) fn view_access(&self) -> Vec<view::Access> {
        let tokens = self.fleet.access.iter();
        tokens
            .map(|(name, token)| view::Access {
                name: name.clone(),
                role: token.role,
                id: token.id.clone(),
                created: token.created,
                by: token.by.clone(),
                expires: token.expires,
                expired: token.expires.is_some_and(|at| at <= self.now.wall),
            })
            .collect()
    }

    /// Tasks that run, by node.
    fn running(&self) -> BTreeMap<NodeId, u64> {
        let mut running = BTreeMap::new();
        let runs = self.runs.values().filter(|r| !r.head.state.is_final());
        for run in runs.filter(|run| run.count(TaskState::Running) > 0) {
            let rows = run.body.iter().flat_map(|b| &b.tasks);
            for row in rows.filter(|t| t.state == TaskState::Running) {
                let slice = run.head.slices.get(row.slice as usize);
                if let Some(slice) = slice.filter(|s| s.counts()) {
                    *running.entry(slice.node).or_default() += 1;
                }
            }
        }
        running
    }

    pub(super) fn view_nodes(&self) -> Vec<view::Node> {
        let running = self.running();
        let ids = self.nodes.keys();
        ids.map(|id| self.view_node(*id, &running)).collect()
    }

    pub(super) fn view_one_node(&self, id: NodeId) -> view::Node {
        self.view_node(id, &self.running())
    }

    fn view_node(&self, id: NodeId, running: &BTreeMap<NodeId, u64>) -> view::Node {
        let node = self.nodes.get(&id).cloned().unwrap_or_default();
        let capacity = &node.capacity;
        let mut offers: BTreeMap<String, u64> = capacity.custom.clone();
        offers.insert("cpu_milli".to_owned(), capacity.cpu_milli.into());
        offers.insert("memory".to_owned(), capacity.memory);
        offers.insert("disk".to_owned(), capacity.disk);
        offers.insert("gpu_milli".to_owned(), capacity.gpu_milli.into());
        let notes = node.suspect.iter().map(|(_, why)| why.clone());
        let gone = node.forgotten.iter();
        let gone = gone.map(|(_, by)| format!("declared gone by {by}"));
        let fenced = node.fenced.iter();
        let fenced = fenced.map(|_| "its fact log went back or forked".to_owned());
        let closed = node.closed_by().into_iter();
        let notes = notes.chain(gone).chain(fenced).chain(closed);
        let notes: Vec<String> = notes.chain(node.notes.iter().cloned()).collect();
        view::Node {
            state: self.node_state(id).text().to_owned(),
            as_of: self.as_of(id),
            capacity: offers,
            incarnation: node.incarnation.map(|i| i.to_string()).unwrap_or_default(),
            slices: node.slices.len() as u64,
            running: running.get(&id).copied().unwrap_or(0),
            unconfirmed: node.directives.number.saturating_sub(node.confirmed),
            settings: self.view_settings(&crate::settings::Scope::Node(id)),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
            certificate: node.certificate.map(|known| view::Certificate {
                until: known.until,
                key: shared::ids::Hash(known.key).hex(),
                authority: shared::ids::Hash(known.authority).hex(),
                revoked_keys: node.revoked.len() as u64,
            }),
            clock_ahead_ms: self.links.get(&id).and_then(|link| link.clock_ahead),
            labels: node.all_labels(),
            taints: node.taints().iter().map(ToString::to_string).collect(),
            cordoned: node.cordoned.is_some(),
            distrust_milli: node.trust.distrust(self.now.wall),
            sync_paused: node.sync_paused.map(|(by, since, until)| view::SyncPaused {
                by,
                since,
                until,
            }),
            name: node.name,
            id,
        }
    }

    pub(super) fn view_run(&self, run: &Run) -> view::Run {
        let head = &run.head;
        let nodes: BTreeSet<NodeId> = head
            .slices
            .iter()
            .filter(|s| s.counts())
            .map(|s| s.node)
            .collect();
        let mut tasks = BTreeMap::new();
        for state in TaskState::ALL {
            let count = run.count(*state);
            if count > 0 {
                tasks.insert(state.text().to_owned(), u64::from(count));
            }
        }
        view::Run {
            id: run.id,
            workflow: head.workflow.clone(),
            state: head.state.text().to_owned(),
            waits: self.run_waits(run),
            version: head.hash.to_string(),
            description: head.description.clone(),
            labels: head.labels.clone(),
            params: head.params.clone(),
            submitted: head.submitted,
            ended: head.ended,
            by: head.by.clone(),
            conflicts: self.conflicts(run),
            requests: run.requests(&|node| self.silence_text(node)),
            tasks,
            nodes: nodes
                .into_iter()
                .map(|id| (self.node_name(id), self.as_of_in(run.id, id)))
                .collect(),
        }
    }

    fn conflicts(&self, run: &Run) -> Vec<view::Conflict> {
        let head = &run.head;
        let missing = head.conflicts.len().saturating_sub(head.abouts.len());
        let abouts = std::iter::repeat_n(About::default(), missing);
        let abouts = abouts.chain(head.abouts.iter().copied());
        let id_of = |task: TaskIdx| {
            let body = run.body.as_ref()?;
            let spec = body.workflow.tasks.get(task.0 as usize)?;
            Some(spec.id.clone())
        };
        let shown = head.conflicts.iter().zip(abouts);
        let shown = shown.map(|(c, about)| view::Conflict {
            run: Some(run.id),
            task: about.task.and_then(id_of),
            node: self.node_name(c.node),
            epoch: about.slice.map(|slice| slice.epoch.0),
            number: about.attempt,
            fact: c.fact,
            at: c.at,
            reason: c.reason.text().to_owned(),
        });
        shown.collect()
    }

    /// What was recorded and not applied, of one run or of all, newest first.
    pub(super) fn all_conflicts(&self, run: Option<RunId>) -> Vec<view::Conflict> {
        let wanted = |id: &RunId| run.is_none_or(|run| run == *id);
        let runs = self.runs.iter().filter(|(id, _)| wanted(id));
        let mut all: Vec<_> = runs.flat_map(|(_, run)| self.conflicts(run)).collect();
        all.sort_by(|a, b| (b.at, b.fact, &b.node).cmp(&(a.at, a.fact, &a.node)));
        all.truncate(CONFLICTS);
        all
    }

    pub(super) fn view_tasks(&self, run: &Run, state: Option<TaskState>) -> Vec<view::Task> {
        let rows = run.body.iter().flat_map(|b| &b.tasks);
        (0u32..)
            .zip(rows)
            .filter(|(_, row)| state.is_none_or(|s| row.state == s))
            .map(|(task, _)| self.view_task(run, TaskIdx(task)))
            .collect()
    }

    pub(super) fn view_task(&self, run: &Run, task: TaskIdx) -> view::Task {
        let body = run
            .body
            .as_ref()
            .expect("the body was loaded for this view");
        let row = &body.tasks[task.0 as usize];
        let spec = &body.workflow.tasks[task.0 as usize];
        let owner = run.owner(task);
        let outputs = spec.outputs.iter().zip(&row.outputs);
        view::Task {
            run: run.id,
            task: spec.id.clone(),
            description: spec.description.clone(),
            state: row.state.text().to_owned(),
            overlay: self.overlay(run, row.state, row.reason, owner),
            node: owner.map(|id| self.node_name(id)),
            attempts: run.used(task) + u32::from(row.state == TaskState::Succeeded),
            outputs: outputs
                .map(|(spec, file)| view::OutputFile {
                    name: spec.name.clone(),
                    path: spec.path.clone(),
                    hash: file.hash.to_string(),
                    size: file.size,
                })
                .collect(),
            reason: row.reason.map(|r| r.text().to_owned()),
            since: row.since,
            history: row.history.iter().map(|a| self.view_attempt(a)).collect(),
            question: spec
                .approval()
                .map(|approval| question(approval, spec.deadline)),
            answers: self.view_answers(run, task),
        }
    }

    fn overlay(
        &self,
        run: &Run,
        state: TaskState,
        reason: Option<Reason>,
        owner: Option<NodeId>,
    ) -> Option<String> {
        if state.is_final() {
            let given_up = matches!(reason, Some(Reason::NodeSilent | Reason::NodeForgotten));
            return (state == TaskState::Lost && given_up).then(|| "given up".to_owned());
        }
        if run.head.cancel.is_some() {
            return Some("cancel requested".to_owned());
        }
        let silence = self.silence(owner?)?;
        (silence >= UNKNOWN_AFTER).then(|| "unknown".to_owned())
    }

    fn view_attempt(&self, row: &AttemptRow) -> view::Attempt {
        view::Attempt {
            node: self.node_name(row.node),
            epoch: row.epoch.0,
            number: row.number,
            outcome: row.outcome.map_or("running", |o| o.text()).to_owned(),
            reason: row.reason.map(|r| r.text().to_owned()),
            exit: row.exit,
            began: row.began,
            ended: row.ended,
            not_applied: row.not_applied.map(|r| r.text().to_owned()),
        }
    }

    /// Why a task is where it is and as it is.
    pub(super) fn explain(&self, run: &Run, task: TaskIdx) -> view::Explain {
        let body = run
            .body
            .as_ref()
            .expect("the body was loaded for this view");
        let about = |d: &&Decided| {
            let mut ranges = d.tasks.iter();
            ranges.any(|(from, to)| (*from..=*to).contains(&task.0))
        };
        let decisions = body.decisions.iter().filter(about);
        let decisions = decisions.map(|d| self.view_decision(run, d)).collect();
        view::Explain {
            task: self.view_task(run, task),
            summary: self.summary(run, task),
            decisions,
        }
    }

    fn view_decision(&self, run: &Run, decided: &Decided) -> view::Decision {
        let decision = &decided.decision;
        let id = match decided.edge {
            Some((node, fact)) => {
                format!("{}/{fact}.{}", self.node_name(node), decided.number)
            }
            None => format!("{}/{}.0", run.id, decided.number),
        };
        let evidence = decision.evidence.iter();
        view::Decision {
            decision_id: id,
            at: decided.at,
            action: decision.action.text().to_owned(),
            reason: decision.reason.text().to_owned(),
            confidence: f64::from(decision.confidence_milli) / 1000.0,
            evidence: evidence
                .map(|e| format!("{}={}", e.name, e.value))
                .collect(),
            repeats: decision.repeats,
        }
    }

    fn summary(&self, run: &Run, task: TaskIdx) -> String {
        let body = run
            .body
            .as_ref()
            .expect("the body was loaded for this view");
        let row = &body.tasks[task.0 as usize];
        let id = &body.workflow.tasks[task.0 as usize].id;
        let because = row.reason.map(|r| format!(" ({r})")).unwrap_or_default();
        let Some(owner) = run.owner(task) else {
            return match (row.state.is_final(), run.head.held) {
                (true, _) => format!("{id} is {}{because}", row.state),
                (_, true) => format!("{id} waits: the run is held after a restore"),
                _ => format!("{id} waits for a node: {}", run.head.unplaced_why),
            };
        };
        let node = self.node_name(owner);
        let open: Vec<String> = body.deps[task.0 as usize]
            .iter()
            .filter(|d| !body.tasks[d.0 as usize].state.is_final())
            .map(|d| {
                let state = body.tasks[d.0 as usize].state;
                format!("{} ({state})", body.workflow.tasks[d.0 as usize].id)
            })
            .collect();
        let stage = run.head.slices[row.slice as usize].stage;
        if let (Some(since), Some(approval)) = (run.head.asking.get(&task), run.question(task)) {
            format!("{id} asks a person since {since}: {}", approval.prompt)
        } else if row.state == TaskState::Blocked && !open.is_empty() {
            format!("{id} waits on {node} for {}", open.join(", "))
        } else if let Some(text) = run.limit_text(task, &|node| self.node_name(node)) {
            format!("{id} waits on {node}: {text}")
        } else if stage == Stage::Assigned && !row.state.is_final() {
            format!("{id} is assigned to {node}, which has not confirmed it yet")
        } else if stage == Stage::Releasing && !row.state.is_final() {
            format!("{id} moves: {node} is asked to give it up")
        } else {
            format!("{id} is {} on {node}{because}", row.state)
        }
    }
}
