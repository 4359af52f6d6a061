//! What a row comes to, as JSON and for people.

use serde::Serialize;
use std::fmt::Write as _;

/// A bound that a figure is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Ours at most so many times the reference.
    RatioAtMost(f64),
    /// Ours at least so many times the reference.
    RatioAtLeast(f64),
    /// Ours at most so much.
    AtMost(f64),
}

/// One figure. `measure` is the name of its row, `what` tells the figures of one row apart.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) measure: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    pub(crate) goal: String,
    pub(crate) met: bool,
}

/// Three digits tell enough.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Figure {
    /// A figure without a reference.
    pub(crate) fn alone(
        measure: &'static str,
        what: &str,
        unit: &'static str,
        ours: f64,
        goal: Goal,
    ) -> Self {
        Self::new(measure, what, unit, (ours, None, None), goal)
    }

    /// Ours, judged alone, with what the reference came to beside it.
    pub(crate) fn besides(
        measure: &'static str,
        what: &str,
        unit: &'static str,
        (ours, reference): (f64, f64),
        goal: Goal,
    ) -> Self {
        Self::new(measure, what, unit, (ours, Some(reference), None), goal)
    }

    /// Ours beside the reference; `ratio` is the median of the rounds' ratios.
    pub(crate) fn beside(
        measure: &'static str,
        what: &str,
        unit: &'static str,
        (ours, reference, ratio): (f64, f64, f64),
        goal: Goal,
    ) -> Self {
        Self::new(
            measure,
            what,
            unit,
            (ours, Some(reference), Some(ratio)),
            goal,
        )
    }

    fn new(
        measure: &'static str,
        what: &str,
        unit: &'static str,
        (ours, reference, ratio): (f64, Option<f64>, Option<f64>),
        goal: Goal,
    ) -> Self {
        let judged = ratio.unwrap_or(f64::NAN);
        let (goal, met) = match goal {
            Goal::RatioAtMost(bound) => (format!("ratio <= {bound}"), judged <= bound),
            Goal::RatioAtLeast(bound) => (format!("ratio >= {bound}"), judged >= bound),
            Goal::AtMost(bound) => (format!("ours <= {bound} {unit}"), ours <= bound),
        };
        Self {
            measure,
            what: what.to_owned(),
            unit,
            ours: round(ours),
            reference: reference.map(round),
            ratio: ratio.map(round),
            goal,
            met,
        }
    }
}

/// A table for people; with its head if it is the first one.
pub(crate) fn table(figures: &[Figure], head: bool) -> String {
    let mut text = String::new();
    let mut line = |cells: [&str; 7]| {
        let [measure, what, ours, reference, ratio, goal, met] = cells;
        writeln!(
            text,
            "{measure:<9} {what:<28} {ours:>22} {reference:>12} {ratio:>7}  {goal:<24} {met}"
        )
        .expect("writing to a string cannot fail");
    };
    if head {
        line([
            "measure",
            "what",
            "ours",
            "reference",
            "ratio",
            "goal",
            "met",
        ]);
    }
    let text_of =
        |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
    for figure in figures {
        let ours = format!("{:.2} {}", figure.ours, figure.unit);
        line([
            figure.measure,
            &figure.what,
            &ours,
            &text_of(figure.reference),
            &text_of(figure.ratio),
            &figure.goal,
            if figure.met { "yes" } else { "NO" },
        ]);
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_without_a_reference_leaves_it_out_and_bounds_are_judged_both_ways() {
        let alone = Figure::alone("core", "", "us/task", 9.8765, Goal::AtMost(20.0));
        let json = serde_json::to_value(&alone).unwrap();
        assert_eq!(json["ours"], 9.877);
        assert!(json.get("reference").is_none() && json.get("ratio").is_none());
        assert!(alone.met);
        let beside = |ratio, goal| Figure::beside("x", "", "", (1.0, 1.0, ratio), goal).met;
        assert!(beside(1.2, Goal::RatioAtMost(1.25)) && !beside(1.3, Goal::RatioAtMost(1.25)));
        assert!(beside(0.7, Goal::RatioAtLeast(0.7)) && !beside(0.6, Goal::RatioAtLeast(0.7)));
        assert!(!Figure::alone("x", "", "", 1.1, Goal::AtMost(1.0)).met);
    }
}
