//! The agent: its state, the indexes that are derived from it, and the dispatch of events. Every
//! decision is emitted as a fact and folded at once by the same code that replays it.

use crate::admit::{Ahead, Usage};
use crate::event::{Action, Config, Event};
use crate::explain::Notes;
use crate::files::Files;
use crate::link::Link;
use crate::pressure::Hold;
use crate::ready::{Class, Ready};
use crate::rng::Rng;
use crate::schedules::Schedules;
use crate::state::{Row, SliceKey, State, TaskKey, Touch};
use shared::config::scheduler::Scheduler;
use shared::directive::Directive;
use shared::fact::{Body, Fact};
use shared::ids::{AttemptRef, BootId, Hash, Incarnation, NodeId};
use shared::log::Head;
use shared::time::{Mono, Now, Span, Stamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One entry of a log, in the order of the decisions.
#[derive(Debug)]
pub(crate) enum Entry {
    Fact(Vec<u8>),
    Directive(Vec<u8>),
}

/// What is done once everything decided so far is durable.
#[derive(Debug)]
pub(crate) enum Post {
    Act(Action),
    /// Say hello with the heads as committed.
    Hello(u64),
    /// Say how far directives are durable.
    Applied(u64),
    /// Send the inventory, with directives behind this number.
    Inventory(u64, u64),
}

/// What a group of steps wants.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// To be committed, in order.
    pub(crate) entries: Vec<Entry>,
    /// Rest only on what is durable already.
    pub(crate) before: Vec<Action>,
    /// Wait for the commit.
    pub(crate) after: Vec<Post>,
    /// Small values that ride with the commit.
    pub(crate) marks: BTreeMap<String, Vec<u8>>,
    /// Evidence that rides with the commit.
    pub(crate) details: Vec<(u64, Vec<u8>)>,
    /// Somebody waits for the commit.
    pub(crate) hurry: bool,
}

/// Why an attempt is being ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StopWhy {
    Cancel,
    Timeout,
    Deadline,
    Pause,
    Leave,
}

/// An attempt that has started and not ended.
#[derive(Debug)]
pub(crate) struct Att {
    pub(crate) task: TaskKey,
    pub(crate) class: Class,
    pub(crate) began: Option<Mono>,
    /// It waits in the executor.
    pub(crate) queued: bool,
    /// It waits for the slot of this one.
    pub(crate) behind: Option<AttemptRef>,
    pub(crate) stop: Option<StopWhy>,
}

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    Retry(TaskKey),
    Timeout(AttemptRef),
    Deadline(TaskKey),
    Fetch(Hash),
    Upload(Hash),
    Redial,
    Watchdog(u64),
    Tidy,
    Slots,
    Pressure,
    SyncEnd,
    LastWords(u64),
}

/// The agent's decisions. See the crate's documentation.
#[derive(Debug)]
pub struct Agent {
    /// The fold.
    pub(crate) state: State,
    pub(crate) config: Config,
    pub(crate) now: Now,
    pub(crate) boot: BootId,
    pub(crate) clock_trusted: bool,
    /// Wall clock and boot clock when deadlines were put on the boot clock.
    pub(crate) deadlines_at: Now,
    pub(crate) booted: bool,
    /// The process is about to end: nothing more is started.
    pub(crate) closing: bool,
    pub(crate) rng: Rng,
    pub(crate) ready: Ready,
    pub(crate) attempts: BTreeMap<AttemptRef, Att>,
    pub(crate) queued: VecDeque<AttemptRef>,
    /// Who takes over the slot of an attempt.
    pub(crate) lanes: BTreeMap<AttemptRef, AttemptRef>,
    pub(crate) usage: Usage,
    pub(crate) ahead: Ahead,
    pub(crate) timers: BTreeSet<(Mono, Timer)>,
    pub(crate) files: Files,
    pub(crate) link: Link,
    pub(crate) notes: Notes,
    /// Free bytes, and what a start needs.
    pub(crate) room: Option<(u64, u64)>,
    /// What the store needs for its largest commit.
    pub(crate) commit_room: u64,
    /// How long local runs are kept after their end.
    pub(crate) keep_runs: Span,
    /// Whether the machine suffers.
    pub(crate) hold: Hold,
    pub(crate) dirty: BTreeSet<Row>,
    ending: VecDeque<TaskKey>,
    pub(crate) check: BTreeSet<SliceKey>,
    pub(crate) schedules: Schedules,
}

impl Agent {
    pub(crate) fn new(config: Config, state: State, link: Link) -> Self {
        Self {
            state,
            config,
            now: Now::default(),
            boot: BootId::default(),
            clock_trusted: false,
            deadlines_at: Now::default(),
            booted: false,
            closing: false,
            rng: Rng::default(),
            ready: Ready::default(),
            attempts: BTreeMap::new(),
            queued: VecDeque::new(),
            lanes: BTreeMap::new(),
            usage: Usage::default(),
            ahead: Ahead::default(),
            timers: BTreeSet::new(),
            files: Files::default(),
            link,
            notes: Notes::default(),
            room: None,
            commit_room: 0,
            keep_runs: crate::tidy::KEEP_RUNS,
            hold: Hold::default(),
            dirty: BTreeSet::new(),
            ending: VecDeque::new(),
            check: BTreeSet::new(),
            schedules: Schedules::default(),
        }
    }

    /// Whose journal it is.
    #[must_use]
    pub fn identity(&self) -> (NodeId, Incarnation) {
        (self.config.node, self.config.incarnation)
    }

    /// The folded state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Both clocks as stamped on facts.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            boot: self.state.boots,
            mono_ms: self.now.mono.0 / 1_000_000,
            wall: self.now.wall,
        }
    }

    /// Decides on one event. `known` is this node's own head at the fact that the event names, if
    /// it names one.
    pub(crate) fn step(&mut self, now: Now, event: Event, known: Option<Head>, fx: &mut Effects) {
        self.now = now;
        if let Event::Room { free, wanted } = event {
            self.room = Some((free, wanted));
        }
        if !self.booted && !matches!(event, Event::Boot(_)) {
            return;
        }
        match event {
            Event::Boot(boot) => self.on_boot(boot, fx),
            Event::Wake | Event::Room { .. } => {}
            Event::Linked { session } => self.on_linked(session, fx),
            Event::Unlinked { session, why } => self.on_unlinked(session, &why),
            Event::Heard { session, message } => self.on_heard(session, message, known, fx),
            Event::Began { attempt, at } => self.on_began(attempt, at),
            Event::Ended(end) => self.on_ended(end, fx),
            Event::FileHere { hash } => self.on_file_here(hash),
            Event::FileNotThere { hash, .. } => self.on_file_not_there(hash, fx),
            Event::Uploaded { hash } => self.on_uploaded(hash, fx),
            Event::NotUploaded { hash, here, .. } => self.on_not_uploaded(hash, here, fx),
            Event::Local { request, what } => self.on_local(request, what, fx),
            Event::Clock { trusted } => self.on_clock(trusted),
            Event::Pressure(reading) => self.on_pressure(reading),
            Event::PartTaken { session } => self.on_part_taken(session),
        }
        self.follow_wall_clock();
        self.settle(fx);
    }

    /// Lets timers that are due fire.
    pub(crate) fn tick(&mut self, now: Now, fx: &mut Effects) {
        self.now = now;
        if !self.booted {
            return;
        }
        let mut fired = false;
        while let Some((due, timer)) = self.timers.first().copied() {
            if due > now.mono {
                break;
            }
            self.timers.remove(&(due, timer));
            self.fire(timer, fx);
            fired = true;
        }
        if fired {
            self.settle(fx);
        }
        self.tell_room(fx);
    }

    fn fire(&mut self, timer: Timer, fx: &mut Effects) {
        match timer {
            Timer::Retry(task) => self.retry_due(task, fx),
            Timer::Timeout(attempt) => self.timeout_due(attempt, fx),
            Timer::Deadline(task) => self.deadline_due(task, fx),
            Timer::Fetch(hash) => self.fetch_due(hash, fx),
            Timer::Upload(hash) => self.upload_due(hash, fx),
            Timer::Redial => self.redial_due(fx),
            Timer::Watchdog(session) => self.watchdog_due(session, fx),
            Timer::Tidy => self.tidy_due(fx),
            Timer::Slots => self.slots_due(),
            // What was held is looked at again behind every timer.
            Timer::Pressure => {}
            Timer::SyncEnd => self.sync_end_due(fx),
            Timer::LastWords(session) => self.last_words_due(session, fx),
        }
    }

    /// When the core wants to be woken for itself.
    pub(crate) fn next_timer(&self) -> Option<Mono> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Emits a fact: folded here and now, durable with the next commit.
    pub(crate) fn emit(&mut self, body: Body, fx: &mut Effects) {
        let lingers = matches!(
            body,
            Body::Ended { .. } | Body::Moved { .. } | Body::SliceDone { .. }
        );
        fx.hurry |= !lingers;
        let fact = Fact {
            at: self.stamp(),
            seen: self.state.directives,
            body,
        };
        let mut touch = self.touch();
        self.state.apply_fact(&fact, &mut touch);
        fx.entries.push(Entry::Fact(fact.encode()));
        self.absorb(touch, fx);
    }

    /// Takes a directive over: folded here and now, durable with the next commit.
    pub(crate) fn record(&mut self, number: u64, bytes: Vec<u8>, fx: &mut Effects) {
        let directive = Directive::decode(number, &bytes).ok();
        let mut touch = self.touch();
        self.state
            .apply_directive(number, directive.as_ref(), &mut touch);
        fx.entries.push(Entry::Directive(bytes));
        fx.hurry = true;
        self.absorb(touch, fx);
    }

    /// What holds where specifications say nothing: every field is set.
    #[must_use]
    pub fn settings(&self) -> Scheduler {
        let set = self.state.settings.over(self.config.scheduler);
        set.over(Scheduler::DEFAULT)
    }

    /// The shell learns them once they are durable.
    pub(crate) fn tell_settings(&self, fx: &mut Effects) {
        let settings = Action::Settings(self.settings());
        fx.after.push(Post::Act(settings));
    }

    /// For one step of the fold, which adds its rows to those that the next snapshot writes.
    fn touch(&mut self) -> Touch {
        Touch {
            rows: std::mem::take(&mut self.dirty),
            ..Touch::default()
        }
    }

    /// Brings the indexes up to date with the fold.
    pub(crate) fn absorb(&mut self, mut touch: Touch, fx: &mut Effects) {
        self.dirty.append(&mut touch.rows);
        if touch.settings {
            self.tell_settings(fx);
        }
        if touch.sync {
            self.follow_sync(fx);
        }
        for task in touch.unready {
            self.ready.remove(task);
            self.files.leave(task);
        }
        for at in touch.dropped {
            self.slice_dropped(at);
        }
        for at in touch.taken {
            self.slice_taken(at, fx);
        }
        for (at, task) in touch.upstream {
            self.want_upstream(at, task, fx);
        }
        for task in touch.ready {
            self.enqueue(task, fx);
        }
        for task in touch.retrying {
            self.arm_retry(task);
        }
        for task in touch.succeeded {
            self.outputs_made(task, fx);
        }
        self.files.forget(&touch.forgotten);
        for run in touch.forgotten {
            fx.after.push(Post::Act(Action::ForgetRun { run }));
            fx.hurry = true;
        }
        self.ending.extend(touch.ending);
        self.check.extend(touch.slices);
        self.touch_schedules(touch.schedules);
    }

    fn slice_dropped(&mut self, at: SliceKey) {
        self.notes.forget(at);
        self.files.drop_slice(at);
        let gone: Vec<_> = self.ready.of_slice(at);
        for task in gone {
            self.ready.remove(task);
        }
        let running = self.attempts.values().map(|att| att.class).collect();
        self.ready.forget_unused(&running);
    }

    /// Carries out what the state calls for until nothing is left to decide.
    pub(crate) fn settle(&mut self, fx: &mut Effects) {
        loop {
            if let Some(task) = self.ending.pop_front() {
                self.end_without_attempt(task, fx);
            } else if let Some(at) = self.check.pop_first() {
                self.check_slice(at, fx);
            } else if !self.answer_open(fx) && !self.look_at_next_schedule(fx) && !self.admit(fx) {
                break;
            }
        }
    }

    /// Looks at everything once: after loading, and after the core was rebuilt.
    pub(crate) fn look_at_all(&mut self, fx: &mut Effects) {
        let mut touch = Touch::default();
        // what they made may not be at the coordinator yet
        self.state.wake_makers();
        for (at, slice) in &mut self.state.slices {
            touch.taken.push(*at);
            touch.slices.insert(*at);
            for pos in 0..slice.slots.len() as u32 {
                let task = TaskKey { slice: *at, pos };
                match slice.slots[pos as usize].state {
                    shared::state::TaskState::Ready => touch.ready.push(task),
                    shared::state::TaskState::Retrying => touch.retrying.push(task),
                    shared::state::TaskState::Succeeded => touch.succeeded.push(task),
                    _ => crate::change::reconsider(slice, task, &mut touch),
                }
            }
        }
        touch.forgotten = self.state.forgotten.iter().copied().collect();
        self.absorb(touch, fx);
    }
}
