//! The contract as a whole breaks no promise, and needs each of its rules.

use clap::ValueEnum as _;
use model::report::{self, How};
use model::rule::{Rule, Rules};

/// Far above what the small state spaces and the shortest counterexamples take.
const LIMIT: usize = 4_000_000;

fn how() -> How {
    How {
        rules: Rules::all(),
        deep: false,
        threads: 2,
        limit: LIMIT,
    }
}

#[test]
fn without_any_one_rule_a_promise_breaks() {
    for rule in Rule::value_variants() {
        let found = report::counterexample(*rule, how());
        let (_, history) = found
            .and_then(|report| report.broken)
            .unwrap_or_else(|| panic!("without {rule:?} nothing breaks"));
        assert!(!history.is_empty(), "{rule:?}: the history is missing");
    }
}

// The larger state spaces are the business of `cargo xtask model`, a step of the gate.
#[test]
fn with_all_rules_no_promise_breaks_in_the_small_state_spaces() {
    for name in [
        "two accidents",
        "sessions",
        "versions, clocks, certificates",
        "lease",
    ] {
        let report = report::run(name, how()).expect("the name is known");
        assert!(report.is_good(), "{}", report.text());
    }
}

#[test]
fn a_history_tells_what_happened_in_order() {
    let report = report::counterexample(Rule::EpochFence, how()).expect("it breaks a promise");
    let text = report.text();
    let places = [
        "counted_once is broken",
        "begins S1",
        "replaced",
        "S1 ends at",
    ]
    .map(|part| {
        text.find(part)
            .unwrap_or_else(|| panic!("{part} is missing in:\n{text}"))
    });
    assert!(places[0] < places[1] && places[1] < places[3], "{text}");
}

#[test]
fn what_can_be_reached_is_asked_for() {
    let unasked = report::unasked();
    assert!(
        unasked.is_empty(),
        "no configuration must reach {unasked:?}"
    );
}

#[test]
fn the_limit_of_states_ends_a_check_as_incomplete() {
    let few = How {
        limit: 100,
        ..how()
    };
    let report = report::run("main", few).expect("the name is known");
    assert!(!report.complete && !report.is_good());
    assert!(report.text().contains("NOT COMPLETE"), "{}", report.text());
}
