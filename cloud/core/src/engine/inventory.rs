//! Inventories: what nodes have, after this store lost part of what it knew.
//!
//! One that comes in parts is taken run by run, each as soon as all of it is here. Its node counts
//! as heard with its last part at the earliest ([`crate::node::Node::tell_heard`]); a session that
//! ends before is asked for all of it again, which changes nothing where it says the same.

use super::Engine;
use crate::inbox::{Message, Recall};
use crate::run::Run;
use crate::store::{AggregateId, Store};
use shared::codec;
use shared::directive::{Body, Directive};
use shared::fact::SliceState;
use shared::ids::{Hash, NodeId, RunId, SliceRef};
use shared::inventory::{InventoryPart, Item, PartError, Reader, RunState};
use shared::wire::{Inventory, LogId};
use std::collections::{BTreeMap, BTreeSet};

/// An inventory of which parts are here. It ends with its session.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    reader: Reader,
    /// The workflow that was told last.
    workflow: Option<(Hash, Vec<u8>)>,
    told: Told,
}

/// What an inventory has said so far.
#[derive(Debug, Clone, Default)]
struct Told {
    /// Runs that it was about.
    runs: BTreeSet<RunId>,
    /// Somebody asked again for what it had said already.
    again: bool,
}

impl Incoming {
    fn new(session: u64) -> Self {
        Self {
            reader: Reader::new(session),
            workflow: None,
            told: Told::default(),
        }
    }

    /// Somebody asks for the inventory while it comes. A run that it was not about yet will hear;
    /// and a node asks since its facts have a hole, which was there before this inventory.
    pub(super) fn asked_by(&mut self, from: AggregateId) {
        self.told.again |= match from {
            AggregateId::Run(run) => self.told.runs.contains(&run),
            AggregateId::Node(_) => false,
            _ => true,
        };
    }
}

impl<S: Store> Engine<S> {
    /// Everything in one message.
    pub(super) fn inventory(&mut self, node: NodeId, inventory: Inventory) {
        let known = self.nodes.get(&node).filter(|n| n.inventory_wanted);
        let Some(log) = known.and_then(|known| known.log(node)) else {
            return;
        };
        let mut packed = BTreeMap::new();
        for bytes in inventory.workflows {
            if let Ok((_, hash)) = codec::unpack(&bytes) {
                packed.insert(hash, bytes);
            }
        }
        let mut by_run: BTreeMap<RunId, RunState> = BTreeMap::new();
        for state in inventory.slices {
            let run = state.slice.run;
            state_of(&mut by_run, run).slices.push(state);
        }
        for directive in inventory.directives {
            if let Body::Cancel { run, .. } | Body::Pause { run, .. } = directive.body {
                state_of(&mut by_run, run).directives.push(directive);
            }
        }
        let mut told = Told::default();
        for state in by_run.into_values() {
            let hash = state.slices.first().map(|slice| slice.workflow);
            let workflow = hash.and_then(|hash| packed.get(&hash));
            self.run_told(log, state, workflow.map(Vec::as_slice), &mut told);
        }
        self.inventory_ends(log, &told);
    }

    /// The next part of it.
    ///
    /// # Errors
    /// [`PartError`]: the part changes nothing, and its session is at an end.
    pub(super) fn inventory_part(
        &mut self,
        node: NodeId,
        part: &InventoryPart,
    ) -> Result<(), PartError> {
        let known = self.nodes.get(&node).filter(|n| n.inventory_wanted);
        let log = known.and_then(|known| known.log(node));
        let link = self.links.entry(node).or_default();
        let live = link.live.as_mut().filter(|_| link.asked);
        let (Some(log), Some(live)) = (log, live) else {
            return Err(PartError::Unasked(part.part));
        };
        let fresh = Incoming::new(live.session);
        let mut incoming = live.incoming.take().unwrap_or(fresh);
        let items = incoming.reader.take(part)?;
        let mut here = BTreeSet::new();
        for item in &items {
            if let Item::Run(state) = item {
                let twice = incoming.told.runs.contains(&state.run) || !here.insert(state.run);
                let other = |slice: &SliceState| slice.slice.run != state.run;
                if twice || state.slices.iter().any(other) {
                    return Err(PartError::Run(state.run));
                }
            }
        }
        for item in items {
            match item {
                Item::Workflow(bytes) => {
                    let hash = codec::unpack(&bytes).map(|(_, hash)| hash);
                    incoming.workflow = hash.ok().map(|hash| (hash, bytes));
                }
                Item::Run(state) => {
                    let hash = state.slices.first().map(|slice| slice.workflow);
                    let known = incoming.workflow.as_ref();
                    let known = known.filter(|(known, _)| Some(*known) == hash);
                    let packed = known.map(|(_, bytes)| bytes.as_slice());
                    self.run_told(log, state, packed, &mut incoming.told);
                }
            }
        }
        if part.last {
            self.inventory_ends(log, &incoming.told);
        } else if let Some(live) = self.links.entry(node).or_default().live.as_mut() {
            live.incoming = Some(incoming);
        }
        Ok(())
    }

    /// What a node has of one run. One of which it has nothing hears of it only if it waits.
    fn run_told(&mut self, log: LogId, state: RunState, packed: Option<&[u8]>, told: &mut Told) {
        let RunState {
            run,
            mut slices,
            directives,
        } = state;
        slices.retain(|state| self.may_claim(log, state.slice));
        if slices.is_empty() && !self.waits_for(log, run) {
            return;
        }
        told.runs.insert(run);
        let Some(known) = self.nodes.get_mut(&log.node) else {
            return;
        };
        for state in &slices {
            let slice = state.slice;
            let epoch = known.slices.entry((run, slice.slice)).or_default();
            *epoch = slice.epoch.max(*epoch);
        }
        let fx = self.effects.entry(AggregateId::Node(log.node)).or_default();
        // a run that is known has its workflow
        let unknown = self.runs.get(&run).is_none_or(|run| !run.head.known);
        let workflow = packed.filter(|_| unknown).map(<[u8]>::to_vec);
        let message = Message::Inventory {
            log,
            slices,
            workflow,
        };
        fx.send(&mut known.post, AggregateId::Run(run), message);
        // behind its slices, which may say that it was let run again
        for asked in recalled(run, directives) {
            fx.send(&mut known.post, AggregateId::Run(run), asked);
        }
    }

    /// Whether a node's word that a slice is its own is taken: it was given it, or this store may
    /// have forgotten that. Else any node could take what others have by naming newer epochs.
    fn may_claim(&self, log: LogId, slice: SliceRef) -> bool {
        let Some(run) = self.runs.get(&slice.run) else {
            return true;
        };
        let head = &run.head;
        let known = head.slices.get(slice.slice as usize);
        let given = known.is_some_and(|s| s.epoch == slice.epoch && s.node == log.node);
        let forgot = self.fleet.hold.is_some() || run.may_have_forgotten();
        let word = self.nodes.get(&log.node).is_some_and(|n| n.word_taken);
        given || forgot || word || head.origin == Some(log.node)
    }

    /// Whether a run is to hear of an inventory that is not about it: it has slices there, is held,
    /// or keeps facts of this node back until the inventory is here.
    fn waits_for(&self, log: LogId, run: RunId) -> bool {
        let known = self.nodes.get(&log.node);
        let waits = |run: &Run| run.head.held || run.head.kept.iter().any(|(of, ..)| *of == log);
        known.is_some_and(|node| node.has_slices(run)) || self.runs.get(&run).is_some_and(waits)
    }

    /// All was heard: runs that it was not about and that wait hear that nothing is there.
    fn inventory_ends(&mut self, log: LogId, told: &Told) {
        let node = log.node;
        let Some(known) = self.nodes.get(&node) else {
            return;
        };
        let here = known.slices.keys().map(|(run, _)| *run);
        let all: BTreeSet<RunId> = self.runs.keys().copied().chain(here).collect();
        for run in all.difference(&told.runs) {
            let nothing = RunState {
                run: *run,
                slices: Vec::new(),
                directives: Vec::new(),
            };
            self.run_told(log, nothing, None, &mut Told::default());
        }
        let link = self.links.entry(node).or_default();
        link.asked = false;
        if let Some(live) = &mut link.live {
            live.incoming = None;
        }
        if told.again {
            self.ask_again(node, AggregateId::Node(node));
            return;
        }
        let fx = self.effects.entry(AggregateId::Node(node)).or_default();
        if let Some(known) = self.nodes.get_mut(&node) {
            (known.inventory_wanted, known.word_taken) = (false, false);
            known.tell_heard(node, fx);
        }
    }
}

fn state_of(all: &mut BTreeMap<RunId, RunState>, run: RunId) -> &mut RunState {
    all.entry(run).or_insert_with(|| RunState {
        run,
        slices: Vec::new(),
        directives: Vec::new(),
    })
}

/// What persons had asked of a run, as directives say it that this store may have forgotten.
fn recalled(run: RunId, directives: Vec<Directive>) -> impl Iterator<Item = Message> {
    directives.into_iter().filter_map(move |directive| {
        let (asked, by, why) = match directive.body {
            Body::Cancel { by, why, .. } => (Recall::Cancel, by, why),
            Body::Pause { on: true, by, .. } => (Recall::Pause, by, String::new()),
            Body::Pause { on: false, by, .. } => (Recall::Resume, by, String::new()),
            _ => return None,
        };
        Some(Message::Recalled {
            run,
            asked,
            at: directive.at,
            by,
            why,
        })
    })
}
