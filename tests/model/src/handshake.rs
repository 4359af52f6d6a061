//! A machine dials: who may speak for a node, and whether the logs of both sides go together.

use crate::log::{Epoch, Kind};
use crate::promise::Promise;
use crate::rule::Rule;
use crate::sight::Sight;
use crate::state::{Disk, Held, Link, NODES, Node, Place, SLICES, Stage, node_of};
use crate::step::Step;

impl Step<'_> {
    /// A machine says hello. The coordinator's answer may be lost on the way.
    pub(crate) fn dial(&mut self, at: usize, welcome_lost: bool) {
        let node = node_of(at);
        let newcomer = self.state.machines[at].disk.incarnation == 0;
        let rule = if newcomer {
            Rule::ProbeBeforeReplace
        } else {
            Rule::ProbeBeforeTakeover
        };
        let original = self.state.linked(node).filter(|other| *other != at);
        if original.is_some() && self.has(rule) {
            self.quarantine(at);
            return;
        }
        let admitted = if newcomer {
            self.enrol(at);
            true
        } else {
            self.admit(at)
        };
        if admitted {
            self.note_original(at);
            self.welcome(at, welcome_lost);
        }
    }

    fn quarantine(&mut self, at: usize) {
        self.state.machines[at].waits = true;
        self.saw(Sight::Quarantined);
    }

    /// Another machine of the node whose connection is there is put out by this one.
    fn note_original(&mut self, at: usize) {
        for other in 0..self.state.machines.len() {
            if other == at || node_of(other) != node_of(at) || !self.state.machines[other].exists {
                continue;
            }
            match self.state.machines[other].link {
                Link::Live | Link::Forgotten => {
                    self.state.truth.breaks(Promise::OriginalStays);
                }
                Link::Down => self.saw(Sight::TookOver),
            }
        }
    }

    /// A token names the node: its old incarnation is closed, a new one begins.
    fn enrol(&mut self, at: usize) {
        self.close(node_of(at));
        self.begin_incarnation(at);
        self.saw(Sight::Replaced);
    }

    fn begin_incarnation(&mut self, at: usize) {
        self.state.truth.incarnations += 1;
        let incarnation = self.state.truth.incarnations;
        let branch = self.new_branch();
        let machine = &mut self.state.machines[at];
        machine.disk = Disk {
            incarnation,
            branch,
            ..Disk::default()
        };
        (machine.running, machine.sent) = (0, 0);
        self.store().nodes[node_of(at)].incarnation = incarnation;
    }

    /// Closes the node's incarnation: its slices are lost, and go on as their spec allows.
    fn close(&mut self, node: usize) {
        for slice in 0..SLICES {
            let owned = matches!(self.state.coordinator.store.places[slice],
                Place::Owned { node: owner, .. } if usize::from(owner) == node);
            if !owned {
                continue;
            }
            if slice == 0 && self.has(Rule::InDoubtWhenClosed) {
                self.store().places[slice] = Place::InDoubt;
                self.saw(Sight::InDoubtWhenClosed);
            } else if self.has(Rule::LostPlacedAgain) {
                self.store().places[slice] = Place::Unplaced;
            }
        }
        let known = &mut self.store().nodes[node];
        *known = Node {
            closed: known.closed | 1 << known.incarnation,
            ..Node::default()
        };
    }

    /// Nobody answers for the node: incarnation and logs decide.
    fn admit(&mut self, at: usize) -> bool {
        let node = node_of(at);
        let disk = self.state.machines[at].disk;
        let known = self.state.coordinator.store.nodes[node];
        if disk.incarnation != known.incarnation {
            let sealed = disk.acked > 0 || !disk.directives.is_empty();
            if known.closed & 1 << disk.incarnation != 0 {
                self.saw(Sight::ClosedCalled);
                self.quarantine(at);
                return false;
            }
            if !sealed {
                self.quarantine(at);
                return false;
            }
            self.close(node);
            self.store().nodes[node].incarnation = disk.incarnation;
            self.went_back(at);
        }
        let known = self.state.coordinator.store.nodes[node];
        let chain = self.has(Rule::Chain);
        let behind = disk.facts.len() < known.facts.len();
        if behind || (chain && !known.facts.is_prefix_of(&disk.facts)) {
            self.saw(Sight::Fenced);
            self.close(node);
            self.begin_incarnation(at);
            return false;
        }
        self.directives_agree(at)
    }

    fn directives_agree(&mut self, at: usize) -> bool {
        let node = node_of(at);
        let disk = self.state.machines[at].disk;
        let store = &self.state.coordinator.store;
        let known = store.nodes[node];
        let forked = if self.has(Rule::Chain) {
            !disk.directives.is_prefix_of(&known.directives)
        } else {
            disk.directives.len() > known.directives.len()
        };
        let acked = disk.acked > known.facts.len() || disk.acked_in > store.generation;
        if forked || acked {
            self.went_back(at);
        } else if disk.lies {
            if self.has(Rule::Seal) {
                self.saw(Sight::LiarDoubted);
                self.quarantine(at);
                return false;
            }
            self.state.truth.breaks(Promise::HeldForAReason);
            self.begin_hold();
        }
        if forked {
            self.reset(at);
        }
        true
    }

    /// A seal proves that this store went back.
    fn went_back(&mut self, at: usize) {
        if self.state.truth.unnoticed {
            self.saw(Sight::GoneBackNoticed);
        }
        self.state.truth.unnoticed = false;
        let store = &self.state.coordinator.store;
        if !self.has(Rule::NoticeGoneBack) {
            return;
        }
        if !store.hold {
            self.state.truth.starts += 1;
            self.new_generation();
            self.begin_hold();
        }
        self.store().heard &= !(1 << node_of(at));
    }

    /// Old runs stand still; who is there is asked for its inventory.
    pub(crate) fn begin_hold(&mut self) {
        let store = self.store();
        (store.hold, store.heard) = (true, 0);
        for node in 0..NODES {
            if let Some(machine) = self.state.linked(node) {
                self.hear(machine);
            }
        }
    }

    /// The directive log goes on from the node's last entry, with what stands now.
    fn reset(&mut self, at: usize) {
        let node = node_of(at);
        if !self.has(Rule::ResetKeeps) {
            self.stops_unmentioned(at);
        }
        let theirs = self.state.machines[at].disk.directives;
        self.store().nodes[node].directives = theirs;
        self.saw(Sight::DirectivesReset);
        for slice in 0..SLICES {
            let Place::Owned {
                node: owner,
                epoch,
                asked_back,
            } = self.state.coordinator.store.places[slice]
            else {
                continue;
            };
            let says = |kind| {
                let mut entries = theirs.entries();
                entries.any(|e| (e.kind(), e.slice(), e.epoch()) == (kind, slice, epoch))
            };
            if usize::from(owner) == node && !says(Kind::Assign) {
                self.direct(node, Kind::Assign, slice, epoch);
            }
            if usize::from(owner) == node && asked_back && !says(Kind::Release) {
                self.direct(node, Kind::Release, slice, epoch);
            }
        }
    }

    fn welcome(&mut self, at: usize, lost: bool) {
        let node = node_of(at);
        for other in 0..self.state.machines.len() {
            if other != at && node_of(other) == node {
                self.state.machines[other].hang_up();
            }
        }
        if lost {
            return;
        }
        self.state.coordinator.registry[node] = Some(at as u8);
        let have = self.state.coordinator.store.nodes[node].facts.len();
        let machine = &mut self.state.machines[at];
        machine.link = Link::Live;
        if self.world.rules.has(Rule::ResumeFromCursor) {
            machine.sent = have;
        }
        if self.state.coordinator.store.hold {
            self.hear(at);
        }
    }

    /// A node's inventory: what it knows better is taken over.
    fn hear(&mut self, at: usize) {
        let node = node_of(at);
        for slice in 0..SLICES {
            let held = self.state.machines[at].disk.held(slice);
            if let Some(held) = held.filter(|_| self.has(Rule::Inventory)) {
                self.adopt(slice, node, held);
            }
        }
        self.heard(at);
        self.fold();
    }

    /// A node whose inventory came is heard when the facts are back that were acknowledged to it;
    /// with the last one the hold ends.
    pub(crate) fn heard(&mut self, at: usize) {
        let node = node_of(at);
        let acked = self.state.machines[at].disk.acked;
        let facts = self.state.coordinator.store.nodes[node].facts.len();
        if facts < acked && self.has(Rule::HeardWithFacts) {
            return;
        }
        let store = self.store();
        store.heard |= 1 << node;
        if store.heard == (1 << NODES) - 1 {
            store.hold = false;
            self.saw(Sight::HoldEnded);
        }
    }

    fn adopt(&mut self, slice: usize, node: usize, held: Held) {
        let store = self.store();
        let known = store.newest[slice];
        if held.epoch <= known {
            return;
        }
        store.epochs = store.epochs.max(held.epoch.number());
        let unknown = known == Epoch::default() && store.places[slice] == Place::Unknown;
        self.own(slice, node, held.epoch);
        if let Place::Owned { asked_back, .. } = &mut self.store().places[slice] {
            *asked_back = held.asked_back || held.stage == Stage::Released;
        }
        if unknown {
            self.saw(Sight::Rebuilt);
        }
    }
}
