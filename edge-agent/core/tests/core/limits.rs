//! Limits of matrices: shares of slices, what is given back, and the end after too many failures.

use crate::env::*;
use shared::directive::{Body as Wish, Limit};
use shared::fact::Body;
use shared::log::{Direction, Head};
use shared::time::Span;
use shared::workflow::{Matrix, Workflow};

/// `m0` … of one matrix, and `free`, which is in none.
fn flow(n: u32, most: Option<u32>, fails: Option<u32>) -> Workflow {
    let mut tasks: Vec<_> = (0..n).map(|at| task(&format!("m{at}"), &[])).collect();
    for task in &mut tasks {
        task.matrix = Some(0);
        task.retry.max_attempts = 1;
        task.resources.cpu_milli = 100;
    }
    tasks.push(task("free", &[]));
    let mut flow = workflow(tasks);
    flow.matrices = vec![Matrix {
        id: "m".to_owned(),
        max_parallel: most,
        max_fails: fails,
    }];
    flow
}

fn limit(seq: u64, share: u32, stop: bool) -> Wish {
    Wish::Limit(Limit {
        slice: slice(0, 9),
        matrix: 0,
        seq,
        share,
        stop,
    })
}

/// What was said to be held, by number of the word.
fn held(env: &Env) -> Vec<(u64, u32)> {
    let facts = env.facts().into_iter();
    let said = facts.filter_map(|body| match body {
        Body::Limited { seq, held, .. } => Some((seq, held)),
        _ => None,
    });
    said.collect()
}

fn four_slots() -> Env {
    let mut config = config();
    config.slots = 4;
    Env::with(config)
}

#[test]
fn a_run_of_this_gateway_keeps_within_the_limit_by_itself() {
    let mut env = four_slots();
    env.submit(&flow(4, Some(2), None));
    assert_eq!(env.held_ids(), "m0 m1 free", "free stands behind nobody");
    assert_eq!(env.reason("m2"), "waits_for_limit");
    env.crash();
    env.check_replay();
    for _ in 0..2 {
        let running: Vec<String> = env.held.iter().map(|l| l.task.id.clone()).collect();
        let members = running.iter().filter(|id| id.starts_with('m'));
        assert!(members.count() <= 2, "{running:?}");
        env.end(&running[0], 0);
        env.pass(Span(10));
    }
    assert!(held(&env).is_empty(), "the coordinator gave no share");
    env.check_replay();
}

#[test]
fn a_slice_starts_no_more_than_its_share_and_gives_back_what_it_does_not_need() {
    let mut env = four_slots();
    let flow = flow(4, Some(3), None);
    env.assigned(assign(slice(0, 9), &flow, &[0, 1, 2, 3, 4]));
    assert_eq!(env.held_ids(), "free", "no share was told");
    env.tell(vec![limit(70, 2, false)]);
    assert_eq!(env.held_ids(), "free m0 m1");
    assert_eq!(held(&env), [(70, 2)]);
    env.tell(vec![limit(71, 1, false)]);
    assert_eq!(held(&env), [(70, 2), (71, 2)], "two run still");
    env.end("m0", 0);
    env.pass(Span(10));
    assert_eq!(env.held_ids(), "free m1", "only one may run now");
    assert_eq!(held(&env).last(), Some(&(71, 1)));
    env.tell(vec![limit(72, 3, false)]);
    assert_eq!(env.held_ids(), "free m1 m2 m3");
    for id in ["m1", "m2", "m3"] {
        env.end(id, 0);
        env.pass(Span(10));
    }
    assert_eq!(held(&env).last(), Some(&(72, 0)), "nothing is left to run");
    env.check_replay();
    env.crash();
    env.check_replay();
}

#[test]
fn a_word_that_comes_with_the_assignment_is_not_lost() {
    let mut env = four_slots();
    env.join(Head::origin(NODE, LIFE, Direction::Up));
    let flow = flow(2, Some(1), None);
    let assign = assign(slice(0, 9), &flow, &[0, 1, 2]);
    env.tell(vec![Wish::Assign(assign), limit(70, 1, false)]);
    assert_eq!(env.held_ids(), "free m0");
    assert_eq!(held(&env), [(70, 1)]);
    env.check_replay();
}

#[test]
fn after_too_many_failures_no_more_begin() {
    let mut env = four_slots();
    env.submit(&flow(5, Some(2), Some(1)));
    env.end("m0", 1);
    env.pass(Span(10));
    env.end("m1", 1);
    env.pass(Span(10));
    assert_eq!(
        env.states(),
        "m0=failed m1=failed m2=running m3=skipped m4=skipped free=running"
    );
    assert_eq!(env.reason("m4"), "too_many_failed");
    env.end("m2", 0);
    env.end("free", 0);
    env.pass(Span(10));
    assert!(env.states().contains("m2=succeeded"), "what ran goes on");
    env.check_replay();
}

#[test]
fn the_coordinator_can_say_that_no_more_begin() {
    let mut env = four_slots();
    let flow = flow(3, None, Some(0));
    let mut wish = assign(slice(0, 9), &flow, &[0, 1, 2, 3]);
    wish.attempts_used = Vec::new();
    env.assigned(wish);
    assert_eq!(env.held_ids(), "m0 m1 m2 free", "no max_parallel");
    env.end("m0", 0);
    env.tell(vec![limit(70, 0, true)]);
    env.gone("m1");
    env.pass(Span(10));
    assert_eq!(
        env.states(),
        "m0=succeeded m1=failed m2=running free=running"
    );
    env.check_replay();
}

#[test]
fn a_word_to_a_slice_that_waits_for_the_epoch_before_it_is_not_lost() {
    let mut env = four_slots();
    let flow = flow(2, Some(1), None);
    env.assigned(assign(slice(0, 8), &flow, &[0, 1, 2]));
    assert_eq!(env.held_ids(), "free");
    let next = assign(slice(0, 9), &flow, &[0, 1, 2]);
    env.tell(vec![Wish::Assign(next), limit(70, 1, false)]);
    assert!(held(&env).is_empty(), "what runs has not ended");
    env.gone("free");
    env.pass(Span(10));
    assert_eq!(env.held_ids(), "m0 free");
    assert_eq!(held(&env), [(70, 1)]);
    env.check_replay();
}

#[test]
fn the_very_first_word_is_answered() {
    let mut env = four_slots();
    let flow = flow(2, Some(2), None);
    env.assigned(assign(slice(0, 9), &flow, &[0, 1, 2]));
    env.tell(vec![limit(1, 2, false)]);
    assert_eq!(held(&env), [(1, 2)]);
}
