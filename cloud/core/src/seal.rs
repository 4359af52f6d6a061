//! The seal under an acknowledgement: HMAC-SHA-256 over (generation, number, hash).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use shared::ids::Generation;
use shared::log::Head;
use shared::wire::Ack;

fn mac(key: &[u8; 32], generation: Generation, head: &Head) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(b"driftless seal 1");
    mac.update(&generation.0.to_le_bytes());
    mac.update(&head.number.to_le_bytes());
    mac.update(&head.hash.0);
    mac
}

/// A sealed acknowledgement of the facts up to `head`.
#[must_use]
pub fn ack(key: &[u8; 32], generation: Generation, head: Head, safe: u64) -> Ack {
    Ack {
        generation,
        head,
        seal: mac(key, generation, &head).finalize().into_bytes().into(),
        safe,
    }
}

/// Whether this coordinator (or a copy of it) once gave out `ack`. Takes the same time for every answer.
#[must_use]
pub fn verify(key: &[u8; 32], ack: &Ack) -> bool {
    mac(key, ack.generation, &ack.head)
        .verify_slice(&ack.seal)
        .is_ok()
}
