//! What the system says of a process: memory, CPU, bytes to the disk.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
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

    /// CPU seconds of each thread that used some, by its name, the busiest first.
    pub(crate) fn threads(&self) -> Result<String> {
        let mut used = BTreeMap::<String, f64>::new();
        for thread in fs::read_dir(self.0.join("task"))? {
            let dir = thread?.path();
            let text = fs::read_to_string(dir.join("schedstat"))?;
            let first = text.split(' ').next().context("schedstat is empty")?;
            let name = fs::read_to_string(dir.join("comm"))?;
            *used.entry(name.trim().to_owned()).or_default() += first.parse::<f64>()? / 1e9;
        }
        let mut used: Vec<_> = used.into_iter().filter(|(_, s)| *s >= 0.01).collect();
        used.sort_by(|a, b| b.1.total_cmp(&a.1));
        let texts: Vec<String> = used.iter().map(|(n, s)| format!("{n} {s:.2} s")).collect();
        Ok(texts.join(", "))
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
