//! A campaign: draw, compile, measure who comes by what, judge each, write it down.

use crate::compile;
use crate::explained::{self, Explained};
use crate::find::{self, Id, Mutant};
use crate::judge::Bench;
use crate::ledger::{Judged, Ledger, Verdict};
use crate::page::{self, Outcome};
use crate::project::{Package, Project};
use crate::reach;
use crate::sample::draw;
use anyhow::{Context as _, Result, anyhow};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What somebody wants to know.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// How many mutants are drawn.
    pub sample: usize,
    /// The seed of the draw.
    pub seed: u64,
    /// Only those whose name holds this text.
    pub only: Option<String>,
    /// Seeds of the simulator for a mutant that no test notices.
    pub sim_seeds: usize,
    /// Checks that run at once.
    pub jobs: usize,
    /// What the ledger knows does not count.
    pub again: bool,
    /// Kills count although the code has changed since.
    pub keep: bool,
    /// Nothing is judged: what the ledger knows counts whatever has changed since.
    pub told: bool,
    /// The list of survivors that somebody looked at.
    pub explained: PathBuf,
}

impl Wanted {
    /// How many must be judged where `drawn` could be drawn: a choice by name asks for no number.
    fn asked(&self, drawn: usize) -> usize {
        match self.only {
            None => self.sample.max(drawn),
            Some(_) => 0,
        }
    }
}

/// More are compiled than are drawn, in place of those that the compiler refuses: one in five.
const RESERVE: usize = 5;

/// The share of those judged that must be caught, in percent.
const CAUGHT_MIN: usize = 90;

/// Of so many more seeds it is known what they come by, so that rare places get their share.
const MORE_SEEDS: usize = 2;

/// The mutants of all sources, and the hashes of what they are judged by.
struct Sources {
    mutants: Vec<Mutant>,
    code: String,
    checks: String,
}

impl Sources {
    fn read(project: &Project) -> Result<Self> {
        let (mut code, mut checks) = (blake3::Hasher::new(), blake3::Hasher::new());
        let mut mutants = Vec::new();
        for name in project.files()? {
            let bytes = fs::read(project.root.join(&name)).with_context(|| name.clone())?;
            let mutated = project.package_of(&name).filter(|_| is_code(&name));
            if mutated.is_none() {
                if project.is_check(&name) {
                    checks.update(name.as_bytes()).update(&bytes);
                }
                continue;
            }
            let source = String::from_utf8(bytes).with_context(|| name.clone())?;
            let found = find::in_file(&name, &source)?;
            let mut at = 0;
            code.update(name.as_bytes());
            for test in found.tests {
                code.update(&source.as_bytes()[at..test.start]);
                checks.update(&source.as_bytes()[test.clone()]);
                at = test.end;
            }
            code.update(&source.as_bytes()[at..]);
            mutants.extend(found.mutants);
        }
        let short = |hash: blake3::Hasher| hash.finalize().to_hex()[..16].to_owned();
        Ok(Self {
            mutants,
            code: short(code),
            checks: short(checks),
        })
    }

    /// The sample, without those that are refused.
    fn drawn(&self, wanted: &Wanted, count: usize, refused: &BTreeSet<Id>) -> Vec<&Mutant> {
        let left: Vec<&Mutant> = self
            .mutants
            .iter()
            .filter(|mutant| !refused.contains(&mutant.id))
            .collect();
        let ids: Vec<&Id> = left.iter().map(|mutant| &mutant.id).collect();
        draw(&ids, wanted.seed, count)
            .into_iter()
            .map(|index| left[index])
            .collect()
    }

    fn ledger(&self, project: &Project, wanted: &Wanted) -> Result<Ledger> {
        let path = project.output.join("ledger.jsonl");
        fs::create_dir_all(&project.output).context("the folder of the ledger")?;
        if wanted.again && path.exists() {
            fs::remove_file(&path).context("the ledger cannot be removed")?;
        }
        let (code, checks) = (self.code.clone(), self.checks.clone());
        let (seeds, keep, told) = (wanted.sim_seeds, wanted.keep, wanted.told);
        Ledger::open(
            &path,
            Judged {
                code,
                checks,
                seeds,
                keep,
                told,
            },
        )
    }

    /// Names all that decides which checks come by which mutants.
    fn key(&self, compiled: &[&Mutant]) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(self.code.as_bytes())
            .update(self.checks.as_bytes());
        for mutant in compiled {
            hash.update(mutant.id.to_string().as_bytes());
        }
        hash.finalize().to_hex()[..16].to_owned()
    }

    fn refused(&self, ledger: &Ledger) -> BTreeSet<Id> {
        let known = self
            .mutants
            .iter()
            .filter_map(|mutant| ledger.get(&mutant.id));
        let refused = known.filter(|line| line.verdict == Verdict::Refused);
        refused.map(|line| line.id.clone()).collect()
    }
}

/// Files of tests have none to find, and what is planted is no code.
fn is_code(name: &str) -> bool {
    let other = ["/tests.rs", "/planted.rs"];
    name.ends_with(".rs")
        && !other.iter().any(|end| name.ends_with(end))
        && !name.contains("/tests/")
}

/// The sample as far as it is known: some of it may turn out not to compile.
///
/// # Errors
///
/// Where a source cannot be read.
pub fn sample(project: &Project, wanted: &Wanted) -> Result<Vec<Mutant>> {
    let sources = Sources::read(project)?;
    // to look at it forgets nothing
    let known = Wanted {
        again: false,
        ..wanted.clone()
    };
    let refused = sources.refused(&sources.ledger(project, &known)?);
    let drawn = sources.drawn(wanted, wanted.sample, &refused);
    Ok(drawn
        .into_iter()
        .filter(|mutant| is_wanted(mutant, wanted))
        .cloned()
        .collect())
}

fn is_wanted(mutant: &Mutant, wanted: &Wanted) -> bool {
    wanted
        .only
        .as_ref()
        .is_none_or(|text| mutant.id.to_string().contains(text.as_str()))
}

/// What a campaign came to.
#[derive(Debug)]
pub struct Campaign {
    seed: u64,
    seeds: usize,
    all: usize,
    asked: usize,
    judged: Vec<(Id, Verdict)>,
    explained: Vec<Explained>,
}

impl Campaign {
    fn outcome(&self) -> Outcome<'_> {
        Outcome {
            seed: self.seed,
            seeds: self.seeds,
            all: self.all,
            judged: self
                .judged
                .iter()
                .map(|(id, verdict)| (id, verdict))
                .collect(),
            explained: &self.explained,
        }
    }

    /// What became of each mutant.
    #[must_use]
    pub fn judged(&self) -> &[(Id, Verdict)] {
        &self.judged
    }

    /// Survivors of which nobody has said why.
    #[must_use]
    pub fn unexplained(&self) -> usize {
        let known = |id: &Id| {
            self.explained
                .iter()
                .any(|one| one.mutant == *id && one.why.is_some())
        };
        let open = |(id, verdict): &&(Id, Verdict)| !verdict.is_caught() && !known(id);
        self.judged.iter().filter(open).count()
    }

    /// What the campaign falls short of, for people; nothing where all is as it must be.
    #[must_use]
    pub fn short(&self) -> Vec<String> {
        let mut short = Vec::new();
        let (judged, asked) = (self.judged.len(), self.asked);
        if judged < asked {
            short.push(format!(
                "{judged} mutants are judged, {asked} were asked for"
            ));
        }
        let caught = self
            .judged
            .iter()
            .filter(|(_, verdict)| verdict.is_caught());
        if caught.count() * 100 < judged * CAUGHT_MIN {
            short.push(format!("fewer than {CAUGHT_MIN} % of them are caught"));
        }
        match self.unexplained() {
            0 => {}
            open => short.push(format!("{open} survivors are not explained")),
        }
        short
    }

    /// For people: the survivors that nobody looked at yet, and the share.
    #[must_use]
    pub fn told(&self) -> String {
        let mut out = String::new();
        for (id, verdict) in self
            .judged
            .iter()
            .filter(|(_, verdict)| !verdict.is_caught())
        {
            let _ = writeln!(out, "survivor: {id} ({verdict:?})");
        }
        out + &format!(
            "{}; {} not explained\n",
            page::summary(&self.outcome()),
            self.unexplained()
        )
    }

    /// Writes the tables into a page.
    ///
    /// # Errors
    ///
    /// Where it cannot be read or written.
    pub fn write(&self, page: &Path) -> Result<()> {
        let name = || page.display().to_string();
        let text = fs::read_to_string(page).with_context(name)?;
        let text = page::filled(&text, &self.outcome()).with_context(name)?;
        fs::write(page, text).with_context(name)
    }
}

/// Runs a campaign.
///
/// # Errors
///
/// Where the copy does not compile, or a check does not pass without a mutant.
pub fn run(project: &Project, wanted: &Wanted) -> Result<Campaign> {
    let sources = Sources::read(project)?;
    let mut ledger = sources.ledger(project, wanted)?;
    let known = sources.refused(&ledger);
    let mut refused = known.clone();
    let is_open = |mutant: &&&Mutant| is_wanted(mutant, wanted) && ledger.get(&mutant.id).is_none();
    let mut drawn = sources.drawn(wanted, wanted.sample, &refused);
    if !wanted.told && drawn.iter().any(|mutant| is_open(&mutant)) {
        let more = wanted.sample + wanted.sample.div_ceil(RESERVE);
        let draw = |refused: &BTreeSet<Id>| sources.drawn(wanted, more, refused);
        let compiled = compile::settle(project, &draw, &mut refused)?;
        drawn = sources.drawn(wanted, wanted.sample, &refused);
        let open: Open<'_> = drawn.iter().filter(is_open).copied().collect();
        eprintln!("{} mutants, {} of them to judge", drawn.len(), open.len());
        for id in refused.difference(&known) {
            ledger.add(id, Verdict::Refused, 0.0)?;
        }
        ledger = judge_all(project, wanted, open, &sources.key(&compiled), ledger)?;
    }
    let judged = drawn.iter().filter_map(|mutant| {
        ledger
            .get(&mutant.id)
            .map(|line| (mutant.id.clone(), line.verdict.clone()))
    });
    Ok(Campaign {
        seed: wanted.seed,
        seeds: wanted.sim_seeds,
        all: sources.mutants.len(),
        asked: wanted.asked(drawn.len()),
        judged: judged.collect::<BTreeMap<_, _>>().into_iter().collect(),
        explained: explained::read(&wanted.explained)?,
    })
}

/// Mutants that wait for their verdict.
type Open<'a> = VecDeque<&'a Mutant>;

fn judge_all(
    project: &Project,
    wanted: &Wanted,
    open: Open<'_>,
    key: &str,
    ledger: Ledger,
) -> Result<Ledger> {
    let built = compile::build(project)?;
    let seeds = (wanted.sim_seeds * MORE_SEEDS) as u64;
    let reached = reach::measure(&built, seeds, wanted.jobs, &project.output, key)?;
    let bench = Bench {
        reached: &reached,
        simulator: built.simulator.as_ref(),
        seeds_max: wanted.sim_seeds,
        patience: project.patience,
    };
    // all by the quick tests first: most are done then, and what is left is known early
    let court = Court {
        project,
        bench,
        ledger: Mutex::new(ledger),
    };
    let left = court.all(wanted.jobs, open, |bench, number, package| {
        bench.quick(number, package)
    })?;
    for mutant in &left {
        eprintln!("left by the tests: {}", mutant.id);
    }
    court.all(wanted.jobs, left, |bench, number, package| {
        bench.slow(number, package).map(Some)
    })?;
    Ok(court
        .ledger
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner))
}

/// Who judges, and where it is written down.
struct Court<'a> {
    project: &'a Project,
    bench: Bench<'a>,
    ledger: Mutex<Ledger>,
}

impl Court<'_> {
    /// Lets all be judged, some at once: those that have no verdict yet.
    fn all<'m>(
        &self,
        jobs: usize,
        open: Open<'m>,
        how: impl Fn(&Bench<'_>, u32, &Package) -> Result<Option<Verdict>> + Sync,
    ) -> Result<Open<'m>> {
        let all = open.len();
        let (open, left) = (Mutex::new(open), Mutex::new(Open::new()));
        let work = || -> Result<()> {
            loop {
                let next = lock(&open).pop_front();
                let Some(mutant) = next else {
                    return Ok(());
                };
                let package = self.project.package_of(&mutant.id.file);
                let begun = Instant::now();
                let verdict = how(
                    &self.bench,
                    mutant.number(),
                    package.context("a mutant outside")?,
                )?;
                let seconds = begun.elapsed().as_secs_f64();
                let Some(verdict) = verdict else {
                    lock(&left).push_back(mutant);
                    continue;
                };
                let done = all - lock(&open).len();
                eprintln!("{done}/{all} {seconds:.1} s {}: {verdict:?}", mutant.id);
                lock(&self.ledger).add(&mutant.id, verdict, seconds)?;
            }
        };
        std::thread::scope(|scope| -> Result<()> {
            let handles: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
            for handle in handles {
                handle.join().map_err(|_| anyhow!("a worker panicked"))??;
            }
            Ok(())
        })?;
        Ok(left.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(caught: usize, survived: usize, explained: bool) -> Campaign {
        let killed = Verdict::Timeout {
            program: "p".to_owned(),
        };
        let alive = Verdict::Survived { tests: 1, seeds: 1 };
        let ids = (0..).map(|nth| Id::of("a", nth));
        let verdicts = std::iter::repeat_n(killed, caught);
        let verdicts = verdicts.chain(std::iter::repeat_n(alive, survived));
        let judged: Vec<_> = ids.zip(verdicts).collect();
        let why = |(id, _): &(Id, Verdict)| Explained {
            mutant: id.clone(),
            why: Some("it makes no difference".to_owned()),
            check: None,
        };
        Campaign {
            seed: 1,
            seeds: 1,
            all: 100,
            asked: 10,
            explained: judged.iter().filter(|_| explained).map(why).collect(),
            judged,
        }
    }

    #[test]
    fn a_campaign_falls_short_by_number_by_share_and_by_survivors() {
        let none: [&str; 0] = [];
        assert_eq!(campaign(9, 1, true).short(), none);
        assert_eq!(
            campaign(9, 1, false).short(),
            ["1 survivors are not explained"]
        );
        assert_eq!(
            campaign(8, 2, true).short(),
            ["fewer than 90 % of them are caught"]
        );
        assert_eq!(
            campaign(9, 0, true).short(),
            ["9 mutants are judged, 10 were asked for"]
        );
    }
}
