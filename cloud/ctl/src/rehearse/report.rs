//! How a rehearsal is told: a summary for people, an object for programs.

use super::args::Rehearse;
use super::expect::Judged;
use super::summary::{Summary, Telemetry};
use crate::exit::Failure;
use crate::output::Output;
use crate::table::{Cell, Table};
use crate::text::{bytes, took};
use serde::Serialize;
use shared::time::Span;
use sim::rehearsal::Scene;

/// What programs get.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    expect: &'a [Judged],
}

pub(super) fn write(
    args: &Rehearse,
    summary: &Summary,
    judged: &[Judged],
    out: &mut Output,
) -> Result<(), Failure> {
    if out.json {
        let expect = judged;
        return out.object(&Report { summary, expect });
    }
    let facts = facts(args, summary).into_iter();
    let facts: Vec<_> = facts.map(|(name, text)| (name, Cell::from(text))).collect();
    out.facts(&facts)?;
    for broken in &summary.broken {
        out.line(&format!("a promise of Driftless was broken, {broken}"))?;
    }
    if !judged.is_empty() {
        out.heading("Expected")?;
        let mut table = Table::new(["CONDITION", "FOUND", "MET"], out.colour);
        for one in judged {
            let met = if one.met { "yes" } else { "NO" };
            let cells = [&one.condition, &one.found, &met.to_owned()].map(Cell::from);
            out.row(&mut table, cells)?;
        }
        out.finish(table)?;
    }
    Ok(())
}

/// The summary line by line: what, and how it was.
pub(super) fn facts(args: &Rehearse, summary: &Summary) -> Vec<(&'static str, String)> {
    let mut facts = vec![("workflow", rehearsed(summary))];
    if let Some(slots) = summary.slots {
        facts.push(("schedule", fired(slots, summary)));
    }
    facts.extend([
        ("without faults", time(summary.without_faults_ms)),
        ("ended", counts(&summary.states)),
        ("takes", takes(summary)),
        ("late", late(summary)),
        ("attempts", attempts(summary)),
        ("backlog", backlog(args.asked.bandwidth(), summary)),
        ("store", store(args.asked.disk, summary)),
        ("telemetry", telemetry(summary)),
        ("happened", counts(&summary.faults)),
        ("worst", worst(summary)),
    ]);
    facts
}

fn fired(slots: u64, summary: &Summary) -> String {
    let (fired, skipped) = (summary.fired, summary.skipped());
    format!("{slots} slots in each seed, at least {fired} fired, at most {skipped} skipped")
}

/// Which gateway is which: the simulator numbers them.
pub(super) fn legend(scene: &Scene) -> String {
    let names = scene.fleet.iter().enumerate();
    let names: Vec<String> = names
        .map(|(n, node)| format!("gw-{} is {}", n + 1, node.name))
        .collect();
    names.join(", ")
}

fn rehearsed(summary: &Summary) -> String {
    let Summary {
        workflow,
        nodes,
        tasks,
        seeds,
        ..
    } = summary;
    let [tasks, nodes, seeds] = [(*tasks, "task"), (*nodes, "node"), (*seeds, "seed")].map(some);
    format!("{workflow}: {tasks}, {nodes}, {seeds}")
}

/// `1 seed`, `2 seeds`.
fn some((n, what): (u64, &str)) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {what}{s}")
}

fn time(ms: Option<u64>) -> String {
    ms.map_or_else(|| "not over".to_owned(), |ms| took(Span(ms)))
}

fn takes(summary: &Summary) -> String {
    let of = if summary.slots.is_some() {
        "the longest run of a seed: "
    } else {
        ""
    };
    format!(
        "{of}half of the seeds {}, 95 of 100 {}, longest {}",
        time(summary.median_ms),
        time(summary.p95_ms),
        time(summary.longest_ms)
    )
}

fn late(summary: &Summary) -> String {
    let each = summary.late.iter();
    let each: Vec<String> = each
        .map(|(task, n)| format!("{task} in {}", some((*n, "seed"))))
        .collect();
    match each.is_empty() {
        true => "nothing".to_owned(),
        false => each.join(", "),
    }
}

fn attempts(summary: &Summary) -> String {
    let most = summary.most_attempts;
    let tasks = summary.tasks * summary.slots.unwrap_or(1);
    format!("at most {most} for {}", some((tasks, "task")))
}

fn backlog(bandwidth: u64, summary: &Summary) -> String {
    let Summary {
        backlog_facts,
        backlog_bytes,
        drained_ms,
        ..
    } = summary;
    let facts = some((*backlog_facts, "fact"));
    format!(
        "at most {facts} at one node, {}: {} at {bandwidth} bit/s",
        bytes(*backlog_bytes),
        took(Span(*drained_ms))
    )
}

fn store(disk: Option<u64>, summary: &Summary) -> String {
    let largest = bytes(summary.store_bytes);
    match disk {
        Some(room) => format!("at most {largest} of {} at one node", bytes(room)),
        None => format!("at most {largest} at one node"),
    }
}

fn telemetry(summary: &Summary) -> String {
    let Telemetry {
        samples,
        single,
        thinned,
        dropped,
        bytes: took_bytes,
        budget,
    } = &summary.telemetry;
    if *samples == 0 {
        return "no gateway was without its coordinator for long".to_owned();
    }
    let outage = took(Span(summary.outage_ms));
    let [single, thinned, dropped] = [single, thinned, dropped].map(|n| share(*n, *samples));
    let [taken, room] = [bytes(*took_bytes), bytes(*budget)];
    format!(
        "of the longest outage, {outage}, {single} kept, {thinned} thinned, {dropped} dropped: \
         {taken} of {room} at one node"
    )
}

/// `99.5%`; what is not all is never shown as all, nor something as nothing.
fn share(part: u64, whole: u64) -> String {
    let permille = part * 1000 / whole;
    match permille {
        0 if part > 0 => "<0.1%".to_owned(),
        _ if permille.is_multiple_of(10) => format!("{}%", permille / 10),
        _ => format!("{}.{}%", permille / 10, permille % 10),
    }
}

pub(super) fn worst(summary: &Summary) -> String {
    let worst = &summary.worst;
    let mut text = format!(
        "seed {}: {} after {}",
        worst.seed,
        worst.state,
        time(worst.took_ms)
    );
    if let Some(wait) = worst.waits.first() {
        text = format!("{text}; it waits: {wait}");
    }
    if !worst.late.is_empty() {
        text = format!("{text}; late: {}", worst.late.join(", "));
    }
    text
}

fn counts<K: AsRef<str> + Ord>(counts: &std::collections::BTreeMap<K, u64>) -> String {
    let each = counts
        .iter()
        .map(|(what, n)| format!("{n} {}", what.as_ref()));
    let each: Vec<String> = each.collect();
    match each.is_empty() {
        true => "nothing".to_owned(),
        false => each.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_only_all_or_nothing_where_it_is() {
        let cases = [
            (0, "0%"),
            (1, "<0.1%"),
            (15, "0.5%"),
            (1500, "50%"),
            (2999, "99.9%"),
            (3000, "100%"),
        ];
        for (part, wanted) in cases {
            assert_eq!(share(part, 3000), wanted);
        }
    }
}
