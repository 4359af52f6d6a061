//! Failing seeds get smaller: a mistake is planted, and what is left of a seed that notices it is
//! small, breaks the same promise, and is the same whenever and however it is looked for.

use sim::cut::Cut;
use sim::plan::{Layer, Plan, Planted};
use sim::runner::{Verdict, run_plan, run_recorded, watched};
use sim::shrink::{Shrunk, shrink, summary};

/// The first seed with faults that notices a mistake, and what it noticed.
fn failing(planted: Planted) -> (Plan, Verdict) {
    let noticed = |seed| {
        let mut plan = Plan::small(seed, Layer::Cores);
        plan.planted = Some(planted);
        let verdict = run_plan(plan.clone(), None);
        let fails = !verdict.violations.is_empty() && plan.faults.len() > 5;
        fails.then_some((plan, verdict))
    };
    (0..40).find_map(noticed).expect("a seed that notices it")
}

/// A panic would end the watch only, and the test never.
fn endless(seed: u64) {
    eprintln!("a step of seed {seed} does not end");
    std::process::abort();
}

fn shrunk(plan: &Plan, found: &Verdict, threads: usize) -> Shrunk {
    watched(threads, &endless, |pulses| {
        shrink(plan, found.clone(), pulses, &mut |_, _| true)
    })
}

#[test]
fn a_seed_shrinks_to_little_that_breaks_the_same_promise() {
    let (plan, found) = failing(Planted::BeginTwice);
    let once = shrunk(&plan, &found, 1);
    let twice = shrunk(&plan, &found, 3);
    let text = summary(&plan, &once);
    assert!(once.ended, "{text}");
    assert_eq!(once.cut, twice.cut, "the number of threads changes nothing");

    let left = plan.clone().without(&once.cut);
    assert!(left.tasks_left() <= plan.tasks_left() / 10, "{text}");
    assert!(left.faults.len() - left.gone.faults.len() <= 2, "{text}");
    assert!(left.agents_left().count() <= 2, "{text}");

    // what the printed text says is what was found
    let cut: Cut = once.cut.to_string().parse().expect("a cut is read back");
    let again = run_plan(plan.without(&cut), None);
    let broken = |verdict: &Verdict| verdict.violations.first().map(|one| one.invariant);
    assert_eq!(broken(&again), broken(&found), "{text}");
    assert_eq!(again.violations, once.verdict.violations);
    assert_eq!(again.hash, once.verdict.hash);
}

#[test]
fn who_has_no_time_gets_what_was_found_so_far() {
    let (plan, found) = failing(Planted::BeginTwice);
    let mut asked = 0;
    let some = watched(1, &endless, |pulses| {
        shrink(&plan, found, pulses, &mut |_, _| {
            asked += 1;
            asked <= 5
        })
    });
    assert!(!some.ended);
    assert_eq!(some.tries, 5);
    let again = run_plan(plan.without(&some.cut), None);
    assert_eq!(again.hash, some.verdict.hash);
}

/// Whoever looks changes nothing, and sees what happened.
#[test]
fn a_timeline_shows_what_happened_and_changes_nothing() {
    let (plan, found) = failing(Planted::BeginTwice);
    let (send, receive) = std::sync::mpsc::channel();
    let sink = Box::new(move |line: &str| drop(send.send(line.to_owned())));
    let (verdict, drawing) = run_recorded(plan.clone(), sink);
    assert_eq!(verdict.hash, found.hash);
    let lines: Vec<String> = receive.iter().collect();
    for word in [
        "fault: ",
        "process 1 begins",
        "fact 1 ",
        "VIOLATION",
        "submits run 0",
    ] {
        assert!(lines.iter().any(|line| line.contains(word)), "{word}");
    }
    // copies of machines have lanes, too
    assert!(drawing.lanes.len() > plan.nodes);
    let bars: usize = drawing.lanes[1..].iter().map(|lane| lane.bars.len()).sum();
    assert_eq!(bars as u64, verdict.attempts);
    let page = drawing.html();
    assert!(page.contains("class=\"moment broken\""));
}
