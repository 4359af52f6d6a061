//! What became of each mutant, one line each in a file that only grows: a run that was stopped goes
//! on where it was.
//!
//! A line counts while what it was judged by is the same: a kill, while no code but tests has
//! changed (more tests kill no less); a survivor, while nothing has changed at all.

use crate::find::Id;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A test failed.
    Test {
        /// The program of tests.
        program: String,
        /// The test; empty where the program ended without naming one.
        test: String,
    },
    /// The simulator found something.
    Simulator {
        /// The seed.
        seed: u64,
        /// The promise that broke, `panic`, or `crash` where the simulator itself ended.
        invariant: String,
    },
    /// It did not end in time.
    Timeout {
        /// The program of tests, or the seed.
        program: String,
    },
    /// Nothing noticed it.
    Survived {
        /// Tests that reached it.
        tests: usize,
        /// Seeds that reached it.
        seeds: usize,
    },
    /// The compiler refuses it: it is no mutant.
    Refused,
}

impl Verdict {
    /// Whether something noticed it.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        matches!(
            self,
            Self::Test { .. } | Self::Simulator { .. } | Self::Timeout { .. }
        )
    }
}

/// A line of the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// The mutant.
    pub id: Id,
    /// What became of it.
    pub verdict: Verdict,
    /// How long that took.
    pub seconds: f64,
    /// The hash of all code that is not for tests.
    pub code: String,
    /// The hash of all checks.
    pub checks: String,
    /// How many seeds were to run.
    pub seeds: usize,
}

/// The hashes that say what a line was judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Of all code that is not for tests.
    pub code: String,
    /// Of all checks.
    pub checks: String,
    /// Seeds for a mutant that no test notices.
    pub seeds: usize,
    /// Kills, and what was refused, count whatever has changed since.
    pub keep: bool,
    /// Everything counts whatever has changed since.
    pub told: bool,
}

/// The file, and what of it counts.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    judged: Judged,
    lines: BTreeMap<Id, Line>,
}

impl Ledger {
    /// Opens a ledger; its file need not be there.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn open(path: &Path, judged: Judged) -> Result<Self> {
        let text = match path.exists() {
            true => fs::read_to_string(path)
                .with_context(|| format!("{} cannot be read", path.display()))?,
            false => String::new(),
        };
        let mut lines = BTreeMap::new();
        // a line that was torn, or is of another version of the tool, is judged again
        for line in text
            .lines()
            .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        {
            if counts(&line, &judged) {
                lines.insert(line.id.clone(), line);
            }
        }
        Ok(Self {
            path: path.to_owned(),
            judged,
            lines,
        })
    }

    /// What is known of a mutant.
    #[must_use]
    pub fn get(&self, id: &Id) -> Option<&Line> {
        self.lines.get(id)
    }

    /// Writes down what became of one.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn add(&mut self, id: &Id, verdict: Verdict, seconds: f64) -> Result<()> {
        let seconds = (seconds * 10.0).round() / 10.0;
        let Judged {
            code,
            checks,
            seeds,
            ..
        } = self.judged.clone();
        let line = Line {
            id: id.clone(),
            verdict,
            seconds,
            code,
            checks,
            seeds,
        };
        let text = serde_json::to_string(&line).context("a verdict cannot be written")?;
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path);
        let name = || format!("{} cannot be written", self.path.display());
        writeln!(file.with_context(name)?, "{text}").with_context(name)?;
        self.lines.insert(line.id.clone(), line);
        Ok(())
    }
}

fn counts(line: &Line, now: &Judged) -> bool {
    if now.told {
        return true;
    }
    match &line.verdict {
        Verdict::Refused => now.keep || line.code == now.code,
        Verdict::Survived { .. } => {
            line.code == now.code && line.checks == now.checks && line.seeds >= now.seeds
        }
        _ => now.keep || line.code == now.code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(code: &str, checks: &str) -> Judged {
        Judged {
            code: code.to_owned(),
            checks: checks.to_owned(),
            seeds: 5,
            keep: false,
            told: false,
        }
    }

    #[test]
    fn a_line_counts_while_what_judged_it_is_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.jsonl");
        let mut ledger = Ledger::open(&path, judged("a", "x")).expect("opens");
        let test = Verdict::Test {
            program: "p".to_owned(),
            test: "t".to_owned(),
        };
        let all = [
            test,
            Verdict::Survived { tests: 1, seeds: 5 },
            Verdict::Refused,
        ];
        for (nth, verdict) in all.iter().enumerate() {
            ledger
                .add(&Id::of("a", nth), verdict.clone(), 0.123)
                .expect("is written");
        }
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| write!(file, "{{\"id\":"))
            .expect("is torn");
        let known = |judged: Judged| -> Vec<bool> {
            let ledger = Ledger::open(&path, judged).expect("opens");
            (0..3)
                .map(|nth| ledger.get(&Id::of("a", nth)).is_some())
                .collect()
        };
        assert_eq!(known(judged("a", "x")), [true, true, true]);
        assert_eq!(known(judged("a", "y")), [true, false, true]);
        assert_eq!(known(judged("b", "x")), [false, false, false]);
        assert_eq!(
            known(Judged {
                seeds: 6,
                ..judged("a", "x")
            }),
            [true, false, true]
        );
        assert_eq!(
            known(Judged {
                keep: true,
                ..judged("b", "x")
            }),
            [true, false, true]
        );
        let ledger = Ledger::open(&path, judged("a", "x")).expect("opens");
        assert_eq!(
            ledger.get(&Id::of("a", 1)).map(|line| &line.verdict),
            Some(&all[1])
        );
    }
}
