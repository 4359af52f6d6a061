//! The reference for the journal: plain redb in production's mode (quick repair, production's
//! cache), one table.

use anyhow::Result;
use redb::{Database, TableDefinition};
use std::path::Path;

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

/// A table of rows by number.
#[derive(Debug)]
pub(crate) struct Raw {
    database: Database,
    next: u64,
}

impl Raw {
    /// A new one in the file at `path`.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let database = Database::builder()
            .set_cache_size(edge_store::CACHE)
            .create(path)?;
        Ok(Self { database, next: 0 })
    }

    /// One durable commit of `rows`.
    pub(crate) fn commit<B: AsRef<[u8]>>(&mut self, rows: &[B]) -> Result<()> {
        let mut txn = self.database.begin_write()?;
        txn.set_quick_repair(true);
        {
            let mut table = txn.open_table(TABLE)?;
            for row in rows {
                self.next += 1;
                table.insert(self.next, row.as_ref())?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}
