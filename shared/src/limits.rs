//! Named bounds. Whatever comes from outside or grows is bounded by one of these.

use std::collections::BTreeMap;

/// Entries in one commit, one batch or one segment of a log.
pub const ENTRIES_PER_COMMIT: usize = 1000;
/// Bytes of entries in one commit, unless a single entry is larger.
pub const BYTES_PER_COMMIT: usize = 256 * 1024;
/// Bytes of one entry (an `assign` carries its workflow compressed).
pub const ENTRY_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of a packed workflow that is submitted to a coordinator: each slice's `assign` carries it,
/// and more beside it.
pub const SUBMISSION_BYTES: usize = ENTRY_BYTES / 2;
/// Bytes of one frame on the wire, before it is read into memory.
pub const FRAME_BYTES: usize = ENTRY_BYTES + 64 * 1024;
/// Bytes of one frame before the peer's handshake was accepted.
pub const HELLO_BYTES: usize = 64 * 1024;
/// Bytes of one part of an inventory.
pub const INVENTORY_PART_BYTES: usize = 1024 * 1024;
/// Bytes of one item of an inventory: a packed workflow, or what a node has of one run (some six
/// bytes a task).
pub const INVENTORY_ITEM_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of a decompressed workflow.
pub const WORKFLOW_BYTES: usize = 128 * 1024 * 1024;
/// Tasks of one workflow.
pub const TASKS: usize = 1_000_000;
/// Edges and inputs of one workflow that come from naming whole matrices.
pub const MATRIX_EDGES: usize = 4_000_000;
/// Axes of one matrix.
pub const MATRIX_AXES: usize = 16;
/// Bytes of a specification's text.
pub const SPEC_BYTES: usize = 32 * 1024 * 1024;
/// Starts that may be committed before a slot is free, at most.
pub const STARTS_AHEAD: usize = 128;
/// As many starts are committed ahead as begin within so many milliseconds (at least one a slot):
/// who is more urgent waits no longer behind them.
pub const AHEAD_MS: u64 = 200;
/// Milliseconds that terminal facts may wait for company while no task waits for them.
pub const LINGER_MS: u64 = 5;
/// The same while starts that were committed ahead keep the slots busy.
pub const LINGER_AHEAD_MS: u64 = 20;
/// Milliseconds after which acknowledgements and seals are committed even if nothing else is.
pub const IDLE_COMMIT_MS: u64 = 120_000;
/// Session numbers reserved at once, so that dialling writes nothing.
pub const SESSION_BLOCK: u64 = 1000;
/// Labels of one node.
pub const LABELS: usize = 64;
/// Bytes of all of them, names and values.
pub const LABEL_BYTES: usize = 8 * 1024;
/// Milliseconds within which a live session answers a probe.
pub const PROBE_MS: u64 = 5000;

/// Whether a node may have these labels.
#[must_use]
pub fn labels_fit(labels: &BTreeMap<String, String>) -> bool {
    let each = labels.iter().map(|(name, value)| name.len() + value.len());
    labels.len() <= LABELS && each.sum::<usize>() <= LABEL_BYTES
}
