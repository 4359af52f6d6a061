//! The reference for starting processes: `posix_spawn` and `wait`, nothing else, with the
//! environment that tasks get.

use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Names and sizes as the agent sets them.
const ENVIRONMENT: [(&str, usize); 11] = [
    ("PATH", 60),
    ("HOME", 90),
    ("TMPDIR", 90),
    ("LANG", 7),
    ("DRIFTLESS_WORKFLOW", 5),
    ("DRIFTLESS_TASK", 5),
    ("DRIFTLESS_RUN", 32),
    ("DRIFTLESS_ATTEMPT", 1),
    ("DRIFTLESS_FENCE", 3),
    ("DRIFTLESS_STORE", 32),
    ("DRIFTLESS_MARK", 44),
];

/// Starts `/bin/true` and waits for it.
pub(crate) fn spawn_true() -> Result<()> {
    let mut command = Command::new("/bin/true");
    command.env_clear().stdin(Stdio::inherit());
    for (name, size) in ENVIRONMENT {
        command.env(name, "x".repeat(size));
    }
    let status = command.status().context("cannot start /bin/true")?;
    ensure!(status.success(), "/bin/true: {status}");
    Ok(())
}

/// Microseconds a task of `count` tasks, two at a time.
pub(crate) fn two_at_a_time(count: usize) -> Result<f64> {
    let since = Instant::now();
    std::thread::scope(|scope| {
        let half = || (0..count / 2).try_for_each(|_| spawn_true());
        let other = scope.spawn(half);
        half()?;
        other
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(since.elapsed().as_secs_f64() * 1e6 / count as f64)
}
