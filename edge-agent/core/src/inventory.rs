//! What this node tells a coordinator that lost part of its store: everything that it has, in parts
//! that are made one by one as the link takes them, or in one message for a coordinator of an
//! earlier version.
//!
//! A run is told as it is when its turn comes; runs that came meanwhile are not told, since the
//! coordinator placed them after it had asked, and facts tell of those that were begun here.

use crate::agent::Agent;
use crate::link::Phase;
use crate::state::SliceKey;
use shared::directive::{Body, Directive};
use shared::fact::SliceState;
use shared::ids::{Hash, RunId};
use shared::inventory::{InventoryPart, Item, RunState};
use shared::wire::{Inventory, Up};
use std::collections::BTreeMap;

/// An inventory on its way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    session: u64,
    /// Number of the next part.
    part: u32,
    /// The link has not taken the part before yet.
    waits: bool,
    /// Runs that are not told yet, the next one last.
    runs: Vec<RunId>,
    /// What persons asked of them.
    directives: BTreeMap<RunId, Vec<Directive>>,
    /// The workflow that was told last.
    workflow: Option<Hash>,
    /// What did not fit into the part before.
    rest: Vec<u8>,
}

impl Agent {
    /// The slices as this node sees them.
    pub(crate) fn slice_states(&self) -> Vec<SliceState> {
        let all = (RunId::default(), 0)..=(RunId([u8::MAX; 16]), u32::MAX);
        let keys = self.state.keys(all).into_iter();
        keys.filter_map(|at| self.state.slice_state(at)).collect()
    }

    /// Everything in one message.
    pub(crate) fn inventory(&self, directives: Vec<Directive>) -> Up {
        let known = self.state.known_workflows().into_iter();
        Up::Inventory(Inventory {
            slices: self.slice_states(),
            workflows: known
                .filter_map(|hash| self.state.packed_workflow(hash))
                .collect(),
            directives,
        })
    }

    /// The inventory is to be told in parts, with what persons asked.
    pub(crate) fn begin_inventory(&mut self, session: u64, asked: Vec<Directive>) {
        let mut directives: BTreeMap<RunId, Vec<Directive>> = BTreeMap::new();
        for directive in asked {
            if let Body::Cancel { run, .. } | Body::Pause { run, .. } = directive.body {
                directives.entry(run).or_default().push(directive);
            }
        }
        // Runs of one workflow stand together, so that it is told once; at the end those of which
        // nothing is here.
        let mut first: BTreeMap<RunId, SliceKey> = BTreeMap::new();
        for at in self.state.slices.keys().chain(self.state.resting.keys()) {
            let known = first.entry(at.0).or_insert(*at);
            *known = (*at).min(*known);
        }
        let mut runs: Vec<(bool, Option<Hash>, RunId)> = first
            .iter()
            .map(|(run, at)| (false, self.state.hash_of(*at), *run))
            .collect();
        let only_asked = directives.keys().filter(|run| !first.contains_key(run));
        runs.extend(only_asked.map(|run| (true, None, *run)));
        runs.sort_unstable_by(|one, other| other.cmp(one));
        self.link.inventory = Some(Outgoing {
            session,
            part: 0,
            waits: false,
            runs: runs.into_iter().map(|(.., run)| run).collect(),
            directives,
            workflow: None,
            rest: Vec::new(),
        });
    }

    pub(crate) fn on_part_taken(&mut self, session: u64) {
        let out = self.link.inventory.as_mut();
        if let Some(out) = out.filter(|out| out.session == session) {
            out.waits = false;
        }
    }

    /// The next part, if one is due.
    pub(crate) fn next_part(&mut self) -> Option<InventoryPart> {
        let phase = self.link.phase;
        let due = |out: &mut Outgoing| !out.waits && phase == Phase::Online(out.session);
        let mut out = self.link.inventory.take_if(due)?;
        let size = self.config.inventory_part;
        while out.rest.len() < size
            && let Some(run) = out.runs.pop()
        {
            self.tell_run(run, &mut out);
        }
        let behind = out.rest.split_off(size.min(out.rest.len()));
        let part = InventoryPart {
            session: out.session,
            part: out.part,
            last: behind.is_empty() && out.runs.is_empty(),
            bytes: std::mem::replace(&mut out.rest, behind),
        };
        if !part.last {
            out.part += 1;
            out.waits = true;
            self.link.inventory = Some(out);
        }
        Some(part)
    }

    /// Puts a run, and its workflow where that is another one than that of the run before, behind
    /// what is to be sent.
    fn tell_run(&self, run: RunId, out: &mut Outgoing) {
        let keys = self.state.keys((run, 0)..=(run, u32::MAX)).into_iter();
        let mut slices: Vec<SliceState> =
            keys.filter_map(|at| self.state.slice_state(at)).collect();
        let tasks = slices.iter_mut().flat_map(|slice| &mut slice.tasks);
        tasks.for_each(|task| task.outputs.clear());
        let directives = out.directives.remove(&run).unwrap_or_default();
        if slices.is_empty() && directives.is_empty() {
            return; // it went meanwhile
        }
        let hash = slices.first().map(|slice| slice.workflow);
        if let Some(hash) = hash.filter(|hash| out.workflow != Some(*hash))
            && let Some(packed) = self.state.packed_workflow(hash)
        {
            Item::Workflow(packed).put(&mut out.rest);
            out.workflow = Some(hash);
        }
        let told = RunState {
            run,
            slices,
            directives,
        };
        Item::Run(told).put(&mut out.rest);
    }
}
