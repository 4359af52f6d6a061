//! Files: which inputs must be fetched before a task can start, and which outputs go to the
//! coordinator. What is here is known in memory only; after a start it is asked for again.

use crate::agent::{Agent, Effects, Post, Timer};
use crate::event::Action;
use crate::state::{SliceKey, TaskKey};
use shared::explain::{DecisionKind, Reason};
use shared::ids::{Hash, RunId, TaskIdx};
use shared::state::TaskState;
use shared::time::{Mono, Span};
use shared::workflow::Source;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Uploads asked for at once.
const UPLOADS: usize = 8;
/// Shortest and longest pause before a file is asked for again.
const PAUSE: (u64, u64) = (1000, 30_000);
/// Shortest and longest pause before a file is brought again while the link stays up.
const UPLOAD_PAUSE: (u64, u64) = (1000, 300_000);

/// A file that is not here yet.
#[derive(Debug, Default)]
pub(crate) struct Want {
    pub(crate) size: u64,
    pub(crate) asked: u32,
    /// The coordinator said that it has it, and no fetch was answered since.
    pub(crate) ready: bool,
    pub(crate) tasks: BTreeSet<TaskKey>,
    slices: BTreeSet<SliceKey>,
}

/// A file that is to be brought.
#[derive(Debug)]
struct Upload {
    hash: Hash,
    size: u64,
    /// The run whose end takes it out of the queue; none once it was tried, since another run may
    /// have left it to that.
    run: Option<RunId>,
}

/// What is known of files.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) here: BTreeSet<Hash>,
    pub(crate) wanted: BTreeMap<Hash, Want>,
    waiting: BTreeMap<TaskKey, BTreeSet<Hash>>,
    uploads: VecDeque<Upload>,
    uploading: BTreeMap<Hash, u64>,
    /// Could not be brought: size, and when it is tried again.
    paused: BTreeMap<Hash, (u64, Mono)>,
    /// How often each was tried in vain.
    failed: BTreeMap<Hash, u32>,
    uploaded: BTreeSet<Hash>,
    /// Slices to be given up, each with the outputs that must be with the coordinator before.
    owed: BTreeMap<SliceKey, BTreeSet<Hash>>,
}

impl Files {
    /// The files that a task waits for.
    pub(crate) fn missing(&self, task: TaskKey) -> impl Iterator<Item = &Hash> {
        self.waiting.get(&task).into_iter().flatten()
    }

    /// A task no longer waits.
    pub(crate) fn leave(&mut self, task: TaskKey) {
        for hash in self.waiting.remove(&task).unwrap_or_default() {
            if let Some(want) = self.wanted.get_mut(&hash) {
                want.tasks.remove(&task);
            }
        }
    }

    /// Nothing is wanted for a slice any more.
    pub(crate) fn drop_slice(&mut self, at: SliceKey) {
        let bound = |pos| TaskKey { slice: at, pos };
        let tasks: Vec<_> = self
            .waiting
            .range(bound(0)..=bound(u32::MAX))
            .map(|(task, _)| *task)
            .collect();
        for task in tasks {
            self.leave(task);
        }
        self.owed.remove(&at);
        self.wanted.retain(|_, want| {
            want.slices.remove(&at);
            !want.slices.is_empty()
        });
    }

    /// Puts a file into the queue of those to be brought, unless it is under way or waiting. One
    /// that was brought before goes too: the coordinator may have let it go since, to make room,
    /// which nobody is told. What it still holds it does not take twice.
    fn queue_upload(&mut self, run: RunId, hash: Hash, size: u64) {
        self.uploaded.remove(&hash);
        let waits = self.uploading.contains_key(&hash) || self.paused.contains_key(&hash);
        if !waits {
            let run = Some(run);
            self.uploads.push_back(Upload { hash, size, run });
        }
    }

    /// Nobody reads what forgotten runs made: it would keep a narrow link from what others made.
    pub(crate) fn forget(&mut self, runs: &BTreeSet<RunId>) {
        if runs.is_empty() {
            return;
        }
        self.uploads
            .retain(|upload| upload.run.is_none_or(|run| !runs.contains(&run)));
        if self.uploads.is_empty() {
            self.uploads.shrink_to_fit(); // a long backlog took much
        }
    }

    /// Puts a file that was tried already before all others.
    fn upload_again(&mut self, hash: Hash, size: u64) {
        let run = None;
        self.uploads.push_front(Upload { hash, size, run });
    }

    /// Files that are no longer here.
    pub(crate) fn gone(&mut self, gone: &BTreeSet<Hash>) {
        self.here.retain(|hash| !gone.contains(hash));
        self.uploaded.retain(|hash| !gone.contains(hash));
    }

    /// Outputs that wait to be brought to the coordinator.
    pub(crate) fn backlog(&self) -> usize {
        self.uploads.len() + self.uploading.len() + self.paused.len()
    }
}

impl Agent {
    /// Stored files that a task reads and that were not made here.
    fn foreign_files(&self, key: TaskKey) -> Vec<(Hash, u64)> {
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return Vec::new();
        };
        let of = |source: &Source| match source {
            Source::Sent { hash, size } => Some((*hash, *size)),
            Source::NodeFile(_) => None,
            Source::Task { task, output } => {
                let here = slice
                    .position(*task)
                    .is_some_and(|pos| !slice.slot(pos).adopted);
                if here {
                    return None;
                }
                let (_, outputs) = slice.end_of(*task)?;
                outputs
                    .get(*output as usize)
                    .map(|file| (file.hash, file.size))
            }
        };
        slice
            .task(key.pos)
            .inputs
            .iter()
            .filter_map(|input| of(&input.source))
            .collect()
    }

    /// Whether a task must wait for files; it is put to their waiters.
    pub(crate) fn wait_for_files(&mut self, key: TaskKey, fx: &mut Effects) -> bool {
        let mut waits = false;
        for (hash, size) in self.foreign_files(key) {
            if self.files.here.contains(&hash) {
                continue;
            }
            waits = true;
            self.want(key.slice, hash, size, fx);
            if let Some(want) = self.files.wanted.get_mut(&hash) {
                want.tasks.insert(key);
            }
            self.files.waiting.entry(key).or_default().insert(hash);
        }
        if waits {
            let missing = self.files.missing(key).count() as u64;
            let numbers = [missing, 0, 0];
            self.note(key, DecisionKind::Held, Reason::WaitsForFile, numbers, fx);
        }
        waits
    }

    fn want(&mut self, slice: SliceKey, hash: Hash, size: u64, fx: &mut Effects) {
        if self.files.here.contains(&hash) {
            return;
        }
        let new = !self.files.wanted.contains_key(&hash);
        let want = self.files.wanted.entry(hash).or_default();
        want.size = size;
        want.slices.insert(slice);
        if new {
            fx.after.push(Post::Act(Action::Fetch { hash, size }));
            fx.hurry = true;
        }
    }

    /// Asks for the files of other slices and of the submission as soon as they are known.
    pub(crate) fn slice_taken(&mut self, at: SliceKey, fx: &mut Effects) {
        let Some(slice) = self.state.slices.get(&at) else {
            return;
        };
        let mut wants = BTreeSet::new();
        for pos in 0..slice.slots.len() as u32 {
            if !slice.slot(pos).state.is_final() {
                wants.extend(self.foreign_files(TaskKey { slice: at, pos }));
            }
        }
        for (hash, size) in wants {
            self.want(at, hash, size, fx);
        }
    }

    pub(crate) fn want_upstream(&mut self, at: SliceKey, task: TaskIdx, fx: &mut Effects) {
        let Some(slice) = self.state.slices.get(&at) else {
            return;
        };
        let Some(external) = slice.externals.get(&task) else {
            return;
        };
        let readers = external.readers.clone();
        for pos in readers {
            for (hash, size) in self.foreign_files(TaskKey { slice: at, pos }) {
                self.want(at, hash, size, fx);
            }
        }
    }

    pub(crate) fn on_file_here(&mut self, hash: Hash) {
        self.files.here.insert(hash);
        let Some(want) = self.files.wanted.remove(&hash) else {
            return;
        };
        for task in want.tasks {
            let Some(left) = self.files.waiting.get_mut(&task) else {
                continue;
            };
            left.remove(&hash);
            if left.is_empty() {
                self.files.waiting.remove(&task);
                if self.may_start(task)
                    && let Some(slice) = self.state.slices.get(&task.slice)
                {
                    let matrix = slice.group_of(task.pos);
                    self.ready.insert(task, slice.task(task.pos), matrix);
                    self.arm_deadline(task);
                }
            }
        }
    }

    pub(crate) fn on_file_not_there(&mut self, hash: Hash, fx: &mut Effects) {
        let Some(want) = self.files.wanted.get_mut(&hash) else {
            return;
        };
        if std::mem::take(&mut want.ready) {
            self.fetch_due(hash, fx);
            return;
        }
        want.asked = want.asked.saturating_add(1);
        let asked = want.asked;
        let due = self.after_pause(PAUSE, asked);
        self.timers.insert((due, Timer::Fetch(hash)));
    }

    /// When something that failed so often is tried again.
    fn after_pause(&mut self, (shortest, longest): (u64, u64), failures: u32) -> Mono {
        let pause = longest.min(shortest << failures.min(12).saturating_sub(1));
        self.now.mono + Span(pause / 2 + self.rng.up_to(pause / 2))
    }

    pub(crate) fn fetch_due(&mut self, hash: Hash, fx: &mut Effects) {
        if let Some(want) = self.files.wanted.get(&hash) {
            fx.before.push(Action::Fetch {
                hash,
                size: want.size,
            });
        }
    }

    /// An input that was thought here is not: it is asked for again when the task is ready again.
    pub(crate) fn files_lost(&mut self, key: TaskKey) {
        for (hash, _) in self.foreign_files(key) {
            self.files.here.remove(&hash);
        }
    }

    /// Outputs that others read, or nobody, go up.
    pub(crate) fn outputs_made(&mut self, key: TaskKey, fx: &mut Effects) {
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return;
        };
        if slice.question(key.pos).is_some() {
            self.keep_answer(key, fx);
        }
        let Some(slice) = self.state.slices.get(&key.slice) else {
            return;
        };
        let (slot, mask) = (slice.slot(key.pos), slice.exports[key.pos as usize]);
        if slot.adopted || mask == 0 || !self.config.has_coordinator {
            return;
        }
        for (n, file) in slot.outputs.iter().enumerate() {
            if n >= 64 || mask >> n & 1 == 1 {
                self.files.queue_upload(key.slice.0, file.hash, file.size);
            }
        }
        self.pump_uploads(fx);
    }

    /// Whether outputs of a slice that is given up must still be brought to the coordinator: what
    /// only its own tasks were to read is read elsewhere from now on, and not every task may be
    /// done again. What was brought before is, too: it may have gone there to make room.
    pub(crate) fn owes_outputs(&mut self, at: SliceKey, fx: &mut Effects) -> bool {
        if let Some(left) = self.files.owed.get(&at) {
            return !left.is_empty();
        }
        let Some(slice) = self
            .state
            .slices
            .get(&at)
            .filter(|_| self.config.has_coordinator)
        else {
            return false;
        };
        let made_here = slice.slots.iter().filter(|slot| !slot.adopted);
        let outputs = made_here.flat_map(|slot| &slot.outputs);
        let left: BTreeMap<Hash, u64> = outputs.map(|file| (file.hash, file.size)).collect();
        for (hash, size) in &left {
            self.files.queue_upload(at.0, *hash, *size);
        }
        let owes = !left.is_empty();
        self.files.owed.insert(at, left.into_keys().collect());
        self.pump_uploads(fx);
        owes
    }

    pub(crate) fn pump_uploads(&mut self, fx: &mut Effects) {
        while self.link.online()
            && self.files.uploading.len() < UPLOADS
            && let Some(Upload { hash, size, .. }) = self.files.uploads.pop_front()
        {
            if !self.files.uploaded.contains(&hash) {
                self.files.uploading.insert(hash, size);
                fx.after.push(Post::Act(Action::Upload { hash, size }));
            }
        }
    }

    /// A new session: what was under way is asked for again, and what waited for another try.
    pub(crate) fn restart_uploads(&mut self, fx: &mut Effects) {
        let paused = std::mem::take(&mut self.files.paused);
        let paused = paused.into_iter().map(|(hash, (size, _))| (hash, size));
        let under_way = std::mem::take(&mut self.files.uploading);
        for (hash, size) in paused.chain(under_way) {
            self.files.upload_again(hash, size);
        }
        self.pump_uploads(fx);
    }

    /// A coordinator whose store went back may lack what it had: everything that is to be there is
    /// brought again (what it holds it does not take twice), before a slice that owes it is given
    /// up.
    pub(crate) fn bring_again(&mut self, fx: &mut Effects) {
        self.files.uploaded.clear();
        self.check
            .extend(std::mem::take(&mut self.files.owed).into_keys());
        self.state.wake_makers();
        let mut made = Vec::new();
        for (at, slice) in &self.state.slices {
            let done = |pos: &u32| slice.slot(*pos).state == TaskState::Succeeded;
            let tasks = (0..slice.slots.len() as u32).filter(done);
            made.extend(tasks.map(|pos| TaskKey { slice: *at, pos }));
        }
        for task in made {
            self.outputs_made(task, fx);
        }
    }

    pub(crate) fn on_uploaded(&mut self, hash: Hash, fx: &mut Effects) {
        self.files.uploaded.insert(hash);
        self.upload_over(hash, fx);
    }

    /// Nothing more is to be done for a file, as far as it is to be brought.
    fn upload_over(&mut self, hash: Hash, fx: &mut Effects) {
        self.files.uploading.remove(&hash);
        self.files.paused.remove(&hash);
        self.files.failed.remove(&hash);
        for (at, left) in &mut self.files.owed {
            if left.remove(&hash) && left.is_empty() {
                self.check.insert(*at);
            }
        }
        self.pump_uploads(fx);
    }

    /// It is brought again after a pause that grows; with a new session at once. What is not here
    /// can never be brought, and nobody waits for that.
    pub(crate) fn on_not_uploaded(&mut self, hash: Hash, here: bool, fx: &mut Effects) {
        if !here {
            self.upload_over(hash, fx);
            return;
        }
        let Some(size) = self.files.uploading.remove(&hash) else {
            return;
        };
        let failures = self.files.failed.entry(hash).or_default();
        *failures = failures.saturating_add(1);
        let failures = *failures;
        let due = self.after_pause(UPLOAD_PAUSE, failures);
        self.files.paused.insert(hash, (size, due));
        self.timers.insert((due, Timer::Upload(hash)));
        self.pump_uploads(fx);
    }

    pub(crate) fn upload_due(&mut self, hash: Hash, fx: &mut Effects) {
        let paused = self.files.paused.get(&hash).copied();
        // A timer of an earlier session may come before the pause is over.
        let Some((size, _)) = paused.filter(|(_, due)| *due <= self.now.mono) else {
            return;
        };
        self.files.paused.remove(&hash);
        self.files.upload_again(hash, size);
        self.pump_uploads(fx);
    }
}
