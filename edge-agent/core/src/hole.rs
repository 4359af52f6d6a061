//! Facts that the coordinator wants are gone: what the slices look like is told instead.
//!
//! The log goes on with resets, so those facts behind the hole that are still here are not sent:
//! a coordinator takes up a log behind a hole only with a fact that declares it. Each reset names
//! all slices, since what one does not name counts as given up, and tells its share of their tasks.

use crate::agent::{Agent, Effects};
use shared::fact::{Body, SliceState, TaskStatus};
use shared::limits::ENTRY_BYTES;

/// Bytes of a reset at most: an entry, and what is around the states in it.
const RESET_BYTES: usize = ENTRY_BYTES - 64 * 1024;
/// Bytes of a slice's name in a reset, of a task without outputs, and of an output, at most.
const NAME_BYTES: usize = 80;
const TASK_BYTES: usize = 16;
const OUTPUT_BYTES: usize = 48;

impl Agent {
    /// Declares that facts from `from` on are gone; sending goes on behind them.
    ///
    /// # Errors
    /// So many slices are here that no entry can name them: no fact may be sent in this session.
    pub(crate) fn declare_hole(&mut self, from: u64, fx: &mut Effects) -> Result<(), String> {
        let to = self.state.facts;
        let shares = shares(self.slice_states(), self.config.inventory_part)?;
        self.link.sent = to;
        for slices in shares {
            let why = "acknowledged once, and older than the window that is kept".to_owned();
            let reset = Body::Reset {
                from,
                to,
                why,
                slices,
            };
            self.emit(reset, fx);
        }
        Ok(())
    }
}

/// Shares of some `size` bytes of the tasks, or of as many as it takes to name all slices.
fn shares(mut slices: Vec<SliceState>, size: usize) -> Result<Vec<Vec<SliceState>>, String> {
    let names = slices.len() * NAME_BYTES;
    let room = size.max(names).min(RESET_BYTES.saturating_sub(names));
    if room < size {
        return Err(format!(
            "{} slices are more than one entry can name, and the coordinator lacks facts that are \
             gone here; forget runs that are over",
            slices.len()
        ));
    }
    let tasks: Vec<Vec<TaskStatus>> = slices
        .iter_mut()
        .map(|slice| std::mem::take(&mut slice.tasks))
        .collect();
    let mut shares = vec![slices.clone()];
    let mut bytes = 0;
    for (position, tasks) in tasks.into_iter().enumerate() {
        for status in tasks {
            let more = TASK_BYTES + status.outputs.len() * OUTPUT_BYTES;
            if bytes > 0 && bytes + more > room {
                shares.push(slices.clone());
                bytes = 0;
            }
            bytes += more;
            if let Some(share) = shares.last_mut() {
                share[position].tasks.push(status);
            }
        }
    }
    Ok(shares)
}
