//! The seal: proof that an acknowledgement once came from this coordinator, also after its store went back.

use ring::hmac;
use shared::ids::Generation;
use shared::log::Head;
use std::fmt;

/// The key of the seals: made at the first `serve`, kept beside the authority's key, part of backups, never
/// changed by a restore.
#[derive(Clone)]
pub struct SealKey {
    key: hmac::Key,
    bytes: [u8; 32],
}

impl SealKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, bytes),
            bytes: *bytes,
        }
    }

    /// The key's bytes, for the coordinator's core, which seals by itself. A secret.
    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        self.bytes
    }

    /// HMAC-SHA-256 over the generation, the number and the hash.
    #[must_use]
    pub fn seal(&self, generation: Generation, head: Head) -> [u8; 32] {
        let tag = hmac::sign(&self.key, &covered(generation, head));
        let mut out = [0; 32];
        out.copy_from_slice(tag.as_ref());
        out
    }

    /// Whether `seal` was made by this key over these values.
    #[must_use]
    pub fn verify(&self, generation: Generation, head: Head, seal: &[u8; 32]) -> bool {
        hmac::verify(&self.key, &covered(generation, head), seal).is_ok()
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

fn covered(generation: Generation, head: Head) -> Vec<u8> {
    let mut bytes = b"driftless seal 1".to_vec();
    bytes.extend_from_slice(&generation.0.to_le_bytes());
    bytes.extend_from_slice(&head.number.to_le_bytes());
    bytes.extend_from_slice(&head.hash.0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::Hash;

    #[test]
    fn a_seal_covers_generation_number_and_hash() {
        let key = SealKey::new(&[7; 32]);
        let head = Head {
            number: 5,
            hash: Hash([1; 32]),
        };
        let seal = key.seal(Generation(3), head);
        assert!(key.verify(Generation(3), head, &seal));
        assert!(!key.verify(Generation(4), head, &seal));
        assert!(!key.verify(Generation(3), Head { number: 6, ..head }, &seal));
        assert!(!key.verify(
            Generation(3),
            Head {
                hash: Hash([2; 32]),
                ..head
            },
            &seal
        ));
        assert!(!SealKey::new(&[8; 32]).verify(Generation(3), head, &seal));
    }
}
