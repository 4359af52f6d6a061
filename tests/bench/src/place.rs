//! Where is measured: a fresh directory for each measurement, and the release binaries beside this
//! one.

use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Directory and settings of a run.
#[derive(Debug)]
pub(crate) struct Place {
    root: TempDir,
    /// Rounds of ours and the reference.
    pub(crate) rounds: usize,
    /// How long an idle agent is watched.
    pub(crate) watch: Duration,
    filled: Option<PathBuf>,
    /// Threads' CPU is told.
    pub(crate) threads: bool,
    /// Days without a link.
    pub(crate) days: u64,
}

impl Place {
    pub(crate) fn new(dir: Option<&Path>, rounds: usize, watch: Duration) -> Result<Self> {
        let base = dir.map_or_else(std::env::temp_dir, Path::to_owned);
        let root = tempfile::Builder::new()
            .prefix("driftless-bench-")
            .tempdir_in(&base)
            .with_context(|| format!("no directory in {}; give one with --dir", base.display()))?;
        // Tasks run as another user when the agent is root.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o711))?;
        Ok(Self {
            root,
            rounds,
            watch,
            filled: None,
            threads: false,
            days: 1,
        })
    }

    /// The same with a directory of a filled gateway that is kept, and with what threads used.
    pub(crate) fn with(mut self, filled: Option<PathBuf>, threads: bool) -> Self {
        (self.filled, self.threads) = (filled, threads);
        self
    }

    /// The same with so many days without a link.
    pub(crate) fn lasting(mut self, days: u64) -> Self {
        self.days = days;
        self
    }

    /// The directory of the filled gateway.
    pub(crate) fn filled(&self) -> PathBuf {
        let own = || self.root.path().join("filled");
        self.filled.clone().unwrap_or_else(own)
    }

    /// A fresh directory that goes when it is dropped.
    pub(crate) fn fresh(&self) -> Result<TempDir> {
        let dir = tempfile::tempdir_in(self.root.path())?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
        Ok(dir)
    }
}

/// A release binary of this workspace, beside this program.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program's own path")?;
    let path = own.with_file_name(name);
    if !path.is_file() {
        bail!(
            "{} is missing; `cargo xtask bench` builds it",
            path.display()
        );
    }
    Ok(path)
}
