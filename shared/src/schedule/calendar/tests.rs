//! The table of days whose clocks are put forward or back, and other days that jobs are known to
//! miss.

use super::*;
use crate::schedule::{Catchup, Overlap};

fn calendar(rule: &str, zone: &str) -> Calendar {
    Calendar::new(&schedule(rule, zone)).expect("a rule of the table can be read")
}

fn schedule(rule: &str, zone: &str) -> Schedule {
    let rule = match rule.strip_prefix("every ") {
        Some(span) => Rule::Every(crate::spec::duration(span).expect("a duration")),
        None => Rule::Cron(rule.to_owned()),
    };
    Schedule {
        rule,
        timezone: zone.to_owned(),
        catchup: Catchup::None,
        max_catchup: 1,
        starting_deadline: None,
        overlap: Overlap::Forbid,
        jitter: Span(0),
    }
}

fn at(text: &str) -> Unix {
    let at: Timestamp = text.parse().expect("an instant");
    Unix(at.as_millisecond())
}

/// Rule, zone, from, to: the slots in between, as written in UTC.
const TABLE: &[(&str, &str, &str, &str, &[&str])] = &[
    // UTC has no such days.
    (
        "30 2 * * *",
        "UTC",
        "2026-03-28T12:00:00Z",
        "2026-03-30T12:00:00Z",
        &["2026-03-29T02:30:00Z", "2026-03-30T02:30:00Z"],
    ),
    // Berlin, forward at 01:00Z: 02:00 to 03:00 is missing; the job of 02:30 fires when it begins.
    (
        "30 2 * * *",
        "Europe/Berlin",
        "2026-03-28T12:00:00Z",
        "2026-03-30T12:00:00Z",
        &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
    ),
    // Six missing times of one rule are one firing.
    (
        "*/10 2 * * *",
        "Europe/Berlin",
        "2026-03-29T00:00:00Z",
        "2026-03-29T12:00:00Z",
        &["2026-03-29T01:00:00Z"],
    ),
    // What goes by passing time does not notice.
    (
        "*/30 * * * *",
        "Europe/Berlin",
        "2026-03-29T00:00:00Z",
        "2026-03-29T02:00:00Z",
        &[
            "2026-03-29T00:30:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T01:30:00Z",
            "2026-03-29T02:00:00Z",
        ],
    ),
    // Back at 01:00Z: 02:00 to 03:00 comes twice; a job of the local clock fires once.
    (
        "30 2 * * *",
        "Europe/Berlin",
        "2026-10-24T12:00:00Z",
        "2026-10-26T12:00:00Z",
        &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
    ),
    (
        "0 * * * *",
        "Europe/Berlin",
        "2026-10-24T23:30:00Z",
        "2026-10-25T03:00:00Z",
        &[
            "2026-10-25T00:00:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T02:00:00Z",
            "2026-10-25T03:00:00Z",
        ],
    ),
    // Half an hour: Lord Howe, 02:00 to 02:30 is missing, 01:30 to 02:00 comes twice.
    (
        "15 2 * * *",
        "Australia/Lord_Howe",
        "2026-10-03T12:00:00Z",
        "2026-10-04T00:00:00Z",
        &["2026-10-03T15:30:00Z"],
    ),
    (
        "45 1 * * *",
        "Australia/Lord_Howe",
        "2026-04-04T12:00:00Z",
        "2026-04-05T00:00:00Z",
        &["2026-04-04T14:45:00Z"],
    ),
    // A zone of a half and one of a quarter hour.
    (
        "0 6 * * *",
        "Asia/Kolkata",
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        &["2026-01-01T00:30:00Z"],
    ),
    (
        "0 6 * * *",
        "Asia/Kathmandu",
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:15:00Z",
        &["2026-01-01T00:15:00Z", "2026-01-02T00:15:00Z"],
    ),
    // Midnight is missing: Santiago and Beirut put the clocks forward at 00:00.
    (
        "0 0 * * *",
        "America/Santiago",
        "2026-09-05T12:00:00Z",
        "2026-09-07T12:00:00Z",
        &["2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"],
    ),
    // A whole day is missing: Apia went over the date line.
    (
        "0 9 * * *",
        "Pacific/Apia",
        "2011-12-29T12:00:00Z",
        "2011-12-31T12:00:00Z",
        &[
            "2011-12-29T19:00:00Z",
            "2011-12-30T10:00:00Z",
            "2011-12-30T19:00:00Z",
        ],
    ),
    // The end of the year, and leap days.
    (
        "59 23 31 12 *",
        "UTC",
        "2026-06-01T00:00:00Z",
        "2028-01-01T00:00:00Z",
        &["2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z"],
    ),
    (
        "0 0 29 2 *",
        "UTC",
        "2095-01-01T00:00:00Z",
        "2105-01-01T00:00:00Z",
        &["2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"],
    ),
    // Days of the month or of the week, if both are named; Sunday is 0 and 7.
    (
        "0 0 1 * mon",
        "UTC",
        "2026-11-28T00:00:00Z",
        "2026-12-08T00:00:00Z",
        &[
            "2026-11-30T00:00:00Z",
            "2026-12-01T00:00:00Z",
            "2026-12-07T00:00:00Z",
        ],
    ),
    (
        "0 12 * * 7",
        "UTC",
        "2026-11-23T00:00:00Z",
        "2026-12-01T00:00:00Z",
        &["2026-11-29T12:00:00Z"],
    ),
    (
        "0 8-16/4 * jan-mar sat,sun",
        "UTC",
        "2026-03-27T00:00:00Z",
        "2026-03-29T09:00:00Z",
        &[
            "2026-03-28T08:00:00Z",
            "2026-03-28T12:00:00Z",
            "2026-03-28T16:00:00Z",
            "2026-03-29T08:00:00Z",
        ],
    ),
    // An interval does not know of clocks.
    (
        "every 6h",
        "Europe/Berlin",
        "2026-03-28T20:00:00Z",
        "2026-03-29T12:00:00Z",
        &[
            "2026-03-29T00:00:00Z",
            "2026-03-29T06:00:00Z",
            "2026-03-29T12:00:00Z",
        ],
    ),
];

#[test]
fn slots_around_changes_of_the_clocks() {
    for (rule, zone, from, to, wanted) in TABLE {
        let calendar = calendar(rule, zone);
        let (from, to) = (at(from), at(to));
        let mut found = Vec::new();
        let mut cursor = from;
        while let Some(next) = calendar.next(cursor).filter(|next| *next <= to) {
            assert!(next > cursor, "{rule} in {zone} stands still at {cursor}");
            found.push(next);
            cursor = next;
        }
        let texts: Vec<String> = found.iter().map(|slot| utc(*slot)).collect();
        assert_eq!(&texts, wanted, "{rule} in {zone}");
        assert_eq!(calendar.newest(from, to, 100), found, "{rule} in {zone}");
    }
}

#[test]
fn no_rule_fires_more_often_than_its_minutes_over_a_whole_year() {
    for zone in [
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "UTC",
    ] {
        let calendar = calendar("0 2 * * *", zone);
        let year = calendar.newest(at("2025-12-31T14:00:00Z"), at("2026-12-31T14:00:00Z"), 1000);
        assert_eq!(year.len(), 365, "{zone}");
        let days: Vec<i64> = year.windows(2).map(|w| w[1].0 - w[0].0).collect();
        assert!(
            days.iter()
                .all(|gap| (22..=26).contains(&(gap / 3_600_000))),
            "{zone}"
        );
    }
}

#[test]
fn the_newest_slots_are_found_however_long_ago_the_last_one_was() {
    let calendar = calendar("* * * * *", "Europe/Berlin");
    let to = at("2026-11-24T10:00:30Z");
    let found = calendar.newest(at("1999-01-01T00:00:00Z"), to, 3);
    let texts: Vec<String> = found.iter().map(|slot| utc(*slot)).collect();
    assert_eq!(
        texts,
        [
            "2026-11-24T09:58:00Z",
            "2026-11-24T09:59:00Z",
            "2026-11-24T10:00:00Z"
        ]
    );
    assert_eq!(calendar.newest(to, to, 3), []);
}

#[test]
fn what_is_wrong_is_said() {
    let wrong = |rule: &str, zone: &str| {
        let error = Calendar::new(&schedule(rule, zone)).expect_err(rule);
        error.to_string()
    };
    assert!(wrong("* * * *", "UTC").contains("4 fields"));
    assert!(wrong("60 * * * *", "UTC").contains("'60' is no minute"));
    assert!(wrong("5-1 * * * *", "UTC").contains("'5-1' is no minute"));
    assert!(wrong("*/0 * * * *", "UTC").contains("'*/0' is no minute"));
    assert!(wrong("0 0 * foo *", "UTC").contains("'foo' is no month"));
    assert!(wrong("0 0 30 2 *", "UTC").contains("never comes true"));
    assert!(wrong("0 0 * * *", "Mars/Base").contains("no time zone"));
    assert!(wrong("every 1s", "UTC").contains("an interval of 1s"));
    assert!(wrong("every 400d", "UTC").contains("an interval of 400d"));
}

#[test]
fn instants_at_the_ends_of_time_give_no_slot_and_no_panic() {
    let daily = calendar("0 0 * * *", "Europe/Berlin");
    for end in [i64::MIN, i64::MAX, i64::MAX - 1] {
        let _ = daily.next(Unix(end));
        let _ = daily.newest(Unix(i64::MIN), Unix(end), 10);
    }
    let every = calendar("every 10s", "UTC");
    let _ = every.next(Unix(i64::MAX));
    let _ = every.newest(Unix(i64::MIN), Unix(i64::MIN), 10);
}
