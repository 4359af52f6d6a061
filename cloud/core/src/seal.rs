//! Seals under heads of the two logs: HMAC-SHA-256 over the direction, whose log it is, generation,
//! number, hash.
//!
//! Invariant: a seal says something about one direction of one incarnation of one node, so what a
//! node was given proves nothing in another place.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use shared::ids::Generation;
use shared::log::{Direction, Head};
use shared::wire::{Ack, DirectiveSeal, LogId};

type Key = [u8; 32];

fn mac(
    key: &Key,
    direction: Direction,
    log: LogId,
    generation: Generation,
    head: &Head,
) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(match direction {
        Direction::Up => b"driftless seal 1 facts",
        Direction::Down => b"driftless seal 1 direc",
    });
    mac.update(&log.node.0);
    mac.update(&log.incarnation.0);
    mac.update(&generation.0.to_le_bytes());
    mac.update(&head.number.to_le_bytes());
    mac.update(&head.hash.0);
    mac
}

/// A sealed acknowledgement of the facts of `log` up to `head`.
#[must_use]
pub fn ack(key: &Key, log: LogId, generation: Generation, head: Head, safe: u64) -> Ack {
    let mac = mac(key, Direction::Up, log, generation, &head);
    Ack {
        generation,
        head,
        seal: mac.finalize().into_bytes().into(),
        safe,
    }
}

/// Whether this coordinator (or a copy of it) once gave out `ack` for `log`. Takes the same time
/// for every answer.
#[must_use]
pub fn verify(key: &Key, log: LogId, ack: &Ack) -> bool {
    mac(key, Direction::Up, log, ack.generation, &ack.head)
        .verify_slice(&ack.seal)
        .is_ok()
}

/// A seal under the directives of `log` up to `head`.
#[must_use]
pub fn directives(key: &Key, log: LogId, generation: Generation, head: Head) -> DirectiveSeal {
    let mac = mac(key, Direction::Down, log, generation, &head);
    DirectiveSeal {
        generation,
        head,
        seal: mac.finalize().into_bytes().into(),
    }
}

/// Whether this coordinator (or a copy of it) once sealed these directives of `log`.
#[must_use]
pub fn verify_directives(key: &Key, log: LogId, seal: &DirectiveSeal) -> bool {
    mac(key, Direction::Down, log, seal.generation, &seal.head)
        .verify_slice(&seal.seal)
        .is_ok()
}
