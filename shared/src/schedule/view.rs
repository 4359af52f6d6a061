//! What people and programs see of a schedule, on both sides. Field names are part of the interface
//! (`--json`) and stay.

use super::due::{Firing, Progress, Skipped};
use super::{Calendar, Catchup, Overlap, Rule, Schedule};
use crate::explain::Reason;
use crate::ids::{RunId, ScheduleId};
use crate::time::{Span, Unix};
use serde::{Deserialize, Serialize};

/// Firings that are shown.
const SHOWN: usize = 10;

/// A schedule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct View {
    /// Its id.
    pub id: ScheduleId,
    /// Its workflow's name.
    pub name: String,
    /// Who fires it: a node's name, or `coordinator`.
    pub owner: String,
    /// `active`, `paused`, or on the way: `moving`, `deleting`.
    pub state: String,
    /// In one sentence: why it waits, if not just for its time.
    pub why: Option<String>,
    /// `cron …` or `every …`.
    pub rule: String,
    /// Time zone of the rule.
    pub timezone: String,
    /// `none`, `latest` or `all`.
    pub catchup: String,
    /// How many are caught up with `all`.
    pub max_catchup: u32,
    /// How late a slot may fire.
    pub starting_deadline: Option<Span>,
    /// `forbid`, `allow` or `replace`.
    pub overlap: String,
    /// Firings are put off by up to this.
    pub jitter: Span,
    /// Its revision.
    pub revision: u32,
    /// The owner's epoch.
    pub epoch: u64,
    /// Who made this revision.
    pub by: String,
    /// When.
    pub since: Unix,
    /// The next slot.
    pub next: Option<Unix>,
    /// Slots that fired.
    pub fired: u64,
    /// Slots that did not.
    pub skipped: u64,
    /// The last that fired, newest first.
    pub last: Vec<Fired>,
    /// The last slots that did not.
    pub last_skipped: Option<Missed>,
    /// Past slots that a person wants and that did not run yet.
    pub backfill: Option<(Unix, Unix)>,
}

/// A slot that fired.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fired {
    /// The slot.
    pub slot: Unix,
    /// Its run.
    pub run: RunId,
    /// When it fired.
    pub at: Unix,
    /// `time`, `catchup`, `trigger` or `backfill`.
    pub cause: String,
    /// Whether the clock was to be trusted then.
    pub clock_trusted: bool,
    /// Where.
    pub owner: String,
    /// Whether it counts: a former owner's firing of a slot that the present one fired does not.
    pub counts: bool,
}

/// Slots that did not fire.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Missed {
    /// The first.
    pub from: Unix,
    /// The last.
    pub to: Unix,
    /// How many; at most 1,000 are counted.
    pub count: u32,
    /// Why.
    pub reason: String,
}

impl From<&Skipped> for Missed {
    fn from(skipped: &Skipped) -> Self {
        Self {
            from: skipped.from,
            to: skipped.to,
            count: skipped.count,
            reason: skipped.reason.text().to_owned(),
        }
    }
}

impl Fired {
    /// A firing at `owner`.
    #[must_use]
    pub fn new(firing: &Firing, owner: &str, counts: bool) -> Self {
        Self {
            slot: firing.slot,
            run: firing.run,
            at: firing.at,
            cause: firing.cause.text().to_owned(),
            clock_trusted: firing.trusted,
            owner: owner.to_owned(),
            counts,
        }
    }
}

impl View {
    /// What follows from the rules and from what became of the slots; the rest is the owner's to
    /// fill in.
    #[must_use]
    pub fn new(
        (id, name, owner): (ScheduleId, &str, &str),
        schedule: &Schedule,
        calendar: Option<&Calendar>,
        progress: &Progress,
    ) -> Self {
        let next = |after| calendar.and_then(|calendar| calendar.next(after));
        let (fired, skipped) = progress.counts;
        let newest = progress.fired.iter().rev().take(SHOWN);
        Self {
            id,
            name: name.to_owned(),
            owner: owner.to_owned(),
            state: "active".to_owned(),
            why: None,
            rule: match &schedule.rule {
                Rule::Cron(text) => format!("cron {text}"),
                Rule::Every(span) => format!("every {span}"),
            },
            timezone: schedule.timezone.clone(),
            catchup: match schedule.catchup {
                Catchup::None => "none",
                Catchup::Latest => "latest",
                Catchup::All => "all",
            }
            .to_owned(),
            max_catchup: schedule.max_catchup,
            starting_deadline: schedule.starting_deadline,
            overlap: match schedule.overlap {
                Overlap::Forbid => "forbid",
                Overlap::Allow => "allow",
                Overlap::Replace => "replace",
            }
            .to_owned(),
            jitter: schedule.jitter,
            revision: 0,
            epoch: 0,
            by: String::new(),
            since: Unix(0),
            next: next(progress.cursor),
            fired,
            skipped,
            last: newest
                .map(|firing| Fired::new(firing, owner, true))
                .collect(),
            last_skipped: progress.skipped.as_ref().map(Missed::from),
            backfill: progress
                .backfill
                .filter(|_| calendar.is_some_and(|c| progress.wanted(c).is_some())),
        }
    }
}

/// Why a schedule waits, in words.
#[must_use]
pub fn sentence(reason: Reason) -> String {
    match reason {
        Reason::RunOpen => "a run of it is not over".to_owned(),
        Reason::PausedByPerson => "a person paused it".to_owned(),
        Reason::WaitsForDisk => "there is no room on the disk".to_owned(),
        Reason::NoRoom => "too many runs are here".to_owned(),
        Reason::WaitsForResources => "it fired very often within a minute".to_owned(),
        other => other.text().replace('_', " "),
    }
}

/// A slot that is to come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// When.
    pub slot: Unix,
    /// The same as text: `2026-11-24T03:00:00Z`.
    pub utc: String,
}

impl From<Unix> for Slot {
    fn from(slot: Unix) -> Self {
        Self {
            slot,
            utc: super::utc(slot),
        }
    }
}

/// A table of schedules: its head, and its rows.
#[must_use]
pub fn rows(views: &[View]) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let head = vec![
        "NAME", "OWNER", "STATE", "RULE", "NEXT", "LAST", "FIRED", "WHY",
    ];
    let row = |view: &View| {
        let at = |slot: Option<Unix>| slot.map_or_else(|| "-".to_owned(), super::utc);
        let zone = match view.timezone.as_str() {
            "UTC" => String::new(),
            zone => format!(" {zone}"),
        };
        vec![
            view.name.clone(),
            view.owner.clone(),
            view.state.clone(),
            format!("{}{zone}", view.rule),
            at(view.next),
            at(view.last.first().map(|fired| fired.slot)),
            view.fired.to_string(),
            view.why.clone().unwrap_or_default(),
        ]
    };
    (head, views.iter().map(row).collect())
}

/// A schedule with all that is known of it, for people.
#[must_use]
pub fn details(view: &View) -> String {
    let optional = |span: Option<Span>| span.map_or_else(|| "none".to_owned(), |s| s.to_string());
    let at = |slot: Option<Unix>| slot.map_or_else(|| "-".to_owned(), super::utc);
    let mut lines = vec![
        ("name", view.name.clone()),
        ("id", view.id.to_string()),
        ("owner", view.owner.clone()),
        ("state", view.state.clone()),
        ("rule", format!("{} ({})", view.rule, view.timezone)),
        (
            "catchup",
            format!("{}, at most {}", view.catchup, view.max_catchup),
        ),
        ("starting deadline", optional(view.starting_deadline)),
        ("overlap", view.overlap.clone()),
        ("jitter", view.jitter.to_string()),
        (
            "revision",
            format!("{} by {}, {}", view.revision, view.by, view.since),
        ),
        ("next", at(view.next)),
        (
            "fired, skipped",
            format!("{}, {}", view.fired, view.skipped),
        ),
    ];
    if let Some(why) = &view.why {
        lines.insert(4, ("why", why.clone()));
    }
    if let Some((after, upto)) = view.backfill {
        let text = format!("behind {} up to {}", super::utc(after), super::utc(upto));
        lines.push(("backfill", text));
    }
    if let Some(missed) = &view.last_skipped {
        let (from, to) = (super::utc(missed.from), super::utc(missed.to));
        let text = format!("{} from {from} to {to}: {}", missed.count, missed.reason);
        lines.push(("last skipped", text));
    }
    for fired in &view.last {
        let apart = match (fired.counts, fired.clock_trusted) {
            (false, _) => ", does not count: a former owner fired it, too",
            (true, false) => ", by a clock that was not set",
            (true, true) => "",
        };
        let slot = super::utc(fired.slot);
        let text = format!(
            "{slot} {} as run {} at {}{apart}",
            fired.cause, fired.run, fired.owner
        );
        lines.push(("fired", text));
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, text): (&str, String)| format!("{name:<width$}  {text}\n");
    lines.into_iter().map(line).collect()
}
