//! The tables of `docs/mutants.md`, between two marks in its text.

use crate::explained::Explained;
use crate::find::Id;
use crate::interval::wilson;
use crate::ledger::Verdict;
use crate::operators::Operator;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a sample came to.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// The seed of the draw.
    pub seed: u64,
    /// Seeds of the simulator that a mutant must pass.
    pub seeds: usize,
    /// Mutants of all sources.
    pub all: usize,
    /// Those that were drawn, with what became of them.
    pub judged: Vec<(&'a Id, &'a Verdict)>,
    /// Survivors that somebody looked at.
    pub explained: &'a [Explained],
}

const BEGIN: &str = "<!-- mutants: begin -->\n";
const END: &str = "<!-- mutants: end -->\n";

/// Puts the tables into a page.
///
/// # Errors
///
/// Where it has no marks.
pub fn filled(page: &str, outcome: &Outcome<'_>) -> Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .context("the page has no first mark")?;
    let (_, after) = rest
        .split_once(END)
        .context("the page has no second mark")?;
    Ok(format!(
        "{before}{BEGIN}\n{}\n{END}{after}",
        tables(outcome).trim_end()
    ))
}

/// The share that was caught, in words.
#[must_use]
pub fn summary(outcome: &Outcome<'_>) -> String {
    let all = outcome.judged.len();
    let caught = outcome
        .judged
        .iter()
        .filter(|(_, verdict)| verdict.is_caught())
        .count();
    let (low, high) = wilson(caught, all);
    let share = if all == 0 {
        0.0
    } else {
        100.0 * caught as f64 / all as f64
    };
    format!(
        "{caught} of {all} mutants caught: {share:.1} %, 95 % interval {:.1} to {:.1} %",
        100.0 * low,
        100.0 * high
    )
}

/// All tables.
#[must_use]
pub fn tables(outcome: &Outcome<'_>) -> String {
    let mut out = format!(
        "Seed {}, {} of {} mutants, up to {} seeds of the simulator each.\n\n**{}.**\n\n",
        outcome.seed,
        outcome.judged.len(),
        outcome.all,
        outcome.seeds,
        summary(outcome)
    );
    out += &by_whom(outcome);
    out += &by_operator(outcome);
    out += &by_module(outcome);
    out += &survivors(outcome);
    out += &killed_by_now(outcome);
    out
}

fn by_whom(outcome: &Outcome<'_>) -> String {
    let mut counts: BTreeMap<(u8, String), usize> = BTreeMap::new();
    for (_, verdict) in &outcome.judged {
        let who = match verdict {
            Verdict::Test { program, .. } => {
                let package = program.split("::").next().unwrap_or_default();
                (0, format!("tests of `{package}`"))
            }
            Verdict::Simulator { invariant, .. } => (1, format!("simulator: `{invariant}`")),
            Verdict::Timeout { .. } => (2, "no end in time".to_owned()),
            Verdict::Survived { tests: 0, seeds: 0 } => (3, "nobody: no check runs it".to_owned()),
            Verdict::Survived { .. } => (3, "nobody".to_owned()),
            Verdict::Refused => continue,
        };
        *counts.entry(who).or_default() += 1;
    }
    let mut out = "| noticed by | mutants |\n| --- | --- |\n".to_owned();
    for ((_, who), count) in counts {
        let _ = writeln!(out, "| {who} | {count} |");
    }
    out + "\n"
}

fn by_operator(outcome: &Outcome<'_>) -> String {
    let mut out =
        "| operator | what it does | mutants | caught |\n| --- | --- | --- | --- |\n".to_owned();
    for operator in Operator::ALL {
        let of = || {
            outcome
                .judged
                .iter()
                .filter(|(id, _)| id.operator == operator)
        };
        let caught = of().filter(|(_, verdict)| verdict.is_caught()).count();
        let (name, told, count) = (operator.name(), operator.told(), of().count());
        let _ = writeln!(out, "| {name} | {told} | {count} | {caught} |");
    }
    out + "\n"
}

fn by_module(outcome: &Outcome<'_>) -> String {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (id, verdict) in &outcome.judged {
        let count = counts.entry(&id.file).or_default();
        count.0 += 1;
        count.1 += usize::from(verdict.is_caught());
    }
    let mut out = "| module | mutants | caught |\n| --- | --- | --- |\n".to_owned();
    for (file, (all, caught)) in counts {
        let _ = writeln!(out, "| `{file}` | {all} | {caught} |");
    }
    out + "\n"
}

/// A name as a cell of a table.
fn cells(id: &Id) -> String {
    let code = |text: &str| format!("`{}`", text.replace('`', "'").replace('|', "\\|"));
    let change = format!("{} → {}", code(&id.before), code(&id.after));
    format!("`{}` | `{}` | {change}", id.file, id.function)
}

fn survivors(outcome: &Outcome<'_>) -> String {
    let mut out =
        "| survivor in | function | change | why |\n| --- | --- | --- | --- |\n".to_owned();
    for (id, verdict) in &outcome.judged {
        if verdict.is_caught() {
            continue;
        }
        let known = outcome.explained.iter().find(|one| one.mutant == **id);
        let why = known
            .and_then(|one| one.why.as_deref())
            .unwrap_or("**not looked at yet**");
        let _ = writeln!(out, "| {} | {why} |", cells(id));
    }
    out + "\n"
}

fn killed_by_now(outcome: &Outcome<'_>) -> String {
    let mut out =
        "| survived at first, in | function | change | noticed now by |\n| --- | --- | --- | --- |\n"
            .to_owned();
    for one in outcome.explained {
        let Some(check) = &one.check else {
            continue;
        };
        let judged = outcome.judged.iter().find(|(id, _)| **id == one.mutant);
        let stands = judged.is_none_or(|(_, verdict)| verdict.is_caught());
        let note = if stands { "" } else { " (**not any more**)" };
        let _ = writeln!(out, "| {} | {check}{note} |", cells(&one.mutant));
    }
    out
}
