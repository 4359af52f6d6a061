//! What the system says of a process: memory, CPU, bytes to the disk.

use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

/// A process that is watched.
#[derive(Clone, Debug)]
pub(crate) struct Proc(PathBuf);

impl Proc {
    pub(crate) fn of(pid: u32) -> Self {
        Self(format!("/proc/{pid}").into())
    }

    /// Bytes of its proportional set size.
    pub(crate) fn pss(&self) -> Result<f64> {
        let kib: f64 = self
            .field("smaps_rollup", "Pss:")?
            .trim_end_matches(" kB")
            .parse()?;
        Ok(kib * 1024.0)
    }

    /// CPU seconds of all threads that live now.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let mut nanos = 0.0;
        for thread in fs::read_dir(self.0.join("task"))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            let first = text.split(' ').next().context("schedstat is empty")?;
            nanos += first.parse::<f64>()?;
        }
        Ok(nanos / 1e9)
    }

    /// Bytes that it made the system write.
    pub(crate) fn written(&self) -> Result<f64> {
        Ok(self.field("io", "write_bytes: ")?.parse()?)
    }

    fn field(&self, file: &str, name: &str) -> Result<String> {
        let text = fs::read_to_string(self.0.join(file))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line
            .with_context(|| format!("no {name}"))?
            .trim()
            .to_owned())
    }
}
