//! The snapshot: the state as rows, so that only what changed is written. Counters and indexes are
//! not stored; they are counted anew when the rows are read.

use crate::scheduled::Scheduled;
use crate::slice::{Answers, Slice, Slot};
use crate::state::{CHUNK, Open, Run, SliceKey, State, key};
use crate::store::StoreError;
use serde::{Deserialize, Serialize};
use shared::codec;
use shared::config::scheduler::Scheduler;
use shared::directive::Upstream;
use shared::ids::{AttemptRef, BootId, Epoch, Hash, RunId, ScheduleId, SliceRef, TaskIdx};
use shared::state::TaskState;
use std::collections::BTreeMap;
use std::sync::Arc;

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
        })),
        Row::Wall => Some(codec::encode(&state.wall)),
        Row::Run(run) => state.runs.get(run).map(codec::encode),
        Row::Schedule(id) => state.schedules.get(id).map(codec::encode),
        Row::Workflow(hash) => state.workflows.get(hash).map(|held| codec::pack(held).0),
        Row::Frame(at) => state.slices.get(at).map(|slice| {
            let index = slice.index.clone();
            codec::encode(&Frame {
                id: slice.id,
                hash: slice.hash,
                index,
            })
        }),
        Row::Slice(at) => state.slices.get(at).map(|slice| moving(state, slice)),
        Row::Chunk(at, chunk) => {
            let slots = &state.slices.get(at)?.slots;
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
    })
}

fn damaged(name: &str) -> StoreError {
    StoreError::Damaged(format!("row {name} of the snapshot cannot be read"))
}

/// The state that `rows` describe.
///
/// # Errors
/// [`StoreError::Damaged`].
pub(crate) fn read(rows: &[(String, Vec<u8>)], after: (u64, u64)) -> Result<State, StoreError> {
    let mut state = State {
        facts: after.0,
        directives: after.1,
        ..State::default()
    };
    let table: BTreeMap<&str, &[u8]> = rows
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    for (name, bytes) in &table {
        let bad = |_| damaged(name);
        if *name == "core" {
            read_core(&mut state, codec::decode_extended(bytes).map_err(bad)?);
        } else if *name == "wall" {
            state.wall = codec::decode(bytes).map_err(bad)?;
        } else if let Some(run) = name.strip_prefix("run/") {
            let run = run.parse().map_err(|_| damaged(name))?;
            state
                .runs
                .insert(run, codec::decode_extended::<Run>(bytes).map_err(bad)?);
        } else if let Some(id) = name.strip_prefix("schedule/") {
            let id = id.parse().map_err(|_| damaged(name))?;
            let held: Scheduled = codec::decode_extended(bytes).map_err(bad)?;
            state.schedules.insert(id, held);
        } else if name.starts_with("workflow/") {
            let (workflow, hash) = codec::unpack(bytes).map_err(bad)?;
            state.workflows.insert(hash, Arc::new(workflow));
        }
    }
    for (name, bytes) in &table {
        if let Some(which) = name.strip_prefix("frame/") {
            read_slice(&mut state, &table, name, which, bytes)?;
        }
    }
    for (id, held) in &state.schedules {
        if !state.workflows.contains_key(&held.workflow) {
            return Err(damaged(&format!("schedule/{id}")));
        }
    }
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
}

fn read_slice(
    state: &mut State,
    table: &BTreeMap<&str, &[u8]>,
    name: &str,
    which: &str,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let bad = |_| damaged(name);
    let frame: Frame = codec::decode(bytes).map_err(bad)?;
    let workflow = state
        .workflows
        .get(&frame.hash)
        .ok_or_else(|| damaged(name))?
        .clone();
    let mut slice =
        Slice::new(frame.id, workflow, frame.hash, frame.index).map_err(|_| damaged(name))?;
    let row = format!("slice/{which}");
    let moving = table.get(row.as_str()).ok_or_else(|| damaged(&row))?;
    let moving: Moving = codec::decode_extended(moving).map_err(|_| damaged(&row))?;
    let mut slots: Vec<Slot> = Vec::with_capacity(slice.slots.len());
    let prefix = format!("tasks/{which}/");
    for (name, bytes) in table
        .range(prefix.as_str()..)
        .take_while(|(n, _)| n.starts_with(&prefix))
    {
        slots.extend(codec::decode::<Vec<Slot>>(bytes).map_err(|_| damaged(name))?);
    }
    if slots.len() != slice.slots.len() {
        return Err(damaged(&prefix));
    }
    slice.slots = slots;
    (slice.done, slice.releasing) = (moving.done, moving.releasing);
    (slice.cancel_ask, slice.pause_ask) = (moving.cancel_ask, moving.pause_ask);
    slice.answers = moving.answers.into_iter().collect();
    for told in moving.told {
        if let Some(external) = slice.externals.get_mut(&told.task) {
            external.known = Some(told);
        }
    }
    slice.recount();
    state.running.extend(moving.started);
    let running = slice
        .slots
        .iter()
        .filter(|slot| slot.state == TaskState::Running)
        .count();
    if running != slice.running as usize {
        return Err(damaged(&row));
    }
    state.slices.insert(key(slice.id), slice);
    Ok(())
}
