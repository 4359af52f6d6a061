//! A slice that was given up and comes again at a later epoch begins anew: nothing that was known
//! of it before counts.

use crate::env::*;
use edge_core::event::{Action, Event};
use shared::directive::Body as Wish;
use shared::fact::Body;
use shared::ids::{SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::time::Span;

fn release(env: &mut Env, slice: SliceRef) {
    env.tell(vec![Wish::Release { slice }]);
}

fn is_released(env: &Env, slice: SliceRef) -> bool {
    let in_doubt = Vec::new();
    env.facts().contains(&Body::Released { slice, in_doubt })
}

#[test]
fn how_long_a_task_waited_is_counted_anew() {
    let mut env = Env::new();
    let mut other = task("c", &[]);
    // what asks for something else is not started ahead
    other.resources.cpu_milli = 500;
    let flow = workflow(vec![task("a", &[]), task("b", &[]), other]);
    env.assigned(assign(slice(0, 1), &flow, &[0, 1]));
    env.tell(vec![Wish::Assign(assign(slice(1, 1), &flow, &[2]))]);
    assert_eq!(env.held_ids(), "a b");
    let held = |env: &Env| {
        let why = env.driver.agent().explain(RUN, "c").expect("it is here");
        let last = why.decisions.last().expect("it is held").clone();
        (last.reason, last.at)
    };
    let (reason, since) = held(&env);
    assert_eq!(reason, "waits_for_resources");
    env.pass(Span::secs(40));
    release(&mut env, slice(1, 1));
    env.pass(Span(10));
    assert!(is_released(&env, slice(1, 1)));
    env.tell(vec![Wish::Assign(assign(slice(1, 2), &flow, &[2]))]);
    let (reason, again) = held(&env);
    assert_eq!(reason, "waits_for_resources");
    assert!(again.0 >= since.0 + 40_000, "{again} behind {since}");
}

#[test]
fn its_outputs_are_brought_before_it_is_given_up_again() {
    let mut env = Env::new();
    let flow = workflow(vec![task("a", &[]), task("b", &[0])]);
    for (epoch, output) in [(1, file(71)), (2, file(72))] {
        let id = slice(0, epoch);
        let wish = assign(id, &flow, &[0, 1]);
        match epoch {
            1 => env.assigned(wish),
            _ => env.tell(vec![Wish::Assign(wish)]),
        }
        let launch = env.held.remove(0);
        assert_eq!(launch.attempt.task, TaskIdx(0));
        let end = env.process_end(launch.attempt, 0, vec![output]);
        env.event(Event::Ended(end));
        release(&mut env, id);
        env.gone("b");
        env.pass(Span(10));
        assert!(
            !is_released(&env, id),
            "epoch {epoch}: b reads it elsewhere"
        );
        env.event(Event::Uploaded { hash: output.hash });
        env.pass(Span(10));
        assert!(is_released(&env, id), "epoch {epoch}");
    }
}

/// The coordinator lets files go to make room, and tells nobody: what must not be done again would
/// be nowhere once its slice is given up.
#[test]
fn what_was_brought_before_is_brought_again_before_its_slice_is_given_up() {
    let mut env = Env::new();
    let flow = workflow(vec![task("a", &[]), task("b", &[])]);
    let (id, output) = (slice(0, 1), file(71));
    env.assigned(assign(id, &flow, &[0, 1]));
    let launch = env.held.remove(0);
    let end = env.process_end(launch.attempt, 0, vec![output]);
    env.event(Event::Ended(end));
    env.event(Event::Uploaded { hash: output.hash });
    env.actions.clear();
    release(&mut env, id);
    env.gone("b");
    env.pass(Span(10));
    assert!(!is_released(&env, id));
    let brings =
        |action: &Action| matches!(action, Action::Upload { hash, .. } if *hash == output.hash);
    assert!(env.actions.iter().any(brings), "{:?}", env.actions);
    env.event(Event::Uploaded { hash: output.hash });
    env.pass(Span(10));
    assert!(is_released(&env, id));
}

#[test]
fn files_of_a_slice_that_was_given_up_are_not_fetched_any_more() {
    let mut env = Env::new();
    let flow = workflow(vec![task("a", &[]), task("b", &[0])]);
    let mut wish = assign(slice(1, 1), &flow, &[1]);
    wish.upstream = vec![upstream(0, TaskState::Succeeded, &[50])];
    env.assigned(wish);
    let fetches = |env: &Env| {
        let fetch = |action: &&Action| matches!(action, Action::Fetch { .. });
        env.actions.iter().filter(fetch).count()
    };
    assert_eq!(fetches(&env), 1);
    let (hash, why) = (file(50).hash, String::new());
    env.event(Event::FileNotThere { hash, why });
    release(&mut env, slice(1, 1));
    env.pass(Span::secs(60));
    assert!(is_released(&env, slice(1, 1)));
    assert_eq!(fetches(&env), 1);
    assert_eq!(env.driver.agent().sync_status().files_missing, 0);
}
