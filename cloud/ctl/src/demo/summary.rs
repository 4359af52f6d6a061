//! What is said at the end: what happened, the figures, the comparison, one explained decision.

use super::figures::{Faults, Figures, Outcomes, Runs, Tasks};
use super::story::Told;
use crate::exit::Failure;
use crate::output::Output;
use crate::table::Cell;
use crate::text::{Style, safe, took};
use cloud_core::view::{Explain, Task};
use serde::Serialize;
use shared::time::Span;
use std::path::Path;

/// The object of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Summary<'a> {
    pub(super) runs: Runs,
    pub(super) tasks: Tasks,
    pub(super) outcomes: Outcomes,
    pub(super) faults: Faults,
    pub(super) offline_seconds: f64,
    pub(super) elapsed_seconds: f64,
    pub(super) report: &'a Path,
}

/// Everything for people.
pub(super) fn print(
    figures: &Figures,
    elapsed: Span,
    events: &[(Span, String)],
    comparison: &str,
    told: &Told,
    out: &mut Output,
) -> Result<(), Failure> {
    out.heading("What happened")?;
    for (at, text) in events {
        out.line(&format!("  {:>7}  {text}", took(*at)))?;
    }
    out.heading("Counted afterwards, from the files that coordinator and agents left")?;
    let lines = lines(figures, elapsed);
    let cells: Vec<(&str, Cell)> = lines
        .iter()
        .map(|(name, text, style)| (*name, Cell::styled(text, *style)))
        .collect();
    out.facts(&cells)?;
    out.heading("The comparison")?;
    for line in comparison.lines() {
        out.line(format!("  {}", safe(line)).trim_end())?;
    }
    if let Some(task) = &told.interrupted {
        let name = safe(&task.task);
        out.heading(&format!(
            "What became of {name}, which ran when its agent was killed"
        ))?;
        attempts(task, out)?;
    }
    out.heading("Why the comparison ran where and when it did (driftless task explain)")?;
    explain(&told.explained, out)
}

fn attempts(task: &Task, out: &mut Output) -> Result<(), Failure> {
    for attempt in &task.history {
        let why = attempt.reason.as_deref().unwrap_or("no end");
        let text = format!("attempt {}: {} ({why})", attempt.number, attempt.outcome);
        let style = Style::of_state(&attempt.outcome);
        out.line(&format!("  {}", style.paint(&safe(&text), out.colour)))?;
    }
    Ok(())
}

fn lines(figures: &Figures, elapsed: Span) -> Vec<(&'static str, String, Style)> {
    let Figures {
        runs,
        tasks,
        outcomes,
        faults,
        offline_seconds,
    } = figures;
    let good = |good: bool| if good { Style::Good } else { Style::Bad };
    let sound = outcomes.received == outcomes.recorded && outcomes.applied == outcomes.received;
    vec![
        (
            "  runs",
            format!(
                "{} submitted, {} succeeded, {} failed",
                runs.submitted, runs.succeeded, runs.failed
            ),
            good(runs.succeeded == runs.submitted),
        ),
        (
            "  tasks",
            format!(
                "{}, of which {} began and ended without a link",
                tasks.total, tasks.finished_offline
            ),
            Style::Plain,
        ),
        (
            "    of those",
            format!(
                "{} needed a task that had ended without a link, too; {} began after the agent was killed",
                tasks.following_offline, tasks.started_after_restart
            ),
            Style::Plain,
        ),
        (
            "  outcomes",
            format!(
                "{} recorded at the gateways, {} received, {} applied",
                outcomes.recorded, outcomes.received, outcomes.applied
            ),
            good(sound),
        ),
        (
            "  lost",
            outcomes.lost.to_string(),
            good(outcomes.lost == 0),
        ),
        (
            "  duplicates",
            format!(
                "{} offered again (their acknowledgement was lost), known and ignored",
                outcomes.duplicates_ignored
            ),
            Style::Plain,
        ),
        (
            "  faults",
            format!(
                "{} links cut for {offline_seconds:.1} s, {} agent killed with SIGKILL",
                faults.links_cut, faults.agents_killed
            ),
            Style::Plain,
        ),
        ("  time", took(elapsed), Style::Plain),
    ]
}

fn explain(explained: &Explain, out: &mut Output) -> Result<(), Failure> {
    out.line(&format!("  {}", safe(&explained.summary)))?;
    for decision in &explained.decisions {
        let times = if decision.repeats > 0 {
            format!(", {} times more", decision.repeats)
        } else {
            String::new()
        };
        let text = format!(
            "  {}: {}, confidence {}{times}",
            safe(&decision.action),
            safe(&decision.reason),
            decision.confidence
        );
        out.line(&text)?;
        if !decision.evidence.is_empty() {
            let evidence = safe(&decision.evidence.join("  "));
            out.line(&Style::Dim.paint(&format!("    {evidence}"), out.colour))?;
        }
    }
    Ok(())
}
