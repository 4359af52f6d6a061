//! What a step does: each action to the state that follows it.

use crate::action::{Action, Fault};
use crate::log::{Entry, Epoch, Kind};
use crate::promise::Promise;
use crate::rule::Rule;
use crate::sight::Sight;
use crate::state::{
    Batch, Coordinator, Disk, Link, MACHINES, Machine, NODES, Place, SLICES, Stage, State, Store,
    node_of,
};
use crate::world::{World, is_restore};

/// A state on its way to the next one.
pub(crate) struct Step<'a> {
    pub(crate) world: &'a World,
    pub(crate) state: State,
    pub(crate) sights: u32,
}

impl World {
    /// The state after an action that was possible, and what it reached.
    pub(crate) fn step(&self, state: &State, action: Action) -> (State, u32) {
        let mut step = Step {
            world: self,
            state: *state,
            sights: 0,
        };
        step.take(action);
        step.settle();
        (step.state, step.sights)
    }
}

impl Step<'_> {
    fn take(&mut self, action: Action) {
        if let Action::Assign(s, _) | Action::AskBack(s) | Action::Replace(s) = action
            && self.state.truth.unnoticed
        {
            self.state.truth.blind |= 1 << s;
        }
        match action {
            Action::Assign(s, n) => self.assign(s, n),
            Action::AskBack(s) => self.ask_back(s),
            Action::Replace(s) => self.store().places[s] = Place::Unplaced,
            Action::Backup => self.backup(),
            Action::Image(m) => self.state.machines[m].image = Some(self.state.machines[m].disk),
            Action::Upgrade => self.upgrade(),
            Action::Renew(m) => {
                self.state.machines[m].expired = false;
                self.saw(Sight::Renewed);
            }
            Action::HangUp(m) => self.hang_up(m),
            Action::Dial(m) => self.dial(m, false),
            Action::FactsArrive(m, slot) => {
                if let Some(batch) = self.state.machines[m].up_way[slot].take() {
                    self.record(m, batch, true);
                }
            }
            Action::DirectivesArrive(m) => {
                if let Some(until) = self.state.machines[m].directives_way.take() {
                    self.apply_directives(m, until);
                }
            }
            Action::Begin(m, s) => self.begin(m, s),
            Action::CommitStarted(m, s) => self.fact(m, Kind::Started, s),
            Action::Finish(m, s) => {
                self.fact(m, Kind::Finished, s);
                self.state.machines[m].running &= !(1 << s);
            }
            Action::CommitFacts(n) => {
                let node = &mut self.store().nodes[n];
                node.durable = node.facts.len();
            }
            Action::Fault(fault) => self.strike(fault),
        }
    }

    /// What follows at once, because when it happens makes no difference: what can be sent is under
    /// way, what is asked back is given back, and what no accident can use any more is forgotten.
    fn settle(&mut self) {
        for at in 0..MACHINES {
            if self.state.machines[at].exists {
                self.give_back(at);
            }
            if self.state.machines[at].link == Link::Live {
                self.send(at);
            }
        }
        if !self.world.may_strike(&self.state, is_restore) {
            self.state.coordinator.backup = None;
        }
        let is_back = |fault| matches!(fault, Fault::DiskWentBack(_));
        if !self.world.may_strike(&self.state, is_back) {
            for machine in &mut self.state.machines {
                machine.image = None;
            }
        }
        let is_late = |fault| matches!(fault, Fault::LateTeardown(_));
        if !self.world.may_strike(&self.state, is_late) {
            self.state.coordinator.broken = 0;
        }
    }

    /// A slice that was asked back is given back; what is at most once and began is ended first.
    fn give_back(&mut self, at: usize) {
        for slice in 0..SLICES {
            let Some(held) = self.state.machines[at].disk.held(slice) else {
                continue;
            };
            let may = match held.stage {
                Stage::Waiting => !self.state.machines[at].runs(slice),
                Stage::Started => slice == 1,
                _ => false,
            };
            if held.asked_back && may {
                self.fact(at, Kind::Released, slice);
                self.state.machines[at].running &= !(1 << slice);
            }
        }
    }

    /// Batches go out as long as there is room for them.
    fn send(&mut self, at: usize) {
        let resumes = self.has(Rule::ResumeFromCursor);
        let known = &self.state.coordinator.store.nodes[node_of(at)];
        let (have, directives) = (known.facts.len(), known.directives.len());
        let machine = &mut self.state.machines[at];
        // what was lost is asked for when nothing is under way any more
        if machine.up_way == [None; 2] && machine.sent > have && resumes {
            machine.sent = have;
        }
        let head = machine.disk.facts.len();
        if machine.sent < head
            && let Some(slot) = machine.up_way.iter_mut().find(|slot| slot.is_none())
        {
            *slot = Some(Batch {
                from: machine.sent,
                to: head,
            });
            machine.sent = head;
        }
        machine
            .up_way
            .sort_unstable_by_key(|batch| (batch.is_none(), *batch));
        if machine.directives_way.is_none() && machine.disk.directives.len() < directives {
            machine.directives_way = Some(directives);
        }
    }

    fn strike(&mut self, fault: Fault) {
        self.state.truth.faults += 1;
        self.state.truth.kinds |= self.world.kind_bits(fault);
        match fault {
            Fault::Crash(m) => self.crash(m),
            Fault::DiskWentBack(m) => self.disk_back(m),
            Fault::DiskCopied => {
                let disk = self.state.machines[0].disk;
                self.second_machine(disk);
                self.state.truth.disk_accident = true;
                self.start(2);
            }
            Fault::Reimaged => self.second_machine(Disk::default()),
            Fault::CoordinatorCrash => self.restart(None),
            Fault::Restored => {
                self.restart(self.state.coordinator.backup);
                self.state.truth.went_back = true;
                self.begin_hold();
            }
            Fault::WentBack => {
                self.restart(self.state.coordinator.backup);
                self.state.truth.went_back = true;
                self.state.truth.unnoticed = true;
            }
            Fault::OldVersion => self.state.coordinator.old_version = true,
            Fault::LinkLost(m) => self.hang_up(m),
            Fault::WelcomeLost(m) => self.dial(m, true),
            Fault::LateTeardown(n) => self.late_teardown(n),
            Fault::FactsLost(m, slot) => self.state.machines[m].up_way[slot] = None,
            Fault::FactsTwice(m, slot) => {
                if let Some(batch) = self.state.machines[m].up_way[slot] {
                    self.record(m, batch, true);
                }
            }
            Fault::AckLost(m, slot) => {
                if let Some(batch) = self.state.machines[m].up_way[slot].take() {
                    self.record(m, batch, false);
                }
            }
            Fault::DirectivesTwice(m) => {
                if let Some(until) = self.state.machines[m].directives_way {
                    self.apply_directives(m, until);
                }
            }
            Fault::Expired(m) => self.state.machines[m].expired = true,
            Fault::ClockBack(m) => self.state.machines[m].clock_behind = true,
            Fault::Lie(m) => self.state.machines[m].disk.lies = true,
        }
    }

    pub(crate) fn saw(&mut self, sight: Sight) {
        self.sights |= 1 << sight as u8;
    }

    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.world.rules.has(rule)
    }

    pub(crate) fn store(&mut self) -> &mut Store {
        &mut self.state.coordinator.store
    }

    pub(crate) fn new_branch(&mut self) -> u8 {
        self.state.truth.branches += 1;
        self.state.truth.branches
    }

    // --- the coordinator ---

    fn assign(&mut self, slice: usize, node: usize) {
        if slice == 1 {
            self.state.truth.submitted = true;
        }
        let store = self.store();
        store.epochs += 1;
        let epoch = Epoch::new(store.generation, store.epochs);
        if store.newest[slice] != Epoch::default() && store.epochs > 2 {
            self.saw(Sight::MovedByRelease);
        }
        self.own(slice, node, epoch);
        self.direct(node, Kind::Assign, slice, epoch);
    }

    pub(crate) fn own(&mut self, slice: usize, node: usize, epoch: Epoch) {
        let store = self.store();
        store.newest[slice] = store.newest[slice].max(epoch);
        store.places[slice] = Place::Owned {
            node: node as u8,
            epoch,
            asked_back: false,
        };
    }

    /// Writes a directive. Its bytes tell the lives of the coordinator apart.
    pub(crate) fn direct(&mut self, node: usize, kind: Kind, slice: usize, epoch: Epoch) {
        let life = self.state.truth.starts;
        let entry = Entry::new(kind, slice, epoch, life);
        self.store().nodes[node].directives.push(entry);
    }

    fn ask_back(&mut self, slice: usize) {
        let confirmed = self.has(Rule::ReleaseConfirmed);
        if let Place::Owned {
            node,
            epoch,
            asked_back,
        } = &mut self.store().places[slice]
        {
            *asked_back = true;
            let (node, epoch) = (usize::from(*node), *epoch);
            self.direct(node, Kind::Release, slice, epoch);
            if !confirmed {
                self.store().places[slice] = Place::Unplaced;
            }
        }
    }

    fn backup(&mut self) {
        for node in &mut self.store().nodes {
            node.safe = node.facts.len();
        }
        self.state.coordinator.backup = Some(self.state.coordinator.store);
        for node in 0..NODES {
            if let Some(machine) = self.state.linked(node) {
                self.acknowledge(machine);
            }
        }
    }

    /// A batch of facts is here.
    fn record(&mut self, machine: usize, batch: Batch, acknowledged: bool) {
        let theirs = self.state.machines[machine].disk.facts;
        let node = node_of(machine);
        let have = self.state.coordinator.store.nodes[node].facts.len();
        let mut from = batch.from;
        if self.has(Rule::ExactlyNext) {
            if batch.from > have {
                self.saw(Sight::GapNoticed);
                return;
            }
            if batch.to <= have {
                self.saw(Sight::DuplicateIgnored);
                return;
            }
            from = have;
        }
        let unread = self.state.coordinator.old_version && !self.has(Rule::KeepUnknown);
        let (commits, mut known) = (self.has(Rule::CommitBeforeAck), self.store().nodes[node]);
        for entry in theirs
            .entries()
            .take(usize::from(batch.to))
            .skip(usize::from(from))
        {
            let hole = Entry::new(Kind::Hole, 0, Epoch::default(), 0);
            known.facts.push(if unread && is_new_kind(entry) {
                hole
            } else {
                entry
            });
        }
        if commits {
            known.durable = known.facts.len();
        }
        self.store().nodes[node] = known;
        if self.state.coordinator.store.hold {
            self.heard(machine);
        }
        if acknowledged {
            self.acknowledge(machine);
        }
        self.fold();
    }

    /// An acknowledgement arrives; one that is on its way for longer is as good as lost.
    fn acknowledge(&mut self, machine: usize) {
        let store = &self.state.coordinator.store;
        let known = &store.nodes[node_of(machine)];
        let disk = &mut self.state.machines[machine].disk;
        (disk.acked, disk.acked_in) = (known.facts.len(), store.generation);
        disk.safe = known.safe;
    }

    /// Applies what is recorded to the run, as far as it may count.
    pub(crate) fn fold(&mut self) {
        if self.state.coordinator.store.hold && self.has(Rule::HoldBeforeCounting) {
            return;
        }
        for node in 0..NODES {
            let facts = self.state.coordinator.store.nodes[node].facts;
            let mut newest_clock = false;
            for entry in facts.entries() {
                let late = entry.is_behind() && newest_clock;
                newest_clock |= !entry.is_behind();
                let unread = self.state.coordinator.old_version && is_new_kind(entry);
                if !unread && (self.has(Rule::OrderByNumber) || !late) {
                    self.apply(node, entry);
                }
            }
        }
        let done = |place: &Place| matches!(place, Place::Done(_));
        if self.state.coordinator.store.places.iter().all(done) {
            self.saw(Sight::AllCounted);
        }
    }

    fn apply(&mut self, node: usize, entry: Entry) {
        let slice = entry.slice();
        let place = self.state.coordinator.store.places[slice];
        let current = matches!(place, Place::Owned { node: n, epoch, .. }
            if usize::from(n) == node && epoch == entry.epoch());
        let unfenced = !self.has(Rule::EpochFence);
        match entry.kind() {
            Kind::Finished if current || (unfenced && place != Place::Done(entry)) => {
                self.store().places[slice] = Place::Done(entry);
                self.state.truth.counts(entry);
            }
            Kind::Finished if place != Place::Done(entry) => self.saw(Sight::LateOutcome),
            Kind::InDoubt if current => self.store().places[slice] = Place::InDoubt,
            Kind::Released if current => self.store().places[slice] = Place::Unplaced,
            _ => {}
        }
    }

    fn upgrade(&mut self) {
        self.state.coordinator.old_version = false;
        let before = self.state.coordinator.store.places;
        self.fold();
        if before != self.state.coordinator.store.places {
            self.saw(Sight::UnknownKindCounted);
        }
    }

    /// The coordinator's process starts anew, with its own store or an older one.
    fn restart(&mut self, older: Option<Store>) {
        let coordinator = &mut self.state.coordinator;
        let mut store = older.unwrap_or(coordinator.store);
        for node in &mut store.nodes {
            node.facts.truncate(node.durable);
        }
        *coordinator = Coordinator {
            store,
            backup: coordinator.backup,
            old_version: coordinator.old_version,
            ..Coordinator::default()
        };
        for machine in &mut self.state.machines {
            machine.hang_up();
        }
        self.state.truth.starts += 1;
        self.new_generation();
    }

    pub(crate) fn new_generation(&mut self) {
        let clock = if self.has(Rule::GenerationByClock) {
            self.state.truth.starts
        } else {
            0
        };
        if self.has(Rule::Generation) {
            let store = self.store();
            store.generation = clock.max(store.generation + 1);
        }
    }

    fn late_teardown(&mut self, node: usize) {
        self.state.coordinator.broken &= !(1 << node);
        if self.has(Rule::TeardownCompare) {
            self.saw(Sight::OldTeardownIgnored);
        } else if let Some(at) = self.state.linked(node) {
            self.state.machines[at].hang_up();
            self.state.machines[at].link = Link::Forgotten;
            self.state.coordinator.registry[node] = None;
        }
    }

    // --- the machines ---

    /// A session breaks. Each side notices in its time; until then neither hears the other, which
    /// is as if both knew.
    pub(crate) fn hang_up(&mut self, at: usize) {
        let node = node_of(at);
        self.state.machines[at].hang_up();
        if self.state.linked(node) == Some(at) {
            self.state.coordinator.registry[node] = None;
            self.state.coordinator.broken |= 1 << node;
        }
    }

    /// The agent's process ends with its processes, and starts again from its disk.
    fn crash(&mut self, at: usize) {
        self.hang_up(at);
        let machine = &mut self.state.machines[at];
        (machine.running, machine.sent) = (0, 0);
        self.start(at);
    }

    fn start(&mut self, at: usize) {
        for slice in 0..SLICES {
            let held = self.state.machines[at].disk.held(slice);
            if held.is_none_or(|held| held.stage != Stage::Started) {
                continue;
            }
            if slice == 0 && self.has(Rule::InDoubtAfterCrash) {
                self.fact(at, Kind::InDoubt, slice);
                self.saw(Sight::InDoubtAfterCrash);
            } else {
                self.run(at, slice);
            }
        }
    }

    fn disk_back(&mut self, at: usize) {
        let branch = self.new_branch();
        let machine = &mut self.state.machines[at];
        if let Some(image) = machine.image.take() {
            machine.disk = Disk { branch, ..image };
        }
        self.state.truth.disk_accident = true;
        self.crash(at);
    }

    /// A second machine begins to speak for the first node.
    fn second_machine(&mut self, disk: Disk) {
        let branch = self.new_branch();
        self.state.machines[2] = Machine {
            exists: true,
            disk: Disk { branch, ..disk },
            ..Machine::default()
        };
    }

    fn apply_directives(&mut self, at: usize, until: u8) {
        let theirs = &self.state.coordinator.store.nodes[node_of(at)].directives;
        let ours = &mut self.state.machines[at].disk.directives;
        let continues = ours.is_prefix_of(theirs) || !self.world.rules.has(Rule::Chain);
        if until > ours.len() && continues {
            ours.extend(theirs, until);
        }
    }

    fn begin(&mut self, at: usize, slice: usize) {
        if self.has(Rule::StartedFirst) {
            self.fact(at, Kind::Started, slice);
        }
        self.run(at, slice);
    }

    fn run(&mut self, at: usize, slice: usize) {
        let machine = &mut self.state.machines[at];
        machine.running |= 1 << slice;
        if let Some(held) = machine.disk.held(slice) {
            self.state.truth.begins(slice, node_of(at), held.epoch);
        }
    }

    /// Writes a fact about a slice that this machine holds.
    fn fact(&mut self, at: usize, kind: Kind, slice: usize) {
        let machine = &mut self.state.machines[at];
        let Some(held) = machine.disk.held(slice) else {
            return;
        };
        let entry = Entry::new(kind, slice, held.epoch, machine.disk.branch);
        let behind = machine.clock_behind;
        machine
            .disk
            .facts
            .push(if behind { entry.behind() } else { entry });
    }

    /// Drops what a machine holds and must not, for the sake of a rule that is out.
    pub(crate) fn stops_unmentioned(&mut self, at: usize) {
        for slice in 0..SLICES {
            let Some(held) = self.state.machines[at].disk.held(slice) else {
                continue;
            };
            let open = matches!(held.stage, Stage::Waiting | Stage::Started);
            let mentioned = matches!(
                self.state.coordinator.store.places[slice],
                Place::Owned { node, epoch, .. }
                    if usize::from(node) == node_of(at) && epoch == held.epoch
            );
            if open && !mentioned && !held.asked_back {
                self.state.truth.breaks(Promise::WorkIsKept);
            }
        }
    }
}

/// The kind of fact that the coordinator's old version does not know.
fn is_new_kind(entry: Entry) -> bool {
    entry.kind() == Kind::Finished && entry.slice() == 1
}
