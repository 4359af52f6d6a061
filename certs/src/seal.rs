//! The key of the seals, by which a coordinator recognises its own acknowledgements after its store
//! went back.

use std::fmt;

/// Made at the first `serve`, kept beside the authority's key, part of backups, never changed by a
/// restore. The coordinator's core seals with it.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey([u8; 32]);

impl SealKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// Its bytes. A secret.
    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}
