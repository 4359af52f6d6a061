//! The block `schedule` of a workflow.

use super::mistake::Sink;
use super::schema;
use super::units::Deadline;
use super::value::{self, Block, Layers, Value};
use crate::schedule::{Calendar, Catchup, Overlap, Rule, Schedule};
use crate::time::{Span, Unix};

/// The compiled schedule, if the workflow has one. It means something only if no mistake was noted.
pub(crate) fn schedule(workflow: &Block, sink: &mut Sink) -> Option<Schedule> {
    let (at, Value::Block(block)) = workflow.get("schedule")? else {
        return None;
    };
    check_deadlines(workflow, sink);
    let builtin = value::builtin(schema::SCHEDULE);
    let layers = Layers([Some(block), None, Some(&builtin)]);
    let open = |name| matches!(layers.get(name).1, Value::Open(_));
    let rule = match (layers.get("cron").1, layers.get("every").1) {
        (Value::Text(text), Value::Unset) => Rule::Cron(text.clone()),
        (Value::Unset, Value::Span(span)) => Rule::Every(*span),
        _ if open("cron") || open("every") => return None,
        (Value::Unset, _) => {
            let mend = "write one of `cron: 0 3 * * *` and `every: 15m`";
            sink.add(at, "`schedule` has neither `cron` nor `every`", mend);
            return None;
        }
        _ => {
            let what = "`schedule` has both `cron` and `every`";
            sink.add(layers.get("every").0, what, "keep one of the two");
            return None;
        }
    };
    let word = |name| match layers.get(name).1 {
        Value::Word(word) => *word,
        _ => "",
    };
    let span = |name| match layers.get(name).1 {
        Value::Span(span) => Some(*span),
        _ => None,
    };
    let schedule = Schedule {
        rule,
        timezone: match layers.get("timezone").1 {
            Value::Text(zone) => zone.clone(),
            _ => "UTC".to_owned(),
        },
        catchup: match word("catchup") {
            "latest" => Catchup::Latest,
            "all" => Catchup::All,
            _ => Catchup::None,
        },
        max_catchup: match layers.get("max_catchup").1 {
            Value::Int(n) => u32::try_from(*n).unwrap_or(1),
            _ => 1,
        },
        starting_deadline: span("starting_deadline"),
        overlap: match word("overlap") {
            "allow" => Overlap::Allow,
            "replace" => Overlap::Replace,
            _ => Overlap::Forbid,
        },
        jitter: span("jitter").unwrap_or_default(),
    };
    check(&schedule, &layers, sink);
    Some(schedule)
}

fn check(schedule: &Schedule, layers: &Layers<'_>, sink: &mut Sink) {
    let rule = match schedule.rule {
        Rule::Cron(_) => "cron",
        Rule::Every(_) => "every",
    };
    let calendar = Calendar::new(schedule);
    if let Err(wrong) = &calendar {
        let field = match wrong.what.ends_with("no time zone") {
            true => "timezone",
            false => rule,
        };
        let what = format!("`{field}`: {}", wrong.what);
        sink.add(layers.get(field).0, what, &wrong.mend);
    }
    if rule == "every"
        && let Some((at, Value::Text(zone))) = layers.given("timezone")
        && zone != "UTC"
    {
        let what = "`timezone` means nothing to `every`, which counts passing time";
        sink.add(at, what, "remove it, or write the hours as `cron`");
    }
    let shortest = calendar.as_ref().map_or(schedule.jitter, shortest_gap);
    if schedule.jitter > shortest {
        let what = format!("`jitter` of {} is longer than {shortest}", schedule.jitter);
        let mend = "the next slot comes then: write at most that";
        sink.add(layers.get("jitter").0, what, mend);
    }
    if schedule.max_catchup > 1
        && schedule.catchup != Catchup::All
        && let Some((at, _)) = layers.given("max_catchup")
    {
        let what = "`max_catchup` belongs to `catchup: all`";
        sink.add(at, what, "write `catchup: all`, or remove it");
    }
}

/// The shortest time between two of some hundred slots.
fn shortest_gap(calendar: &Calendar) -> Span {
    // 2026 and what follows; an hour that comes twice or is missing makes no gap shorter
    let (from, to) = (Unix(1_767_225_600_000), Unix(1_893_456_000_000));
    let mut cursor = calendar.next(from).unwrap_or(to);
    let mut shortest = Span(u64::MAX);
    for _ in 0..200 {
        let Some(next) = calendar.next(cursor).filter(|next| *next < to) else {
            break;
        };
        let gap = u64::try_from(next.0 - cursor.0).unwrap_or(u64::MAX);
        (shortest, cursor) = (shortest.min(Span(gap)), next);
    }
    shortest
}

/// A run begins again and again: an instant as its deadline would be over after the first ones.
fn check_deadlines(workflow: &Block, sink: &mut Sink) {
    let tasks = workflow.each("tasks").iter().map(|task| &task.block);
    let defaults = super::assemble::defaults(workflow);
    for block in tasks.chain(defaults) {
        if let Some((at, Value::Deadline(Deadline::At(_), text))) = block.get("deadline") {
            let what = format!("`deadline`: {text} in a workflow with a schedule");
            sink.add(at, what, "write a duration: it counts from the firing");
        }
    }
}
