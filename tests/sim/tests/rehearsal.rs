//! Rehearsals answer what they are asked: faults cost what they must, and what a specification says
//! of recovery changes the answer.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use shared::spec::{self, SentFiles, fleet};
use shared::time::{Span, Unix};
use sim::queue::{HOUR, MIN, Time};
use sim::rehearsal::{self, Ended, Fears, Scene};
use std::collections::BTreeMap;

const FLEET: &str = "
nodes:
  - {name: collector, labels: {site: north}, cpus: 2}
  - {name: press, count: 4, labels: {site: south}, cpus: 4}
";
const FLOW: &str = "
name: nightly
tasks:
  collect: {estimate: 10m, placement: {site: north}, outputs: [data], shell: collect}
  press: {estimate: 30m, placement: {site: south}, inputs: [data], shell: press, MORE}
  check: {estimate: 5m, needs: [press], shell: check}
";
const SEEDS: u64 = 24;

fn scene(more: &str, fears: Fears) -> Scene {
    scene_of(FLOW, more, fears)
}

fn scene_of(flow: &str, more: &str, fears: Fears) -> Scene {
    let fleet = fleet::read("fleet.yaml", FLEET.as_bytes()).unwrap();
    let text = flow.replace("MORE", more);
    let (params, files) = (BTreeMap::new(), SentFiles::new());
    let workflow = spec::submission("flow.yaml", &text, &params, &files, Unix(0)).unwrap();
    Scene::new(workflow, fleet, fears, 30 * 24 * HOUR).as_of(Unix(0))
}

fn schedule_of(flow: &str, more: &str) -> shared::schedule::Schedule {
    let text = flow.replace("MORE", more);
    let (params, files) = (BTreeMap::new(), SentFiles::new());
    let workflow = spec::submission("flow.yaml", &text, &params, &files, Unix(0)).unwrap();
    workflow.schedule.unwrap()
}

fn all(scene: &Scene, within: Time) -> Vec<Ended> {
    some(scene, SEEDS, within)
}

fn some(scene: &Scene, seeds: u64, within: Time) -> Vec<Ended> {
    let ended: Vec<Ended> = (0..seeds)
        .map(|seed| rehearsal::rehearse(scene, scene.plan(seed, within)))
        .collect();
    for one in &ended {
        assert!(one.broken.is_empty(), "seed {}: {:?}", one.seed, one.broken);
    }
    ended
}

fn longest(ended: &[Ended]) -> Time {
    ended.iter().map(|one| one.took.unwrap()).max().unwrap()
}

fn succeeded(ended: &[Ended]) -> usize {
    ended.iter().filter(|one| one.state == "succeeded").count()
}

fn outages(least: u64, most: u64) -> Fears {
    Fears {
        link_down: Some((Span::secs(least * 3600), Span::secs(most * 3600))),
        outages: 1,
        ..Fears::default()
    }
}

#[test]
fn without_faults_it_takes_what_its_tasks_take() {
    let scene = scene("", Fears::default());
    for one in all(&scene, 0) {
        assert_eq!((one.state.as_str(), one.attempts), ("succeeded", 3));
        let took = one.took.unwrap();
        assert!((22 * MIN..75 * MIN).contains(&took), "{} min", took / MIN);
        assert!(one.faults.is_empty() && one.store > 0, "{one:?}");
    }
}

#[test]
fn the_same_seed_does_the_same_again() {
    let scene = scene("", outages(2, 10));
    let one = || {
        let ended = rehearsal::rehearse(&scene, scene.plan(7, HOUR));
        (
            ended.took,
            ended.attempts,
            ended.backlog_bytes,
            ended.faults,
        )
    };
    assert_eq!(one(), one());
}

/// A file of 100 kB takes 13 minutes at 1,000 bits a second, on its way up and on its way down.
#[test]
fn a_narrow_link_costs_the_time_of_the_files() {
    let wide = scene("", Fears::default());
    let narrow = Scene {
        bits: Some(1000),
        ..wide.clone()
    };
    let (wide, narrow) = (some(&wide, 8, 0), some(&narrow, 8, 0));
    for (wide, narrow) in wide.iter().zip(&narrow) {
        assert_eq!(narrow.state, "succeeded");
        let more = narrow.took.unwrap() - wide.took.unwrap();
        assert!((26 * MIN..60 * MIN).contains(&more), "{} min", more / MIN);
    }
}

#[test]
fn outages_cost_time_and_nothing_else() {
    let scene = scene("", outages(2, 10));
    let ended = all(&scene, HOUR);
    assert_eq!(succeeded(&ended), SEEDS as usize);
    assert!(longest(&ended) > 2 * HOUR, "{} h", longest(&ended) / HOUR);
    assert!(
        ended
            .iter()
            .any(|one| one.backlog > 0 && one.backlog_bytes > 0)
    );
    assert!(ended.iter().any(|one| one.faults.contains_key("partition")));
}

/// Where other links are up: if all were down, a second beginning would only cost time.
#[test]
fn what_is_placed_again_does_not_wait_for_the_end_of_an_outage() {
    let flow = "
name: alone
tasks: {press: {estimate: 2h, placement: {site: south}, shell: press, MORE}}
";
    let longest_with = |more: &str| {
        let scene = scene_of(flow, more, outages(9, 10));
        longest(&all(&scene, 12 * HOUR))
    };
    let waits = longest_with("");
    let moves = longest_with("disconnect: {lost_after: 30m, replace: true}");
    assert!(waits > 9 * HOUR, "{} min", waits / MIN);
    assert!(moves < 5 * HOUR, "{} min", moves / MIN);
}

#[test]
fn tasks_that_may_not_be_tried_again_fail_the_run() {
    let fears = || Fears {
        failing: 300,
        ..Fears::default()
    };
    let again = all(&scene("retry: {max_attempts: 9}", fears()), 0);
    let once = all(&scene("retry: {max_attempts: 1}", fears()), 0);
    assert!(succeeded(&once) < succeeded(&again));
}

#[test]
fn what_may_run_once_only_waits_for_a_person_after_a_power_cut() {
    let fears = || Fears {
        power_cuts: 4,
        ..Fears::default()
    };
    let anew = all(&scene("", fears()), 40 * MIN);
    assert_eq!(succeeded(&anew), SEEDS as usize);
    let once = all(&scene("side_effects: at_most_once", fears()), 40 * MIN);
    let waiting = once.iter().filter(|one| !one.waits.is_empty()).count();
    assert!(waiting > 0, "{once:?}");
}

/// The file for the press comes too late where the link of its writer is down for long.
#[test]
fn tasks_that_miss_their_deadline_are_named() {
    let late = |more: &str, fears: Fears| {
        let ended = all(&scene(more, fears), 10 * MIN);
        let late = ended.iter().filter(|one| !one.late.is_empty());
        for one in late.clone() {
            assert_eq!(
                (one.late.as_slice(), one.state.as_str()),
                (&["press".to_owned()][..], "failed")
            );
        }
        late.count()
    };
    let soon = "deadline: 2h";
    assert_eq!(late(soon, Fears::default()), 0);
    assert_eq!(late("", outages(9, 10)), 0);
    assert!(late(soon, outages(9, 10)) > 0);
    assert_eq!(late("deadline: 30h", outages(9, 10)), 0);
}

/// A person who takes longer makes the run longer, and one who is too slow for the question's own
/// deadline lets it fail.
#[test]
fn questions_are_answered_after_a_while() {
    let flow = "
name: asks
tasks:
  press: {estimate: 10m, placement: {site: south}, shell: press}
  ask:
    needs: [press]
    approval: {prompt: 'ship it?', input: {batch: {type: integer}}, MORE}
  ship: {needs: [ask], estimate: 1m, shell: ship}
";
    let hours = |n: u64| Span::secs(n * 3600);
    let with = |more: &str, (least, most): (u64, u64), fears: Fears| {
        let answers = (hours(least), hours(most));
        let scene = Scene {
            answers,
            ..scene_of(flow, more, fears)
        };
        all(&scene, HOUR)
    };
    let flow_ends = |ended: &[Ended]| {
        let took = ended.iter().map(|one| one.took.unwrap());
        (
            succeeded(ended),
            took.clone().min().unwrap(),
            longest(ended),
        )
    };
    let (good, least, most) = flow_ends(&with("", (3, 5), Fears::default()));
    assert_eq!(good, SEEDS as usize);
    assert!(
        3 * HOUR < least && least + HOUR < most && most < 6 * HOUR,
        "{least} {most}"
    );
    let (good, ..) = flow_ends(&with("deadline: 2h", (3, 5), Fears::default()));
    assert_eq!(good, 0);
    let (good, ..) = flow_ends(&with("", (1, 2), outages(2, 10)));
    assert_eq!(good, SEEDS as usize);
}

/// The node that a schedule was given fires it: power that is gone at a slot costs that slot,
/// unless it is caught up.
#[test]
fn slots_that_nobody_fired_are_skipped_or_caught_up() {
    let flow = "
name: scheduled
schedule: {every: 10m, MORE}
tasks: {weigh: {estimate: 1m, placement: {site: north}, shell: weigh}}
";
    let skipped = |more: &str, fears: Fears| {
        let scene = scene_of(flow, more, fears);
        let schedule = schedule_of(flow, more);
        let scene = scene.scheduled(schedule, 4 * HOUR);
        assert_eq!(scene.slots(), 24);
        let ended = some(&scene, 6, 4 * HOUR);
        assert_eq!(succeeded(&ended), 6);
        ended.iter().map(|one| 24 - one.fired.min(24)).sum::<u64>()
    };
    let cuts = || Fears {
        power_cuts: 12,
        ..Fears::default()
    };
    assert_eq!(skipped("", Fears::default()), 0);
    assert_eq!(skipped("", outages(1, 3)), 0);
    let lost = skipped("", cuts());
    let caught_up = skipped("catchup: all, max_catchup: 9", cuts());
    assert!(
        lost > 0 && caught_up < lost,
        "{lost} lost, {caught_up} with catchup"
    );
}
