//! Room on the disk: how much there is, and when telemetry gives up its own.

use std::path::Path;

/// Free bytes that a start needs, beside what the store needs.
pub(crate) const ROOM_FOR_FILES: u64 = 8 * 1024 * 1024;

/// Whether telemetry (at most `quota` bytes) gives up room: as soon as `free` bytes are not
/// `enough`, until they would be with all of its room taken again.
pub(crate) fn is_to_thin(
    thinned: bool,
    free: u64,
    quota: u64,
    enough: impl Fn(u64) -> bool,
) -> bool {
    let left = if thinned {
        free.saturating_sub(quota)
    } else {
        free
    };
    !enough(left)
}

/// Bytes that may be written to the file system of `data`.
pub(crate) fn free_room(data: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(data).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telemetry_gets_its_room_back_when_the_disk_has_it_again() {
        let enough = |free: u64| free >= 100;
        let thin = |thinned, free| is_to_thin(thinned, free, 8, enough);
        assert!(!thin(false, 100));
        assert!(thin(false, 99));
        assert!(
            thin(true, 107),
            "the room that it gave up itself is not enough"
        );
        assert!(!thin(true, 108));
    }
}
