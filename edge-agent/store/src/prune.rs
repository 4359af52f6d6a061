//! What goes: old facts and directives.

use crate::rows::{DETAILS, DIRECTIVES, FACTS, META, SEGMENTS, failed, last_end};
use crate::segment::Segment;
use edge_core::store::StoreError;
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use shared::codec;
use shared::log::Head;

pub(crate) fn drop_until(
    table: &mut Table<'_, u64, &'static [u8]>,
    last: u64,
) -> Result<(), StoreError> {
    table.retain_in(..=last, |_, _| false).map_err(failed)
}

/// Facts up to `last` go, in whole segments and whole commits.
pub(crate) fn prune_facts(
    txn: &WriteTransaction,
    origin: Head,
    last: u64,
) -> Result<(), StoreError> {
    let mut pruned = None;
    let mut segments = txn.open_table(SEGMENTS).map_err(failed)?;
    loop {
        let end = match segments.first().map_err(failed)? {
            Some((first, value)) => Segment::read(first.value(), value.value())?.end(),
            None => break,
        };
        if end.number > last {
            break;
        }
        segments.pop_first().map_err(failed)?;
        pruned = Some(end);
    }
    let packed = !segments.is_empty().map_err(failed)?;
    drop(segments);
    if !packed {
        let mut facts = txn.open_table(FACTS).map_err(failed)?;
        if let Some(end) = last_end(&facts, 1, last)? {
            drop_until(&mut facts, end.number)?;
            pruned = Some(end);
        }
    }
    let Some(end) = pruned.filter(|end| end.number > origin.number) else {
        return Ok(());
    };
    let mut meta = txn.open_table(META).map_err(failed)?;
    meta.insert("pruned", codec::encode(&end).as_slice())
        .map_err(failed)?;
    let mut details = txn.open_table(DETAILS).map_err(failed)?;
    details
        .retain_in(..=(end.number, u32::MAX), |_, _| false)
        .map_err(failed)
}

/// Directives up to `last` go; the newest always stays, it carries the head.
pub(crate) fn prune_directives(txn: &WriteTransaction, last: u64) -> Result<(), StoreError> {
    let mut table = txn.open_table(DIRECTIVES).map_err(failed)?;
    let newest = table
        .last()
        .map_err(failed)?
        .map(|(number, _)| number.value());
    let last = last.min(newest.unwrap_or(0).saturating_sub(1));
    drop_until(&mut table, last)
}
