//! A campaign: each target in a process of its own, a few at once; what broke is kept in files and
//! made smaller.

use crate::fire::{Failure, Report};
use crate::target::Target;
use crate::watch::{GREEDY, HUNG, under_way};
use anyhow::{Context, Result, ensure};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tries to make an input smaller, at most.
const TRIES: usize = 400;
/// Time for that.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a campaign goes.
#[derive(Clone, Debug)]
pub(crate) struct Campaign {
    /// Inputs of each target; one in [`Target::cost`] of a slow one.
    pub(crate) inputs: u64,
    /// Time in all.
    pub(crate) time: Option<Duration>,
    /// The seed.
    pub(crate) seed: u64,
    /// Processes at once.
    pub(crate) jobs: usize,
    /// Where inputs go that broke something.
    pub(crate) keep: PathBuf,
}

impl Campaign {
    /// Runs it over `targets`; tells each report as it comes.
    pub(crate) fn run(
        &self,
        targets: &[&'static Target],
        told: &(dyn Fn(&Report) + Sync),
    ) -> Result<Vec<Report>> {
        std::fs::create_dir_all(&self.keep)
            .with_context(|| format!("cannot make {}", self.keep.display()))?;
        let jobs = self.jobs.clamp(1, targets.len().max(1));
        let each = self
            .time
            .map(|time| time * jobs as u32 / targets.len().max(1) as u32);
        let left: Mutex<VecDeque<&Target>> = Mutex::new(targets.iter().copied().collect());
        let reports = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let work = || {
                while let Some(target) = pop(&left) {
                    let report = self.one(target, each);
                    if let Ok(report) = &report {
                        told(report);
                    }
                    let mut all = reports.lock().unwrap_or_else(PoisonError::into_inner);
                    all.push(report);
                }
            };
            for _ in 0..jobs {
                scope.spawn(work);
            }
        });
        let reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
        reports.into_iter().collect()
    }

    fn one(&self, target: &Target, time: Option<Duration>) -> Result<Report> {
        let current = self.keep.join(format!("{}.now", target.name));
        let mut command = Command::new(std::env::current_exe()?);
        let inputs = (self.inputs / target.cost).max(1);
        command
            .args(["child", target.name, "--inputs", &inputs.to_string()])
            .args(["--start", &self.seed.to_string(), "--now"])
            .arg(&current);
        if let Some(time) = time {
            command.args(["--millis", &time.as_millis().to_string()]);
        }
        let begun = Instant::now();
        let output = command.stderr(Stdio::inherit()).output()?;
        let mut report = match output.status.code() {
            Some(0) => serde_json::from_slice(&output.stdout).context("a child's report")?,
            code => Report {
                target: target.name.to_owned(),
                took_ms: begun.elapsed().as_millis() as u64,
                failures: vec![Failure {
                    text: death(code, &output.status.to_string()),
                    input: under_way(&current).unwrap_or_default(),
                }],
                ..Report::default()
            },
        };
        // It may be gone already.
        let _ = std::fs::remove_file(&current);
        self.keep_failures(target, &mut report)?;
        Ok(report)
    }

    /// Puts what broke into files, as small as it gets.
    fn keep_failures(&self, target: &Target, report: &mut Report) -> Result<()> {
        for (n, failure) in report.failures.iter().enumerate() {
            let name = format!("{}-{}-{n}.bin", target.name, self.seed);
            let path = self.keep.join(name);
            std::fs::write(&path, &failure.input)?;
            let small = smaller(target, &failure.input, &self.keep.join("try"))?;
            if small.len() < failure.input.len() {
                std::fs::write(path.with_extension("small"), &small)?;
            }
            report.files.push(path.display().to_string());
        }
        Ok(())
    }
}

fn pop(left: &Mutex<VecDeque<&'static Target>>) -> Option<&'static Target> {
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    left.pop_front()
}

fn death(code: Option<i32>, status: &str) -> String {
    match code {
        Some(HUNG) => "it never ends".to_owned(),
        Some(GREEDY) => "it asks for more memory than any input may".to_owned(),
        _ => format!("the process died: {status}"),
    }
}

/// Gives an input in a process of its own; how that ended.
fn try_out(target: &Target, input: &[u8], path: &Path) -> Result<Option<i32>> {
    std::fs::write(path, input)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("replay").arg(target.name).arg(path);
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(quiet.status()?.code())
}

/// Cuts pieces out of an input while it ends as before.
pub(crate) fn smaller(target: &Target, input: &[u8], path: &Path) -> Result<Vec<u8>> {
    let end = try_out(target, input, path)?;
    let (mut best, mut tries, begun) = (input.to_vec(), 0, Instant::now());
    ensure!(best.len() < 1 << 28, "an input that cannot be handled");
    let mut piece = best.len().div_ceil(2);
    // one that does not fail alone stays as it is
    while end != Some(0) && piece > 0 {
        let mut from = 0;
        while from < best.len() && tries < TRIES && begun.elapsed() < PATIENCE {
            let mut cut = best.clone();
            cut.drain(from..cut.len().min(from + piece));
            tries += 1;
            match try_out(target, &cut, path)? == end {
                true => best = cut,
                false => from += piece,
            }
        }
        piece /= 2;
    }
    // It may be gone already.
    let _ = std::fs::remove_file(path);
    Ok(best)
}
