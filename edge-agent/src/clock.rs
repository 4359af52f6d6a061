//! The clocks of this machine, read here and nowhere else in the agent.

use rustix::time::{ClockId, clock_gettime};
use shared::ids::BootId;
use shared::time::{Mono, Now, Unix};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Both clocks now.
#[must_use]
pub fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let nanos = u64::try_from(boot.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(boot.tv_nsec).unwrap_or(0);
    let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    };
    Now {
        mono: Mono(nanos),
        wall: Unix(wall),
    }
}

/// Where clocks are read: those of this machine, or of a simulated one.
#[derive(Clone)]
pub struct Clocks(Arc<dyn Fn() -> Now + Send + Sync>);

impl Clocks {
    /// What `read` says.
    #[must_use]
    pub fn new(read: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Both clocks now.
    #[must_use]
    pub fn now(&self) -> Now {
        (self.0)()
    }
}

impl Default for Clocks {
    fn default() -> Self {
        Self::new(now)
    }
}

impl std::fmt::Debug for Clocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clocks")
    }
}

/// Whether the wall clock can have been set: it is past every build of this program.
#[must_use]
pub fn trusted() -> bool {
    now().wall >= certs::WRITTEN
}

/// The kernel's boot id; all zero where there is none.
#[must_use]
pub fn boot_id() -> BootId {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| text.trim().replace('-', "").parse().ok())
        .unwrap_or_default()
}
