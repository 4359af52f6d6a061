//! The lease of an exclusive task, in time: one agent holds it, the coordinator wants to move it.
//!
//! A second machine begins at once when the coordinator moves the task, so the promise is broken
//! whenever the first one's process is still there then.

use crate::check::Space;
use crate::promise::Promise;
use crate::rule::{Rule, Rules};
use crate::sight::Sight;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// Units of time: a lease, the margin of both sides, and how long a process takes to end.
const LEASE: u8 = 3;
const MARGIN: u8 = 2;
const GRACE: u8 = 1;
/// The agent's clock may fall behind by so much while a lease runs: less than the margin.
const DRIFT: u8 = 1;
/// How far a wall clock jumps back.
const JUMP: u8 = 3;

/// Bounds: time, requests that may be sent, faults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) time: u8,
    pub(crate) requests: u8,
    pub(crate) faults: u8,
}

impl Bounds {
    /// Those that are checked with each change, or wider ones.
    pub(crate) fn new(deep: bool) -> Self {
        Self {
            time: if deep { 12 } else { 8 },
            requests: 3,
            faults: if deep { 3 } else { 2 },
        }
    }
}

/// The process of the exclusive task at the first machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Process {
    #[default]
    None,
    Runs,
    /// It was told to end, at this time.
    Ends(u8),
}

/// Everything of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct State {
    now: u8,
    /// When the agent's machine was started; its boot clock counts from there.
    booted: u8,
    lag: u8,
    /// How far the wall clock went back.
    jumped: u8,
    /// Requests of this boot: number, and the agent's clock when it was sent last.
    sent: [Option<u8>; 6],
    next: u8,
    /// Until when the lease is good, by the agent's clock.
    until: Option<u8>,
    process: Process,
    /// Requests and grants under way, one bit a number: any may arrive, at any time, again.
    asked: u8,
    granted: u8,
    /// What the coordinator has committed: newest number, and when it granted it.
    grant: Option<(u8, u8)>,
    /// It started over at this time and knows of no grant before.
    started: Option<u8>,
    moved: bool,
    faults: u8,
}

/// A step.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Tick,
    Ask,
    AskArrives(u8),
    GrantArrives(u8),
    Gone,
    Move,
    Lag,
    ClockBack,
    Reboot,
    Restore,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => write!(f, "time goes on"),
            Self::Ask => write!(f, "A asks for the lease"),
            Self::AskArrives(n) => {
                write!(f, "request {n} arrives, it is granted or answered again")
            }
            Self::GrantArrives(n) => write!(f, "the grant of request {n} arrives at A"),
            Self::Gone => write!(f, "A's process is gone"),
            Self::Move => write!(f, "the coordinator moves the task to B, which begins it"),
            Self::Lag => write!(f, "! A's clock falls behind by less than the margin"),
            Self::ClockBack => write!(f, "! A's wall clock jumps back"),
            Self::Reboot => write!(f, "! A's machine starts again"),
            Self::Restore => write!(f, "! the coordinator is restored from before the grant"),
        }
    }
}

/// The lease under some rules.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) bounds: Bounds,
    pub(crate) rules: Rules,
    seen: AtomicU32,
}

impl Lease {
    /// A world in which nobody asked yet.
    pub(crate) fn new(bounds: Bounds, rules: Rules) -> Self {
        Self {
            bounds,
            rules,
            seen: AtomicU32::new(0),
        }
    }

    /// What steps reached so far.
    pub(crate) fn seen(&self) -> u32 {
        self.seen.load(Ordering::Relaxed)
    }

    fn saw(&self, sight: Sight) {
        self.seen.fetch_or(1 << sight as u8, Ordering::Relaxed);
    }

    /// The clock by which the agent counts.
    fn clock(&self, state: &State) -> u8 {
        let real = state.now - state.lag;
        if self.rules.has(Rule::LeaseBootClock) {
            real - state.booted.min(real)
        } else {
            real.saturating_sub(state.jumped)
        }
    }

    /// When the agent begins to end the process.
    fn last_call(&self, until: u8) -> u8 {
        let early = if self.rules.has(Rule::LeaseEarlyEnd) {
            GRACE
        } else {
            0
        };
        until - early
    }

    fn actions(&self, state: &State) -> Vec<Action> {
        let mut list = Vec::new();
        let must_end = matches!(state.process, Process::Ends(at) if state.now >= at + GRACE);
        if state.now < self.bounds.time && !must_end {
            list.push(Action::Tick);
        }
        if matches!(state.process, Process::Ends(_)) {
            list.push(Action::Gone);
        }
        if state.next < self.bounds.requests && !state.moved {
            list.push(Action::Ask);
        }
        for number in 0..state.next {
            if state.asked & 1 << number != 0 && !state.moved {
                list.push(Action::AskArrives(number));
            }
            if state.granted & 1 << number != 0 {
                list.push(Action::GrantArrives(number));
            }
        }
        if !state.moved && self.may_move(state) {
            list.push(Action::Move);
        }
        if state.faults < self.bounds.faults {
            let lags = state.lag < DRIFT && state.now > state.lag;
            list.extend(lags.then_some(Action::Lag));
            list.extend((state.jumped == 0).then_some(Action::ClockBack));
            list.extend([Action::Reboot, Action::Restore]);
        }
        list
    }

    /// Whether no lease can be good any more, by what the coordinator knows.
    fn may_move(&self, state: &State) -> bool {
        let started = state
            .started
            .filter(|_| self.rules.has(Rule::LeaseWaitAfterStart));
        let granted = state.grant.map(|(_, at)| at);
        let since = granted.max(started);
        since.is_none_or(|since| state.now >= since + LEASE + MARGIN)
    }

    fn step(&self, from: &State, action: Action) -> State {
        let mut state = *from;
        match action {
            Action::Tick => state.now += 1,
            Action::Ask => self.ask(&mut state),
            Action::AskArrives(number) => {
                let newest = state.grant.map(|(number, _)| number);
                if newest.is_none_or(|newest| number > newest) {
                    state.grant = Some((number, state.now));
                }
                if newest.is_none_or(|newest| number >= newest) {
                    state.granted |= 1 << number;
                }
            }
            Action::GrantArrives(number) => self.granted(&mut state, number),
            Action::Gone => state.process = Process::None,
            Action::Move => {
                state.moved = true;
                self.saw(Sight::LeaseMoved);
            }
            Action::Lag => state.lag += 1,
            Action::ClockBack => state.jumped = JUMP,
            Action::Reboot => self.reboot(&mut state),
            Action::Restore => {
                (state.grant, state.started) = (None, Some(state.now));
            }
        }
        let faults = [
            Action::Lag,
            Action::ClockBack,
            Action::Reboot,
            Action::Restore,
        ];
        let is_fault = |f: &Action| std::mem::discriminant(f) == std::mem::discriminant(&action);
        state.faults += u8::from(faults.iter().any(is_fault));
        self.follow(&mut state);
        state
    }

    fn ask(&self, state: &mut State) {
        let again = state.next.checked_sub(1).filter(|last| {
            !self.rules.has(Rule::LeaseNewNumber) && state.sent[usize::from(*last)].is_some()
        });
        let number = again.unwrap_or(state.next);
        state.sent[usize::from(number)] = Some(self.clock(state));
        state.asked |= 1 << number;
        state.next = number + 1;
    }

    fn granted(&self, state: &mut State, number: u8) {
        let Some(sent) = state.sent[usize::from(number)] else {
            return;
        };
        let until = sent + LEASE;
        if state.until.is_some_and(|known| known < until) {
            self.saw(Sight::LeaseRenewed);
        }
        state.until = state.until.max(Some(until));
    }

    fn reboot(&self, state: &mut State) {
        (state.booted, state.process) = (state.now, Process::None);
        if self.rules.has(Rule::LeaseEndsWithBoot) {
            state.until = None;
            state.sent = [None; 6];
        }
        if state.moved {
            self.saw(Sight::LeaseAfterReboot);
        }
    }

    /// The agent starts and ends its process by its clock.
    fn follow(&self, state: &mut State) {
        let clock = self.clock(state);
        let good = state
            .until
            .is_some_and(|until| clock < self.last_call(until));
        match state.process {
            Process::None if good => state.process = Process::Runs,
            Process::Runs if !good => {
                state.process = Process::Ends(state.now);
                self.saw(Sight::LeaseOver);
            }
            _ => {}
        }
    }
}

impl Space for Lease {
    type State = State;
    type Action = Action;
    type Promise = Promise;

    fn first(&self) -> State {
        State::default()
    }

    fn next(&self, state: &State) -> Vec<(Action, State)> {
        let actions = self.actions(state).into_iter();
        actions
            .map(|action| (action, self.step(state, action)))
            .collect()
    }

    fn broken(&self, state: &State) -> Option<Promise> {
        let both = state.moved && state.process != Process::None;
        both.then_some(Promise::Exclusive)
    }
}
