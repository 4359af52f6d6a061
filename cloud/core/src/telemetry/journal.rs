//! The file below a node's telemetry.

use std::cell::RefCell;
use std::rc::Rc;

/// Why the file could not be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub String);

impl JournalError {
    pub(super) fn newer(found: u32, known: u32) -> Self {
        Self(format!(
            "telemetry of format {found}; this version reads up to {known}"
        ))
    }
}

/// One file.
pub trait Journal {
    /// All of it; nothing if there is none yet.
    ///
    /// # Errors
    /// [`JournalError`].
    fn read(&self) -> Result<Vec<u8>, JournalError>;

    /// Writes at `offset`, and ends the file behind it; makes the file if there is none. Not
    /// durable before [`Self::sync`].
    ///
    /// # Errors
    /// [`JournalError`]; any part may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), JournalError>;

    /// Makes all of it durable.
    ///
    /// # Errors
    /// [`JournalError`].
    fn sync(&mut self) -> Result<(), JournalError>;

    /// Puts a whole new file in its place, durable, or leaves the old one.
    ///
    /// # Errors
    /// [`JournalError`].
    fn replace(&mut self, bytes: &[u8]) -> Result<(), JournalError>;
}

/// A file in memory, for tests and the simulator; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal(Rc<RefCell<Bytes>>);

#[derive(Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    durable: Vec<u8>,
    full: bool,
}

impl MemoryJournal {
    /// Power fails: of what was not durable `kept` bytes of the end survive.
    pub fn crash(&self, kept: usize) {
        let mut bytes = self.0.borrow_mut();
        let whole = bytes.durable.len();
        let survives = bytes.now.len().min(whole + kept);
        if bytes.now.get(..whole) == Some(&bytes.durable[..]) {
            bytes.now.truncate(survives.max(whole));
        } else {
            bytes.now = bytes.durable.clone();
        }
        bytes.durable = bytes.now.clone();
    }

    /// Nothing can be written while `full`.
    pub fn set_full(&self, full: bool) {
        self.0.borrow_mut().full = full;
    }
}

impl Bytes {
    fn check(&self) -> Result<(), JournalError> {
        if self.full {
            return Err(JournalError("no room".into()));
        }
        Ok(())
    }
}

impl Journal for MemoryJournal {
    fn read(&self) -> Result<Vec<u8>, JournalError> {
        Ok(self.0.borrow().now.clone())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), JournalError> {
        let mut file = self.0.borrow_mut();
        file.check()?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        file.now.truncate(offset);
        file.now.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        let mut file = self.0.borrow_mut();
        file.check()?;
        file.durable = file.now.clone();
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let mut file = self.0.borrow_mut();
        file.check()?;
        file.now = bytes.to_vec();
        file.durable = bytes.to_vec();
        Ok(())
    }
}
