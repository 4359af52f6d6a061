//! What the engine's store lies on in these scenarios: memory. The package of the store on redb
//! runs the same scenarios over a medium of its own.

use cloud_core::memory::{Fail, MemStore};

/// The store on it.
pub(crate) type Opened = MemStore;

/// A disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Medium(MemStore);

impl Medium {
    pub(crate) fn new() -> Self {
        Self(MemStore::new())
    }

    /// The store as a process that starts now finds it.
    pub(crate) fn open(&self) -> Opened {
        self.0.clone()
    }

    /// A copy of what is committed now (a backup).
    pub(crate) fn image(&self) -> Self {
        Self(self.0.image())
    }

    /// The next commit fails like this.
    pub(crate) fn fail_next(&self, how: Fail) {
        self.0.fail_next(how);
    }
}
