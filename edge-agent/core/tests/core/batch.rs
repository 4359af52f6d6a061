//! Batches: small tasks that start together, in one slot, one after another.

use crate::env::*;
use edge_core::event::{Event, Local};
use shared::fact::{Body, Outcome};
use shared::workflow::Workflow;

/// `n` tasks of one batch and one that is in none.
fn flow(n: u32) -> Workflow {
    let mut tasks: Vec<_> = (0..n).map(|at| task(&format!("m{at}"), &[])).collect();
    tasks.iter_mut().for_each(|task| task.batch = Some(0));
    tasks.push(task("single", &[]));
    workflow(tasks)
}

/// What the executor runs now: all that follow nobody and wait for no slot.
fn running(env: &Env) -> String {
    let now = env
        .held
        .iter()
        .filter(|launch| match launch.behind {
            Some(before) => env.held.iter().all(|other| other.attempt != before),
            None => !launch.queue,
        })
        .map(|launch| launch.task.id.as_str());
    now.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_batch_starts_with_one_commit_and_takes_one_slot() {
    let mut env = Env::new();
    let before = env.disk.commits();
    env.submit(&flow(5));
    assert_eq!(env.disk.commits(), before + 1);
    let started = |body: &Body| matches!(body, Body::Started { .. });
    assert_eq!(env.facts().iter().filter(|body| started(body)).count(), 6);
    assert_eq!(
        running(&env),
        "m0 single",
        "two slots, one of them for all of the batch"
    );
    for pair in env.held[..5].windows(2) {
        assert_eq!(pair[1].behind, Some(pair[0].attempt));
    }
    for id in ["m0", "m1", "m2", "m3", "m4"] {
        env.end(id, if id == "m1" { 1 } else { 0 });
    }
    env.end("single", 0);
    env.pass(shared::time::Span(10));
    assert_eq!(
        env.states(),
        "m0=succeeded m1=retrying m2=succeeded m3=succeeded m4=succeeded single=succeeded"
    );
    env.pass(shared::time::Span::secs(11));
    assert_eq!(running(&env), "m1", "alone now");
    env.check_replay();
}

#[test]
fn one_of_a_batch_can_be_stopped_and_the_others_go_on() {
    let mut env = Env::new();
    env.submit(&flow(4));
    env.gone("m2");
    // It never began, so it is ready again; the slots are taken, and enough waits for them.
    assert_eq!(env.driver.agent().state().running.len(), 4);
    env.end("m0", 0);
    env.end("m1", 0);
    env.end("m3", 0);
    env.end("single", 0);
    env.end("m2", 0);
    env.pass(shared::time::Span(10));
    assert_eq!(env.driver.agent().state().running.len(), 0);
    assert!(
        env.states()
            .split(' ')
            .all(|task| task.ends_with("=succeeded"))
    );
}

#[test]
fn a_cancel_ends_the_whole_batch() {
    let mut env = Env::new();
    env.submit(&flow(4));
    let (run, by, why) = (RUN, "ann".to_owned(), String::new());
    env.local(2, Local::Cancel { run, by, why });
    assert_eq!(env.stopped(), 5);
    for id in ["m3", "m1", "m2", "m0", "single"] {
        env.gone(id);
    }
    env.pass(shared::time::Span(10));
    assert!(
        env.states()
            .split(' ')
            .all(|task| task.ends_with("=cancelled"))
    );
    assert_eq!(env.driver.agent().state().running.len(), 0);
}

#[test]
fn a_batch_may_be_started_ahead_as_a_whole() {
    let mut env = Env::new();
    let mut tasks = vec![task("a", &[]), task("b", &[])];
    tasks.iter_mut().for_each(|task| task.upward_rank = 9);
    let mates = ["m0", "m1", "m2"].map(|id| {
        let mut mate = task(id, &[]);
        mate.batch = Some(3);
        mate
    });
    tasks.extend(mates);
    env.submit(&workflow(tasks));
    assert_eq!(env.held_ids(), "a b m0 m1 m2");
    assert_eq!(env.held[2].behind, None);
    assert!(env.held[2].queue);
    env.end("a", 0);
    assert_eq!(env.driver.agent().state().running.len(), 4);
    // The first of the lane is stopped: the next takes its place.
    env.gone("m0");
    env.end("b", 0);
    for id in ["m1", "m2", "m0"] {
        env.end(id, 0);
    }
    env.pass(shared::time::Span(10));
    assert!(
        env.states()
            .split(' ')
            .all(|task| task.ends_with("=succeeded"))
    );
}

#[test]
fn after_a_power_cut_only_the_first_of_a_batch_may_have_begun() {
    let mut env = Env::new();
    env.submit(&flow(4));
    env.end("m0", 0);
    env.pass(shared::time::Span(10));
    env.power_cut();
    let ends: Vec<_> = env
        .facts()
        .into_iter()
        .filter_map(|body| match body {
            Body::Ended { attempt, end } => Some((attempt.task.0, end.outcome)),
            _ => None,
        })
        .collect();
    assert_eq!(
        ends,
        [
            (0, Outcome::Succeeded),
            (1, Outcome::Lost),
            (2, Outcome::NotBegun),
            (3, Outcome::NotBegun),
            (4, Outcome::Lost),
        ]
    );
}

#[test]
fn a_rebuilt_core_takes_those_that_wait_for_waiting_ones() {
    let mut env = Env::new();
    env.submit(&flow(4));
    env.disk
        .fail_next(edge_core::memory::Fail::Unknown { done: false });
    let (run, on, by) = (RUN, true, "ann".to_owned());
    let what = Local::Pause { run, on, by };
    assert!(env.run(vec![Event::Local { request: 9, what }]).is_err());
    env.start(false);
    let waits = |task: &edge_core::view::Task| task.state == "running";
    assert_eq!(
        env.driver
            .agent()
            .ps(true)
            .iter()
            .filter(|task| waits(task))
            .count(),
        5
    );
    for id in ["m0", "m1", "m2", "m3", "single"] {
        env.end(id, 0);
    }
    env.pass(shared::time::Span(10));
    assert!(
        env.states()
            .split(' ')
            .all(|task| task.ends_with("=succeeded"))
    );
}
