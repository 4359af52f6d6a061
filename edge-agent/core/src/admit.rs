//! Admission: which ready tasks start now, by declared resources, and which starts are committed
//! ahead of a free slot.

use crate::agent::{Agent, Att, Effects, Post, Timer};
use crate::event::{Action, Launch};
use crate::explain::Numbers;
use crate::lane::{LANE, Turn};
use crate::ready::Class;
use crate::slice::Slice;
use crate::state::{SliceKey, TaskKey};
use shared::explain::{DecisionKind, Reason};
use shared::fact::Body;
use shared::ids::{AttemptRef, TaskIdx};
use shared::limits::{AHEAD_MS, BYTES_PER_COMMIT, STARTS_AHEAD};
use shared::planted::{self, Mistake};
use shared::state::TaskState;
use shared::time::{Mono, Span};
use shared::workflow::{Resources, SideEffects, Source};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long others of the same priority may overtake a task that does not fit.
const OVERTAKE: Span = Span::secs(60);

/// Bytes of a terminal fact without its outputs, or of a cancel, at most.
const END_BYTES: usize = 512;
/// Bytes of an output in a fact, or of a task in a reset, at most.
const OUTPUT_BYTES: usize = 64;
/// Milliseconds over which the beginning of tasks is measured at least.
const MOMENT_MS: u64 = 10;
/// A wall clock that moved so much against the boot clock was set.
const CLOCK_STEP: Span = Span::secs(1);
/// With so much left nobody counts.
const PLENTY: u64 = 1 << 30;

/// What running attempts occupy.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Attempts that hold a slot.
    pub(crate) slots: u32,
    cpu: u64,
    memory: u64,
    disk: u64,
    gpu: u64,
    custom: BTreeMap<String, u64>,
    classes: BTreeMap<Class, u32>,
}

impl Usage {
    pub(crate) fn take(&mut self, class: Class, r: &Resources) {
        self.slots += 1;
        self.cpu += u64::from(r.cpu_milli);
        self.memory = self.memory.saturating_add(r.memory);
        self.disk = self.disk.saturating_add(r.disk);
        self.gpu += u64::from(r.gpu_milli);
        for (name, n) in &r.custom {
            *self.custom.entry(name.clone()).or_default() += n;
        }
        *self.classes.entry(class).or_default() += 1;
    }

    pub(crate) fn give(&mut self, class: Class, r: &Resources) {
        self.slots = self.slots.saturating_sub(1);
        self.cpu = self.cpu.saturating_sub(u64::from(r.cpu_milli));
        self.memory = self.memory.saturating_sub(r.memory);
        self.disk = self.disk.saturating_sub(r.disk);
        self.gpu = self.gpu.saturating_sub(u64::from(r.gpu_milli));
        for (name, n) in &r.custom {
            let used = self.custom.entry(name.clone()).or_default();
            *used = used.saturating_sub(*n);
        }
        if let Some(n) = self.classes.get_mut(&class) {
            *n -= 1;
            if *n == 0 {
                self.classes.remove(&class);
            }
        }
    }

    /// What is free of `capacity`.
    pub(crate) fn free(&self, capacity: &Resources) -> Resources {
        let mut free = capacity.clone();
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        free.cpu_milli = free.cpu_milli.saturating_sub(narrow(self.cpu));
        free.memory = free.memory.saturating_sub(self.memory);
        free.disk = free.disk.saturating_sub(self.disk);
        free.gpu_milli = free.gpu_milli.saturating_sub(narrow(self.gpu));
        for (name, have) in &mut free.custom {
            *have = have.saturating_sub(self.custom.get(name).copied().unwrap_or(0));
        }
        free
    }

    /// Whether everything running asks for the same as `class`.
    fn only(&self, class: Class) -> bool {
        self.classes.len() == 1 && self.classes.contains_key(&class)
    }
}

/// How many starts are committed ahead of a free slot.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// So many, unless there are more slots.
    depth: usize,
    /// Attempts that waited and began since this was last measured.
    pub(crate) begun: u64,
    measured: Mono,
}

impl Ahead {
    /// Measures how many begin within `AHEAD_MS`. Ends that come together say nothing about how
    /// long tasks take: what was measured over a moment only is measured on, and the depth at most
    /// doubles at once.
    fn measure(&mut self, now: Mono, slots: u32) {
        let took = (now - self.measured).0;
        if took < MOMENT_MS || self.begun == 0 && took < AHEAD_MS {
            return;
        }
        let depth = self.begun.saturating_mul(AHEAD_MS) / took;
        let depth = usize::try_from(depth).unwrap_or(usize::MAX);
        self.depth = depth.min(2 * self.depth(slots));
        (self.begun, self.measured) = (0, now);
    }

    fn depth(&self, slots: u32) -> usize {
        self.depth.max(slots as usize).min(STARTS_AHEAD)
    }
}

impl Agent {
    /// Whether there is room on the disk to begin more work (or to take a slice over).
    pub(crate) fn has_room(&self) -> bool {
        self.room
            .is_none_or(|(free, wanted)| self.is_enough(free, wanted))
    }

    /// Whether so many free bytes allow more work, where `wanted` are for the store and for files.
    #[must_use]
    pub fn is_enough(&self, free: u64, wanted: u64) -> bool {
        let left = free.saturating_sub(wanted);
        left >= PLENTY || free >= wanted && left >= self.reserve()
    }

    /// Bytes that must stay free for what has to be recorded even without room: the ends of all
    /// that started, cancels, cursors, one reset with the states of all tasks.
    pub(crate) fn reserve(&self) -> u64 {
        let end = |att: &Att| {
            let slice = self.state.slices.get(&att.task.slice);
            let outputs = slice.map_or(0, |slice| slice.task(att.task.pos).outputs.len());
            END_BYTES + outputs * OUTPUT_BYTES
        };
        let ends: usize = self.attempts.values().map(end).sum();
        let ahead = STARTS_AHEAD * END_BYTES;
        let states = |tasks: usize| END_BYTES + tasks * OUTPUT_BYTES;
        let awake = self.state.slices.values().map(|slice| slice.slots.len());
        let at_rest = self.state.resting.values().map(|rest| rest.tasks as usize);
        let reset: usize = awake.chain(at_rest).map(states).sum();
        let commits = [ends + ahead, reset, self.state.runs.len() * END_BYTES]
            .map(|bytes| bytes.div_ceil(BYTES_PER_COMMIT) as u64);
        self.commit_room.saturating_mul(commits.iter().sum())
    }

    /// Whether a person or the coordinator lets the task at `key` start.
    pub(crate) fn may_start(&self, key: TaskKey) -> bool {
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return false;
        };
        let Some(run) = self.state.runs.get(&key.slice.0) else {
            return false;
        };
        let paused = run.paused_here || run.paused_there;
        let stands = paused && !planted::on(Mistake::StartPaused) || run.cancel.is_some();
        let leaves = run.forget || slice.releasing || self.superseding(slice.id);
        slice.slot(key.pos).state == TaskState::Ready && !stands && !leaves
    }

    /// Puts a ready task where it belongs: into the queue, or to the tasks that wait for a file.
    pub(crate) fn enqueue(&mut self, key: TaskKey, fx: &mut Effects) {
        self.ready.remove(key);
        if !self.may_start(key) || self.wait_for_files(key, fx) {
            return;
        }
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return;
        };
        let matrix = slice.group_of(key.pos);
        self.ready.insert(key, slice.task(key.pos), matrix);
        self.arm_deadline(key);
    }

    /// Starts tasks while something fits. Whether anything was decided.
    pub(crate) fn admit(&mut self, fx: &mut Effects) -> bool {
        if self.closing || self.ready.len() == 0 {
            return false;
        }
        let needs_link = planted::on(Mistake::WaitForLink) && !self.link.online();
        if needs_link || planted::on(Mistake::DialFirst) && self.link.proof.is_none() {
            return false;
        }
        if !self.has_room() {
            self.hold_head(
                Reason::WaitsForDisk,
                [self.room.map_or(0, |(free, _)| free), 0, 0],
                fx,
            );
            return false;
        }
        if let Some(pressed) = self.pressed() {
            return self.admit_pressed(pressed, fx);
        }
        let mut any = false;
        while let Some((key, class)) = self.next_fit(fx) {
            self.start(key, class, false, fx);
            any = true;
        }
        any | self.start_ahead(fx)
    }

    pub(crate) fn hold_head(&mut self, reason: Reason, numbers: Numbers, fx: &mut Effects) {
        if let Some((_, key, _)) = self.ready.heads().first().copied() {
            self.note(key, DecisionKind::Held, reason, numbers, fx);
        }
    }

    /// The first task in the order for which everything is free.
    pub(crate) fn next_fit(&mut self, fx: &mut Effects) -> Option<(TaskKey, Class)> {
        let heads = self.ready.heads();
        let first = heads.first()?;
        if self.usage.slots >= self.config.slots || !self.queued.is_empty() {
            let numbers = [u64::from(self.config.slots), u64::from(self.usage.slots), 0];
            if self.queued.is_empty() {
                self.note(
                    first.1,
                    DecisionKind::Held,
                    Reason::WaitsForResources,
                    numbers,
                    fx,
                );
            }
            return None;
        }
        let free = self.usage.free(&self.config.capacity);
        let mut floor = i32::MIN;
        for (place, key, class) in heads.iter().copied() {
            if place.0.0 < floor {
                return None;
            }
            if let Some((share, running)) = self.limit_of(key) {
                let numbers = [u64::from(share), u64::from(running), 0];
                self.note(key, DecisionKind::Held, Reason::WaitsForLimit, numbers, fx);
                continue;
            }
            let wants = self.ready.wants(class);
            let Some((_, want, have)) = free.lacks(wants) else {
                return Some((key, class));
            };
            let never = self.config.capacity.lacks(wants).is_some();
            let reason = if never {
                Reason::DoesNotFit
            } else {
                Reason::WaitsForResources
            };
            let since = self.note(key, DecisionKind::Held, reason, [want, have, 0], fx);
            if never {
                continue;
            }
            if self.now.mono - since >= OVERTAKE {
                return None;
            }
            floor = place.0.0;
        }
        None
    }

    /// Commits starts ahead of a free slot: only where whatever frees is sure to fit.
    fn start_ahead(&mut self, fx: &mut Effects) -> bool {
        let slots = self.config.slots;
        if self.waiting() * 2 > self.ahead.depth(slots) || self.usage.slots < slots {
            return false;
        }
        self.ahead.measure(self.now.mono, slots);
        let mut any = false;
        while self.waiting() < self.ahead.depth(slots)
            && let Some((key, class)) = self.next_ahead()
        {
            self.start(key, class, true, fx);
            any = true;
        }
        any
    }

    /// Attempts that have started and hold no slot yet.
    fn waiting(&self) -> usize {
        let running = self.usage.slots as usize;
        self.attempts.len().saturating_sub(running)
    }

    /// The task that takes the next slot, if it fits whichever attempt frees one.
    fn next_ahead(&self) -> Option<(TaskKey, Class)> {
        let mut heads = self.ready.heads().into_iter();
        let (_, key, class) = heads.find(|(_, key, _)| self.limit_of(*key).is_none())?;
        let slice = self.state.slices.get(&key.slice)?;
        let once = slice.task(key.pos).side_effects == SideEffects::AtMostOnce;
        (!once && self.usage.only(class)).then_some((key, class))
    }

    /// Starts a task, and behind it in the same slot the tasks of its batch that are ready, too.
    pub(crate) fn start(&mut self, key: TaskKey, class: Class, queue: bool, fx: &mut Effects) {
        let mates = self.ready.mates(key);
        let turn = if queue { Turn::Queue } else { Turn::Now };
        let mut before = self.start_one(key, class, turn, fx);
        for mate in mates.into_iter().take(LANE - 1) {
            let Some(id) = before else { return };
            before = self.start_one(mate, class, Turn::Behind(id), fx);
        }
    }

    fn start_one(
        &mut self,
        key: TaskKey,
        class: Class,
        turn: Turn,
        fx: &mut Effects,
    ) -> Option<AttemptRef> {
        self.ready.remove(key);
        let slice = self.state.slices.get(&key.slice)?;
        let mut attempt = AttemptRef {
            slice: slice.id,
            task: slice.index[key.pos as usize],
            number: slice.slot(key.pos).attempts + 1,
        };
        if planted::on(Mistake::SameNumber) {
            attempt.number = (attempt.number - 1).max(1);
        }
        let launch = self.launch(key, attempt, turn);
        let reason = if turn == Turn::Now {
            Reason::ResourcesFree
        } else {
            Reason::StartedAhead
        };
        let numbers = [u64::from(self.usage.slots), self.ready.len() as u64, 0];
        self.emit(Body::Started { attempt }, fx);
        self.note(key, DecisionKind::Admitted, reason, numbers, fx);
        self.hold_slot(attempt, key, class, turn);
        if let Some(launch) = launch {
            fx.after.push(Post::Act(Action::Begin(launch)));
        }
        Some(attempt)
    }

    fn launch(&self, key: TaskKey, attempt: AttemptRef, turn: Turn) -> Option<Launch> {
        let slice = self.state.slices.get(&key.slice)?;
        let task = slice.task(key.pos);
        let content = |source: &Source| match source {
            Source::Task { task, output } => {
                let (_, outputs) = slice.end_of(*task)?;
                outputs.get(*output as usize).map(|file| file.hash)
            }
            Source::NodeFile(_) => None,
            Source::Sent { hash, .. } => Some(*hash),
        };
        let inputs = task
            .inputs
            .iter()
            .map(|input| content(&input.source))
            .collect();
        Some(Launch {
            attempt,
            workflow: slice.workflow.name.clone(),
            task: Arc::new(task.clone()),
            inputs,
            queue: turn != Turn::Now,
            behind: turn.behind(),
        })
    }

    /// Deadlines are times of the wall clock and wait on the boot clock: where the one was set
    /// against the other, they wait anew.
    pub(crate) fn follow_wall_clock(&mut self) {
        let passed = i64::try_from((self.now.mono - self.deadlines_at.mono).0).unwrap_or(i64::MAX);
        let expected = self.deadlines_at.wall.0.saturating_add(passed);
        if self.clock_trusted && self.now.wall.0.abs_diff(expected) >= CLOCK_STEP.0 {
            self.arm_deadlines();
        }
    }

    /// Puts the deadlines of all tasks on the boot clock.
    pub(crate) fn arm_deadlines(&mut self) {
        self.deadlines_at = self.now;
        let is_deadline = |timer: &Timer| matches!(timer, Timer::Deadline(_));
        self.timers.retain(|(_, timer)| !is_deadline(timer));
        let mut waiting = Vec::new();
        let with_some = |(_, slice): &(&SliceKey, &Slice)| slice.has_deadlines;
        for (at, slice) in self.state.slices.iter().filter(with_some) {
            for pos in 0..slice.slots.len() as u32 {
                let open = match slice.slot(pos).state {
                    TaskState::Running | TaskState::Ready | TaskState::Retrying => true,
                    TaskState::Blocked => slice.question(pos).is_some_and(|(_, asked)| asked),
                    _ => false,
                };
                if open && slice.task(pos).deadline.is_some() {
                    waiting.push(TaskKey { slice: *at, pos });
                }
            }
        }
        for task in waiting {
            self.arm_deadline(task);
        }
    }

    pub(crate) fn arm_deadline(&mut self, key: TaskKey) {
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return;
        };
        if let Some(deadline) = slice.task(key.pos).deadline
            && self.clock_trusted
        {
            let left = u64::try_from(deadline.0 - self.now.wall.0).unwrap_or(0);
            let due = Mono(self.now.mono.0.saturating_add(Span(left).nanos()));
            self.timers.insert((due, Timer::Deadline(key)));
        }
    }

    /// The task's number in its workflow.
    pub(crate) fn task_idx(&self, key: TaskKey) -> Option<TaskIdx> {
        self.state
            .slices
            .get(&key.slice)
            .map(|slice| slice.index[key.pos as usize])
    }
}
