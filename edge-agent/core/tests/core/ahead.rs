//! Which starts are committed ahead of a free slot.

use crate::env::*;
use crate::rules::ends;
use edge_core::event::Local;
use shared::fact::Outcome;
use shared::time::Span;
use shared::workflow::SideEffects;

#[test]
fn starts_ahead_wait_in_the_executor_and_what_never_began_uses_no_retry() {
    let mut env = Env::new();
    let flat = (0..30).map(|n| task(&format!("t{n}"), &[])).collect();
    env.submit(&workflow(flat));
    assert_eq!(
        ahead(&env),
        2,
        "one a slot until it is known how long tasks take"
    );
    for n in 0..6 {
        env.pass(Span(6));
        env.end(&format!("t{n}"), 0);
    }
    env.pass(Span(30));
    let waiting = ahead(&env);
    assert!(waiting > 4, "{waiting}");
    env.crash();
    let never = ends(&env)
        .iter()
        .filter(|end| end.0 == Outcome::NotBegun)
        .count();
    assert_eq!(never, waiting + 2, "nothing says that the next two began");
    env.directories.clear();
    env.power_cut();
    let died = ends(&env)
        .iter()
        .filter(|end| end.0 == Outcome::Lost)
        .count();
    assert_eq!(died, 2, "after a power cut as many as there are slots");
}

/// Starts that wait in the executor.
fn ahead(env: &Env) -> usize {
    let waiting = env.held.iter().filter(|launch| launch.queue);
    waiting
        .count()
        .saturating_sub(2 - env.held.iter().filter(|launch| !launch.queue).count())
}

#[test]
fn so_many_starts_are_ahead_as_begin_within_a_fifth_of_a_second() {
    for (takes, expected) in [(1_000, 2..=2), (40, 8..=12), (1, 30..=128)] {
        let mut env = Env::new();
        let flat = (0..150).map(|n| task(&format!("t{n:03}"), &[])).collect();
        env.submit(&workflow(flat));
        let mut deepest = 0;
        for n in 0..140 {
            // Two slots: twice in the time that a task takes one of them falls free.
            env.pass(Span((takes + n % 2) / 2));
            env.end(&format!("t{n:03}"), 0);
            deepest = if n < 20 { 0 } else { deepest.max(ahead(&env)) };
        }
        assert!(
            expected.contains(&deepest),
            "{takes} ms a task: {deepest} ahead"
        );
    }
}

#[test]
fn ends_that_come_together_and_starts_that_are_taken_back_say_nothing_of_their_length() {
    let mut env = Env::new();
    let flat = (0..100).map(|n| task(&format!("t{n:03}"), &[])).collect();
    env.submit(&workflow(flat));
    for pair in 0..10 {
        env.pass(Span(60_000));
        for n in [2 * pair, 2 * pair + 1] {
            env.end(&format!("t{n:03}"), 0);
            assert!(ahead(&env) <= 4, "{} ahead", ahead(&env));
        }
    }
    let by = || "ann".to_owned();
    let pause = |on| Local::Pause {
        run: RUN,
        on,
        by: by(),
    };
    env.local(2, pause(true));
    let waiting: Vec<_> = env.held[2..]
        .iter()
        .map(|launch| launch.task.id.clone())
        .collect();
    waiting.iter().for_each(|id| env.gone(id));
    env.local(3, pause(false));
    assert!(ahead(&env) <= 4, "{} ahead", ahead(&env));
}

#[test]
fn an_at_most_once_task_is_never_started_ahead() {
    let mut env = Env::new();
    let flat = (0..5).map(|n| {
        let mut once = task(&format!("t{n}"), &[]);
        once.side_effects = SideEffects::AtMostOnce;
        once
    });
    env.submit(&workflow(flat.collect()));
    assert_eq!(env.held.len(), 2);
}
