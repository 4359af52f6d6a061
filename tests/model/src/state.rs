//! The state of the modelled world: machines with disks, the coordinator, what is under way.

use crate::log::{Entry, Epoch, Kind, Log};

/// Nodes of the fleet.
pub(crate) const NODES: usize = 2;
/// Machines: one for each node, and one that comes to speak for the first node as well.
pub(crate) const MACHINES: usize = 3;
/// Slices of the one run. The first has side effects at most once, the second may run again and
/// may be replaced while its node is silent.
pub(crate) const SLICES: usize = 2;

/// The node that a machine speaks for.
pub(crate) fn node_of(machine: usize) -> usize {
    machine % NODES
}

/// What lies on a machine's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Disk {
    /// Zero before it was enrolled.
    pub(crate) incarnation: u8,
    /// Tells entries of this life of the disk from those of its copies.
    pub(crate) branch: u8,
    pub(crate) facts: Log,
    pub(crate) directives: Log,
    /// The newest sealed acknowledgement: number, and generation of the seal.
    pub(crate) acked: u8,
    pub(crate) acked_in: u8,
    /// What is also in a finished backup.
    pub(crate) safe: u8,
    /// Claims a directive that no coordinator gave.
    pub(crate) lies: bool,
}

/// How far the work of a slice is by its node's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Waiting,
    Started,
    Finished,
    InDoubt,
    Released,
}

/// A slice as its node holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) epoch: Epoch,
    pub(crate) stage: Stage,
    /// Whether it was asked back.
    pub(crate) asked_back: bool,
}

impl Disk {
    /// The state of a slice, folded from both logs.
    pub(crate) fn held(&self, slice: usize) -> Option<Held> {
        let mut held = None;
        for entry in self.directives.entries().filter(|e| e.slice() == slice) {
            match (entry.kind(), &mut held) {
                (Kind::Assign, _) => {
                    held = Some(Held {
                        epoch: entry.epoch(),
                        stage: Stage::Waiting,
                        asked_back: false,
                    });
                }
                (Kind::Release, Some(held)) if held.epoch == entry.epoch() => {
                    held.asked_back = true;
                }
                _ => {}
            }
        }
        let mut held = held?;
        for entry in self.facts.entries() {
            if entry.slice() == slice && entry.epoch() == held.epoch {
                held.stage = match entry.kind() {
                    Kind::Started => Stage::Started,
                    Kind::Finished => Stage::Finished,
                    Kind::InDoubt => Stage::InDoubt,
                    Kind::Released => Stage::Released,
                    Kind::Assign | Kind::Release | Kind::Hole => held.stage,
                };
            }
        }
        Some(held)
    }
}

/// What a machine knows of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Link {
    /// It dials.
    #[default]
    Down,
    /// A session, and the coordinator's side of it is there.
    Live,
    /// Its connection is there, but the coordinator's registry lost it.
    Forgotten,
}

/// A batch of facts under way: those behind `from` up to `to`. What is under way ends with its
/// session, and a log only grows during one, so the numbers tell the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Batch {
    pub(crate) from: u8,
    pub(crate) to: u8,
}

/// A gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Machine {
    pub(crate) exists: bool,
    pub(crate) disk: Disk,
    /// An older image of the disk.
    pub(crate) image: Option<Disk>,
    /// Slices whose processes run.
    pub(crate) running: u8,
    pub(crate) link: Link,
    /// Facts up to here were sent.
    pub(crate) sent: u8,
    /// Quarantined: a person decides.
    pub(crate) waits: bool,
    pub(crate) expired: bool,
    /// Its wall clock went back.
    pub(crate) clock_behind: bool,
    /// At most two batches, in any order.
    pub(crate) up_way: [Option<Batch>; 2],
    /// Directives up to this number are under way to it.
    pub(crate) directives_way: Option<u8>,
}

impl Machine {
    /// A session ended, and with it what was under way.
    pub(crate) fn hang_up(&mut self) {
        self.link = Link::Down;
        self.up_way = [None; 2];
        self.directives_way = None;
    }

    /// Whether a slice's process runs.
    pub(crate) fn runs(&self, slice: usize) -> bool {
        self.running & 1 << slice != 0
    }
}

/// A slice as the run knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Place {
    /// This store does not know it.
    #[default]
    Unknown,
    /// It waits for a node.
    Unplaced,
    /// A node owns it.
    Owned {
        node: u8,
        epoch: Epoch,
        asked_back: bool,
    },
    /// This outcome counts.
    Done(Entry),
    /// In doubt: a person decides.
    InDoubt,
}

/// A node as the coordinator's store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Node {
    pub(crate) incarnation: u8,
    /// Incarnations that were closed, one bit each.
    pub(crate) closed: u8,
    pub(crate) facts: Log,
    pub(crate) directives: Log,
    /// Facts up to here are committed: all of them, unless that rule is out.
    pub(crate) durable: u8,
    /// Facts up to here are in a finished backup.
    pub(crate) safe: u8,
}

/// What the coordinator commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Store {
    pub(crate) generation: u8,
    /// Number of the last epoch.
    pub(crate) epochs: u8,
    pub(crate) places: [Place; SLICES],
    /// The newest epoch of each slice that this store knows.
    pub(crate) newest: [Epoch; SLICES],
    pub(crate) nodes: [Node; NODES],
    pub(crate) hold: bool,
    /// Nodes that were heard since the hold began, one bit each.
    pub(crate) heard: u8,
}

/// The coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Coordinator {
    pub(crate) store: Store,
    pub(crate) backup: Option<Store>,
    /// The machine at the other end of each node's session.
    pub(crate) registry: [Option<u8>; NODES],
    /// Connections that broke and whose end was not seen yet, one bit for each node.
    pub(crate) broken: u8,
    /// Runs the version before, which does not know the newest kind of fact.
    pub(crate) old_version: bool,
}

/// What no side knows: only the checks read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Truth {
    /// Epochs under which processes began, for each slice and node.
    pub(crate) begun: [[u64; NODES]; SLICES],
    /// Slices that were placed or moved after the store went back and before anything told it so:
    /// they may run twice.
    pub(crate) blind: u8,
    /// The outcome of each slice that counted first.
    pub(crate) counted: [Option<Entry>; SLICES],
    /// The second slice was submitted.
    pub(crate) submitted: bool,
    /// A disk was copied or put back: its machine may repeat what it did since.
    pub(crate) disk_accident: bool,
    /// The store went back, announced or not.
    pub(crate) went_back: bool,
    /// The store went back and has not noticed it.
    pub(crate) unnoticed: bool,
    /// The last branch that was given to a disk, and the last incarnation.
    pub(crate) branches: u8,
    pub(crate) incarnations: u8,
    /// Starts of the coordinator: its wall clock, and what tells its lives apart.
    pub(crate) starts: u8,
    /// Faults so far, and which kinds.
    pub(crate) faults: u8,
    pub(crate) kinds: u32,
    /// Promises that a step broke, one bit each.
    pub(crate) broken: u16,
}

/// The world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) machines: [Machine; MACHINES],
    pub(crate) coordinator: Coordinator,
    pub(crate) truth: Truth,
}

impl State {
    /// Both machines are enrolled, in session, and know nothing yet; the first slice waits for a
    /// node.
    pub(crate) fn first() -> Self {
        let mut machines = [Machine::default(); MACHINES];
        let mut coordinator = Coordinator::default();
        coordinator.store.places[0] = Place::Unplaced;
        for (at, machine) in machines.iter_mut().enumerate().take(NODES) {
            machine.exists = true;
            machine.link = Link::Live;
            machine.disk.incarnation = 1;
            coordinator.store.nodes[at].incarnation = 1;
            coordinator.registry[at] = Some(at as u8);
        }
        let truth = Truth {
            incarnations: 1,
            ..Truth::default()
        };
        Self {
            machines,
            coordinator,
            truth,
        }
    }

    /// The machine at the other end of a node's session.
    pub(crate) fn linked(&self, node: usize) -> Option<usize> {
        self.coordinator.registry[node].map(usize::from)
    }

    /// The same with the two nodes' names exchanged: the protocol does not tell them apart.
    pub(crate) fn swapped(&self) -> Option<Self> {
        if self.machines[2].exists {
            return None;
        }
        let mut other = *self;
        other.machines.swap(0, 1);
        other.coordinator.store.swap();
        if let Some(backup) = &mut other.coordinator.backup {
            backup.swap();
        }
        let registry = &mut other.coordinator.registry;
        registry.swap(0, 1);
        for at in registry.iter_mut().flatten() {
            *at = 1 - *at;
        }
        other.coordinator.broken = swap_bits(other.coordinator.broken);
        for begun in &mut other.truth.begun {
            begun.swap(0, 1);
        }
        Some(other)
    }
}

fn swap_bits(bits: u8) -> u8 {
    bits << 1 & 2 | bits >> 1 & 1
}

impl Store {
    fn swap(&mut self) {
        self.nodes.swap(0, 1);
        self.heard = swap_bits(self.heard);
        for place in &mut self.places {
            if let Place::Owned { node, .. } = place {
                *node = 1 - *node;
            }
        }
    }
}
