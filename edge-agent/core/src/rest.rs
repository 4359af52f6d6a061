//! Slices at rest: every task of them is final and nothing is asked of them any more. They stay
//! known by a summary and a packed form of a few bytes a task, so that a gateway that was alone for
//! months needs little memory for what it did. What is about such a slice wakes it first.

use crate::limit::Told;
use crate::slice::{Answers, Slice, Slot};
use crate::state::{Open, SliceKey, State, key};
use serde::{Deserialize, Serialize};
use shared::codec::{self, DecodeError};
use shared::directive::Upstream;
use shared::explain::Reason;
use shared::fact::{OutputFile, SliceState, TaskStatus};
use shared::ids::{Hash, RunId, SliceRef, TaskIdx};
use shared::limits::WORKFLOW_BYTES;
use shared::state::TaskState;
use shared::time::{Span, Stamp, Unix};
use shared::workflow::Workflow;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A slice at rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rest {
    /// Run, number, epoch.
    pub id: SliceRef,
    /// Content hash of the workflow.
    pub hash: Hash,
    /// Name of the workflow.
    pub name: Arc<str>,
    /// Tasks by state.
    pub counts: BTreeMap<TaskState, u32>,
    /// When a task of it changed last.
    pub last: Option<Unix>,
    /// Whether a task of it has outputs.
    pub outputs: bool,
    /// Number of its tasks.
    pub tasks: u32,
    /// Whether it names contents: outputs of its tasks, or of those that it was told of.
    names_files: bool,
    packed: Box<[u8]>,
    /// Bytes of `packed` before they were compressed.
    unpacked: usize,
}

/// What is known of the tasks, one column for each field: most say the same for all tasks.
#[derive(Serialize, Deserialize)]
struct Columns {
    tasks: Vec<i64>,
    state: Vec<TaskState>,
    reason: Vec<Reason>,
    attempts: Vec<u32>,
    used: Vec<u32>,
    crashes: Vec<u32>,
    adopted: Vec<bool>,
    outputs: Vec<Vec<OutputFile>>,
    retry: Vec<Option<(Stamp, Span)>>,
    began: Times,
    since: Times,
    exit: Vec<Option<i32>>,
    told: Vec<Upstream>,
    answers: Vec<(TaskIdx, Answers)>,
    limits: Vec<(u32, Told)>,
}

/// Moments, each by what it differs from the one before; the wall clock, which follows the boot
/// clock, by how its distance from that changed.
#[derive(Serialize, Deserialize)]
struct Times {
    known: Vec<bool>,
    boot: Vec<u32>,
    mono: Vec<i64>,
    wall: Vec<i64>,
}

impl Times {
    fn pack(of: impl Iterator<Item = Option<Stamp>>) -> Self {
        let mut times = Self {
            known: Vec::new(),
            boot: Vec::new(),
            mono: Vec::new(),
            wall: Vec::new(),
        };
        let (mut mono, mut apart) = (0, 0);
        for stamp in of {
            times.known.push(stamp.is_some());
            let Some(stamp) = stamp else { continue };
            let now = stamp.mono_ms.cast_signed();
            let distance = stamp.wall.0.wrapping_sub(now);
            times.boot.push(stamp.boot);
            times.mono.push(now.wrapping_sub(mono));
            times.wall.push(distance.wrapping_sub(apart));
            (mono, apart) = (now, distance);
        }
        times
    }

    fn unpack(self) -> impl Iterator<Item = Option<Stamp>> {
        let (mut mono, mut apart) = (0i64, 0i64);
        let apart_each = self.mono.into_iter().zip(self.wall);
        let mut stamps = self.boot.into_iter().zip(apart_each);
        self.known.into_iter().map(move |known| {
            let (boot, (later, further)) = if known { stamps.next()? } else { return None };
            mono = mono.wrapping_add(later);
            apart = apart.wrapping_add(further);
            Some(Stamp {
                boot,
                mono_ms: mono.cast_unsigned(),
                wall: Unix(mono.wrapping_add(apart)),
            })
        })
    }
}

impl Columns {
    fn of(slice: &Slice) -> Self {
        fn each<T>(slots: &[Slot], of: impl Fn(&Slot) -> T) -> Vec<T> {
            slots.iter().map(of).collect()
        }
        let slots = &slice.slots;
        let before = std::iter::once(0).chain(slice.index.iter().map(|task| i64::from(task.0)));
        let tasks = slice.index.iter().zip(before);
        let told = slice.externals.values();
        Self {
            tasks: tasks.map(|(task, last)| i64::from(task.0) - last).collect(),
            state: each(slots, |slot| slot.state),
            reason: each(slots, |slot| slot.reason),
            attempts: each(slots, |slot| slot.attempts),
            used: each(slots, |slot| slot.used),
            crashes: each(slots, |slot| slot.crashes),
            adopted: each(slots, |slot| slot.adopted),
            outputs: each(slots, |slot| slot.outputs.clone()),
            retry: each(slots, |slot| slot.retry),
            began: Times::pack(slots.iter().map(|slot| slot.began)),
            since: Times::pack(slots.iter().map(|slot| slot.since)),
            exit: each(slots, |slot| slot.exit),
            told: told.filter_map(|external| external.known.clone()).collect(),
            answers: slice.answers.clone().into_iter().collect(),
            limits: slice.limits(),
        }
    }

    fn index(&self) -> Vec<TaskIdx> {
        let mut last = 0;
        let next = |apart: &i64| {
            last += apart;
            TaskIdx(last as u32)
        };
        self.tasks.iter().map(next).collect()
    }

    fn restore(self, slice: &mut Slice) {
        let mut outputs = self.outputs.into_iter();
        let mut began = self.began.unpack();
        let mut since = self.since.unpack();
        let slot = |pos: usize| Slot {
            state: self.state[pos],
            reason: self.reason[pos],
            attempts: self.attempts[pos],
            used: self.used[pos],
            crashes: self.crashes[pos],
            adopted: self.adopted[pos],
            outputs: outputs.next().unwrap_or_default(),
            retry: self.retry[pos],
            began: began.next().flatten(),
            since: since.next().flatten(),
            exit: self.exit[pos],
        };
        let slots = (0..self.state.len()).map(slot).collect();
        slice.restore(slots, self.told, self.answers, self.limits);
        slice.done = true;
    }
}

impl Rest {
    fn of(slice: &Slice) -> Self {
        let mut counts = BTreeMap::new();
        for slot in &slice.slots {
            *counts.entry(slot.state).or_default() += 1;
        }
        let bytes = codec::encode(&Columns::of(slice));
        let changed = slice.slots.iter().filter_map(|slot| slot.since);
        let outputs = slice.slots.iter().any(|slot| !slot.outputs.is_empty());
        let mut told = slice.externals.values().filter_map(|e| e.known.as_ref());
        Self {
            id: slice.id,
            hash: slice.hash,
            name: slice.workflow.name.as_str().into(),
            counts,
            last: changed.map(|at| at.wall).max(),
            outputs,
            tasks: slice.slots.len() as u32,
            names_files: outputs || told.any(|told| !told.outputs.is_empty()),
            packed: codec::compress(&bytes).into_boxed_slice(),
            unpacked: bytes.len(),
        }
    }

    /// Adds the contents that it names: outputs of its tasks, and of those that it was told of.
    pub(crate) fn add_files(&self, named: &mut BTreeSet<Hash>) {
        if self.names_files {
            let columns = self.columns();
            let told = columns.told.iter().map(|told| &told.outputs);
            let files = columns.outputs.iter().chain(told).flatten();
            named.extend(files.map(|file| file.hash));
        }
    }

    /// As inventories and resets tell it.
    fn told(&self) -> SliceState {
        let columns = self.columns();
        let index = columns.index().into_iter();
        let status = |(pos, task): (usize, TaskIdx)| TaskStatus {
            task,
            state: columns.state[pos],
            attempts: columns.attempts[pos],
            outputs: columns.outputs[pos].clone(),
        };
        SliceState {
            slice: self.id,
            workflow: self.hash,
            tasks: index.enumerate().map(status).collect(),
        }
    }

    /// What is known of its tasks.
    ///
    /// # Panics
    /// Never: what was packed in memory can be read again.
    fn columns(&self) -> Columns {
        codec::decompress(&self.packed, self.unpacked)
            .and_then(|bytes| codec::decode(&bytes))
            .expect("what was packed in memory can be read again")
    }

    /// The slice as it was.
    ///
    /// # Panics
    /// Never: it was a slice of this workflow.
    fn slice(&self, workflow: Arc<Workflow>) -> Slice {
        let columns = self.columns();
        let mut slice = Slice::new(self.id, workflow, self.hash, columns.index())
            .expect("it was a slice before");
        columns.restore(&mut slice);
        slice
    }
}

impl State {
    /// The slice, awake or at rest.
    #[must_use]
    pub fn slice(&self, at: SliceKey) -> Option<Cow<'_, Slice>> {
        if let Some(slice) = self.slices.get(&at) {
            return Some(Cow::Borrowed(slice));
        }
        let rest = self.resting.get(&at)?;
        Some(Cow::Owned(rest.slice(self.workflow(rest.hash)?)))
    }

    /// Where slices of these keys are, awake or at rest.
    pub(crate) fn keys(&self, range: RangeInclusive<SliceKey>) -> BTreeSet<SliceKey> {
        let awake = self.slices.range(range.clone()).map(|(at, _)| *at);
        let at_rest = self.resting.range(range).map(|(at, _)| *at);
        awake.chain(at_rest).collect()
    }

    /// The slice as inventories and resets tell it: with all its tasks, also those that have no
    /// history yet, since what is named by nobody would be placed once more.
    pub(crate) fn slice_state(&self, at: SliceKey) -> Option<SliceState> {
        let Some(slice) = self.slices.get(&at) else {
            return Some(self.resting.get(&at)?.told());
        };
        let known = slice.slots.iter().zip(&slice.index);
        let status = known.map(|(slot, task)| TaskStatus {
            task: *task,
            state: slot.state,
            attempts: slot.attempts,
            outputs: slot.outputs.clone(),
        });
        Some(SliceState {
            slice: slice.id,
            workflow: slice.hash,
            tasks: status.collect(),
        })
    }

    /// Content hash of the workflow of a slice.
    pub(crate) fn hash_of(&self, at: SliceKey) -> Option<Hash> {
        let awake = self.slices.get(&at).map(|slice| slice.hash);
        awake.or_else(|| Some(self.resting.get(&at)?.hash))
    }

    /// Whether the slice is here at exactly this epoch.
    #[must_use]
    pub fn holds(&self, id: SliceRef) -> bool {
        let rests = || self.resting.get(&key(id)).is_some_and(|rest| rest.id == id);
        self.slice_at(id).is_some() || rests()
    }

    /// A workflow that is known here.
    #[must_use]
    pub fn workflow(&self, hash: Hash) -> Option<Arc<Workflow>> {
        if let Some(open) = self.workflows.get(&hash) {
            return Some(open.clone());
        }
        let (workflow, _) = codec::unpack(self.packed.get(&hash)?).ok()?;
        Some(Arc::new(workflow))
    }

    /// The workflow in `packed`, and its content hash. One that is open already is not decoded
    /// again: to decode a large one takes longer than to compare it.
    pub(crate) fn unpack(&self, packed: &[u8]) -> Result<(Arc<Workflow>, Hash), DecodeError> {
        let bytes = codec::decompress(packed, WORKFLOW_BYTES)?;
        let hash = Hash::of(&bytes);
        let workflow = match self.workflows.get(&hash) {
            Some(open) => open.clone(),
            None => Arc::new(Workflow::decode(&bytes)?),
        };
        Ok((workflow, hash))
    }

    /// The same, packed.
    #[must_use]
    pub fn packed_workflow(&self, hash: Hash) -> Option<Vec<u8>> {
        let packed = self.packed.get(&hash).map(|packed| packed.to_vec());
        packed.or_else(|| Some(codec::pack(self.workflows.get(&hash)?).0))
    }

    /// The content hashes of all workflows that are known here.
    #[must_use]
    pub fn known_workflows(&self) -> BTreeSet<Hash> {
        let known = self.workflows.keys().chain(self.packed.keys());
        known.copied().collect()
    }

    /// Wakes the slice that something is about, or all slices of the run that it is about.
    pub(crate) fn wake(&mut self, slice: Option<SliceRef>, run: Option<RunId>) {
        let range = match (slice.map(key), run) {
            (Some(at), _) => at..=at,
            (None, Some(run)) => (run, 0)..=(run, u32::MAX),
            (None, None) => return,
        };
        let at_rest: Vec<SliceKey> = self.resting.range(range).map(|(at, _)| *at).collect();
        for at in at_rest {
            if let Some(slice) = self.slice(at).map(Cow::into_owned) {
                self.workflows
                    .entry(slice.hash)
                    .or_insert_with(|| slice.workflow.clone());
                self.resting.remove(&at);
                self.slices.insert(at, slice);
            }
        }
    }

    /// The same with every slice awake: who rests is not part of what was decided, so states are
    /// compared like this.
    #[must_use]
    pub fn all_awake(&self) -> Self {
        let mut all = self.clone();
        let at_rest: Vec<SliceRef> = all.resting.values().map(|rest| rest.id).collect();
        for slice in at_rest {
            all.wake(Some(slice), None);
        }
        let hashes: BTreeSet<Hash> = all.packed.keys().copied().collect();
        for hash in hashes {
            let workflow = all.workflow(hash);
            all.workflows
                .extend(workflow.map(|workflow| (hash, workflow)));
        }
        all.packed.clear();
        all
    }

    /// Wakes the slices that have outputs.
    pub(crate) fn wake_makers(&mut self) {
        let makers = self.resting.values().filter(|rest| rest.outputs);
        let makers: Vec<SliceRef> = makers.map(|rest| rest.id).collect();
        for slice in makers {
            self.wake(Some(slice), None);
        }
    }

    /// Takes over a slice as it was stored.
    pub(crate) fn keep(&mut self, slice: Slice) {
        if self.may_rest(&slice) {
            self.resting.insert(key(slice.id), Rest::of(&slice));
        } else {
            self.slices.insert(key(slice.id), slice);
        }
    }

    /// Puts every slice to rest that may; workflows that no other slice needs are packed. Only
    /// right behind a snapshot, when no row is left to be written.
    pub(crate) fn rest(&mut self) {
        let may = |slice: &&Slice| self.may_rest(slice);
        let slices: Vec<SliceRef> = self.slices.values().filter(may).map(|s| s.id).collect();
        for id in slices {
            if let Some(slice) = self.slices.remove(&key(id)) {
                self.resting.insert(key(id), Rest::of(&slice));
            }
        }
        self.close_workflows();
    }

    fn close_workflows(&mut self) {
        let slices = self.slices.values().map(|slice| slice.hash);
        let schedules = self.schedules.values().map(|held| held.workflow);
        let needed: BTreeSet<Hash> = slices.chain(schedules).collect();
        let packed = &mut self.packed;
        self.workflows.retain(|hash, workflow| {
            let open = needed.contains(hash);
            if !open {
                packed
                    .entry(*hash)
                    .or_insert_with(|| codec::pack(workflow).0.into_boxed_slice());
            }
            open
        });
    }

    fn may_rest(&self, slice: &Slice) -> bool {
        let quiet = slice.done && slice.unfinal == 0 && slice.running == 0;
        let asked = slice.releasing || slice.cancel_ask || slice.pause_ask.is_some();
        let run = self.runs.get(&slice.id.run);
        quiet
            && !asked
            && run.is_some_and(|run| !run.forget)
            && !slice.slots.iter().any(|slot| slot.state == TaskState::Lost)
            && !self
                .open
                .values()
                .any(|open| open.run() == Some(slice.id.run))
    }
}

impl Open {
    /// The run that it is about, if it is about one.
    fn run(&self) -> Option<RunId> {
        match self {
            Self::Assign(assign) => Some(assign.slice.run),
            Self::Release(slice) | Self::Answer(slice, ..) => Some(slice.run),
            Self::Refuse(slice, ..) => slice.map(|slice| slice.run),
            Self::Limit(limit) => Some(limit.slice.run),
            Self::Schedule { .. } => None,
        }
    }
}
