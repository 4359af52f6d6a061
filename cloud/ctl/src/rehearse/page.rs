//! The page of a rehearsal: the summary, pictures of how the seeds spread, and below them the
//! timeline of the worst one. Like the timeline it stands alone and has no script.

use super::args::Rehearse;
use super::expect::Judged;
use super::report;
use super::spread::{Mark, Picture};
use super::summary::Summary;
use crate::text::took;
use shared::time::Span;
use sim::drawing::{Front, escape};
use sim::queue::MS;
use sim::rehearsal::Ended;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");
/// States of runs in the order in which they are drawn, and how they look.
const LOOKS: [(&str, &str); 4] = [
    ("succeeded", "done"),
    ("failed", "failed"),
    ("cancelled", "stopped"),
    ("partly_lost", "killed"),
];
/// Milliseconds of a second, and steps between two bars of lengths of time, in tenths of it.
const TENTH: u64 = 100;
const STEPS: [u64; 21] = [
    1, 2, 5, 10, 20, 50, 100, 300, 600, 1200, 3000, 6000, 9000, 18_000, 36_000, 72_000, 108_000,
    216_000, 432_000, 864_000, 1_728_000,
];

/// What stands above the timeline.
pub(super) fn front(
    args: &Rehearse,
    summary: &Summary,
    judged: &[Judged],
    ended: &[Ended],
) -> Front {
    let mut body = String::new();
    // writing into a String cannot fail
    body.push_str("<table class=\"facts\">\n");
    for (name, text) in report::facts(args, summary) {
        let text = escape(&text);
        let _ = writeln!(body, "<tr><td>{name}</td><td>{text}</td></tr>");
    }
    body.push_str("</table>\n");
    for broken in &summary.broken {
        let broken = escape(broken);
        let _ = writeln!(
            body,
            "<p class=\"alarm\">a promise of Driftless was broken, {broken}</p>"
        );
    }
    expected(&mut body, judged);
    ends(&mut body, &summary.states);
    body.push_str("<div class=\"pics\">\n");
    body.push_str(&takes(summary, ended));
    body.push_str(&backlogs(ended));
    body.push_str("</div>\n<p class=\"legend\">");
    key(&mut body, "done", "seeds that succeeded");
    key(&mut body, "failed", "seeds that did not");
    body.push_str("</p>\n<h2>The worst seed</h2>\n");
    Front { style: STYLE, body }
}

fn expected(body: &mut String, judged: &[Judged]) {
    if judged.is_empty() {
        return;
    }
    body.push_str("<h2>Expected</h2>\n<table class=\"facts\">\n");
    for one in judged {
        let (class, met) = if one.met {
            ("", "met")
        } else {
            ("bad", "NOT met")
        };
        let (condition, found) = (escape(&one.condition), escape(&one.found));
        let _ = writeln!(
            body,
            "<tr><td>{condition}</td><td>{found}</td><td class=\"{class}\">{met}</td></tr>"
        );
    }
    body.push_str("</table>\n");
}

fn look(state: &str) -> &'static str {
    let known = LOOKS.iter().find(|(known, _)| *known == state);
    known.map_or("open", |(_, look)| look)
}

/// One bar of all seeds, by how their runs ended.
fn ends(body: &mut String, states: &BTreeMap<String, u64>) {
    let seeds: u64 = states.values().sum::<u64>().max(1);
    let order = |state: &str| LOOKS.iter().position(|(known, _)| *known == state);
    let mut states: Vec<(&str, u64)> = states.iter().map(|(s, n)| (s.as_str(), *n)).collect();
    states.sort_by_key(|(state, _)| order(state).unwrap_or(LOOKS.len()));
    body.push_str("<figure class=\"ends\"><figcaption>How the runs ended</figcaption>\n");
    body.push_str(
        "<svg viewBox=\"0 0 640 24\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"states\">\n",
    );
    let mut before = 0;
    for (state, n) in &states {
        let at = |n: u64| (n * 6400 / seeds) as f64 / 10.0;
        let (x, width) = (at(before), at(before + n) - at(before));
        let (class, state) = (look(state), escape(state));
        let _ = writeln!(
            body,
            "<rect class=\"{class}\" x=\"{x:.1}\" width=\"{width:.1}\" height=\"24\">\
             <title>{n} {state}</title></rect>"
        );
        before += n;
    }
    body.push_str("</svg>\n");
    for (state, n) in states {
        key(body, look(state), &format!("{n} {}", escape(state)));
    }
    body.push_str("</figure>\n");
}

/// What a colour means.
fn key(body: &mut String, class: &str, text: &str) {
    let _ = writeln!(
        body,
        "<span class=\"key\"><svg viewBox=\"0 0 12 12\" aria-hidden=\"true\">\
         <rect class=\"{class}\" width=\"12\" height=\"12\"/></svg>{text}</span>"
    );
}

fn takes(summary: &Summary, ended: &[Ended]) -> String {
    let mark = |name, at: Option<u64>| at.map(|at| Mark { name, at });
    let marks = [
        mark("without faults", summary.without_faults_ms),
        mark("half", summary.median_ms),
        mark("95 of 100", summary.p95_ms),
    ];
    let values = ended.iter().map(|one| {
        let took = one.took.map(|took| took / MS);
        (took, one.state == "succeeded")
    });
    let picture = Picture {
        title: "How long the runs took (seeds)",
        values: values.collect(),
        marks: marks.into_iter().flatten().collect(),
        steps: STEPS.iter().map(|tenths| tenths * TENTH).collect(),
        show: |ms| match ms {
            0 => "0".to_owned(),
            ms => took(Span(ms)),
        },
    };
    picture.draw()
}

fn backlogs(ended: &[Ended]) -> String {
    let good = |one: &Ended| one.state == "succeeded";
    let decades = (0..18).map(|n| 10_u64.pow(n));
    let picture = Picture {
        title: "The most facts that waited at one gateway (seeds)",
        values: ended
            .iter()
            .map(|one| (Some(one.backlog), good(one)))
            .collect(),
        marks: Vec::new(),
        steps: decades.flat_map(|ten| [ten, 2 * ten, 5 * ten]).collect(),
        show: |n| n.to_string(),
    };
    picture.draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_part_of_the_bar() {
        let states = [("failed", 1), ("running", 1), ("succeeded", 2)];
        let states = states.map(|(state, n)| (state.to_owned(), n));
        let mut body = String::new();
        ends(&mut body, &BTreeMap::from(states));
        let parts = [
            "class=\"done\" x=\"0.0\" width=\"320.0\"",
            "class=\"failed\" x=\"320.0\" width=\"160.0\"",
            "class=\"open\" x=\"480.0\" width=\"160.0\"",
        ];
        for part in parts {
            assert!(body.contains(part), "{body}");
        }
    }
}
