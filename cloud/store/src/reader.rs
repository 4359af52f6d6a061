//! Reads a copy of a coordinator's store without its engine: what was received, and what was
//! applied. The figures of the demo are computed from this, never from the engine's own counters.

use crate::commit::scan;
use crate::open::{RedbStore, begin, open_file, unknown};
use crate::{FACTS, damaged, log_key, segment};
use cloud_core::node::Node;
use cloud_core::run::{RunHead, TaskRow};
use cloud_core::store::{AggregateId, Segment, Store, StoreError};
use redb::ReadableTable;
use shared::fact::Outcome;
use shared::ids::{Epoch, NodeId, RunId, TaskIdx};
use shared::log::{Entries, Head};
use shared::wire::LogId;
use std::path::Path;

/// An attempt as the run that it belongs to has folded it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Folded {
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskIdx,
    /// Epoch of its slice.
    pub epoch: Epoch,
    /// Number of the attempt in that epoch.
    pub number: u32,
    /// Where it ran.
    pub node: NodeId,
    /// Its end, if one was folded.
    pub outcome: Option<Outcome>,
    /// It counts (else it is kept and shown only).
    pub applied: bool,
}

/// A reader of a copy of the store's file.
#[derive(Debug)]
pub struct Reader {
    store: RedbStore,
}

impl Reader {
    /// Opens a copy; never the file of a running coordinator.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let store = open_file(path, false)?;
        Ok(Self { store })
    }

    /// Calls `each` with log, number and bytes of every fact that is stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn facts(&mut self, each: &mut dyn FnMut(LogId, u64, &[u8])) -> Result<(), StoreError> {
        scan(&self.store.table(FACTS)?, &[], &mut |_, value| {
            let segment = segment::decode(value)?;
            for (number, bytes) in (segment.after.number + 1..).zip(segment.entries.iter()) {
                each(segment.log, number, bytes);
            }
            Ok(true)
        })
    }

    /// Calls `each` with every run.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn runs(&mut self, each: &mut dyn FnMut(RunId, RunHead)) -> Result<(), StoreError> {
        let mut good = true;
        self.store.aggregates(&mut |id, _, bytes| {
            if let AggregateId::Run(run) = id {
                match shared::codec::decode_extended(bytes) {
                    Ok(head) => each(run, head),
                    Err(_) => good = false,
                }
            }
        })?;
        good.then_some(())
            .ok_or_else(|| damaged("a run cannot be read"))
    }

    /// Calls `each` with every node.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn nodes(&mut self, each: &mut dyn FnMut(NodeId, Node)) -> Result<(), StoreError> {
        let mut good = true;
        self.store.aggregates(&mut |id, _, bytes| {
            if let AggregateId::Node(node) = id {
                match shared::codec::decode_extended(bytes) {
                    Ok(head) => each(node, head),
                    Err(_) => good = false,
                }
            }
        })?;
        good.then_some(())
            .ok_or_else(|| damaged("a node cannot be read"))
    }

    /// Calls `each` with every attempt that a run has folded.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn folded(&mut self, each: &mut dyn FnMut(Folded)) -> Result<(), StoreError> {
        let mut runs = Vec::new();
        self.runs(&mut |run, _| runs.push(run))?;
        for run in runs {
            let (mut next, mut good) = (0u32, true);
            let key = AggregateId::Run(run);
            self.store.rows(key, "t", &mut |_, bytes| {
                let rows: Vec<TaskRow> = shared::codec::decode(bytes).unwrap_or_else(|_| {
                    good = false;
                    Vec::new()
                });
                for row in rows {
                    let task = TaskIdx(next);
                    next += 1;
                    row.history.iter().for_each(|a| {
                        each(Folded {
                            run,
                            task,
                            epoch: a.epoch,
                            number: a.number,
                            node: a.node,
                            outcome: a.outcome,
                            applied: a.not_applied.is_none(),
                        });
                    });
                }
            })?;
            if !good {
                return Err(damaged(&format!("the tasks of run {run} cannot be read")));
            }
        }
        Ok(())
    }

    /// Takes one fact out of the copy, to show that the count of lost facts notices. Whether it was
    /// there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove_fact(&mut self, log: LogId, number: u64) -> Result<bool, StoreError> {
        let tx = begin(self.store.database()?)?;
        let mut found = false;
        {
            let mut facts = tx.open_table(FACTS).map_err(|e| unknown(&e))?;
            let (low, high) = (log_key(log, 0), log_key(log, number));
            let row = facts
                .range(&low[..]..=&high[..])
                .map_err(|e| unknown(&e))?
                .next_back()
                .transpose()
                .map_err(|e| unknown(&e))?
                .map(|(_, value)| segment::decode(value.value()))
                .transpose()?;
            for part in row.iter().flat_map(|segment| without(segment, number)) {
                let key = log_key(log, part.after.number + 1);
                if part.entries.is_empty() {
                    facts.remove(&key[..]).map_err(|e| unknown(&e))?;
                } else {
                    let value = segment::encode(&part);
                    facts
                        .insert(&key[..], value.as_slice())
                        .map_err(|e| unknown(&e))?;
                }
                found = true;
            }
        }
        tx.commit().map_err(|e| unknown(&e))?;
        Ok(found)
    }
}

/// The two parts of a segment around an entry; none if it is not in it.
fn without(segment: &Segment, number: u64) -> Vec<Segment> {
    let first = segment.after.number + 1;
    let at = number.wrapping_sub(first) as usize;
    if number < first || at >= segment.entries.len() {
        return Vec::new();
    }
    let entries = &segment.entries;
    let until = |n: usize| segment.after.then_all(entries.iter().take(n));
    let part = |after: Head, head: Head, entries: Entries| Segment {
        log: segment.log,
        after,
        head,
        entries,
        packed: None,
    };
    let (before, behind) = (until(at), until(at + 1));
    let first = entries.iter().take(at).collect();
    let mut parts = vec![part(segment.after, before, first)];
    if at + 1 < entries.len() {
        let rest = entries.iter().skip(at + 1).collect();
        parts.push(part(behind, segment.head, rest));
    }
    parts
}
