//! `driftless task history`: all that is known of a task's attempts, as one list in time.

use super::task::{TaskName, path};
use crate::client::Client;
use crate::exit::Failure;
use crate::output::{Output, or_dash};
use crate::table::{Cell, Table};
use crate::text::Style;
use cloud_core::view::{Answer, Attempt, Decision, Explain};
use serde::Serialize;
use shared::time::Unix;

/// Something that happened to a task.
#[derive(Debug, Serialize)]
struct Entry {
    /// When, by the clock of the side that recorded it.
    at: Option<Unix>,
    /// `began`, the outcome of an attempt, `answered`, `placed`, `moved`, `retried`.
    what: String,
    /// Where.
    node: Option<String>,
    /// Epoch of the slice.
    epoch: Option<u64>,
    /// Number of the attempt within the epoch.
    number: Option<u32>,
    /// Why, and with which numbers.
    detail: String,
    /// Why it does not count.
    not_applied: Option<String>,
}

pub(super) fn show(client: &Client, name: &TaskName, out: &mut Output) -> Result<(), Failure> {
    let explain: Explain = client.get(&format!("{}/explain", path(name)))?;
    let task = &explain.task;
    let mut all: Vec<Entry> = task.history.iter().flat_map(attempt).collect();
    all.extend(task.answers.iter().map(answer));
    all.extend(explain.decisions.iter().filter_map(decision));
    all.sort_by_key(|entry| entry.at);
    if out.json {
        return all.iter().try_for_each(|entry| out.object(entry));
    }
    if all.is_empty() {
        out.say("nothing happened to it yet");
        return Ok(());
    }
    let header = ["AT", "WHAT", "NODE", "ATTEMPT", "DETAIL"];
    let mut table = Table::new(header, out.colour);
    for entry in &all {
        out.row(&mut table, row(entry))?;
    }
    out.finish(table)
}

fn row(entry: &Entry) -> [Cell; 5] {
    let attempt = match (entry.epoch, entry.number) {
        (Some(epoch), Some(number)) => format!("{epoch}.{number}"),
        _ => "-".to_owned(),
    };
    let detail = match &entry.not_applied {
        Some(why) => Cell::styled(format!("does not count: {why}"), Style::Odd),
        None => (&entry.detail).into(),
    };
    [
        entry
            .at
            .map_or_else(|| "-".to_owned(), |at| at.to_string())
            .into(),
        Cell::state(&entry.what),
        or_dash(entry.node.as_deref()).into(),
        Cell::number(attempt),
        detail,
    ]
}

/// The beginning of an attempt and its end.
fn attempt(attempt: &Attempt) -> Vec<Entry> {
    let entry = |at, what: &str, detail: String| Entry {
        at,
        what: what.to_owned(),
        node: Some(attempt.node.clone()),
        epoch: Some(attempt.epoch),
        number: Some(attempt.number),
        detail,
        not_applied: attempt.not_applied.clone(),
    };
    let mut out = Vec::new();
    if attempt.began.is_some() {
        out.push(entry(attempt.began, "began", String::new()));
    }
    if attempt.outcome != "running" {
        let reason = attempt.reason.clone().unwrap_or_default();
        let detail = match attempt.exit {
            Some(code) => format!("{reason} (exit {code})"),
            None => reason,
        };
        out.push(entry(attempt.ended, &attempt.outcome, detail));
    }
    out
}

fn answer(answer: &Answer) -> Entry {
    let how = if answer.yes { "yes" } else { "no" };
    let not = (answer.counts == Some(false)).then(|| answer.reason.clone().unwrap_or_default());
    Entry {
        at: Some(answer.at),
        what: "answered".to_owned(),
        node: answer.node.clone(),
        epoch: None,
        number: None,
        detail: format!("{how} by {} ({})", answer.by, answer.via),
        not_applied: not,
    }
}

/// Decisions that changed where or whether it runs.
fn decision(decision: &Decision) -> Option<Entry> {
    let kept = ["placed", "moved", "retried"].contains(&decision.action.as_str());
    kept.then(|| Entry {
        at: Some(decision.at),
        what: decision.action.clone(),
        node: None,
        epoch: None,
        number: None,
        detail: format!("{}: {}", decision.reason, decision.evidence.join(" ")),
        not_applied: None,
    })
}
