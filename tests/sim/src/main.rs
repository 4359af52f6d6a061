//! `sim run`, `sim replay` and `sim shrink`: see `docs/simulation.md`.

mod counting;

use clap::{Parser, Subcommand};
use sim::campaign::{self, Ledger, Sitting};
use sim::cut::Cut;
use sim::plan::{Layer, Plan};
use sim::recorded::Trace;
use sim::report::{Report, complaint, core_seconds};
use sim::runner::{self, Verdict};
use sim::shrink::{self, Shrunk};
use sim::trace::Sink;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Deterministic simulation of both cores. Without a command it runs many seeds.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    run: Seeds,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Which seeds to run, and how.
#[derive(clap::Args)]
struct Seeds {
    /// How many: 200, or 2,000 with `--planted`.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// 1: stores in memory; 2: redb on simulated disks; absent: both, every third seed on disks.
    #[arg(long)]
    layer: Option<u8>,
    /// Worker threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// End with one line for programs; with `--planted`, one for each mistake.
    #[arg(long)]
    json: bool,
    /// Switch mistakes in the cores on, one after the other, and count the seeds until a named
    /// invariant notices it: all, or the one named.
    #[arg(long, value_name = "MISTAKE", num_args = 0..=1, default_missing_value = "all")]
    planted: Option<String>,
    /// Shrink the first failing seeds behind the run, for so many seconds in all; 0: do not.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    shrink: u64,
    /// The first run of each seed is like one of the executions that were recorded in this folder
    /// (WfFormat): seed N like number N of them, counted around.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["planted", "counts"])]
    traces: Option<PathBuf>,
    /// Write into the table of this page (docs/faults.md) in how many seeds each failure mode was
    /// met.
    #[arg(long, value_name = "PAGE")]
    counts: Option<PathBuf>,
}

/// One seed.
#[derive(clap::Args)]
struct One {
    /// The seed.
    seed: u64,
    /// 1 or 2; absent: as `run` would choose.
    #[arg(long)]
    layer: Option<u8>,
    /// With a mistake in the cores switched on.
    #[arg(long, value_name = "MISTAKE")]
    planted: Option<String>,
    /// Of the size that seeds had when the named scenarios were found.
    #[arg(long, conflicts_with = "traces")]
    small: bool,
    /// With a recorded execution from this folder, as in a run with it.
    #[arg(long, value_name = "FOLDER")]
    traces: Option<PathBuf>,
    /// Draw what happened into this file, as a page for browsers.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds.
    Run(Seeds),
    /// Run one seed again and print what happened.
    Replay {
        #[command(flatten)]
        one: One,
        /// Print only the hash of the trace.
        #[arg(long)]
        hash: bool,
        /// Without what this text names; `shrink` prints such texts.
        #[arg(long, default_value = "")]
        cut: Cut,
    },
    /// Run new seeds of layers 1 and 2 until the ledger holds so many hours on processors of the
    /// code as it is. It may be stopped at any time and goes on from there.
    Campaign {
        /// Hours on processors.
        hours: f64,
        /// The ledger; the checkout is the folder above its own.
        #[arg(long, value_name = "PAGE", default_value = "docs/campaign.md")]
        ledger: PathBuf,
        /// The first seed, where the ledger has none so far.
        #[arg(long, default_value_t = 0)]
        start: u64,
        /// Worker threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Make a failing seed smaller: what is left breaks the same promise. Print it.
    Shrink {
        #[command(flatten)]
        one: One,
        /// Worker threads; they change nothing of what comes out.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
}

fn layer(number: Option<u8>) -> Result<Option<Layer>, String> {
    match number {
        None => Ok(None),
        Some(1) => Ok(Some(Layer::Cores)),
        Some(2) => Ok(Some(Layer::Disk)),
        Some(other) => Err(format!(
            "layer {other} is not simulated here; layers are 1 and 2, and 3 by `cargo xtask sim --layer 3`"
        )),
    }
}

/// Ends the process over a world in which a step does not end.
fn endless(seed: u64, layer: Option<Layer>) -> ! {
    let layer = runner::layer_of(seed, layer).number();
    eprintln!("seed {seed}: bounded: a step does not end");
    eprintln!("  cargo xtask sim replay {seed} --layer {layer}");
    std::process::exit(1);
}

/// Failing seeds that are shrunk behind a run.
const SHRUNK: usize = 3;

/// What a seed does, if its first run may be like a recorded execution.
fn plan_of(seed: u64, layer: Layer, traces: &[Trace]) -> Plan {
    match traces.get((seed % traces.len().max(1) as u64) as usize) {
        Some(trace) => Plan::recorded(seed, layer, trace),
        None => Plan::draw(seed, layer),
    }
}

fn traces(folder: Option<&Path>) -> Result<Vec<Trace>, String> {
    folder.map_or(Ok(Vec::new()), Trace::folder)
}

impl One {
    fn plan(&self, layer: Layer) -> Result<Plan, String> {
        let traces = traces(self.traces.as_deref())?;
        Ok(match self.small {
            true => Plan::small(self.seed, layer),
            false => plan_of(self.seed, layer, &traces),
        })
    }
}

fn run(seeds: &Seeds, layer: Option<Layer>) -> Result<ExitCode, String> {
    let traces = traces(seeds.traces.as_deref())?;
    let plan = |seed, layer| plan_of(seed, layer, &traces);
    let count = seeds.seeds.unwrap_or(200);
    let mut report = Report::default();
    let mut failed = Vec::new();
    let begun = core_seconds();
    let mut each = |verdict: Verdict| {
        if !verdict.violations.is_empty() {
            eprintln!("{}", complaint(&verdict));
        }
        report.add(&verdict);
        if report.seeds % 100 == 0 {
            let failed = report.failed.len();
            eprintln!("{} of {count} seeds, {failed} failed", report.seeds);
        }
        if !verdict.violations.is_empty() {
            failed.push(verdict);
        }
    };
    let endless = |seed| endless(seed, layer);
    runner::watched(seeds.threads, &endless, |pulses| {
        runner::run_many((seeds.start, count), layer, &plan, pulses, &mut each);
    });
    let line = report.line(core_seconds() - begun);
    println!("{}", report.table());
    println!(
        "{} seeds, {} failed, {} agent-hours, {} attempts, {} core-seconds",
        line.seeds, line.violations, line.agent_hours, line.attempts, line.core_seconds
    );
    if seeds.json {
        match serde_json::to_string(&line) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("the line for programs cannot be written: {error}"),
        }
    }
    let written = seeds.counts.as_deref().map(|page| fill(page, &report));
    if let Some(Err(why)) = &written {
        eprintln!("{why}");
    }
    // the same ones whichever ended first; it may end the process
    failed.sort_by_key(|verdict| verdict.seed);
    failed.truncate(SHRUNK);
    shrink_some(failed, seeds, &plan);
    // what was recorded is there for its shapes: accidents that must happen are for drawn seeds
    let good = match traces.is_empty() {
        true => report.is_good(),
        false => report.failed.is_empty(),
    };
    Ok(match good && !matches!(written, Some(Err(_))) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Seeds of a campaign from one entry into its ledger to the next.
const ENTRY: u64 = 100;

fn campaign(hours: f64, place: &Path, start: u64, threads: usize) -> Result<ExitCode, String> {
    let root = place.parent().and_then(Path::parent);
    let root = root.ok_or_else(|| format!("{}: no folder is above it", place.display()))?;
    let root = match root.as_os_str().is_empty() {
        true => Path::new("."),
        false => root,
    };
    let code = campaign::code(root)?;
    let mut ledger = Ledger::open(place)?;
    let (before, _) = ledger.of(&code);
    let first = ledger.next_seed().unwrap_or(start);
    eprintln!("code {code}: {before:.3} of {hours} core-hours are done; seeds from {first}");
    let mut sitting = Sitting::new(code.clone(), first);
    let (begun, mut next, mut spent) = (core_seconds(), first, 0.0);
    while before + spent < hours {
        let mut each = |verdict: Verdict| {
            if !verdict.violations.is_empty() {
                eprintln!("{}", complaint(&verdict));
            }
            sitting.add(&verdict);
        };
        runner::watched(threads, &|seed| endless(seed, None), |pulses| {
            runner::run_many((next, ENTRY), None, &Plan::draw, pulses, &mut each);
        });
        next += ENTRY;
        spent = (core_seconds() - begun) / 3600.0;
        ledger.put(sitting.row(spent))?;
        eprintln!("seeds up to {next}, {:.3} core-hours", before + spent);
    }
    let (done, broken) = ledger.of(&code);
    println!(
        "code {code}: {done:.3} core-hours, {} seeds failed",
        broken.len()
    );
    Ok(match broken.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Writes the counts of a run into the table of `page`.
fn fill(page: &Path, report: &Report) -> Result<(), String> {
    let name = page.display();
    let text = std::fs::read_to_string(page).map_err(|error| format!("{name}: {error}"))?;
    let text = sim::modes::filled(&text, &report.modes, report.seeds);
    let text = text.map_err(|why| format!("{name}: {why}"))?;
    std::fs::write(page, text).map_err(|error| format!("{name}: {error}"))
}

/// Shrinks seeds that failed, as far as there is time; each gets its share of what is left.
fn shrink_some(failed: Vec<Verdict>, seeds: &Seeds, plan: &dyn Fn(u64, Layer) -> Plan) {
    let end = Instant::now() + Duration::from_secs(seeds.shrink);
    for (left, verdict) in (1..=failed.len() as u32).rev().zip(failed) {
        let now = Instant::now();
        let share = end.saturating_duration_since(now) / left;
        if share.is_zero() {
            return;
        }
        let plan = plan(verdict.seed, verdict.layer);
        let shrunk = shrink_one(&plan, verdict, seeds.threads, now.checked_add(share));
        eprintln!("{}", shrink::summary(&plan, &shrunk));
    }
}

/// From one word about how it goes to the next.
const WORD: Duration = Duration::from_secs(10);

fn shrink_one(plan: &Plan, found: Verdict, threads: usize, until: Option<Instant>) -> Shrunk {
    let layer = plan.layer;
    let mut word = Instant::now() + WORD;
    let mut more = |tries: u64, left: &Plan| {
        let now = Instant::now();
        if now > word {
            word = now + WORD;
            eprintln!("{tries} worlds: {}", sim::tell::size(left));
        }
        until.is_none_or(|until| now < until)
    };
    // the seed itself came to its end
    let endless = |seed| {
        let layer = layer.number();
        eprintln!("shrinking seed {seed}: a step does not end in a part of it that was tried");
        eprintln!("  cargo xtask sim shrink {seed} --layer {layer}");
        std::process::exit(1);
    };
    runner::watched(threads, &endless, |pulses| {
        shrink::shrink(plan, found, pulses, &mut more)
    })
}

/// Replays a plan for people, and draws it if they want that.
fn show(plan: Plan, html: Option<&Path>) -> Result<Verdict, String> {
    // a reader that has seen enough closes the pipe; the seed runs on without it
    let mut out: Sink = Box::new(|line| drop(writeln!(std::io::stdout(), "{line}")));
    out(sim::record::LETTERS);
    let (verdict, drawing) = runner::run_recorded(plan, out);
    if let Some(file) = html {
        let written = std::fs::write(file, drawing.html());
        written.map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    }
    Ok(verdict)
}

fn replay(one: &One, layer: Layer, hash: bool, cut: &Cut) -> Result<ExitCode, String> {
    plant(one.planted.as_deref())?;
    let plan = one.plan(layer)?.without(cut);
    let verdict = match hash {
        true => runner::run_plan(plan, None),
        false => show(plan, one.html.as_deref())?,
    };
    println!("{:016x}", verdict.hash);
    if verdict.violations.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{}", complaint(&verdict));
    Ok(ExitCode::FAILURE)
}

fn shrink(one: &One, layer: Layer, threads: usize) -> Result<ExitCode, String> {
    plant(one.planted.as_deref())?;
    let plan = one.plan(layer)?;
    let found = runner::run_plan(plan.clone(), None);
    if found.violations.is_empty() {
        eprintln!("seed {} keeps all promises", one.seed);
        return Ok(ExitCode::FAILURE);
    }
    let shrunk = shrink_one(&plan, found, threads, None);
    show(plan.clone().without(&shrunk.cut), one.html.as_deref())?;
    println!("{}", shrink::summary(&plan, &shrunk));
    if let Some(mistake) = &one.planted {
        println!("  and --planted {mistake}");
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "planted")]
fn plant(name: Option<&str>) -> Result<(), String> {
    use shared::planted::{Mistake, plant};
    let Some(name) = name else {
        return Ok(());
    };
    let mut all = Mistake::ALL.iter();
    let mistake = all.find(|one| one.name() == name);
    plant(Some(*mistake.ok_or_else(|| format!("no mistake {name}"))?));
    Ok(())
}

#[cfg(not(feature = "planted"))]
fn plant(name: Option<&str>) -> Result<(), String> {
    match name {
        None => Ok(()),
        Some(_) => Err(NONE_BUILT_IN.to_owned()),
    }
}

#[cfg(not(feature = "planted"))]
const NONE_BUILT_IN: &str =
    "this simulator was built without mistakes: `cargo xtask sim --planted` builds one with";

/// Seeds without faults that each planted mistake must pass.
#[cfg(feature = "planted")]
const CALM: u64 = 20;

#[cfg(feature = "planted")]
fn planted(which: &str, seeds: &Seeds, layer: Option<Layer>) -> Result<ExitCode, String> {
    use shared::planted::Mistake;
    let wanted = |one: &&Mistake| which == "all" || one.name() == which;
    let mistakes: Vec<Mistake> = Mistake::ALL.iter().filter(wanted).copied().collect();
    if mistakes.is_empty() {
        let names: Vec<_> = Mistake::ALL.iter().map(|one| one.name()).collect();
        return Err(format!(
            "no mistake {which}; there are: {}",
            names.join(", ")
        ));
    }
    let range = (seeds.start, seeds.seeds.unwrap_or(2000));
    let mut rows = Vec::new();
    for mistake in mistakes {
        let row = sim::planted::measure(mistake, range, CALM, layer, seeds.threads);
        if seeds.json {
            println!(
                "{}",
                serde_json::to_string(&row).map_err(|e| e.to_string())?
            );
        }
        eprintln!(
            "{}: {} after {} seeds",
            row.planted,
            row.invariant.unwrap_or("nobody"),
            row.seeds
        );
        rows.push(row);
    }
    if !seeds.json {
        println!("{}", sim::planted::table(&rows));
    }
    let good = |row: &sim::planted::Row| row.caught && row.without_faults == 0;
    Ok(match rows.iter().all(good) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

#[cfg(not(feature = "planted"))]
fn planted(_: &str, _: &Seeds, _: Option<Layer>) -> Result<ExitCode, String> {
    Err(NONE_BUILT_IN.to_owned())
}

fn main() -> ExitCode {
    sim::memory::count_with(counting::given_back);
    let args = Args::parse();
    let of = |one: &One| Ok(runner::layer_of(one.seed, layer(one.layer)?));
    let outcome = match args.command.unwrap_or(Command::Run(args.run)) {
        Command::Run(seeds) => layer(seeds.layer).and_then(|layer| match &seeds.planted {
            Some(which) => planted(which, &seeds, layer),
            None => run(&seeds, layer),
        }),
        Command::Replay { one, hash, cut } => {
            of(&one).and_then(|layer| replay(&one, layer, hash, &cut))
        }
        Command::Campaign {
            hours,
            ledger,
            start,
            threads,
        } => campaign(hours, &ledger, start, threads),
        Command::Shrink { one, threads } => of(&one).and_then(|layer| shrink(&one, layer, threads)),
    };
    outcome.unwrap_or_else(|why: String| {
        eprintln!("{why}");
        ExitCode::from(2)
    })
}
