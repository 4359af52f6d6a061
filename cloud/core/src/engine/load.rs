//! From the store into memory: all heads at open, a run's body when it is touched.

use super::{At, Engine, NodeLink, at};
use crate::effects::Effects;
use crate::fleet::Fleet;
use crate::inbox::Message;
use crate::keep::{NAMED, NamedRow};
use crate::node::Node;
use crate::record::Head;
use crate::run::{Decided, Run, RunBody, RunHead, TaskRow};
use crate::schedule::Schedule;
use crate::store::{AggregateId, RESTORED, RESTORED_WITHOUT, Store, StoreError};
use shared::codec::decode_extended;
use shared::ids::{Hash, NodeId, RunId};
use shared::planted::{self, Mistake};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("{what} cannot be read"))
}

impl<S: Store> Engine<S> {
    /// Replaces all that is in memory by what is stored.
    pub(super) fn load(&mut self) -> Result<(), StoreError> {
        let (mut fleet, mut nodes, mut runs) = (Fleet::default(), BTreeMap::new(), BTreeMap::new());
        let (mut versions, mut bad) = (BTreeMap::new(), None);
        let mut record = Head::default();
        let mut schedules = BTreeMap::new();
        self.store.aggregates(&mut |id, version, head| {
            versions.insert(id, version);
            let read = match id {
                AggregateId::Fleet => decode_extended(head).map(|f| fleet = f).is_ok(),
                AggregateId::Record => shared::codec::decode(head).map(|h| record = h).is_ok(),
                AggregateId::Node(node) => decode_extended::<Node>(head)
                    .map(|n| nodes.insert(node, n))
                    .is_ok(),
                AggregateId::Schedule(id) => decode_extended::<Schedule>(head)
                    .map(|schedule| schedules.insert(id, schedule))
                    .is_ok(),
                AggregateId::Run(id) => decode_extended::<RunHead>(head)
                    .ok()
                    .filter(RunHead::counts_fit)
                    .map(|head| {
                        let body = None;
                        runs.insert(id, Run { id, head, body })
                    })
                    .is_some(),
            };
            if !read {
                bad = Some(id);
            }
        })?;
        if let Some(id) = bad {
            return Err(damaged(&format!("the state of {id:?}")));
        }
        self.versions = versions;
        self.fleet = fleet;
        self.nodes = nodes;
        self.runs = runs;
        self.schedules = schedules;
        self.load_schedules()?;
        self.load_rest(record)
    }

    fn load_rest(&mut self, record: Head) -> Result<(), StoreError> {
        let mut files = BTreeMap::new();
        self.store
            .rows(AggregateId::Fleet, "f", &mut |name, bytes| {
                let hash = name[1..].parse::<Hash>();
                if let (Ok(hash), Ok(size)) = (hash, shared::codec::decode(bytes)) {
                    files.insert(hash, size);
                }
            })?;
        self.files = files;
        let (mut inbox, mut bad) = (BTreeMap::new(), None);
        self.store.inboxes(
            &mut |to, from, number, bytes| match shared::codec::decode::<Message>(bytes) {
                Ok(message) => {
                    let list: &mut BTreeMap<_, _> = inbox.entry(to).or_default();
                    list.insert((from, number), message);
                }
                Err(_) => bad = Some((to, from, number)),
            },
        )?;
        if let Some(id) = bad {
            return Err(damaged(&format!("the message {id:?}")));
        }
        self.inbox = inbox;
        self.links = self
            .nodes
            .iter()
            .map(|(id, node)| {
                let link = NodeLink {
                    heard: self.now.mono,
                    heard_wall: node.heard,
                    ahead: node.facts.number,
                    ..NodeLink::default()
                };
                (*id, link)
            })
            .collect();
        self.find_drained();
        self.lost_after.clear();
        self.refused.clear();
        self.ended.clear();
        self.unknown.clear();
        self.tombstones.clear();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let mut named = BTreeMap::new();
            self.store
                .rows(AggregateId::Node(id), NAMED, &mut |_, bytes| {
                    if let Ok((life, run, first)) = shared::codec::decode::<NamedRow>(bytes) {
                        named.insert((life, run), first);
                    }
                })?;
            if let Some(node) = self.nodes.get_mut(&id) {
                node.named = named;
            }
        }
        self.load_record(record)?;
        for id in self.runs.keys().copied().collect::<Vec<_>>() {
            self.watch_run(AggregateId::Run(id));
        }
        Ok(())
    }

    /// Loads a run's workflow and tasks, if it has some and they are not loaded.
    pub(super) fn load_body(&mut self, id: RunId) -> Result<(), StoreError> {
        let Some(run) = self.runs.get_mut(&id) else {
            return Ok(());
        };
        if run.body.is_some() || !run.head.known {
            return Ok(());
        }
        let key = AggregateId::Run(id);
        let packed = self.store.row(key, "w")?;
        let packed = packed.ok_or_else(|| damaged(&format!("the workflow of run {id}")))?;
        let (definition, ..) = self
            .definitions
            .unpack(&packed)
            .map_err(|error| StoreError::Damaged(format!("the workflow of run {id}: {error}")))?;
        let (mut tasks, mut decisions) = (Vec::new(), VecDeque::new());
        let mut good = true;
        self.store.rows(
            key,
            "t",
            &mut |_, bytes| match shared::codec::decode::<Vec<TaskRow>>(bytes) {
                Ok(chunk) => tasks.extend(chunk),
                Err(_) => good = false,
            },
        )?;
        self.store.rows(
            key,
            "d",
            &mut |_, bytes| match shared::codec::decode::<Vec<Decided>>(bytes) {
                Ok(chunk) => decisions.extend(chunk),
                Err(_) => good = false,
            },
        )?;
        let n = definition.workflow.tasks.len();
        let mut named = run.head.named_tasks();
        if !good || tasks.len() != n || named.any(|task| task.0 as usize >= n) {
            return Err(damaged(&format!("the tasks of run {id}")));
        }
        run.body = Some(RunBody::new(definition, tasks, decisions));
        Ok(())
    }

    /// One step of a run: loads it, does it, and remembers to place what the step left without a
    /// node.
    pub(super) fn step_run<R>(
        &mut self,
        id: RunId,
        step: impl FnOnce(&mut Run, At<'_>, &mut Effects) -> R,
    ) -> Result<Option<R>, StoreError> {
        self.load_body(id)?;
        let at = at!(self);
        let Some(run) = self.runs.get_mut(&id) else {
            return Ok(None);
        };
        let before = run.head.unplaced;
        let stood = run.head.held || run.head.retry.is_some();
        let fx = self.effects.entry(AggregateId::Run(id)).or_default();
        let result = step(run, at, fx);
        run.go_on_with_retry(at, fx);
        if run.wants_placement() && (run.head.unplaced != before || stood) {
            self.plan.insert(id);
        }
        if run.wants_shares() {
            self.plan.insert(id);
        }
        Ok(Some(result))
    }

    /// Old runs stand still if the store says that it was restored.
    pub(super) fn begin_restored_hold(&mut self) -> Result<(), StoreError> {
        let Some(why) = self.store.row(AggregateId::Fleet, RESTORED)? else {
            return Ok(());
        };
        let why = String::from_utf8_lossy(&why).into_owned();
        let accepted = self.store.row(AggregateId::Fleet, RESTORED_WITHOUT)?;
        let accepted: Vec<NodeId> = accepted
            .map(|bytes| shared::codec::decode(&bytes).map_err(|_| damaged("a restore's row")))
            .transpose()?
            .unwrap_or_default();
        self.begin_hold(0, &why);
        for node in accepted {
            self.heard_since_hold(Some(node));
        }
        let fx = self.effects.entry(AggregateId::Fleet).or_default();
        fx.rows.push((RESTORED.to_owned(), None));
        fx.rows.push((RESTORED_WITHOUT.to_owned(), None));
        Ok(())
    }

    /// The store went back: a new generation; what was known stands still until all nodes were
    /// heard.
    pub(super) fn begin_hold(&mut self, seen: u64, why: &str) {
        let nodes: BTreeSet<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.forgotten.is_none())
            .map(|(id, _)| *id)
            .collect();
        let runs: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, r)| !r.head.state.is_final() && r.head.gone.is_none())
            .filter(|_| !planted::on(Mistake::NoHold))
            .map(|(id, _)| *id)
            .collect();
        let fx = self.effects.entry(AggregateId::Fleet).or_default();
        self.fleet
            .begin_hold((self.now.wall, why), seen, nodes, &runs, fx);
        // each is asked for its inventory, so this is stored with that
        for node in self.nodes.values_mut() {
            node.held_from = (node.facts.number, node.facts_at.map(|at| at.wall));
        }
        for run in runs {
            if let Some(run) = self.runs.get_mut(&run) {
                run.head.held = true;
                run.head.went_back = self.fleet.generation;
                run.refresh(self.now.wall);
            }
        }
        let nobody = self.fleet.hold.as_ref().is_some_and(|h| h.nodes.is_empty());
        if nobody {
            self.heard_since_hold(None);
        }
    }

    /// Runs that stand still.
    pub(super) fn held_runs(&self) -> Vec<RunId> {
        let held = self.runs.iter().filter(|(_, r)| r.head.held);
        held.map(|(id, _)| *id).collect()
    }
}
