//! Reads of the journal by the running agent: a page a turn of the loop, so that whoever looks at a
//! long log holds nobody up and nothing large lies in memory.

use crate::mailbox::Handle;
use edge_core::driver::Driver;
use edge_core::store::{Page, Store, StoreError};
use edge_core::sync::Backlog;
use shared::ids::{Incarnation, NodeId};
use shared::log::{Direction, Head};

/// What is read.
#[derive(Debug, Clone, Copy)]
pub enum Look {
    /// Whose journal it is.
    Identity,
    /// Entries of a log behind this one.
    Page(Direction, u64),
    /// A part of what waits to be sent behind this fact; what is acknowledged if absent.
    Backlog(Option<u64>),
}

/// What was read.
#[derive(Debug)]
pub enum Found {
    /// Whose journal it is.
    Identity(NodeId, Incarnation),
    /// Entries; none if nothing follows.
    Page(Option<Page>),
    /// A part of the backlog; none if nothing follows.
    Backlog(Option<Backlog>),
}

/// Reads what is committed.
pub(crate) fn read<S: Store>(driver: &mut Driver<S>, what: Look) -> Result<Found, StoreError> {
    match what {
        Look::Identity => {
            let (node, incarnation) = driver.agent().identity();
            Ok(Found::Identity(node, incarnation))
        }
        Look::Page(log, after) => page(driver.store(), log, after).map(Found::Page),
        Look::Backlog(after) => {
            let acknowledged = driver.agent().sync_status().facts.acknowledged;
            let part = driver.backlog(after.unwrap_or(acknowledged))?;
            Ok(Found::Backlog(part))
        }
    }
}

/// Whole commits of a log behind `after`.
pub(crate) fn page<S: Store>(
    store: &mut S,
    log: Direction,
    after: u64,
) -> Result<Option<Page>, StoreError> {
    if log == Direction::Down {
        return store.directives_after(after);
    }
    let batch = store.facts_after(after)?;
    Ok(batch.map(|batch| Page {
        first: batch.after.number + 1,
        before: Some(batch.after),
        end: Head {
            number: batch.after.number + batch.entries.len() as u64,
            hash: batch.hash,
        },
        entries: batch.entries,
    }))
}

/// All that waits to be sent.
pub(crate) fn backlog(handle: &Handle) -> Result<Backlog, String> {
    let mut all = Backlog::default();
    let mut after = None;
    loop {
        match handle.read(Look::Backlog(after))? {
            Found::Backlog(Some(part)) => {
                all.facts += part.facts;
                all.bytes += part.bytes;
                all.oldest = all.oldest.or(part.oldest);
                all.upto = part.upto;
                after = Some(part.upto);
            }
            _ => return Ok(all),
        }
    }
}
