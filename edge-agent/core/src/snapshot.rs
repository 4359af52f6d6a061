//! The snapshot: the state as rows, so that only what changed is written. Counters and indexes are
//! not stored; they are counted anew when the rows are read.

use crate::limit::Told;
use crate::scheduled::Scheduled;
use crate::slice::{Answers, Slice, Slot};
use crate::state::{CHUNK, Open, Run, SliceKey, State};
use crate::store::{Store, StoreError};
use crate::sync::SyncPause;
use serde::{Deserialize, Serialize};
use shared::codec;
use shared::config::scheduler::Scheduler;
use shared::directive::Upstream;
use shared::ids::{AttemptRef, BootId, Epoch, Hash, RunId, ScheduleId, SliceRef, TaskIdx};
use shared::limits::WORKFLOW_BYTES;
use shared::state::TaskState;

/// A row of the snapshot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Row {
    Core,
    /// The wall clock at the last fact.
    Wall,
    Run(RunId),
    Workflow(Hash),
    /// What never changes of a slice.
    Frame(SliceKey),
    /// What changes of it.
    Slice(SliceKey),
    /// Its tasks, `CHUNK` at a time.
    Chunk(SliceKey, u32),
    Schedule(ScheduleId),
}

#[derive(Serialize, Deserialize)]
struct Core {
    boots: u32,
    boot: Option<BootId>,
    unclean: bool,
    epochs: Vec<(SliceKey, Epoch)>,
    open: Vec<(u64, Open)>,
    forgotten: Vec<RunId>,
    /// Newer than the row; absent in those of the first release.
    settings: Scheduler,
    sync: Option<SyncPause>,
}

#[derive(Serialize, Deserialize)]
struct Frame {
    id: SliceRef,
    hash: Hash,
    index: Vec<TaskIdx>,
}

#[derive(Serialize, Deserialize)]
struct Moving {
    done: bool,
    releasing: bool,
    cancel_ask: bool,
    pause_ask: Option<bool>,
    told: Vec<Upstream>,
    started: Vec<(AttemptRef, u64)>,
    answers: Vec<(TaskIdx, Answers)>,
    limits: Vec<(u32, Told)>,
}

/// The name of a row.
pub(crate) fn name(row: &Row) -> String {
    match row {
        Row::Core => "core".to_owned(),
        Row::Wall => "wall".to_owned(),
        Row::Run(run) => format!("run/{run}"),
        Row::Workflow(hash) => format!("workflow/{}", hash.hex()),
        Row::Frame((run, n)) => format!("frame/{run}/{n:08x}"),
        Row::Slice((run, n)) => format!("slice/{run}/{n:08x}"),
        Row::Schedule(id) => format!("schedule/{id}"),
        Row::Chunk((run, n), chunk) => format!("tasks/{run}/{n:08x}/{chunk:08x}"),
    }
}

/// What a row holds now; none if it goes.
pub(crate) fn value(state: &State, row: &Row) -> Option<Vec<u8>> {
    match row {
        Row::Core => Some(codec::encode(&Core {
            boots: state.boots,
            boot: state.boot,
            unclean: state.unclean,
            epochs: state
                .epochs
                .iter()
                .map(|(at, epoch)| (*at, *epoch))
                .collect(),
            open: state
                .open
                .iter()
                .map(|(n, open)| (*n, open.clone()))
                .collect(),
            forgotten: state.forgotten.iter().copied().collect(),
            settings: state.settings,
            sync: state.sync.clone(),
        })),
        Row::Wall => Some(codec::encode(&state.wall)),
        Row::Run(run) => state.runs.get(run).map(codec::encode),
        Row::Schedule(id) => state.schedules.get(id).map(codec::encode),
        Row::Workflow(hash) => state.packed_workflow(*hash),
        Row::Frame(at) => state.slice(*at).map(|slice| {
            let index = slice.index.clone();
            codec::encode(&Frame {
                id: slice.id,
                hash: slice.hash,
                index,
            })
        }),
        Row::Slice(at) => state.slice(*at).map(|slice| moving(state, &slice)),
        Row::Chunk(at, chunk) => {
            let slots = &state.slice(*at)?.slots;
            let from = (chunk * CHUNK) as usize;
            let to = slots.len().min(from + CHUNK as usize);
            slots
                .get(from..to)
                .filter(|part| !part.is_empty())
                .map(codec::encode)
        }
    }
}

fn moving(state: &State, slice: &Slice) -> Vec<u8> {
    let told = slice
        .externals
        .values()
        .filter_map(|external| external.known.clone());
    let bound = |task, number| AttemptRef {
        slice: slice.id,
        task: TaskIdx(task),
        number,
    };
    let started = state.running.range(bound(0, 0)..=bound(u32::MAX, u32::MAX));
    codec::encode(&Moving {
        done: slice.done,
        releasing: slice.releasing,
        cancel_ask: slice.cancel_ask,
        pause_ask: slice.pause_ask,
        told: told.collect(),
        started: started
            .map(|(attempt, number)| (*attempt, *number))
            .collect(),
        answers: slice.answers.clone().into_iter().collect(),
        limits: slice.limits(),
    })
}

fn damaged(name: &str) -> StoreError {
    StoreError::Damaged(format!("row {name} of the snapshot cannot be read"))
}

/// Hands every row whose name begins with `prefix` to `each`, until it fails.
fn rows<S: Store>(
    store: &mut S,
    prefix: &str,
    mut each: impl FnMut(&str, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut result = Ok(());
    store.each_row(prefix, &mut |name, bytes| {
        if result.is_ok() {
            result = each(name, bytes);
        }
    })?;
    result
}

/// The row `name`.
fn row<S: Store>(store: &mut S, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut found = None;
    rows(store, name, |other, bytes| {
        if other == name {
            found = Some(bytes.to_vec());
        }
        Ok(())
    })?;
    Ok(found)
}

/// The state that the rows in `store` describe, which is the one after these numbers of (facts,
/// directives). Slices are read one after another, and put to rest at once if they may: memory
/// follows from what is left to do.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn read<S: Store>(store: &mut S, after: (u64, u64)) -> Result<State, StoreError> {
    let mut state = State {
        facts: after.0,
        directives: after.1,
        ..State::default()
    };
    let bad = |name: &str| damaged(name);
    if let Some(bytes) = row(store, "core")? {
        read_core(
            &mut state,
            codec::decode_extended(&bytes).map_err(|_| bad("core"))?,
        );
    }
    if let Some(bytes) = row(store, "wall")? {
        state.wall = codec::decode(&bytes).map_err(|_| bad("wall"))?;
    }
    rows(store, "run/", |name, bytes| {
        let run = name["run/".len()..].parse().map_err(|_| bad(name))?;
        let held = codec::decode_extended::<Run>(bytes).map_err(|_| bad(name))?;
        state.runs.insert(run, held);
        Ok(())
    })?;
    rows(store, "workflow/", |name, bytes| {
        // read only where a slice needs it
        let whole = codec::decompress(bytes, WORKFLOW_BYTES).map_err(|_| bad(name))?;
        state.packed.insert(Hash::of(&whole), bytes.into());
        Ok(())
    })?;
    rows(store, "schedule/", |name, bytes| {
        let id = name["schedule/".len()..].parse().map_err(|_| bad(name))?;
        let held: Scheduled = codec::decode_extended(bytes).map_err(|_| bad(name))?;
        let workflow = state.workflow(held.workflow).ok_or_else(|| bad(name))?;
        state.workflows.insert(held.workflow, workflow);
        state.schedules.insert(id, held);
        Ok(())
    })?;
    let mut frames = Vec::new();
    rows(store, "frame/", |name, bytes| {
        frames.push((name.to_owned(), bytes.to_vec()));
        Ok(())
    })?;
    for (name, bytes) in frames {
        read_slice(store, &mut state, &name, &bytes)?;
    }
    state.rest();
    Ok(state)
}

fn read_core(state: &mut State, core: Core) {
    state.boots = core.boots;
    state.boot = core.boot;
    state.unclean = core.unclean;
    state.epochs = core.epochs.into_iter().collect();
    state.open = core.open.into_iter().collect();
    state.forgotten = core.forgotten.into();
    state.settings = core.settings;
    state.sync = core.sync;
}

fn read_slice<S: Store>(
    store: &mut S,
    state: &mut State,
    name: &str,
    frame: &[u8],
) -> Result<(), StoreError> {
    let which = name.strip_prefix("frame/").unwrap_or(name);
    let frame: Frame = codec::decode(frame).map_err(|_| damaged(name))?;
    let workflow = state.workflow(frame.hash).ok_or_else(|| damaged(name))?;
    state.workflows.insert(frame.hash, workflow.clone());
    let mut slice =
        Slice::new(frame.id, workflow, frame.hash, frame.index).map_err(|_| damaged(name))?;
    let other = format!("slice/{which}");
    let moving = row(store, &other)?.ok_or_else(|| damaged(&other))?;
    let moving: Moving = codec::decode_extended(&moving).map_err(|_| damaged(&other))?;
    let mut slots: Vec<Slot> = Vec::with_capacity(slice.slots.len());
    let chunks = format!("tasks/{which}/");
    rows(store, &chunks, |name, bytes| {
        slots.extend(codec::decode::<Vec<Slot>>(bytes).map_err(|_| damaged(name))?);
        Ok(())
    })?;
    if slots.len() != slice.slots.len() {
        return Err(damaged(&chunks));
    }
    (slice.done, slice.releasing) = (moving.done, moving.releasing);
    (slice.cancel_ask, slice.pause_ask) = (moving.cancel_ask, moving.pause_ask);
    slice.restore(slots, moving.told, moving.answers, moving.limits);
    state.running.extend(moving.started);
    let running = slice
        .slots
        .iter()
        .filter(|slot| slot.state == TaskState::Running)
        .count();
    if running != slice.running as usize {
        return Err(damaged(&other));
    }
    state.keep(slice);
    Ok(())
}
