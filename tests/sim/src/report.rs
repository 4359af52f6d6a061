//! What a run of many seeds ends with: a table of faults, the violations, and one line for
//! programs.

use crate::fault::{Kind, Tally};
use crate::modes::{self, Mode};
use crate::plan::Layer;
use crate::runner::Verdict;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Seeds from which on a kind of fault that never happened is a failure.
pub const ENOUGH: u64 = 200;

/// The sum over seeds.
#[derive(Debug, Default)]
pub struct Report {
    /// Seeds.
    pub seeds: u64,
    /// Seeds with simulated disks.
    pub disk_seeds: u64,
    /// Seeds in which a promise was broken.
    pub failed: Vec<(u64, Layer)>,
    /// Broken promises by invariant.
    pub broken: BTreeMap<&'static str, u64>,
    /// Simulated hours of gateways.
    pub agent_hours: f64,
    /// Processes that ran.
    pub attempts: u64,
    /// Kind of fault: seeds in which it happened, and how often in all.
    pub faults: BTreeMap<Kind, (u64, u64)>,
    /// Failure mode by number: seeds in which it was met.
    pub modes: BTreeMap<u32, u64>,
}

/// The last line for programs.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Seeds that ran.
    pub seeds: u64,
    /// Seeds in which a promise was broken.
    pub violations: u64,
    /// Simulated hours of gateways.
    pub agent_hours: f64,
    /// Processes of tasks that ran.
    pub attempts: u64,
    /// Time on processors.
    pub core_seconds: f64,
}

impl Report {
    /// Adds a seed.
    pub fn add(&mut self, verdict: &Verdict) {
        self.seeds += 1;
        self.disk_seeds += u64::from(verdict.layer == Layer::Disk);
        self.agent_hours += verdict.agent_hours();
        self.attempts += verdict.attempts;
        for (kind, times) in verdict.tally.iter() {
            let entry = self.faults.entry(kind).or_default();
            entry.0 += 1;
            entry.1 += times;
        }
        for mode in modes::ALL {
            let met = mode.happened(&verdict.tally);
            *self.modes.entry(mode.number).or_default() += u64::from(met);
        }
        if let Some(first) = verdict.violations.first() {
            self.failed.push((verdict.seed, verdict.layer));
            *self.broken.entry(first.invariant).or_default() += 1;
        }
    }

    /// Whether enough seeds had simulated disks.
    fn has_disks(&self) -> bool {
        self.disk_seeds >= 20
    }

    /// Failure modes that some seeds should have met and none did.
    #[must_use]
    pub fn unmet(&self) -> Vec<&'static Mode> {
        let met = |mode: &Mode| self.modes.get(&mode.number).is_some_and(|n| *n > 0);
        let missing = |mode: &&Mode| mode.needs_seeds(self.has_disks()) && !met(mode);
        match self.seeds >= ENOUGH {
            true => modes::ALL.iter().filter(missing).collect(),
            false => Vec::new(),
        }
    }

    /// Kinds of faults that should have happened and never did.
    #[must_use]
    pub fn never(&self) -> Vec<Kind> {
        let possible = |kind: &&Kind| self.has_disks() || !kind.needs_disk();
        let missing = |kind: &&Kind| !self.faults.contains_key(kind);
        let all = Kind::ALL.iter().filter(possible).filter(missing);
        if self.seeds >= ENOUGH {
            all.copied().collect()
        } else {
            Vec::new()
        }
    }

    /// Whether everything is as it must be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failed.is_empty() && self.never().is_empty() && self.unmet().is_empty()
    }

    /// The line for programs.
    #[must_use]
    pub fn line(&self, core_seconds: f64) -> Line {
        let round = |value: f64| (value * 10.0).round() / 10.0;
        Line {
            seeds: self.seeds,
            violations: self.failed.len() as u64,
            agent_hours: round(self.agent_hours),
            attempts: self.attempts,
            core_seconds: round(core_seconds),
        }
    }

    /// The table of faults, for people.
    #[must_use]
    pub fn faults(&self) -> String {
        let mut out = String::new();
        // writing into a String cannot fail
        let _ = writeln!(out, "{:<26} {:>8} {:>10}", "fault", "seeds", "times");
        for kind in Kind::ALL {
            let (seeds, times) = self.faults.get(kind).copied().unwrap_or_default();
            let _ = writeln!(out, "{:<26} {seeds:>8} {times:>10}", kind.text());
        }
        out
    }

    /// All tables, for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = self.faults();
        let _ = writeln!(out, "\nfailure modes of docs/faults.md");
        out += &modes::table(&self.modes, self.seeds);
        for (invariant, seeds) in &self.broken {
            let _ = writeln!(out, "BROKEN {invariant:<26} in {seeds} seeds");
        }
        for kind in self.never() {
            let _ = writeln!(out, "NEVER HAPPENED {}", kind.text());
        }
        for mode in self.unmet() {
            let _ = writeln!(out, "NEVER MET {} {}", mode.number, mode.title);
        }
        out
    }
}

/// What is said about a seed that failed: what broke, and the command that shows it again.
#[must_use]
pub fn complaint(verdict: &Verdict) -> String {
    let mut out = String::new();
    for violation in verdict.violations.iter().take(3) {
        let at = crate::trace::clock(violation.at);
        let _ = writeln!(
            out,
            "seed {} at {at}: {}: {}",
            verdict.seed, violation.invariant, violation.text
        );
    }
    let layer = verdict.layer.number();
    let _ = write!(
        out,
        "  cargo xtask sim replay {} --layer {layer}",
        verdict.seed
    );
    out
}

/// Seconds that this process has spent on processors so far.
#[must_use]
pub fn core_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Sums tallies up.
#[must_use]
pub fn sum<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> BTreeMap<Kind, u64> {
    let mut out = BTreeMap::new();
    for (kind, times) in tallies.into_iter().flat_map(Tally::iter) {
        *out.entry(kind).or_insert(0) += times;
    }
    out
}
