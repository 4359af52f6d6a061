//! The planner: which task goes to which node, and the cut into slices.
//!
//! Tasks that are linked stay together as long as one node may run them all, so as few edges as can
//! be cross the link; independent groups are spread by load. What must be together, or apart, goes
//! before that. The choice is a pure function; `plan` carries it out.

use super::apart::{Apart, within};
use super::fit::fits;
use super::{At, NONE, Run, RunBody, Slice, Stage};
use crate::effects::Effects;
use crate::inbox::Message;
use serde::{Deserialize, Serialize};
use shared::directive::Assign;
use shared::explain::{Decision, DecisionKind, Evidence, Reason};
use shared::ids::{Epoch, Incarnation, NodeId, TaskIdx};
use shared::planted::{self, Mistake};
use shared::state::TaskState;
use shared::taint::{Effect, Taint};
use shared::time::Span;
use shared::workflow::{Resources, Workflow};
use std::collections::{BTreeMap, BTreeSet};

/// A node that may be given work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its id.
    pub id: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What keeps work off it.
    pub taints: Vec<Taint>,
    /// By how many thousandths its load counts for more because attempts failed there.
    pub distrust: u64,
    /// What it offers.
    pub capacity: Resources,
    /// A session is live.
    pub online: bool,
    /// Without a session: silent for so long.
    pub silence: Span,
    /// Tasks placed there that are not final, of all runs.
    pub load: u64,
    /// Why it is given nothing, for people: it refused a slice of this run a short time ago, it has
    /// no room, or a person keeps new work off it.
    pub refused: Option<String>,
    /// It runs the first release, which reads workflows of format 1 only.
    pub first_release: bool,
}

/// What is chosen: positions of tasks by position of the node, each with its reason; and what must
/// wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Node and reason for each task.
    pub placed: BTreeMap<TaskIdx, (usize, Reason)>,
    /// Tasks no node fits, and why.
    pub waiting: Vec<(TaskIdx, String)>,
    /// Links between the chosen node and the tasks of its groups, for the evidence.
    pub links: BTreeMap<usize, u64>,
}

/// Groups of tasks that stay together: a union-find whose sets remember where all their members may
/// run.
struct Groups {
    parent: Vec<usize>,
    allowed: Vec<usize>,
    sets: Vec<Vec<usize>>,
    ids: BTreeMap<Vec<usize>, usize>,
    both: BTreeMap<(usize, usize), Option<usize>>,
}

impl Groups {
    fn set_id(&mut self, set: Vec<usize>) -> usize {
        if let Some(id) = self.ids.get(&set) {
            return *id;
        }
        self.sets.push(set.clone());
        self.ids.insert(set, self.sets.len() - 1);
        self.sets.len() - 1
    }

    fn find(&mut self, mut at: usize) -> usize {
        while self.parent[at] != at {
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    fn common(&mut self, a: usize, b: usize) -> Option<usize> {
        if a == b {
            return Some(a);
        }
        let key = (a.min(b), a.max(b));
        if let Some(known) = self.both.get(&key) {
            return *known;
        }
        let other: BTreeSet<usize> = self.sets[b].iter().copied().collect();
        let set: Vec<usize> = self.sets[a]
            .iter()
            .copied()
            .filter(|n| other.contains(n))
            .collect();
        let id = (!set.is_empty()).then(|| self.set_id(set));
        self.both.insert(key, id);
        id
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        if a == b {
            return;
        }
        if let Some(set) = self.common(self.allowed[a], self.allowed[b]) {
            let (low, high) = (a.min(b), a.max(b));
            self.parent[high] = low;
            self.allowed[low] = set;
        }
    }
}

/// What a choice is made from.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The workflow.
    pub workflow: &'a Workflow,
    /// Edges, up.
    pub deps: &'a [Vec<TaskIdx>],
    /// Edges, down.
    pub dependents: &'a [Vec<TaskIdx>],
    /// Tasks to place, ascending.
    pub tasks: &'a [TaskIdx],
    /// Where the other tasks are.
    pub there: &'a BTreeMap<TaskIdx, NodeId>,
    /// Where they may go.
    pub nodes: &'a [Candidate],
}

/// Tasks to place, in groups that stay together.
struct Grouped {
    groups: Groups,
    members: Vec<TaskIdx>,
    /// Where each may run by itself.
    own: Vec<usize>,
}

fn group(
    q: &Question<'_>,
    index: &BTreeMap<NodeId, usize>,
    apart: &Apart<'_>,
    choice: &mut Choice,
) -> Grouped {
    type Class<'a> = (&'a shared::workflow::Placement, &'a Resources, Option<Span>);
    let mut groups = Groups {
        parent: Vec::new(),
        allowed: Vec::new(),
        sets: Vec::new(),
        ids: BTreeMap::new(),
        both: BTreeMap::new(),
    };
    let mut classes: Vec<(Class<'_>, Result<usize, String>)> = Vec::new();
    let (mut members, mut own) = (Vec::new(), Vec::new());
    for task in q.tasks {
        let spec = &q.workflow.tasks[task.0 as usize];
        let key = (&spec.placement, &spec.resources, spec.disconnect.lost_after);
        let class = match classes.iter().find(|(k, _)| *k == key) {
            Some((_, class)) => class.clone(),
            None => {
                let set = fits(spec, q.nodes).and_then(|set| beside(q, index, *task, set));
                let class = set.map(|set| groups.set_id(set));
                classes.push((key, class.clone()));
                class
            }
        };
        match class {
            Ok(set) => {
                groups.parent.push(members.len());
                groups.allowed.push(set);
                own.push(set);
                members.push(*task);
            }
            Err(why) => choice.waiting.push((*task, why)),
        }
    }
    let mut grouped = Grouped {
        groups,
        members,
        own,
    };
    join_affine(q, &mut grouped, choice);
    join_neighbours(q, apart, &mut grouped.groups, &grouped.members);
    grouped
}

/// Of the nodes that fit, that of the tasks which it must be with, as far as they are placed.
fn beside(
    q: &Question<'_>,
    index: &BTreeMap<NodeId, usize>,
    task: TaskIdx,
    set: Vec<usize>,
) -> Result<Vec<usize>, String> {
    let affinity = &q.workflow.tasks[task.0 as usize].placement.affinity;
    let there = affinity
        .iter()
        .flat_map(|(first, last)| q.there.range(*first..=*last));
    let there: BTreeSet<NodeId> = there.map(|(_, node)| *node).collect();
    match (there.len(), there.first()) {
        (0, _) => Ok(set),
        (1, Some(node)) => {
            let here = index.get(node).filter(|n| set.contains(n));
            let why = "the node of the tasks that it must be with does not fit or is not usable";
            here.map(|n| vec![*n]).ok_or_else(|| why.to_owned())
        }
        _ => Err("the tasks that it must be with are on different nodes".to_owned()),
    }
}

/// Joins tasks with those that they must be with. Who cannot be, waits.
fn join_affine(q: &Question<'_>, grouped: &mut Grouped, choice: &mut Choice) {
    let affinity = |task: TaskIdx| &q.workflow.tasks[task.0 as usize].placement.affinity;
    let members = grouped.members.clone();
    if members.iter().all(|t| affinity(*t).is_empty()) {
        return;
    }
    let position: BTreeMap<TaskIdx, usize> =
        members.iter().enumerate().map(|(i, t)| (*t, i)).collect();
    let mut waits: BTreeSet<TaskIdx> = choice.waiting.iter().map(|(t, _)| *t).collect();
    let mut first: BTreeMap<&[(TaskIdx, TaskIdx)], usize> = BTreeMap::new();
    for (i, task) in members.iter().enumerate() {
        let ranges = affinity(*task).as_slice();
        if ranges.is_empty() {
            continue;
        }
        // all that have the same affinity are together: the tasks it names are joined once
        if let Some(before) = first.get(ranges) {
            grouped.groups.join(*before, i);
            continue;
        }
        first.insert(ranges, i);
        for (from, to) in ranges {
            for (_, j) in position.range(*from..=*to) {
                grouped.groups.join(*j, i);
            }
        }
    }
    // a task that cannot be with another one keeps those waiting that must be with it
    loop {
        let apart = |i: usize, groups: &mut Groups| {
            let ranges = affinity(members[i]).as_slice();
            let root = groups.find(i);
            let ends = ranges.iter().flat_map(|(a, b)| position.range(*a..=*b));
            let mut ends = ends.map(|(_, j)| *j);
            ends.any(|j| groups.find(j) != root) || waits.iter().any(|t| within(ranges, *t))
        };
        let more: Vec<usize> = (0..members.len())
            .filter(|i| !waits.contains(&members[*i]) && !affinity(members[*i]).is_empty())
            .filter(|i| apart(*i, &mut grouped.groups))
            .collect();
        if more.is_empty() {
            return;
        }
        for i in more {
            waits.insert(members[i]);
            let why = "no node fits it together with the tasks that it must be with";
            choice.waiting.push((members[i], why.to_owned()));
        }
    }
}

/// Batches first, then chains (edges without an alternative), then all other edges.
/// None of them joins what is placed apart from others.
fn join_neighbours(q: &Question<'_>, apart: &Apart<'_>, groups: &mut Groups, members: &[TaskIdx]) {
    let alone: Vec<bool> = members.iter().map(|t| apart.alone(q, *t)).collect();
    let position: BTreeMap<TaskIdx, usize> =
        members.iter().enumerate().map(|(i, t)| (*t, i)).collect();
    let mut batches: BTreeMap<u32, usize> = BTreeMap::new();
    for (i, task) in members.iter().enumerate() {
        let batch = q.workflow.tasks[task.0 as usize].batch;
        if let Some(batch) = batch.filter(|_| !alone[i]) {
            let first = *batches.entry(batch).or_insert(i);
            groups.join(first, i);
        }
    }
    for chains in [true, false] {
        for (i, task) in members.iter().enumerate() {
            let deps = &q.deps[task.0 as usize];
            for dep in deps {
                let single = deps.len() == 1 || q.dependents[dep.0 as usize].len() == 1;
                if let (true, Some(j)) = (single == chains, position.get(dep))
                    && !alone[i]
                    && !alone[*j]
                {
                    groups.join(*j, i);
                }
            }
        }
    }
}

/// Chooses a node for each task.
#[must_use]
pub fn choose(q: &Question<'_>) -> Choice {
    let mut choice = Choice::default();
    let index: BTreeMap<NodeId, usize> =
        q.nodes.iter().enumerate().map(|(i, n)| (n.id, i)).collect();
    let mut apart = Apart::new(q, &index);
    let Grouped {
        mut groups,
        members,
        own,
    } = group(q, &index, &apart, &mut choice);
    let waits: BTreeSet<TaskIdx> = choice.waiting.iter().map(|(t, _)| *t).collect();
    let mut sets: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for i in (0..members.len()).filter(|i| !waits.contains(&members[*i])) {
        sets.entry(groups.find(i)).or_default().push(i);
    }
    let mut order: Vec<(usize, Vec<usize>)> = sets.into_iter().collect();
    order.sort_by_key(|(root, set)| {
        (
            groups.sets[groups.allowed[*root]].len(),
            usize::MAX - set.len(),
            *root,
        )
    });
    let mut load: Vec<u64> = q.nodes.iter().map(|n| n.load).collect();
    for (root, set) in order {
        let tasks: Vec<TaskIdx> = set.iter().map(|i| members[*i]).collect();
        let kept_from: BTreeSet<usize> = tasks
            .iter()
            .flat_map(|task| apart.kept_from(q, *task))
            .collect();
        let mut allowed = groups.sets[groups.allowed[root]].clone();
        allowed.retain(|node| !kept_from.contains(node));
        if allowed.is_empty() {
            let why = "each node that fits has a task that it must not be with";
            choice
                .waiting
                .extend(tasks.into_iter().map(|t| (t, why.to_owned())));
            continue;
        }
        let (node, links) = best(q, (&choice, &apart), &index, &load, &allowed, &tasks);
        load[node] += set.len() as u64;
        *choice.links.entry(node).or_default() += links;
        for i in set {
            let place = &q.workflow.tasks[members[i].0 as usize].placement;
            let reason = match (groups.sets[own[i]].len(), allowed.len()) {
                _ if !place.affinity.is_empty() => Reason::NextToTask,
                (1, _) if place.node.is_some() => Reason::NamedBySpec,
                (1, _) => Reason::OnlyFit,
                _ if place.spread.is_some() => Reason::SpreadOut,
                (_, 1) => Reason::KeepsTogether,
                _ if links > 0 => Reason::DataThere,
                _ => Reason::LeastLoaded,
            };
            choice.placed.insert(members[i], (node, reason));
            apart.note(q, members[i], node);
        }
    }
    choice
}

/// The node without taints to be avoided; then with the fewest of those that the group is spread
/// with; then with most links to the group, at the same site if not there; then the least loaded,
/// where failures count as load; and its links.
fn best(
    q: &Question<'_>,
    (choice, apart): (&Choice, &Apart<'_>),
    index: &BTreeMap<NodeId, usize>,
    load: &[u64],
    allowed: &[usize],
    tasks: &[TaskIdx],
) -> (usize, u64) {
    let mut links = vec![0u64; q.nodes.len()];
    for task in tasks {
        let at = task.0 as usize;
        for other in q.deps[at].iter().chain(&q.dependents[at]) {
            let there = q.there.get(other).and_then(|n| index.get(n).copied());
            if let Some(n) = there.or_else(|| choice.placed.get(other).map(|p| p.0)) {
                links[n] += 1;
            }
        }
    }
    let site = |n: usize| q.nodes[n].labels.get("site");
    let near = |n: usize| -> u64 {
        let same = (0..q.nodes.len()).filter(|m| site(*m).is_some() && site(*m) == site(n));
        links[n] + same.map(|m| links[m]).sum::<u64>()
    };
    let any = links.iter().any(|l| *l > 0);
    let share = |n: usize| {
        let cpu = u128::from(q.nodes[n].capacity.cpu_milli.max(1));
        let load = u128::from(load[n] + tasks.len() as u64);
        load * 1_000 * u128::from(1_000 + q.nodes[n].distrust) / cpu
    };
    let spec = |t: &TaskIdx| &q.workflow.tasks[t.0 as usize];
    let spread: Vec<TaskIdx> = tasks
        .iter()
        .copied()
        .filter(|t| spec(t).placement.spread.is_some())
        .collect();
    let avoided = |n: usize| {
        let mut taints = q.nodes[n].taints.iter();
        taints.any(|taint| {
            let minds = |t: &TaskIdx| !taint.tolerated(&spec(t).placement);
            taint.effect == Effect::Avoid && tasks.iter().any(minds)
        })
    };
    let crowd = |n: usize| spread.iter().map(|t| apart.crowd(q, *t, n)).max();
    let best = allowed
        .iter()
        .copied()
        .min_by_key(|n| {
            let far = if any { u64::MAX - near(*n) } else { 0 };
            (avoided(*n), crowd(*n), far, share(*n), *n)
        })
        .unwrap_or(0);
    (best, links[best])
}

fn ranges(tasks: impl Iterator<Item = TaskIdx>) -> Vec<(u32, u32)> {
    let mut out: Vec<(u32, u32)> = Vec::new();
    for TaskIdx(t) in tasks {
        match out.last_mut() {
            Some((_, last)) if *last + 1 == t => *last = t,
            _ => out.push((t, t)),
        }
    }
    out
}

impl Run {
    /// Whether there is something to place.
    #[must_use]
    pub fn wants_placement(&self) -> bool {
        let head = &self.head;
        // what is placed while a retry waits would be taken from its new node without a word
        let stands = head.held || head.cancel.is_some() || head.retry.is_some();
        head.known && !stands && head.unplaced > 0
    }

    /// Nodes that refused (or this one) are offered work of it again.
    pub fn offer_again(&mut self, node: Option<NodeId>) {
        match node {
            Some(node) => drop(self.head.refused_by.remove(&node)),
            None => self.head.refused_by.clear(),
        }
    }

    /// Whether something waits for a node while one is not asked because it refused.
    #[must_use]
    pub fn waits_for_refusing(&self) -> bool {
        self.wants_placement() && !self.head.refused_by.is_empty()
    }

    /// Places what is on no node, as far as nodes fit.
    pub fn plan(&mut self, at: At<'_>, nodes: &[Candidate], fx: &mut Effects) {
        if !self.wants_placement() {
            return;
        }
        self.settle(at.wall, fx);
        let Some(body) = &self.body else { return };
        let tasks: Vec<TaskIdx> = (0..body.tasks.len() as u32)
            .map(TaskIdx)
            .filter(|t| {
                let row = &body.tasks[t.0 as usize];
                row.slice == NONE && !row.state.is_final()
            })
            .collect();
        let mut usable = nodes.to_vec();
        if usable.iter().any(|node| node.first_release)
            && let Err(why) = body.workflow.for_first_release()
        {
            for node in usable.iter_mut().filter(|node| node.first_release) {
                let name = &node.name;
                node.refused = Some(format!("{name} runs an older version, which {why}"));
            }
        }
        for node in &mut usable {
            if let Some(why) = self.head.refused_by.get(&node.id) {
                node.refused = Some(format!("{} refused it, {why}", node.name));
            }
        }
        let choice = choose(&Question {
            workflow: &body.workflow,
            deps: &body.deps,
            dependents: &body.dependents,
            tasks: &tasks,
            there: &self.whereabouts(body),
            nodes: &usable,
        });
        self.carry_out(at, &usable, &choice, fx);
        self.say_waiting(at, &choice);
        self.refresh(at.wall);
    }

    fn whereabouts(&self, body: &RunBody) -> BTreeMap<TaskIdx, NodeId> {
        let slices = &self.head.slices;
        let owner = |slice: u32| slices.get(slice as usize).filter(|s| s.counts());
        (0u32..)
            .zip(&body.tasks)
            .filter_map(|(t, row)| Some((TaskIdx(t), owner(row.slice)?.node)))
            .collect()
    }

    fn carry_out(&mut self, at: At<'_>, nodes: &[Candidate], choice: &Choice, fx: &mut Effects) {
        let mut by_node: BTreeMap<usize, Vec<TaskIdx>> = BTreeMap::new();
        let mut by_reason: BTreeMap<(usize, Reason), Vec<TaskIdx>> = BTreeMap::new();
        for (task, (node, reason)) in &choice.placed {
            by_node.entry(*node).or_default().push(*task);
            by_reason.entry((*node, *reason)).or_default().push(*task);
        }
        let usable = nodes.iter().filter(|n| n.refused.is_none()).count();
        for ((node, reason), tasks) in by_reason {
            let chosen = &nodes[node];
            let links = choice.links.get(&node).copied().unwrap_or(0);
            let evidence = vec![
                Evidence::new("node", &chosen.name),
                Evidence::new("online", chosen.online),
                Evidence::new("nodes_usable", usable),
                Evidence::new("tasks_together", tasks.len()),
                Evidence::new("links_there", links),
                Evidence::new("open_tasks_there", chosen.load),
                Evidence::new("cpu_milli", chosen.capacity.cpu_milli),
                Evidence::new("distrust_milli", chosen.distrust),
            ];
            let decision = rule(DecisionKind::Placed, reason, evidence);
            self.decide(at, ranges(tasks.into_iter()), None, decision);
        }
        for (node, tasks) in by_node {
            self.assign(at, &nodes[node], &tasks, fx);
        }
    }

    fn assign(&mut self, at: At<'_>, node: &Candidate, tasks: &[TaskIdx], fx: &mut Effects) {
        let number = self.head.slices.len() as u32;
        self.head.epochs += 1;
        if planted::on(Mistake::EpochPerSlice) {
            self.head.epochs = 1;
        }
        self.head.slices.push(Slice {
            epoch: Epoch::new(at.generation, self.head.epochs),
            node: node.id,
            incarnation: node.incarnation,
            stage: Stage::Assigned,
            open: 0,
            lost_after: None,
            cancelled: false,
            paused: self.head.pause.is_some(),
        });
        for task in tasks {
            self.own(*task, number);
        }
        self.time_slice(number);
        self.send_assign(number, fx);
        self.repeat_answers(number, fx);
    }

    /// Sends a slice to its node; the same slice twice is taken over once.
    pub(super) fn send_assign(&mut self, number: u32, fx: &mut Effects) {
        let Some(body) = &self.body else { return };
        let (node, incarnation) = {
            let slice = &self.head.slices[number as usize];
            (slice.node, slice.incarnation)
        };
        let (done, tasks): (Vec<TaskIdx>, Vec<TaskIdx>) = (0u32..)
            .zip(&body.tasks)
            .filter(|(_, row)| row.slice == number)
            .map(|(t, _)| TaskIdx(t))
            .partition(|t| body.tasks[t.0 as usize].state.is_final());
        if tasks.is_empty() {
            return;
        }
        let inside = |t: &TaskIdx| body.tasks[t.0 as usize].slice == number;
        let above: BTreeSet<TaskIdx> = tasks
            .iter()
            .flat_map(|t| &body.deps[t.0 as usize])
            .filter(|d| {
                (!inside(d) || done.contains(d)) && body.tasks[d.0 as usize].state.is_final()
            })
            .copied()
            .collect();
        let used = |t: &TaskIdx| (*t, body.tasks[t.0 as usize].used);
        let assign = Assign {
            slice: self.slice_ref(number),
            workflow_hash: self.head.hash,
            workflow: None,
            tasks: tasks.clone(),
            attempts_used: tasks.iter().map(used).filter(|(_, n)| *n > 0).collect(),
            done: Vec::new(),
            upstream: above.into_iter().map(|t| body.upstream(t)).collect(),
            paused: self.head.pause.is_some(),
        };
        let message = Message::Assign {
            incarnation,
            assign: Box::new(assign),
        };
        self.send(node, message, fx);
    }

    /// Says why tasks wait; said once, repeated by a counter.
    fn say_waiting(&mut self, at: At<'_>, choice: &Choice) {
        let mut by_why: BTreeMap<&str, Vec<TaskIdx>> = BTreeMap::new();
        for (task, why) in &choice.waiting {
            by_why.entry(why).or_default().push(*task);
        }
        if let Some((_, why)) = choice.waiting.first() {
            self.head.unplaced_why.clone_from(why);
        }
        for (why, tasks) in by_why {
            let evidence = vec![Evidence::new("why", why)];
            let decision = rule(DecisionKind::Held, Reason::WaitsForNode, evidence);
            self.decide(at, ranges(tasks.into_iter()), None, decision);
        }
    }

    /// Ends tasks on no node that can no longer start, and tells those who need them. Not while the
    /// run is held: they may be on a node that was not heard.
    pub fn settle(&mut self, wall: shared::time::Unix, fx: &mut Effects) {
        let mut ended = Vec::new();
        if self.head.held {
            return;
        }
        loop {
            let Some(body) = &self.body else { return };
            let done: Vec<(TaskIdx, TaskState, Reason)> = (0u32..)
                .zip(&body.tasks)
                .filter(|(_, row)| row.slice == NONE && !row.state.is_final())
                .filter_map(|(t, _)| {
                    let spec = &body.workflow.tasks[t as usize];
                    let state = |n: &TaskIdx| body.tasks[n.0 as usize].state;
                    let needs: Vec<TaskState> = spec.needs.iter().map(state).collect();
                    let (end, why) = super::rules::settled(spec.trigger_rule, &needs)?;
                    Some((TaskIdx(t), end, why))
                })
                .collect();
            if done.is_empty() {
                break;
            }
            for (task, state, reason) in done {
                self.set(task, state, Some(reason), wall);
                ended.push(task);
            }
        }
        self.tell(&ended, fx);
    }
}

/// A decision that a rule made.
#[must_use]
pub fn rule(action: DecisionKind, reason: Reason, evidence: Vec<Evidence>) -> Decision {
    Decision {
        action,
        reason,
        confidence_milli: 1000,
        evidence,
        repeats: 0,
    }
}
