//! A campaign: each target in a process of its own, a few at once; what broke is kept in files and
//! made smaller.

use crate::fire::{Failure, Report, kind};
use crate::target::Target;
use crate::watch::{FAILED, GREEDY, HUNG, under_way};
use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tries to make an input smaller, at most.
const TRIES: usize = 400;
/// Time for that; of a campaign that has so many seconds, for all inputs together.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two looks at a process.
const LOOK: Duration = Duration::from_millis(2);
/// What is said of an input that was still under way.
const NO_END: &str = "it never ends";

/// How a campaign goes.
#[derive(Clone, Debug)]
pub(crate) struct Campaign {
    /// Inputs of each target; one in [`Target::cost`] of a slow one.
    pub(crate) inputs: u64,
    /// Mutants of each target at least, whatever it costs.
    pub(crate) at_least: u64,
    /// Time in all, longer where the targets need it for `at_least`.
    pub(crate) time: Option<Duration>,
    /// The seed.
    pub(crate) seed: u64,
    /// Processes at once.
    pub(crate) jobs: usize,
    /// Where inputs go that broke something.
    pub(crate) keep: PathBuf,
    /// An input that takes longer never ends.
    pub(crate) hang: Duration,
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
        let patience = Mutex::new(PATIENCE);
        std::thread::scope(|scope| {
            let work = || {
                while let Some(target) = pop(&left) {
                    let report = self.one(target, each, &patience);
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

    fn one(
        &self,
        target: &Target,
        time: Option<Duration>,
        patience: &Mutex<Duration>,
    ) -> Result<Report> {
        // Goes with all that the child leaves in it, whatever its end.
        let dir = tempfile::tempdir()?;
        let current = dir.path().join("now");
        let mut command = Command::new(std::env::current_exe()?);
        let inputs = (self.inputs / target.cost).max(1);
        command
            .args(["child", target.name, "--inputs", &inputs.to_string()])
            .args(["--at-least", &self.at_least.to_string()])
            .args(["--start", &self.seed.to_string(), "--now"])
            .arg(&current)
            .args(["--hang", &self.hang.as_millis().to_string()])
            .env("TMPDIR", dir.path());
        if let Some(time) = time {
            command.args(["--millis", &time.as_millis().to_string()]);
        }
        let begun = Instant::now();
        let output = command.stderr(Stdio::inherit()).output()?;
        let mut report = match output.status.code() {
            Some(0) => serde_json::from_slice(&output.stdout).context("a child's report")?,
            Some(ERROR) => bail!("{}: the harness itself failed", target.name),
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
        self.keep_failures(target, &mut report, patience)?;
        Ok(report)
    }

    /// Puts what broke into files, as small as it gets; with little time, the first one only.
    fn keep_failures(
        &self,
        target: &Target,
        report: &mut Report,
        patience: &Mutex<Duration>,
    ) -> Result<()> {
        for (n, failure) in report.failures.iter().enumerate() {
            let name = format!("{}-{}-{n}.bin", target.name, self.seed);
            let path = self.keep.join(name);
            std::fs::write(&path, &failure.input)?;
            report.files.push(path.display().to_string());
            let time = match self.time {
                None => PATIENCE,
                Some(_) if n > 0 => Duration::ZERO,
                Some(_) => *patience.lock().unwrap_or_else(PoisonError::into_inner),
            };
            // Each try of what never ends would take as long as that.
            if time.is_zero() || failure.text == NO_END {
                continue;
            }
            let begun = Instant::now();
            let small = smaller(target, &failure.input, self.hang, begun + time)?;
            if small.len() < failure.input.len() {
                std::fs::write(path.with_extension("small"), &small)?;
            }
            let mut left = patience.lock().unwrap_or_else(PoisonError::into_inner);
            *left = left.saturating_sub(begun.elapsed());
        }
        Ok(())
    }
}

/// Exit code of a process that could not do what it was asked for.
const ERROR: i32 = 1;

fn pop(left: &Mutex<VecDeque<&'static Target>>) -> Option<&'static Target> {
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    left.pop_front()
}

fn death(code: Option<i32>, status: &str) -> String {
    match code {
        Some(HUNG) => NO_END.to_owned(),
        Some(GREEDY) => "it asks for more memory than any input may".to_owned(),
        _ => format!("the process died: {status}"),
    }
}

/// Gives an input in a process of its own: what broke, if there was time to see it.
fn try_out(target: &Target, input: &[u8], hang: Duration, end: Instant) -> Result<Option<String>> {
    let dir = tempfile::tempdir()?;
    let (path, told) = (dir.path().join("input"), dir.path().join("told"));
    std::fs::write(&path, input)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("replay").arg(target.name).arg(&path);
    command.args(["--hang", &hang.as_millis().to_string()]);
    command.env("TMPDIR", dir.path()).stdout(Stdio::null());
    let mut child = command.stderr(File::create(&told)?).spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    };
    let told = || String::from_utf8_lossy(&std::fs::read(&told).unwrap_or_default()).into_owned();
    match status.code() {
        Some(0) => Ok(None),
        Some(ERROR) => bail!("{}: an input cannot be given: {}", target.name, told()),
        Some(code) if code == i32::from(FAILED) => {
            // behind the input, which a target of texts shows
            let told = told();
            Ok(told.rsplit_once("FAILED ").map(|(_, text)| kind(text)))
        }
        code => Ok(Some(death(code, &status.to_string()))),
    }
}

/// Cuts pieces out of an input while the same breaks; what does not break alone stays as it is.
fn smaller(target: &Target, input: &[u8], hang: Duration, end: Instant) -> Result<Vec<u8>> {
    let (mut best, mut tries) = (input.to_vec(), 0);
    let broken = try_out(target, input, hang, end)?;
    let mut piece = best.len().div_ceil(2);
    while broken.is_some() && piece > 0 {
        let mut from = 0;
        while from < best.len() && tries < TRIES && Instant::now() < end {
            let mut cut = best.clone();
            cut.drain(from..cut.len().min(from + piece));
            tries += 1;
            match try_out(target, &cut, hang, end)? == broken {
                true => best = cut,
                false => from += piece,
            }
        }
        piece /= 2;
    }
    Ok(best)
}
