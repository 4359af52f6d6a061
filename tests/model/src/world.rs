//! What can happen in a state, within the bounds of a configuration.

use crate::action::{Action, Fault};
use crate::check::Space;
use crate::config::Config;
use crate::promise::Promise;
use crate::rule::{Rule, Rules};
use crate::state::{Link, MACHINES, NODES, Place, SLICES, Stage, State};
use std::mem::discriminant;
use std::sync::atomic::{AtomicU32, Ordering};

/// The protocol under some rules, in the world of a configuration.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) rules: Rules,
    /// What was reached by some step, one bit each: see `sight`.
    seen: AtomicU32,
}

impl World {
    /// A world in which nothing happened yet.
    pub(crate) fn new(config: Config, rules: Rules) -> Self {
        Self {
            config,
            rules,
            seen: AtomicU32::new(0),
        }
    }

    /// Notes what steps reached.
    pub(crate) fn saw(&self, sights: u32) {
        if sights & !self.seen.load(Ordering::Relaxed) != 0 {
            self.seen.fetch_or(sights, Ordering::Relaxed);
        }
    }

    /// What steps reached so far.
    pub(crate) fn seen(&self) -> u32 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Everything that can happen next.
    pub(crate) fn actions(&self, state: &State) -> Vec<Action> {
        let mut list = Vec::with_capacity(24);
        self.protocol(state, &mut list);
        self.placements(state, &mut list);
        self.wishes(state, &mut list);
        self.faults(state, &mut list);
        list
    }

    /// What the protocol does by itself: each of these brings it nearer to rest.
    pub(crate) fn protocol(&self, state: &State, list: &mut Vec<Action>) {
        let coordinator = &state.coordinator;
        if coordinator.old_version {
            list.push(Action::Upgrade);
        }
        for node in 0..NODES {
            let known = &coordinator.store.nodes[node];
            if known.durable < known.facts.len() {
                list.push(Action::CommitFacts(node));
            }
        }
        for at in 0..MACHINES {
            if state.machines[at].exists {
                self.session(state, at, list);
                self.work(state, at, list);
            }
        }
    }

    fn session(&self, state: &State, at: usize, list: &mut Vec<Action>) {
        let machine = &state.machines[at];
        match machine.link {
            Link::Forgotten => list.push(Action::HangUp(at)),
            Link::Down if machine.waits => {}
            Link::Down if machine.expired => {
                if self.rules.has(Rule::RenewInGrace) {
                    list.push(Action::Renew(at));
                }
            }
            Link::Down => list.push(Action::Dial(at)),
            Link::Live => {}
        }
        for (slot, _) in machine
            .up_way
            .iter()
            .enumerate()
            .filter(|(_, b)| b.is_some())
        {
            list.push(Action::FactsArrive(at, slot));
        }
        if machine.directives_way.is_some() {
            list.push(Action::DirectivesArrive(at));
        }
    }

    fn work(&self, state: &State, at: usize, list: &mut Vec<Action>) {
        let machine = &state.machines[at];
        for slice in 0..SLICES {
            let Some(held) = machine.disk.held(slice) else {
                continue;
            };
            match (held.stage, machine.runs(slice)) {
                (Stage::Waiting, true) => list.push(Action::CommitStarted(at, slice)),
                (Stage::Waiting, false) if !held.asked_back => list.push(Action::Begin(at, slice)),
                (Stage::Started, true) => list.push(Action::Finish(at, slice)),
                _ => {}
            }
        }
    }

    fn placements(&self, state: &State, list: &mut Vec<Action>) {
        for slice in 0..SLICES {
            for node in 0..NODES {
                if slice < self.config.slices && self.may_place(state, slice, self.config.epochs) {
                    list.push(Action::Assign(slice, node));
                }
            }
        }
    }

    /// Whether a slice waits for a node and nothing speaks against placing it.
    pub(crate) fn may_place(&self, state: &State, slice: usize, epochs: u8) -> bool {
        let store = &state.coordinator.store;
        let fresh = slice == 1 && !state.truth.submitted;
        let waits = match store.places[slice] {
            Place::Unplaced => self.may_decide(state),
            Place::Unknown => fresh && !store.hold,
            _ => false,
        };
        waits && store.epochs < epochs
    }

    fn may_decide(&self, state: &State) -> bool {
        !state.coordinator.store.hold || !self.rules.has(Rule::Hold)
    }

    fn wishes(&self, state: &State, list: &mut Vec<Action>) {
        let (store, config) = (&state.coordinator.store, &self.config);
        for slice in 0..config.slices {
            let Place::Owned {
                node, asked_back, ..
            } = store.places[slice]
            else {
                continue;
            };
            if store.epochs >= config.epochs || !self.may_decide(state) {
                continue;
            }
            if config.moves && slice == 0 && !asked_back {
                list.push(Action::AskBack(slice));
            }
            let silent = state.linked(usize::from(node)).is_none();
            if config.replaces && slice == 1 && silent {
                list.push(Action::Replace(slice));
            }
        }
        if store.epochs > config.images_until {
            return;
        }
        if state.coordinator.backup.is_none() && self.may_strike(state, is_restore) {
            list.push(Action::Backup);
        }
        for at in 0..NODES {
            let back = |fault| matches!(fault, Fault::DiskWentBack(m) if m == at);
            let none = state.machines.iter().all(|machine| machine.image.is_none());
            if none && self.may_strike(state, back) {
                list.push(Action::Image(at));
            }
        }
    }

    /// Whether an accident of some kind may still happen.
    pub(crate) fn may_strike(&self, state: &State, kind: impl Fn(Fault) -> bool) -> bool {
        let left = state.truth.faults < self.config.budget;
        let free =
            |(number, fault): (usize, &Fault)| state.truth.kinds & 1 << number == 0 && kind(*fault);
        left && self.config.faults.iter().enumerate().any(free)
    }

    fn faults(&self, state: &State, list: &mut Vec<Action>) {
        if state.truth.faults >= self.config.budget {
            return;
        }
        for (number, fault) in self.config.faults.iter().enumerate() {
            if state.truth.kinds & 1 << number == 0 && can_strike(state, *fault) {
                list.push(Action::Fault(*fault));
            }
        }
    }

    /// The bit of a fault's kind: each kind strikes once, at one of its places.
    pub(crate) fn kind_bits(&self, fault: Fault) -> u32 {
        let same = |(number, other): (usize, &Fault)| {
            let same = discriminant(other) == discriminant(&fault);
            u32::from(same) << number
        };
        self.config.faults.iter().enumerate().map(same).sum()
    }
}

/// Whether an accident needs a backup.
pub(crate) fn is_restore(fault: Fault) -> bool {
    matches!(fault, Fault::Restored | Fault::WentBack)
}

fn can_strike(state: &State, fault: Fault) -> bool {
    let machines = &state.machines;
    let coordinator = &state.coordinator;
    match fault {
        Fault::Crash(_) | Fault::CoordinatorCrash => true,
        Fault::DiskWentBack(m) => machines[m].image.is_some(),
        Fault::DiskCopied => !machines[2].exists && !machines[0].disk.directives.is_empty(),
        Fault::Reimaged => !machines[2].exists,
        Fault::Restored | Fault::WentBack => coordinator.backup.is_some(),
        Fault::OldVersion => !coordinator.old_version,
        Fault::LinkLost(m) => machines[m].link == Link::Live,
        Fault::WelcomeLost(m) => {
            let machine = &machines[m];
            machine.link == Link::Down && !machine.waits && !machine.expired
        }
        Fault::LateTeardown(n) => {
            coordinator.broken & 1 << n != 0 && coordinator.registry[n].is_some()
        }
        Fault::FactsLost(m, slot) | Fault::FactsTwice(m, slot) | Fault::AckLost(m, slot) => {
            machines[m].up_way[slot].is_some()
        }
        Fault::DirectivesTwice(m) => machines[m].directives_way.is_some(),
        Fault::Expired(m) => !machines[m].expired,
        Fault::ClockBack(m) => !machines[m].clock_behind,
        Fault::Lie(m) => machines[m].link != Link::Live,
    }
}

impl Space for World {
    type State = State;
    type Action = Action;
    type Promise = Promise;

    fn first(&self) -> State {
        State::first()
    }

    fn next(&self, state: &State) -> Vec<(Action, State)> {
        let follow = |action| {
            let (next, sights) = self.step(state, action);
            self.saw(sights);
            (action, next)
        };
        self.actions(state).into_iter().map(follow).collect()
    }

    fn swapped(&self, state: &State) -> Option<State> {
        state.swapped()
    }

    fn broken(&self, state: &State) -> Option<Promise> {
        self.breaks(state)
    }
}
