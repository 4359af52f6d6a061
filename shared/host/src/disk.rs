//! Room on the disk, as `doctor` and `driftless-agent check` tell it.

use rustix::fs::statvfs;
use shared::finding::Finding;
use std::path::Path;

const MIB: u64 = 1 << 20;
/// Free inodes: too few below the first, few below the second.
const INODES: (u64, u64) = (1_000, 10_000);

/// Judges free bytes and inodes of the file system of `dir`: too little below the first of `mib`,
/// little below the second. Nothing where the file system cannot be asked.
#[must_use]
pub fn room(dir: &Path, mib: (u64, u64)) -> Vec<Finding> {
    let Ok(stat) = statvfs(dir) else {
        return Vec::new();
    };
    let (free, all) = (
        stat.f_bavail.saturating_mul(stat.f_frsize),
        stat.f_blocks.saturating_mul(stat.f_frsize),
    );
    let bytes = format!("{} of {} MiB are free", free / MIB, all / MIB);
    let inodes = format!("{} of {} inodes are free", stat.f_favail, stat.f_files);
    let low = (mib.0.saturating_mul(MIB), mib.1.saturating_mul(MIB));
    vec![
        Finding::room("disk", (free, all), low, &bytes),
        Finding::room("inodes", (stat.f_favail, stat.f_files), INODES, &inodes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::finding::Judgement;

    #[test]
    fn bytes_are_judged_by_the_limits_that_are_given() {
        let dir = tempfile::tempdir().unwrap();
        let state = |low| room(dir.path(), low)[0].state;
        assert_eq!(state((u64::MAX, u64::MAX)), Judgement::Error);
        // how full the disk of this machine is decides between the other two
        assert_ne!(state((0, 0)), Judgement::Error);
        assert!(room(Path::new("/nowhere at all"), (1, 1)).is_empty());
    }
}
