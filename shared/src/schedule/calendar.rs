//! The slots of a rule. Five-field cron over the time zones that the program brings along, or
//! multiples of an interval.
//!
//! Where the clocks are put forward or back ([`Calendar`] is tested with a table of such days):
//! a rule whose hour begins with `*` goes by passing time (it fires at every instant whose local
//! time matches, so twice in a repeated hour and never in a missing one); any other rule goes by
//! the local clock (once in a repeated hour, the first time; a time that is missing that day fires
//! at the instant when the clocks are put forward).

use super::{Rule, Schedule};
use crate::time::{Span, Unix};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Timestamp, ToSpan};

/// Days that are searched for the next slot: leap days may be eight years apart.
const DAYS: usize = 9 * 366;
/// Shortest interval.
const SHORTEST: Span = Span::secs(10);
/// Longest interval.
const LONGEST: Span = Span::secs(366 * 86_400);

/// What is wrong with a schedule, and the mend.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}: {mend}")]
pub struct BadSchedule {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub mend: String,
}

fn bad<T>(what: impl Into<String>, mend: impl Into<String>) -> Result<T, BadSchedule> {
    Err(BadSchedule {
        what: what.into(),
        mend: mend.into(),
    })
}

/// A field of a cron rule: one bit a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Field {
    bits: u64,
    /// It begins with `*`.
    any: bool,
}

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| value < 64 && self.bits >> value & 1 == 1)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Cron {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The slots of a schedule.
#[derive(Clone, Debug)]
pub struct Calendar(Inner);

#[derive(Clone, Debug)]
enum Inner {
    Cron(Box<Cron>, TimeZone),
    Every(Span),
}

impl Calendar {
    /// The calendar of a schedule.
    ///
    /// # Errors
    /// A rule or zone that cannot be read, or a rule that never comes true.
    pub fn new(schedule: &Schedule) -> Result<Self, BadSchedule> {
        match &schedule.rule {
            Rule::Every(span) if *span < SHORTEST || *span > LONGEST => bad(
                format!("an interval of {span}"),
                format!("write {SHORTEST} to {LONGEST}"),
            ),
            Rule::Every(span) => Ok(Self(Inner::Every(*span))),
            Rule::Cron(text) => {
                let zone = zone(&schedule.timezone)?;
                let calendar = Self(Inner::Cron(Box::new(cron(text)?), zone));
                match calendar.next(Unix(0)) {
                    Some(_) => Ok(calendar),
                    None => bad(
                        format!("'{text}' never comes true"),
                        "there is no such day in any month that it names",
                    ),
                }
            }
        }
    }

    /// The first slot behind `after`.
    #[must_use]
    pub fn next(&self, after: Unix) -> Option<Unix> {
        match &self.0 {
            Inner::Every(span) => {
                let step = i64::try_from(span.0).ok()?;
                let next = after.0.div_euclid(step).checked_add(1)?.checked_mul(step)?;
                Some(Unix(next))
            }
            Inner::Cron(cron, zone) => {
                let start = local_date(zone, after)?.yesterday().ok()?;
                let mut date = start;
                for n in 0..DAYS {
                    let found = slots_of(cron, zone, date);
                    let first = found.into_iter().find(|slot| *slot > after);
                    let tomorrow = date.tomorrow().ok()?;
                    if let Some(first) = first {
                        // A day whose clocks are put back may reach into the next one.
                        let other = (n < 2).then(|| slots_of(cron, zone, tomorrow));
                        let other = other.into_iter().flatten().find(|slot| *slot > after);
                        return Some(other.map_or(first, |other| other.min(first)));
                    }
                    date = tomorrow;
                }
                None
            }
        }
    }

    /// The newest slots in (`after`, `upto`], at most `most` of them, oldest first.
    #[must_use]
    pub fn newest(&self, after: Unix, upto: Unix, most: usize) -> Vec<Unix> {
        let mut found = match &self.0 {
            Inner::Every(span) => every(*span, after, upto, most),
            Inner::Cron(cron, zone) => newest(cron, zone, after, upto, most).unwrap_or_default(),
        };
        found.drain(..found.len().saturating_sub(most));
        found
    }
}

fn every(span: Span, after: Unix, upto: Unix, most: usize) -> Vec<Unix> {
    let step = i64::try_from(span.0).unwrap_or(i64::MAX).max(1);
    let last = upto.0.div_euclid(step).saturating_mul(step);
    let back = (0..i64::try_from(most).unwrap_or(i64::MAX)).map(|n| last - n * step);
    let mut found: Vec<Unix> = back.take_while(|slot| *slot > after.0).map(Unix).collect();
    found.reverse();
    found
}

fn newest(cron: &Cron, zone: &TimeZone, after: Unix, upto: Unix, most: usize) -> Option<Vec<Unix>> {
    let mut date = local_date(zone, upto)?.tomorrow().ok()?;
    let end = local_date(zone, after)?.yesterday().ok()?;
    let (mut found, mut days): (Vec<Unix>, usize) = (Vec::new(), 0);
    // One day more than is needed, for days that reach into each other.
    let mut enough = 0;
    while date >= end && days < DAYS && enough < 2 {
        let slots = slots_of(cron, zone, date).into_iter();
        found.extend(slots.filter(|slot| *slot > after && *slot <= upto));
        enough += usize::from(found.len() >= most);
        days += 1;
        date = date.yesterday().ok()?;
    }
    found.sort_unstable();
    found.dedup();
    Some(found)
}

fn local_date(zone: &TimeZone, at: Unix) -> Option<Date> {
    let at = Timestamp::from_millisecond(at.0).ok()?;
    Some(zone.to_datetime(at).date())
}

/// The slots that a local day has, ascending.
fn slots_of(cron: &Cron, zone: &TimeZone, date: Date) -> Vec<Unix> {
    let mut slots = Vec::new();
    if !cron.has_day(date) {
        return slots;
    }
    for hour in (0..24).filter(|hour| cron.hour.has(*hour)) {
        for minute in (0..60).filter(|minute| cron.minute.has(*minute)) {
            let Ok(time) = Time::new(hour, minute, 0, 0) else {
                continue;
            };
            instants(cron.hour.any, zone, date.to_datetime(time), &mut slots);
        }
    }
    slots.sort_unstable();
    slots.dedup();
    slots
}

/// The instants that a local time stands for.
fn instants(by_passing_time: bool, zone: &TimeZone, local: DateTime, slots: &mut Vec<Unix>) {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let mut push = |at: Result<Timestamp, jiff::Error>| {
        slots.extend(at.ok().map(|at| Unix(at.as_millisecond())));
    };
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { offset } => push(offset.to_timestamp(local)),
        AmbiguousOffset::Fold { before, after } => {
            push(before.to_timestamp(local));
            if by_passing_time {
                push(after.to_timestamp(local));
            }
        }
        AmbiguousOffset::Gap { .. } if by_passing_time => {}
        AmbiguousOffset::Gap { before, .. } => {
            // By the old offset it lies behind the instant when the clocks are put forward.
            if let Ok(inside) = before.to_timestamp(local)
                && let Ok(behind) = inside.checked_add(1.second())
            {
                let forward = zone.preceding(behind).next();
                slots.extend(forward.map(|found| Unix(found.timestamp().as_millisecond())));
            }
        }
    }
}

impl Cron {
    /// If both days are restricted, either may match; a field that begins with `*` restricts
    /// nothing by itself.
    fn has_day(&self, date: Date) -> bool {
        let weekday = date.weekday().to_sunday_zero_offset();
        let (day, weekday) = (self.day.has(date.day()), self.weekday.has(weekday));
        let days = if self.day.any || self.weekday.any {
            day && weekday
        } else {
            day || weekday
        };
        days && self.month.has(date.month())
    }
}

fn zone(name: &str) -> Result<TimeZone, BadSchedule> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    jiff::tz::db().get(name).or_else(|_| {
        bad(
            format!("'{}' is no time zone", name.escape_default()),
            "write a name of the IANA database: UTC, Europe/Berlin",
        )
    })
}

fn cron(text: &str) -> Result<Cron, BadSchedule> {
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        return bad(
            format!("'{}' has {} fields", text.escape_default(), fields.len()),
            "write five: minute, hour, day of the month, month, day of the week: 0 3 * * *",
        );
    };
    let mut weekday = field("day of the week", weekday, (0, 7), WEEKDAYS)?;
    // Sunday is 0 and 7.
    weekday.bits = (weekday.bits | weekday.bits >> 7 & 1) & 0x7f;
    Ok(Cron {
        minute: field("minute", minute, (0, 59), &[])?,
        hour: field("hour", hour, (0, 23), &[])?,
        day: field("day of the month", day, (1, 31), &[])?,
        month: field("month", month, (1, 12), MONTHS)?,
        weekday,
    })
}

fn field(
    name: &str,
    text: &str,
    (least, most): (u64, u64),
    words: &[&str],
) -> Result<Field, BadSchedule> {
    let wrong = |part: &str| BadSchedule {
        what: format!("'{}' is no {name}", part.escape_default()),
        mend: format!("write numbers from {least} to {most}: *, 5, 1-5, */15, 1,15"),
    };
    let value = |part: &str| -> Option<u64> {
        let word = words.iter().position(|w| w.eq_ignore_ascii_case(part));
        if let Some(at) = word {
            return Some(at as u64 + least);
        }
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let number = part.parse().ok().filter(|_| digits)?;
        (least..=most).contains(&number).then_some(number)
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step: Option<u64> = step.parse().ok().filter(|n| (1..=most).contains(n));
                (range, Some(step.ok_or_else(|| wrong(part))?))
            }
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (
                value(from).ok_or_else(|| wrong(part))?,
                value(to).ok_or_else(|| wrong(part))?,
            ),
            None => {
                let from = value(range).ok_or_else(|| wrong(part))?;
                (from, if step.is_some() { most } else { from })
            }
        };
        if from > to {
            return Err(wrong(part));
        }
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
        for n in (from..=to).step_by(step) {
            bits |= 1 << n;
        }
    }
    Ok(Field {
        bits,
        any: text.starts_with('*'),
    })
}

/// An instant as people write it: `2026-11-24T03:00:00Z`, with another offset, or a date (its
/// beginning in UTC).
///
/// # Errors
/// What is wrong, and the mend.
pub fn instant(text: &str) -> Result<Unix, BadSchedule> {
    let date = || {
        let date: Date = text.parse().ok()?;
        Offset::UTC
            .to_timestamp(date.to_datetime(Time::midnight()))
            .ok()
    };
    match text.parse::<Timestamp>().ok().or_else(date) {
        Some(at) => Ok(Unix(at.as_millisecond())),
        None => bad(
            format!("'{}' is no instant", text.escape_default()),
            "write a date and time with its offset, 2026-11-24T03:00:00Z, or a date",
        ),
    }
}

/// An instant as tasks and people read it: `2026-11-24T03:00:00Z`, with milliseconds where there
/// are some.
#[must_use]
pub fn utc(at: Unix) -> String {
    Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests;
