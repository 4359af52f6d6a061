//! Conditions that a rehearsal must meet: `longest<=12h`.

use super::summary::Summary;
use crate::text::{bytes, took};
use serde::Serialize;
use shared::spec;
use shared::time::Span;

/// What can be asked for.
const MEASURES: &str =
    "succeeded, median, longest, late, skipped, backlog, store, attempts, unthinned";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Seeds of a hundred whose run succeeded, in thousandths.
    Succeeded,
    /// Milliseconds that half of the seeds take at most.
    Median,
    /// Milliseconds that every seed takes at most.
    Longest,
    /// Seeds in which a task missed its deadline.
    Late,
    /// Slots of a schedule that became no run, in the seed with the most of them.
    Skipped,
    /// Facts that wait at one gateway at most.
    Backlog,
    /// Bytes of the largest store.
    Store,
    /// Attempts of the seed with the most of them.
    Attempts,
    /// Samples of a hundred that the longest outage leaves one by one, in thousandths.
    Unthinned,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    text: String,
    measure: Measure,
    compare: Compare,
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    AtMost,
    AtLeast,
    Equal,
}

/// Whether one is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Judged {
    /// As it was written.
    pub(crate) condition: String,
    /// Whether it holds.
    pub(crate) met: bool,
    /// What was measured.
    pub(crate) found: String,
}

impl Condition {
    /// Reads `NAME<=VALUE`, `NAME>=VALUE` or `NAME=VALUE`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let signs = [
            ("<=", Compare::AtMost),
            (">=", Compare::AtLeast),
            ("=", Compare::Equal),
        ];
        let split = |(sign, compare)| text.split_once(sign).map(|parts| (parts, compare));
        let ((name, value), compare) = signs
            .into_iter()
            .find_map(split)
            .ok_or_else(|| format!("'{text}' is no condition: write longest<=12h"))?;
        let value = value.trim();
        let (measure, limit) = match name.trim() {
            "succeeded" => (Measure::Succeeded, percent(value)?),
            "median" => (Measure::Median, length(value)?),
            "longest" => (Measure::Longest, length(value)?),
            "late" => (Measure::Late, number(value)?),
            "skipped" => (Measure::Skipped, number(value)?),
            "backlog" => (Measure::Backlog, number(value)?),
            "store" => (Measure::Store, size(value)?),
            "attempts" => (Measure::Attempts, number(value)?),
            "unthinned" => (Measure::Unthinned, percent(value)?),
            other => return Err(format!("'{other}' is not measured: {MEASURES}")),
        };
        Ok(Self {
            text: text.to_owned(),
            measure,
            compare,
            limit,
        })
    }

    /// Whether `summary` meets it. What never ended is longer than anything.
    pub(crate) fn judge(&self, summary: &Summary) -> Judged {
        let found = match self.measure {
            Measure::Succeeded => Some(summary.succeeded() * 100_000 / summary.seeds.max(1)),
            Measure::Median => summary.median_ms,
            Measure::Longest => summary.longest_ms,
            Measure::Late => Some(summary.late_seeds),
            Measure::Skipped => Some(summary.skipped()),
            Measure::Backlog => Some(summary.backlog_facts),
            Measure::Store => Some(summary.store_bytes),
            Measure::Attempts => Some(summary.most_attempts),
            Measure::Unthinned => Some(summary.telemetry.unthinned()),
        };
        let value = found.unwrap_or(u64::MAX);
        let met = match self.compare {
            Compare::AtMost => value <= self.limit,
            Compare::AtLeast => value >= self.limit,
            Compare::Equal => value == self.limit,
        };
        Judged {
            condition: self.text.clone(),
            met,
            found: found.map_or_else(|| "not over".to_owned(), |value| self.show(value)),
        }
    }

    fn show(&self, value: u64) -> String {
        match self.measure {
            Measure::Succeeded | Measure::Unthinned => {
                format!("{}.{}%", value / 1000, value % 1000 / 100)
            }
            Measure::Median | Measure::Longest => took(Span(value)),
            Measure::Store => bytes(value),
            Measure::Late | Measure::Skipped | Measure::Backlog | Measure::Attempts => {
                value.to_string()
            }
        }
    }
}

fn mended((what, mend): (String, String)) -> String {
    format!("{what}: {mend}")
}

fn length(text: &str) -> Result<u64, String> {
    Ok(spec::duration(text).map_err(mended)?.0)
}

fn size(text: &str) -> Result<u64, String> {
    spec::size(text).map_err(mended)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is no whole number"))
}

/// In thousandths of a per cent.
fn percent(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix('%').and_then(|text| text.parse().ok());
    let within = number.filter(|percent: &u64| *percent <= 100);
    let wrong = || format!("'{text}' is no share: write 95% or 100%");
    Ok(within.ok_or_else(wrong)? * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_judged() {
        let summary = Summary {
            seeds: 200,
            states: [("succeeded".to_owned(), 199), ("failed".to_owned(), 1)].into(),
            median_ms: Some(3_600_000),
            longest_ms: None,
            late_seeds: 3,
            slots: Some(30),
            fired: 28,
            backlog_facts: 12,
            store_bytes: 2 << 20,
            most_attempts: 9,
            ..Summary::default()
        };
        let judged = |text| {
            let judged = Condition::parse(text).unwrap().judge(&summary);
            (judged.met, judged.found)
        };
        let cases = [
            ("succeeded=100%", false, "99.5%"),
            ("succeeded >= 99%", true, "99.5%"),
            ("median<=1h", true, "1h"),
            ("median<=59m", false, "1h"),
            ("longest<=365d", false, "not over"),
            ("late=0", false, "3"),
            ("skipped<=2", true, "2"),
            ("backlog<=12", true, "12"),
            ("backlog=11", false, "12"),
            ("store<=1MiB", false, "2.0 MiB"),
            ("attempts>=10", false, "9"),
            ("unthinned=100%", true, "100.0%"),
        ];
        for (text, met, found) in cases {
            assert_eq!(judged(text), (met, found.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_says_why() {
        let cases = [
            ("longest", "is no condition"),
            ("speed<=3", "is not measured: succeeded"),
            ("longest<=3", "has no unit"),
            ("store<=3", "has no unit"),
            ("succeeded=101%", "is no share"),
            ("backlog<=many", "is no whole number"),
        ];
        for (text, wanted) in cases {
            let error = Condition::parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
