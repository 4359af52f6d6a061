//! The machine's clocks and randomness, as values for the engine.

use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};
use shared::time::{Mono, Now, Unix};
use std::time::SystemTime;

/// Both clocks.
#[must_use]
pub(crate) fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let nanos = (boot.tv_sec as u64).saturating_mul(1_000_000_000) + boot.tv_nsec as u64;
    Now {
        mono: Mono(nanos),
        wall: wall(),
    }
}

/// The wall clock.
#[must_use]
pub(crate) fn wall() -> Unix {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Unix(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Random bytes of the kernel.
///
/// # Panics
/// When the kernel gives none, which it does only before its pool was filled at boot, and then it
/// waits.
#[must_use]
pub(crate) fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())
            .expect("the kernel gives random bytes once it runs");
    }
    bytes
}
