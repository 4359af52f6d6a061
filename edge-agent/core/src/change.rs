//! A task's state changes, and what waits for the task with it.

use crate::slice::{Slice, Verdict};
use crate::snapshot::Row;
use crate::state::{CHUNK, TaskKey, Touch};
use shared::explain::Reason;
use shared::state::TaskState;
use shared::time::Stamp;

/// Sets a task's state and carries the consequences to the tasks that wait for it.
pub(crate) fn change(
    slice: &mut Slice,
    at: TaskKey,
    to: TaskState,
    why: Reason,
    when: Stamp,
    touch: &mut Touch,
) {
    let (to, why) = match to {
        // what it needs came undone while it ran, or waited for its next attempt
        TaskState::Ready if !needs_hold(slice, at.pos) => {
            (TaskState::Blocked, Reason::WaitsForTasks)
        }
        _ => (to, why),
    };
    let slot = &mut slice.slots[at.pos as usize];
    let from = std::mem::replace(&mut slot.state, to);
    slot.reason = why;
    slot.since = Some(when);
    slice.regroup(at.pos, from, to);
    touch.rows.insert(Row::Chunk(at.slice, at.pos / CHUNK));
    match to {
        TaskState::Ready => touch.ready.push(at),
        TaskState::Retrying => touch.retrying.push(at),
        _ if from == TaskState::Ready => touch.unready.push(at),
        _ => {}
    }
    if from.is_final() != to.is_final() {
        if to.is_final() {
            slice.unfinal -= 1;
        } else {
            slice.unfinal += 1;
            slice.done = false;
        }
        touch.slices.insert(at.slice);
        touch.rows.insert(Row::Slice(at.slice));
        for reader in slice.readers(at.pos) {
            let pos = slice.reader(reader);
            count(
                slice,
                TaskKey {
                    slice: at.slice,
                    pos,
                },
                from.is_final(),
                to.is_final(),
                touch,
            );
        }
    }
    if to == TaskState::Blocked {
        reconsider(slice, at, touch);
    }
}

/// Whether all that it needs ended, and as it wants it.
fn needs_hold(slice: &Slice, pos: u32) -> bool {
    slice.waits[pos as usize] == 0 && slice.verdict(pos) == Verdict::Ready
}

/// A task that `at` waits for became final, or no longer is.
pub(crate) fn count(slice: &mut Slice, at: TaskKey, was: bool, is: bool, touch: &mut Touch) {
    let waits = &mut slice.waits[at.pos as usize];
    match (was, is) {
        (false, true) => *waits -= 1,
        (true, false) => *waits += 1,
        _ => {}
    }
    let waiting = *waits > 0;
    // what is ready is judged again, too, if the end of a task that it needs is another one now
    let state = &mut slice.slots[at.pos as usize].state;
    if *state == TaskState::Ready && (waiting || was && is) {
        *state = TaskState::Blocked;
        touch.unready.push(at);
        touch.rows.insert(Row::Chunk(at.slice, at.pos / CHUNK));
    }
    let slot = &mut slice.slots[at.pos as usize];
    if waiting && slot.state == TaskState::Blocked && slot.reason == Reason::WaitsForPerson {
        slot.reason = Reason::WaitsForTasks;
        touch.rows.insert(Row::Chunk(at.slice, at.pos / CHUNK));
    }
    reconsider(slice, at, touch);
}

/// A blocked task that waits for nothing becomes ready, or is reported as ending without an
/// attempt.
pub(crate) fn reconsider(slice: &mut Slice, at: TaskKey, touch: &mut Touch) {
    let pos = at.pos as usize;
    if slice.waits[pos] > 0 || slice.slots[pos].state != TaskState::Blocked {
        return;
    }
    match slice.verdict(at.pos) {
        Verdict::Ready if slice.question(at.pos).is_some() => touch.ending.push(at),
        Verdict::Ready => {
            slice.slots[pos].state = TaskState::Ready;
            touch.rows.insert(Row::Chunk(at.slice, at.pos / CHUNK));
            touch.ready.push(at);
        }
        Verdict::Ends(..) => touch.ending.push(at),
    }
}
