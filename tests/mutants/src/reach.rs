//! Which checks come by which mutants: every check runs once without a mutant, and notes it.

use crate::compile::{Built, Program};
use crate::run::{End, bounded};
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest time of a check without a mutant.
const LONGEST: Duration = Duration::from_secs(600);

/// A program of tests.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tests {
    /// The program.
    pub program: Program,
    /// How long all its tests take.
    pub takes: Duration,
    /// By mutant, the tests that come by it; none named where a thread of its own did.
    pub by: BTreeMap<u32, BTreeSet<String>>,
}

/// A seed of the simulator.
#[derive(Debug, Serialize, Deserialize)]
pub struct Seed {
    /// The seed.
    pub seed: u64,
    /// How long it takes.
    pub takes: Duration,
    /// The mutants that it comes by.
    pub by: BTreeSet<u32>,
}

/// What is known of all checks.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Reached {
    /// The programs of tests.
    pub tests: Vec<Tests>,
    /// The seeds.
    pub seeds: Vec<Seed>,
}

/// The name of a thread that has none, and that of the thread in which a program begins.
const NAMELESS: [&str; 2] = ["-", "main"];

/// Environment of every check: what is drawn in tests is the same in all runs.
#[must_use]
pub fn environment() -> Vec<(&'static str, String)> {
    vec![
        ("PROPTEST_RNG_SEED", "1".to_owned()),
        ("RUST_BACKTRACE", "0".to_owned()),
    ]
}

/// How a seed is run.
#[must_use]
pub fn seed_arguments(seed: u64) -> Vec<String> {
    let seed = seed.to_string();
    let words = [
        "run",
        "--seeds",
        "1",
        "--threads",
        "1",
        "--shrink",
        "0",
        "--start",
        &seed,
    ];
    words.map(str::to_owned).to_vec()
}

/// Runs all checks without a mutant. Every one must pass. What was measured before under the same
/// `key`, which names code, checks and mutants, is not measured again.
///
/// # Errors
///
/// Where one does not pass.
pub fn measure(
    built: &Built,
    seeds: u64,
    jobs: usize,
    output: &Path,
    key: &str,
) -> Result<Reached> {
    let file = output.join(format!("reached-{key}-{seeds}.json"));
    let known = fs::read_to_string(&file).ok();
    if let Some(reached) = known.and_then(|text| serde_json::from_str(&text).ok()) {
        return Ok(reached);
    }
    let reached = measure_all(built, seeds, jobs, output)?;
    let text = serde_json::to_string(&reached).context("what was reached cannot be written")?;
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    Ok(reached)
}

fn measure_all(built: &Built, seeds: u64, jobs: usize, output: &Path) -> Result<Reached> {
    let mut reached = Reached::default();
    for program in &built.tests {
        reached.tests.push(tests(program, output)?);
    }
    if let Some(simulator) = &built.simulator {
        reached.seeds = all_seeds(simulator, seeds, jobs, output)?;
    }
    Ok(reached)
}

fn tests(program: &Program, output: &Path) -> Result<Tests> {
    // with one thread all tests would run in the thread that is called `main`
    let arguments = ["--test-threads", "2"].map(str::to_owned);
    let (takes, lines) = traced(program, &arguments, &output.join("trace"))?;
    let mut by: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for (number, thread) in lines {
        by.entry(number).or_default().insert(thread);
    }
    for threads in by.values_mut() {
        if threads.iter().any(|one| NAMELESS.contains(&one.as_str())) {
            threads.clear();
        }
    }
    let (name, seconds) = (&program.name, takes.as_secs_f64());
    eprintln!("{name}: {seconds:.1} s, comes by {} mutants", by.len());
    Ok(Tests {
        program: program.clone(),
        takes,
        by,
    })
}

fn all_seeds(simulator: &Program, seeds: u64, jobs: usize, output: &Path) -> Result<Vec<Seed>> {
    let next = AtomicU64::new(0);
    let all = Mutex::new(Vec::new());
    let work = |job: usize| -> Result<()> {
        let file = output.join(format!("trace{job}"));
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return Ok(());
            }
            let (takes, lines) = traced(simulator, &seed_arguments(seed), &file)?;
            let by = lines.into_iter().map(|(number, _)| number).collect();
            if let Ok(mut all) = all.lock() {
                all.push(Seed { seed, takes, by });
            }
        }
    };
    let work = &work;
    std::thread::scope(|scope| -> Result<()> {
        let jobs = 0..jobs.max(1);
        let handles: Vec<_> = jobs.map(|job| scope.spawn(move || work(job))).collect();
        for handle in handles {
            handle
                .join()
                .map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(())
    })?;
    let mut all = all
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a worker panicked"))?;
    all.sort_by_key(|one| one.seed);
    eprintln!("{} seeds of the simulator pass", all.len());
    Ok(all)
}

/// Runs a check that must pass: how long it takes, and the mutants with the threads that came by.
fn traced(
    program: &Program,
    arguments: &[String],
    file: &Path,
) -> Result<(Duration, Vec<(u32, String)>)> {
    if file.exists() {
        fs::remove_file(file).with_context(|| file.display().to_string())?;
    }
    let mut environment = environment();
    environment.push(("DRIFTLESS_MUTANT_TRACE", file.display().to_string()));
    let begun = Instant::now();
    let never = |_: &str| false;
    let end = bounded(
        &program.path,
        arguments,
        &program.folder,
        &environment,
        LONGEST,
        &never,
    )?;
    let good = matches!(&end, End::Exit(status) if status.success());
    let what = arguments.join(" ");
    ensure!(
        good,
        "{} {what} does not pass without a mutant: {end:?}",
        program.name
    );
    let takes = begun.elapsed();
    let text = match file.exists() {
        true => fs::read_to_string(file).with_context(|| file.display().to_string())?,
        false => String::new(),
    };
    let parsed = text.lines().filter_map(|line| {
        let (number, thread) = line.split_once(' ')?;
        Some((number.parse().ok()?, thread.to_owned()))
    });
    Ok((takes, parsed.collect()))
}
