//! What notices a mutant: first the tests that come by it, those of its own package before others,
//! then seeds of the simulator that do.

use crate::compile::Program;
use crate::ledger::Verdict;
use crate::project::Package;
use crate::reach::{Reached, Tests, environment, seed_arguments};
use crate::run::{End, bounded};
use anyhow::Result;
use std::time::Duration;

/// How many times slower than without a mutant a check may be, on a busy machine.
const SLOWER: u32 = 8;

/// What a mutant is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Bench<'a> {
    /// Which checks come by which mutants.
    pub reached: &'a Reached,
    /// The simulator, and the package that it belongs to.
    pub simulator: Option<&'a Program>,
    /// Seeds for a mutant that no test notices.
    pub seeds_max: usize,
    /// Added to the time that a check may take.
    pub patience: Duration,
}

impl Bench<'_> {
    /// What the quick tests say of the mutant with this number: those of its own package, then
    /// those of the packages that stand on it. None of them may notice it.
    ///
    /// # Errors
    ///
    /// Where a test cannot be started.
    pub fn quick(&self, number: u32, package: &Package) -> Result<Option<Verdict>> {
        let of_simulator = |judge: &str| self.simulator.is_some_and(|sim| sim.package == judge);
        let quick = package.judges.iter().filter(|judge| !of_simulator(judge));
        self.tests(number, quick)
    }

    /// What the simulator says: its seeds, then its own tests.
    ///
    /// # Errors
    ///
    /// Where a check cannot be started.
    pub fn slow(&self, number: u32, package: &Package) -> Result<Verdict> {
        let mut seeds = 0;
        if let Some(simulator) = self.simulator {
            let there = self
                .reached
                .seeds
                .iter()
                .filter(|seed| seed.by.contains(&number));
            for seed in there.take(self.seeds_max) {
                seeds += 1;
                let most = seed.takes * SLOWER + self.patience;
                if let Some(verdict) = by_seed(number, simulator, seed.seed, most)? {
                    return Ok(verdict);
                }
            }
            let own = package
                .judges
                .iter()
                .filter(|judge| **judge == simulator.package);
            if let Some(verdict) = self.tests(number, own)? {
                return Ok(verdict);
            }
        }
        let run = |tests: &&Tests| package.judges.contains(&tests.program.package);
        let names = self
            .reached
            .tests
            .iter()
            .filter(run)
            .filter_map(|one| one.by.get(&number));
        let tests = names.map(|names| names.len().max(1)).sum();
        Ok(Verdict::Survived { tests, seeds })
    }

    fn tests<'p>(
        &self,
        number: u32,
        judges: impl Iterator<Item = &'p String>,
    ) -> Result<Option<Verdict>> {
        for judge in judges {
            let of = self
                .reached
                .tests
                .iter()
                .filter(|one| one.program.package == *judge);
            for tests in of.filter(|one| one.by.contains_key(&number)) {
                if let Some(verdict) = by_tests(number, tests, self.patience)? {
                    return Ok(Some(verdict));
                }
            }
        }
        Ok(None)
    }
}

fn with_mutant(number: u32) -> Vec<(&'static str, String)> {
    let mut all = environment();
    all.push(("DRIFTLESS_MUTANT", number.to_string()));
    all
}

fn by_tests(number: u32, tests: &Tests, patience: Duration) -> Result<Option<Verdict>> {
    let program = &tests.program;
    let mut arguments: Vec<String> = tests
        .by
        .get(&number)
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    if !arguments.is_empty() {
        arguments.push("--exact".to_owned());
    }
    arguments.extend(["--test-threads", "1"].map(str::to_owned));
    let failed = |line: &str| failed_test(line).is_some();
    let most = tests.takes * SLOWER + patience;
    let (environment, folder) = (with_mutant(number), &program.folder);
    let end = bounded(
        &program.path,
        &arguments,
        folder,
        &environment,
        most,
        &failed,
    )?;
    let name = program.name.clone();
    Ok(match end {
        End::Exit(status) if status.success() => None,
        End::Exit(_) => Some(Verdict::Test {
            program: name,
            test: String::new(),
        }),
        End::Line(line) => {
            let test = failed_test(&line).unwrap_or_default().to_owned();
            Some(Verdict::Test {
                program: name,
                test,
            })
        }
        End::Timeout => Some(Verdict::Timeout { program: name }),
    })
}

/// The test that a line says has failed.
fn failed_test(line: &str) -> Option<&str> {
    let line = line.strip_suffix("FAILED")?;
    let name = line.strip_prefix("test ")?.split(" ... ").next()?;
    Some(name.trim_end_matches(" - should panic"))
}

fn by_seed(number: u32, simulator: &Program, seed: u64, most: Duration) -> Result<Option<Verdict>> {
    let said = |line: &str| broken(line, seed).is_some();
    let (environment, folder) = (with_mutant(number), &simulator.folder);
    let arguments = seed_arguments(seed);
    let end = bounded(
        &simulator.path,
        &arguments,
        folder,
        &environment,
        most,
        &said,
    )?;
    Ok(match end {
        End::Exit(status) if status.success() => None,
        End::Exit(_) => Some(Verdict::Simulator {
            seed,
            invariant: "crash".to_owned(),
        }),
        End::Line(line) => {
            let invariant = broken(&line, seed).unwrap_or_default().to_owned();
            Some(Verdict::Simulator { seed, invariant })
        }
        End::Timeout => Some(Verdict::Timeout {
            program: format!("seed {seed}"),
        }),
    })
}

/// The promise that a line of the simulator says is broken.
fn broken(line: &str, seed: u64) -> Option<&str> {
    let rest = line
        .strip_prefix("seed ")?
        .strip_prefix(&seed.to_string())?;
    let named = rest.starts_with(':') || rest.starts_with(" at ");
    named.then(|| rest.split(": ").nth(1)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_failures_are_read() {
        assert_eq!(failed_test("test a::b ... FAILED"), Some("a::b"));
        assert_eq!(
            failed_test("test a::b - should panic ... FAILED"),
            Some("a::b")
        );
        assert_eq!(failed_test("test a::b ... ok"), None);
        assert_eq!(failed_test("test result: FAILED. 1 passed"), None);
        assert_eq!(
            broken("seed 4 at 0d 01:02:03: safe: gw1: lost", 4),
            Some("safe")
        );
        assert_eq!(
            broken("seed 4: bounded: a step does not end", 4),
            Some("bounded")
        );
        assert_eq!(broken("seed 41 at 0d 01:02:03: safe: gw1", 4), None);
    }
}
